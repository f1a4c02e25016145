"""What is measured of a run beside what is known of its data: classes, sources, the dictionary behind them."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import torch
from torch import Tensor

import sparse_vae.evaluation as evaluation  # whose functions import scikit-learn when they are first used
from sparse_vae.report.measures import LABELS, Curve, Measure, Subject, Values, measures

BUDGETS = (200, 1000, LABELS)
"""Numbers of labelled observations."""
SELECTIVE = 0.5
"""Of an index above this: the best class has three times the mean of the others."""
SOURCE_OBSERVATIONS = 3000
DCI_TREES = 20
FOUND = 0.5
ROBUST = 2.5
"""Robust deviations from the median beyond which a dimension counts as active where nothing is known of its rate."""

PROBES = {"logistic": "logistic regression",
          "tuned": "logistic regression, scale and penalty chosen on a fifth of the labels,",
          "cosine": "majority of the 5 nearest by cosine",
          "euclidean": "majority of the 5 nearest by Euclidean distance",
          "weighted": "vote of the 5 nearest by cosine, each by one over its distance,"}


def _probe(name: str, subject: Subject) -> Values:
    """Accuracy of a probe for each number of labels; the smaller draws are part of the larger ones."""
    from sklearn.exceptions import ConvergenceWarning

    accuracy = {
        "logistic": evaluation.logistic_probe, "tuned": partial(evaluation.logistic_probe, tuned=True),
        "weighted": partial(evaluation.knn_probe, weighted=True)}.get(name, partial(evaluation.knn_probe, metric=name))
    codes, labels = subject.labelled
    budgets = [budget for budget in BUDGETS if budget <= len(labels)]
    with warnings.catch_warnings():
        # Dimensions that hardly vary, scaled up, keep the solver from an end; its last step is what counts.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {f"{name}_{budget}": accuracy(codes[:budget], labels[:budget], subject.means, subject.y, budget,
                                            subject.seed) for budget in budgets}


for _name, _title in PROBES.items():
    measures(*(Measure(f"{_name}_{budget}", f"{_name}, {budget:,} labels (%)", 1,
                       f"test accuracy of {_title} on E[z|x], or the code, of {budget:,} labelled observations",
                       "higher", 100) for budget in BUDGETS), needs=["classes"])(partial(_probe, _name))


@measures(
    Measure("selectivity", "selectivity", 2, "(best class − mean of the others) / (best class + mean of the others) of "
            "the mean size of the code in each class, mean over the dimensions in use", "higher"),
    Measure("selectivity_shuffled", "shuffled labels", 3, "selectivity with shuffled labels, which is chance"),
    Measure("selective_fraction", "selective (%)", 1, f"share of the dimensions in use with an index above {SELECTIVE}",
            "higher", 100),
    Measure("classes_covered", "classes covered", 1, "classes that are the best class of a selective dimension",
            "higher"),
    Curve("selectivity_by_rank", "selectivity", "dimension in use, most selective first",
          "selectivity of each dimension in use, sorted", "higher"),
    needs=["classes"],
)
def _selectivity(subject: Subject) -> Values:
    if not subject.used.any():
        return {}
    found = evaluation.class_selectivity(subject.codes, subject.y)
    shuffled = subject.y[torch.randperm(len(subject.y), generator=subject.generator())]
    chance = evaluation.class_selectivity(subject.codes, shuffled).index[subject.used]
    index, preferred = found.index[subject.used], found.preferred[subject.used]
    return {"selectivity": index.mean().item(), "selectivity_shuffled": chance.mean().item(),
            "selective_fraction": (index > SELECTIVE).float().mean().item(),
            "classes_covered": len(preferred[index > SELECTIVE].unique()),
            "selectivity_by_rank": (range(1, len(index) + 1), index.sort(descending=True).values)}


def _varying(factors: Tensor) -> Tensor:
    """Indices of the factors that have more than one value in these observations."""
    return (factors.amax(0) > factors.amin(0)).nonzero()[:, 0]


@measures(
    Measure("matched_correlation", "matched", 3, "|correlation| of each source with a dimension of its own, mean over "
            "the sources", "higher"),
    Measure("matched_by_dimension", "matched, in use", 3, "|correlation| of each dimension in use with a source of its "
            "own, mean over the dimensions in use, or over as many as there are sources", "higher"),
    Measure("sources_found", "sources found", 1, f"sources whose own dimension has a |correlation| of at least {FOUND} "
            "with them", "higher"),
    Measure("mig", "MIG", 3, "mutual information gap, 0 to 1", "higher"),
    Measure("sap", "SAP", 3, "separated attribute predictability by squared correlation, 0 to 1", "higher"),
    Curve("source_recovery", "|correlation|", "source",
          "|correlation| of each source with the dimension that is matched with it", "higher"),
    needs=["sources"],
)
def _recovery(subject: Subject) -> Values:
    codes, factors, known = known_sources(subject)
    matching = evaluation.matched_sources(codes, factors)
    used, by_dimension = codes[:, subject.used], None
    if used.shape[1]:
        by_dimension = evaluation.matched_sources(used, factors).scores.sum().item() / min(used.shape[1], len(known))
    return {"matched_correlation": matching.mean, "matched_by_dimension": by_dimension,
            "sources_found": (matching.scores >= FOUND).sum().item(),
            "mig": evaluation.mutual_information_gap(codes, factors),
            "sap": evaluation.sap(codes, factors, score=evaluation.squared_correlation),
            "source_recovery": (known, matching.scores)}


@measures(
    Measure("dci_d", "DCI, D", 3, "disentanglement: whether a dimension serves one source only, by extremely "
            "randomised trees, 0 to 1", "higher"),
    Measure("dci_c", "DCI, C", 3, "completeness: whether a source is served by one dimension only, 0 to 1", "higher"),
    Measure("dci_i", "DCI, I", 3, "informativeness: R² of the sources predicted from the code", "higher"),
    needs=["sources"],
)
def _dci(subject: Subject) -> Values:
    from sklearn.ensemble import ExtraTreesRegressor

    codes, factors, _ = known_sources(subject)
    found = evaluation.dci(codes, factors, estimator=ExtraTreesRegressor(DCI_TREES, min_samples_leaf=5, random_state=0))
    return {"dci_d": found.disentanglement, "dci_c": found.completeness, "dci_i": found.informativeness}


def known_sources(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Codes and sources of the first observations, and which sources these are: those that vary there."""
    factors = subject.part.factors[:SOURCE_OBSERVATIONS]  # type: ignore[index]
    known = _varying(factors)
    return subject.codes[:SOURCE_OBSERVATIONS], factors[:, known], known


@measures(
    Measure("awake_f1", "awake F1", 2, "F1 of the days on which a factor moved, by the zeros of the code of the "
            "dimension that is matched with it", "higher"),
    Measure("awake_f1_at_rate", "awake F1, at the rate", 2, "the same by a threshold on |E[z|x]| that is exceeded on "
            "as many training days as a factor moves on", "higher"),
    Measure("awake_f1_robust", "awake F1, robust", 2, f"the same by E[z|x] more than {ROBUST} robust deviations from "
            "its median over the training days, with no truth used", "higher"),
    Measure("awake_auc", "awake AUC", 2, "area under the ROC curve of |E[z|x]| for the same days", "higher"),
    Measure("awake_ap", "awake AP", 2, "average precision of the size of the code for the same days", "higher"),
    Measure("loadings_cosine", "loadings", 2, "|cosine| of what a dimension adds to the assets with the loadings of "
            "the factor, mean over the factors", "higher"),
    Measure("assets_ap", "assets", 2, "average precision of the size of what a dimension adds for which assets the "
            "factor drives at all", "higher"),
    Curve("awake_by_regime", "awake (%)", "regime", "share of the factors that are awake on a day", scale=100),
    Curve("size_by_regime", "size", "regime", "mean |code| in units of its mean over all days"),
    needs=["returns"],
)
def _market(subject: Subject) -> Values:
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    codes, loadings, regimes = subject.sparse_codes, subject.sparse_responses.flatten(1), subject.y
    present = regimes.unique()
    days = [regimes == regime for regime in present]
    typical = codes.abs().mean().clamp(min=1e-12)
    found = {"awake_by_regime": (present, [(codes[own] != 0).float().mean().item() for own in days]),
             "size_by_regime": (present, [(codes[own].abs().mean() / typical).item() for own in days])}
    varying = _varying(subject.part.factors)  # type: ignore[arg-type]
    truth, true_loadings = subject.part.factors[:, varying], subject.data.loadings[varying]  # type: ignore[index]
    assignment = evaluation.matched_sources(codes, truth).assignment
    factors = (assignment >= 0).nonzero()[:, 0]
    dimensions = assignment[factors]
    awake, moved = codes[:, dimensions], (truth[:, factors] != 0).flatten()
    sizes = awake.abs() / awake.std(0).clamp(min=1e-12)
    train = subject.data.train
    learned, means = subject.means_of(train.x)[:, dimensions], subject.means[:, dimensions]
    rate = (train.factors[:, varying][:, factors] != 0).double().mean().item()  # type: ignore[index]
    above = means.abs() > learned.abs().quantile(1 - rate, dim=0)
    centre, threshold = evaluation.robust_threshold(learned, ROBUST)
    cosines = torch.nn.functional.cosine_similarity(loadings[dimensions], true_loadings[factors], dim=1)
    return found | {
        "awake_f1": f1_score(moved, (awake != 0).flatten()),
        "awake_f1_at_rate": f1_score(moved, above.flatten()),
        "awake_f1_robust": f1_score(moved, ((means - centre).abs() > threshold).flatten()),
        "awake_auc": roc_auc_score(moved, (means.abs() / learned.std(0).clamp(min=1e-12)).flatten()),
        "awake_ap": average_precision_score(moved, sizes.flatten()),
        "loadings_cosine": cosines.abs().mean().item(),
        "assets_ap": average_precision_score((true_loadings[factors] != 0).flatten(),
                                             loadings[dimensions].abs().flatten())}


@measures(
    Measure("signal_error", "squared error", 3, "of the reconstruction, summed over the samples of a signal", "lower"),
    Measure("frequency_precision", "precision", 2, "of a signal's frequencies, each atom standing for its strongest",
            "higher"),
    Measure("frequency_recall", "recall", 2, "of a signal's frequencies", "higher"),
    Measure("frequency_f1", "F1", 2, "of a signal's frequencies", "higher"),
    Measure("amplitude_error", "amplitude error", 2, "relative error of the amplitudes of the frequencies that are "
            "there", "lower"),
    Measure("omp_signal_error", "squared error, OMP", 3, "of orthogonal matching pursuit on the same atoms with as "
            "many coefficients, where at most half are not 0", "lower"),
    Measure("omp_frequency_f1", "F1, OMP", 2, "of orthogonal matching pursuit on the same atoms with as many "
            "coefficients", "higher"),
    needs=["sinusoids"],
)
def _signals(subject: Subject) -> Values:
    codes = subject.sparse_codes.double().numpy()
    atoms = subject.sparse_responses.double().numpy()
    reconstruction = evaluation.batched(subject.model.decode_mean, subject.sparse_codes).double().numpy()
    error, precision, recall, f1, amplitude_error = _recovered(subject, codes, atoms, reconstruction)
    found = {"signal_error": error, "frequency_precision": precision, "frequency_recall": recall, "frequency_f1": f1,
             "amplitude_error": amplitude_error}  # type: Values
    count = round((codes != 0).sum(1).mean())
    if 0 < count <= codes.shape[1] / 2:  # of a code that is not sparse there is nothing to pursue
        from sklearn.decomposition import sparse_encode

        mean = subject.data.train.x.double().numpy().mean(0)
        unit = atoms / np.linalg.norm(atoms, axis=1, keepdims=True).clip(1e-12)
        codes = sparse_encode(subject.x.double().numpy() - mean, unit, algorithm="omp",
                              n_nonzero_coefs=min(count, len(unit)))
        error, _, _, f1, _ = _recovered(subject, codes, unit, mean + codes @ unit)
        found |= {"omp_signal_error": error, "omp_frequency_f1": f1}
    return found


def _recovered(subject: Subject, codes: np.ndarray, atoms: np.ndarray,
               reconstruction: np.ndarray) -> tuple[float, float, float, float, float]:
    """How well codes (n, J) on atoms (J, length) recover the signals: squared error, precision, recall and F1 of the
    frequencies, relative error of the amplitudes."""
    x, waves, factors = (part.double().numpy() for part in (  # type: ignore[union-attr]
        subject.x, subject.data.loadings, subject.part.factors))
    half = len(waves) // 2  # sines, then cosines
    truth = np.hypot(factors[:, :half], factors[:, half:])  # (n, frequencies)
    projected = reconstruction @ waves.T * 2 / waves.shape[1]
    amplitudes = np.hypot(projected[:, :half], projected[:, half:])
    strongest = np.abs(np.fft.rfft(atoms))[:, 1:half + 1].argmax(1)
    support = (codes != 0) @ np.eye(half)[strongest] > 0
    present = truth > 0
    hits = (support & present).sum()
    return (np.square(x - reconstruction).sum(1).mean(), hits / max(support.sum(), 1), hits / present.sum(),
            2 * hits / (support.sum() + present.sum()),
            np.abs(amplitudes - truth)[present].mean() / truth[present].mean())
