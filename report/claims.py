"""The checks of the sentences that the chapters mark as claims, in the order of the chapters.

Each gets the published runs of its suite and says whether its sentence is true of them, with the numbers. See
:mod:`sparse_vae.report.claims`; `make check` names a sentence that does not hold.
"""

import itertools
import re

from sparse_vae.report.claims import Verdict, against, claim, in_words, together
from sparse_vae.report.measures import find_measure

FIXED, LEARNED = "fixed", "pseudo-inputs"  # VSC's priors


PICTURES = ["mnist", "fashion-mnist"]


def _sixteen(runs, dataset):
    """The runs of the comparison on a data set, without the planes."""
    return runs.where(dataset=dataset, latent_dim=lambda size: size > 2)


def _best(runs, name, dataset):
    """The group with the smallest mean of a measure, and the means in words."""
    means = _sixteen(runs, dataset).having(name).means([name], by="group")[name].sort_values()
    return means.index[0].split("/")[1], f"{dataset}: " + "; ".join(
        f"{group.split('/')[1]} {value:.4g}" for group, value in means.iloc[:4].items())


def _mean(runs, group, name):
    """The mean of a measure over the seeds of a group, mnist/vae say."""
    return runs.where(group=group).having(name).frame[name].mean()


def _means(runs, dataset, name, *groups):
    """The means of a measure on a data set, by the names of groups."""
    return {group: _mean(runs, f"{dataset}/{group}", name) for group in groups}


def _listed(means, digits=".4g"):
    return "; ".join(f"{group} {value:{digits}}" for group, value in means.items())


def _by_dataset(datasets, means, digits=".4g"):
    return ". ".join(f"{dataset}: {_listed(each, digits)}" for dataset, each in zip(datasets, means, strict=True))


def _rises(means):
    """Whether each is larger than the one before."""
    return all(first < second for first, second in itertools.pairwise(means.values()))


def _rising(runs, dataset, name, *groups):
    """Each group of a data set against the one before: the first's measure is the lowest, the last's the highest."""
    return together(*(against(runs, f"{dataset}/{second}", f"{dataset}/{first}", name)
                      for first, second in itertools.pairwise(groups)))


def _ahead(runs, dataset, name, model):
    """A model of the comparison against each of the others that have a measure of which less is better."""
    wide = _sixteen(runs, dataset).having(name)
    others = dict.fromkeys(wide.frame["group"][wide.frame["group"] != f"{dataset}/{model}"])
    return [against(wide, f"{dataset}/{model}", other, name, paired=dataset == "returns") for other in others]


def _ahead_in_every_run(runs, dataset, name, model):
    """Whether a model's worst run has less of a measure than any of another: seeds may lie too far apart to test."""
    measured = _sixteen(runs, dataset).having(name).frame
    own = measured["group"] == f"{dataset}/{model}"
    return measured[name][own].max() < measured[name][~own].min()


def _vae_and_vsc(runs, name):
    """A measure of the VAE against that of VSC on MNIST, and the other way round on Fashion-MNIST."""
    return together(against(runs, "mnist/vae", "mnist/vsc", name),
                    against(runs, "fashion-mnist/vsc", "fashion-mnist/vae", name))


# --- Home


@claim("home-bound", suite="report")
def _(runs):
    mnist, fashion = _vae_and_vsc(runs, "negative_elbo")
    once = {test.n for test in fashion.tests} == {(1, 1)}
    return Verdict(once and mnist.lower and fashion.lower, "MNIST and Fashion-MNIST, " + in_words(mnist, fashion),
                   {"mnist": f"{-mnist.amount:.1f}", "fashion": f"{-fashion.amount:.1f}"})


@claim("home-warm-up", suite="report")
def _(runs):
    groups = ["vsc-warmup-from-0", "vsc-warmup", "vsc"]
    found, used = (ask(runs, "mnist", "used_dimensions", *groups) for ask in (_rising, _means))
    return Verdict(found[0].higher and found[1].level and used["vsc-warmup-from-0"] <= 2, in_words(*found),
                   {name: f"{used[group]:.0f}" for name, group in
                    {"none": "vsc", "half": "vsc-warmup", "zero": "vsc-warmup-from-0"}.items()})


@claim("home-samples", suite="report")
def _(runs):
    groups = ["vsc", "vae", "hybrid"]
    found, told = (ask(runs, "mnist", "sample_detection", *groups) for ask in (_rising, _means))
    training = _mean(runs, "mnist/vsc", "data_detection")
    return Verdict(all(each.higher for each in found) and training < told["vsc"],
                   f"Nearest neighbours of one's own kind, {in_words(*found)}; training data {training:.1%}",
                   {"training": f"{100 * training:.0f}"} | {group: f"{100 * told[group]:.0f}" for group in groups})


@claim("home-strokes", suite="hybrid")
def _(runs):
    active = {group: 256 * share for group, share in
              _means(runs, "mnist", "active_fraction", "hybrid-atoms", "vsc-atoms", "vae-atoms").items()}
    explained = _means(runs, "mnist", "explained_variance", *active)
    sizes = set(runs.where(group=[f"mnist/{group}" for group in active]).frame["latent_dim"])
    return Verdict(_rises(active) and sizes == {256} and active["hybrid-atoms"] < 26,
                   f"Atoms on: {_listed(active)}. Explained: {_listed(explained)}",
                   {"hybrid": f"{active['hybrid-atoms']:.0f}", "vsc": f"{active['vsc-atoms']:.0f}",
                    "vae": f"{active['vae-atoms']:.0f}", "explained": f"{100 * explained['hybrid-atoms']:.0f}%",
                    "dense": f"{100 * explained['vae-atoms']:.0f}%"})


@claim("home-factors", suite="report")
def _(runs):
    returns = runs.where(dataset="returns")
    found = together(*(against(returns, first, second, "matched_correlation", paired=True)
                       for first in ("matching-pursuit", "vsc")
                       for second in ("vaease", "hybrid", "topk", "vae", "autoencoder")))
    means = _means(returns, "returns", "matched_correlation",
                   "matching-pursuit", "vsc", "vaease", "hybrid", "topk", "vae")
    markets = {number for each in found for test in each.tests for number in test.n}
    return Verdict(markets == {5} and all(each.higher for each in found), in_words(*found),
                   {group: f"{mean:.2f}" for group, mean in means.items()})


@claim("fewer-active-more-error", suite="site")
@claim("home-price", suite="report")
def _(runs):
    groups = ["autoencoder", "vae", "vsc", "hybrid", "topk"]
    found, errors = (ask(runs, "mnist", "mean_squared_error", *groups) for ask in (_rising, _means))
    active = _means(runs, "mnist", "active_fraction", *groups)
    return Verdict(all(each.higher for each in found) and _rises({group: -share for group, share in active.items()}),
                   f"{in_words(*found)}. Active share of the dimensions: {_listed(active, '.1%')}",
                   {group: f"{1000 * error:.1f}" for group, error in errors.items()})


# --- Introduction


@claim("no-model-best", suite="site")
def _(runs):
    error, bound, told = (_best(runs, name, "mnist")
                          for name in ("mean_squared_error", "negative_elbo", "sample_detection"))
    return Verdict(len({error[0], bound[0], told[0]}) == 3,
                   f"MSE, {error[1]}. −ELBO, {bound[1]}. Samples told, {told[1]}")


# --- Autoencoders


@claim("two-numbers-cost", suite="site")
def _(runs):
    errors = [(_mean(runs, f"{dataset}/autoencoder-plane", "mean_squared_error"),
               _mean(runs, f"{dataset}/autoencoder", "mean_squared_error")) for dataset in PICTURES]
    mnist, fashion = (plane / wide for plane, wide in errors)
    return Verdict(mnist > 4 and fashion > 2, "MSE with two dimensions and with sixteen: "
                   + "; ".join(f"{plane:.4f} and {wide:.4f}" for plane, wide in errors),
                   {"mnist": f"{mnist:.1f}", "fashion": f"{fashion:.1f}"})


@claim("autoencoder-code-classes", suite="site")
def _(runs):
    found = against(_sixteen(runs, "mnist"), "autoencoder", "vae", "logistic_1000")
    return Verdict(found.higher and found.amount > 0.02, found.text)


@claim("plane-errors-level", suite="site")
def _(runs):
    errors = [_means(runs, dataset, "mean_squared_error", "autoencoder-plane", "vae-plane") for dataset in PICTURES]
    ratios = [each["autoencoder-plane"] / each["vae-plane"] for each in errors]
    return Verdict(min(ratios) > 0.95 and max(ratios) < 1.05, "MSE: " + _by_dataset(PICTURES, errors))


@claim("vsc-gives-up-the-plane", suite="site")
def _(runs):
    used = [_mean(runs, f"{dataset}/vsc-plane", "used_dimensions") for dataset in PICTURES]
    return Verdict(used == [0, 1], f"Dimensions in use, of two: MNIST {used[0]:.0f}, Fashion-MNIST {used[1]:.0f}")


@claim("plane-kept-elsewhere", suite="paper", beside=["report"])
def _(runs, report):
    kept = runs.where(group="mnist/vsc-rate-a0.2-j2").having("used_dimensions").frame
    lost = report.where(group="mnist/vsc-plane").frame
    return Verdict(kept["used_dimensions"].tolist() == [2, 2, 2] and set(kept["alpha"]) == set(lost["alpha"])
                   and not set(kept["backbone"]) & set(lost["backbone"]),
                   f"In use: {kept['used_dimensions'].tolist()} of 2, backbone {set(kept['backbone'])}; "
                   f"{lost['used_dimensions'].tolist()}, backbone {set(lost['backbone'])}")


# --- Sparse autoencoders


@claim("jumprelu-hardly-switches", suite="site")
def _(runs):
    means = {}
    for dataset in ("smiley", "sinusoids", "mnist", "fashion-mnist"):
        frame = runs.where(model="jumprelu", dataset=dataset).having("active_fraction", "used_dimensions").frame
        means[dataset] = (frame["active_fraction"] * frame["latent_dim"] / frame["used_dimensions"]).mean()
    *hardly, mnist, fashion = means.values()
    return Verdict(min(hardly) >= 0.9 > max(mnist, fashion), "A unit in use is on for " + "; ".join(
        f"{100 * mean:.0f}% of the observations of {dataset}" for dataset, mean in means.items()))


@claim("equal-sparsity-training", suite="exercises")
def _(runs):
    frame = runs.where(dataset="fashion-mnist").frame.dropna(subset="epochs")
    longest = (frame["model"] == "matching-pursuit") & (frame["latent_dim"] == 1024)
    (epochs, *others), (fewer, *more) = (sorted(set(frame["epochs"][rows].astype(int))) for rows in (~longest, longest))
    steps = sorted(set(frame["learning_rate"]))
    return Verdict(not others and not more and fewer < epochs and len(steps) == 1,
                   f"Epochs: {epochs}; matching pursuit with 1,024 atoms {fewer}. Steps: {steps}",
                   {"epochs": str(epochs), "fewer": str(fewer)})


@claim("equal-sparsity-weights", suite="exercises", beside=["selection"])
def _(runs, selection):
    told, between = [], []
    for model in ("sparse-autoencoder-l1", "jumprelu"):
        for size in (64, 256):
            own = {"dataset": "fashion-mnist", "model": model, "latent_dim": size}
            (taken,) = set(runs.where(**own).frame["sparsity_weight"])
            tried = selection.where(**own).frame.groupby("sparsity_weight")["active_fraction"].mean()
            between.append(tried[tried.index <= taken].max() > 0.1 > tried[tried.index >= taken].min())
            told.append(f"{model}, J = {size}: {taken:g}; tried "
                        + ", ".join(f"{weight:g} ({share:.1%} on)" for weight, share in tried.items()))
    return Verdict(all(between), ". ".join(told))


def _sparse_on_fashion(runs, size):
    """The runs of a size whose codes are exactly zero but for a tenth of their units, or a tenth more than that."""
    sized = runs.where(dataset="fashion-mnist", latent_dim=size).having("nonzero_fraction", "mean_squared_error")
    shares = sized.means(["nonzero_fraction"], by="group")["nonzero_fraction"]
    return sized.where(group=list(shares.index[shares <= 0.11]))


@claim("pursuit-least-error", suite="exercises")
def _(runs):
    found, errors = [], {"pursuit": [], "network": [], "dictionary": []}
    for size in (256, 1024):
        sparse = _sparse_on_fashion(runs, size)
        means = sparse.means(["mean_squared_error"], by=["model", "group"])["mean_squared_error"]
        pursuit, dictionary = (means[model].iloc[0] for model in ("matching-pursuit", "dictionary"))
        others = means.drop(index=["matching-pursuit", "dictionary"], level="model").sort_values()
        found += [against(sparse, "matching-pursuit", group, "mean_squared_error") for _, group in others.index]
        for kind, error in (("pursuit", pursuit), ("network", others.iloc[0]), ("dictionary", dictionary)):
            errors[kind].append(error)
    found = together(*found)
    means = {kind: " and ".join(f"{error:.4f}" for error in each) for kind, each in errors.items()}
    return Verdict(all(each.lower for each in found) and all(
        own < other for own, other in zip(errors["pursuit"], errors["dictionary"], strict=True)),
        in_words(*found) + f". Dictionary learning, one run each: {means['dictionary']}", means)


@claim("pursuit-none-dead", suite="exercises")
def _(runs):
    dead = runs.where(dataset="fashion-mnist", model="matching-pursuit").having("dead_fraction").frame["dead_fraction"]
    return Verdict(dead.max() == 0, f"Dead units, at most {dead.max():.1%} in {len(dead)} runs")


@claim("steps-and-dead-units", suite="selection")
def _(runs):
    found, more, falls = {}, [], []
    for model in ("topk", "batchtopk"):
        for size in (256, 1024):
            own = runs.where(model=model, decoder="linear", latent_dim=size, backbone="mlp").frame
            own = own.sort_values("learning_rate").set_index("learning_rate")
            falls += list(own["mean_squared_error"].diff().dropna() < 0)
            more += list(own["dead_fraction"].diff().dropna() > 0)
            found[f"{model}, J = {size}"] = own
    dead = found["topk, J = 1024"]["dead_fraction"]
    return Verdict(all(falls) and sum(more) >= len(more) - 1, ". ".join(
        f"{name}: MSE {', '.join(f'{error:.4f}' for error in own['mean_squared_error'])}; dead "
        f"{', '.join(f'{share:.0%}' for share in own['dead_fraction'])}" for name, own in found.items()),
        {"few": f"{dead.iloc[0]:.1%}", "many": f"{dead.iloc[-1]:.0%}"})


@claim("dictionaries-largest-steps", suite="exercises", beside=["selection"])
def _(runs, selection):
    tried = set(selection.where(model=["topk", "batchtopk"], decoder="linear", backbone="mlp").frame["learning_rate"])
    taken = set(runs.matching("mnist/*-atoms-j*/*").frame["learning_rate"])
    return Verdict(taken == {max(tried)}, f"Steps tried: {sorted(tried)}; taken: {sorted(taken)}")


@claim("neighbours-few-labels", suite="exercises")
def _(runs):
    found = together(*(against(runs.matching("mnist/*-j50/*"), "vsc", other, "cosine_200")
                       for other in ("autoencoder", "vae")))
    return Verdict(all(each.higher for each in found), in_words(*found))


@claim("neighbours-many-labels", suite="exercises")
def _(runs):
    found = together(*(against(runs.matching("mnist/*-j50/*"), "vae", other, "cosine_5000")
                       for other in ("hybrid", "topk", "batchtopk", "matryoshka")))
    return Verdict(all(each.higher for each in found), in_words(*found))


@claim("linear-from-atoms", suite="exercises")
def _(runs):
    groups = "fashion-mnist/topk-tenth-atoms-j1024", "fashion-mnist/vae-tenth-j1024"
    found = against(runs, *groups, "tuned_5000")
    atoms, dense = (f"{_mean(runs, group, 'tuned_5000'):.1%}" for group in groups)
    return Verdict(found.higher, found.text, {"garments": atoms, "dense": dense})


@claim("digits-from-atoms", suite="hybrid")
def _(runs):
    accuracies = runs.where(group="mnist/hybrid-atoms").having("tuned_5000").frame["tuned_5000"]
    return Verdict(len(accuracies) > 2 and accuracies.min() > 0.95,
                   f"Digits told: {', '.join(f'{accuracy:.1%}' for accuracy in accuracies)}",
                   {"atoms": f"{accuracies.mean():.1%}"})


@claim("price-of-a-tenth", suite="exercises")
def _(runs):
    few = {group: f"{group}-j50" for group in ("topk", "batchtopk", "matryoshka", "hybrid")}
    errors = {name: _mean(runs, f"mnist/{group}", "mean_squared_error") for name, group in few.items()}
    active = {name: _mean(runs, f"mnist/{group}", "active_fraction") for name, group in few.items()}
    dense = _mean(runs, "mnist/autoencoder-j50", "mean_squared_error")
    return Verdict(max(errors.values()) < 1.15 * min(errors.values()) and min(errors.values()) > 5 * dense
                   and min(active.values()) > 0.09 and max(active.values()) < 0.11,
                   f"MSE: {_listed(errors)}; autoencoder {dense:.4g}. Active: {_listed(active, '.1%')}")


@claim("weak-penalties-cheap", suite="site")
def _(runs):
    names = ["autoencoder", "sparse-autoencoder-l1", "sparse-autoencoder-kl", "topk", "batchtopk"]
    errors = [_means(runs, dataset, "mean_squared_error", *names) for dataset in PICTURES]
    ratios = [{name: each[name] / each["autoencoder"] for name in names[1:]} for each in errors]
    cheap = max(each["sparse-autoencoder-kl"] for each in ratios)
    dear = min(min(each[name] for name in names[3:]) for each in ratios)
    return Verdict(cheap < 1.2 and dear > 1.5,
                   "MSE over that of the autoencoder: " + _by_dataset(PICTURES, ratios, ".2f"))


@claim("l1-by-seed", suite="site")
def _(runs):
    own = runs.where(group="mnist/sparse-autoencoder-l1").frame.sort_values("mean_squared_error")
    ratios = own["mean_squared_error"] / _mean(runs, "mnist/autoencoder", "mean_squared_error")
    used = own["used_dimensions"].tolist()
    return Verdict(len(own) > 2 and ratios.iloc[-1] > 1.5 * ratios.iloc[0] and used == sorted(used, reverse=True),
                   f"MSE over that of the autoencoder: {[round(each, 2) for each in ratios]}. In use: {used}",
                   {"least": f"{ratios.iloc[0]:.1f}", "most": f"{ratios.iloc[-1]:.1f}", "many": f"{used[0]:.0f}",
                    "few": f"{used[-1]:.0f}"})


@claim("sparse-units-selective", suite="site")
def _(runs):
    means = [_means(runs, dataset, "selectivity", "topk", "batchtopk", "autoencoder", "vae") for dataset in PICTURES]
    return Verdict(all(min(each["topk"], each["batchtopk"]) > max(1.5 * each["autoencoder"], 2 * each["vae"])
                       for each in means), "Class selectivity: " + _by_dataset(PICTURES, means, ".2f"))


# --- Variational autoencoders


@claim("beta-vae-fewer-dimensions", suite="paper")
def _(runs):
    wide = runs.where(latent_dim=50)
    both = together(*(against(wide.where(dataset=dataset), "beta-vae", "vae", "used_dimensions")
                      for dataset in ("mnist", "fashion-mnist")))
    return Verdict(all(each.lower for each in both), "MNIST and Fashion-MNIST, " + in_words(*both))


@claim("vae-two-to-sixteen", suite="site")
def _(runs):
    bounds = _means(runs, "mnist", "negative_elbo", "vae-plane", "vae")
    return Verdict(bounds["vae-plane"] - bounds["vae"] > 40, f"−ELBO (nats), MNIST: {_listed(bounds)}",
                   {"two": f"{bounds['vae-plane']:.0f}", "sixteen": f"{bounds['vae']:.0f}"})


@claim("beta-smiley", suite="report")
def _(runs):
    matching, worse = together(*(against(runs, "smiley/beta-vae", "smiley/vae", name)
                                 for name in ("matched_correlation", "mean_squared_error")))
    matched, errors = (_means(runs, "smiley", name, "vae", "beta-vae")
                       for name in ("matched_correlation", "mean_squared_error"))
    return Verdict(matching.level and worse.higher and errors["beta-vae"] > 3 * errors["vae"],
                   in_words(matching, worse),
                   {group.replace("-", "_"): f"{value:.2f}" for group, value in matched.items()})


@claim("beta-smiley-study", suite="paper")
def _(runs):
    matched, mig = together(*(against(runs.where(dataset="smiley"), "beta-vae", "vae", name,
                                      at={"latent_dim": [18, 60]}) for name in ("matched_correlation", "mig")))
    return Verdict(matched.lower and mig.level and all(test.difference > 0 for test in mig.tests),
                   in_words(matched, mig))


@claim("beta-returns", suite="report")
def _(runs):
    returns = runs.where(dataset="returns")
    little, *ahead = together(*(
        against(returns, first, second, "matched_correlation", paired=True) for first, second in (
            ("beta-vae", "vae"), ("vsc", "beta-vae"), ("vaease", "beta-vae"), ("vsc", "vae"), ("vaease", "vae"))))
    return Verdict(little.higher and all(each.higher and each.amount > 0.2 for each in ahead),
                   in_words(little, *ahead), {"by": f"{little.amount:.2f}"})


# --- Variational sparse coding


@claim("plain-spikes-use-nothing", suite="paper")
def _(runs):
    trained = runs.matching("mnist/vsc-*-t0.5/*").having("used_dimensions", "active_units", "spike_rate")
    plain = trained.where(estimator="bernoulli").frame
    units, rates = ({cost: own.tolist() for cost, own in plain.groupby("spike_cost")[name]}
                    for name in ("active_units", "spike_rate"))
    costs = {"kl": "bernoulli", "entropy": "bernoulli-entropy", "straight": "straight-through"}
    bounds = _means(runs, "mnist", "negative_elbo", *(f"vsc-{estimator}-t0.5" for estimator in costs.values()))
    return Verdict(plain["used_dimensions"].max() == 0 and set(units["kl"]) == {0}
                   and set(units["cross-entropy"]) == {50} and set(plain["alpha"]) == {0.2}
                   and all(abs(rate - 0.2) < 0.001 for rate in rates["cross-entropy"]),
                   f"Active units: {units}; rates of spikes: {rates}; −ELBO: {_listed(bounds)}",
                   {name: f"{bound:.1f}" for name, bound in zip(costs, bounds.values(), strict=True)})


@claim("softest-spikes-worst-bound", suite="paper")
def _(runs):
    trained = runs.matching("mnist/vsc-*-t*/*").having("negative_elbo", "used_dimensions")
    worst, second = trained.means(["negative_elbo"], by="group")["negative_elbo"].nlargest(2).index
    found = against(trained, worst, second, "negative_elbo",
                    names=("the worst, " + worst.split("/")[1], "the next, " + second.split("/")[1]))
    softest = trained.where(estimator="scaled-sigmoid", temperature=1.0).frame
    used = softest["used_dimensions"].max()
    return Verdict(set(softest["group"]) == {worst} and found.higher and used == 0,
                   f"{found.text}; dimensions in use with sharpness 1: {used:.0f}")


@claim("classifier-no-better", suite="paper")
def _(runs):
    found = against(runs, "mnist/vsc-classifier-j50", "mnist/vsc-j50", "negative_elbo",
                    names=("classifier", "closed form"))
    return Verdict(found.level, found.text)


@claim("rate-not-held", suite="paper")
def _(runs):
    ratios = _means(runs, "mnist", "rate_ratio", "vsc-rate-a0.2-j16", "vsc-rate-a0.2-j2", "vsc-rate-a0.01-j16",
                    "vsc-rate-a0.01-j2")
    often, plane, rare, rare_plane = ratios.values()
    return Verdict(min(ratios.values()) > 2 and often < plane < rare < rare_plane,
                   f"Rate of the spikes over the one that was asked for: {_listed(ratios)}",
                   {"often": f"{often:.1f}", "plane": f"{plane:.1f}", "rare": f"{rare:.0f}",
                    "rare_plane": f"{rare_plane:.0f}"})


@claim("rate-of-the-prior-lower", suite="paper")
def _(runs):
    frame = runs.matching("mnist/vsc-rate-*/*").having("spike_rate", "prior_rate").frame
    means = frame.groupby("group")[["spike_rate", "prior_rate"]].mean()
    return Verdict(len(means) == 4 and (frame["spike_rate"] > frame["prior_rate"]).all(),
                   "Rates of the posteriors and of the prior: " + "; ".join(
                       f"{group.split('/')[1]} {own:.2f} and {prior:.2f}" for group, own, prior in means.itertuples()))


@claim("rate-held", suite="paper")
def _(runs):
    ratio = _mean(runs, "mnist/vsc-held-a0.2-j16", "rate_ratio")
    found = against(runs, "mnist/vsc-held-a0.2-j16", "mnist/vsc-rate-a0.2-j16", "negative_elbo",
                    names=("rate held", "not held"))
    return Verdict(abs(ratio - 1) < 0.1 and found.higher, f"Rate over α: {ratio:.3f}; {found.text}",
                   {"within": f"{100 * abs(ratio - 1):.0f}%", "nats": f"{found.amount:.0f}"})


@claim("rare-rate-held-uses-nothing", suite="paper")
def _(runs):
    held = runs.matching("mnist/vsc-held-a0.01-*/*").having("rate_ratio", "used_dimensions").frame
    return Verdict(held["rate_ratio"].between(0.9, 1.1).all() and held["used_dimensions"].max() <= 1,
                   f"Rate over α, all runs: {held['rate_ratio'].min():.3f} to {held['rate_ratio'].max():.3f}; "
                   f"dimensions in use, at most {held['used_dimensions'].max():.0f}")


@claim("vsc-switches-off", suite="report")
def _(runs):
    on = [_means(runs, dataset, "l0", "vsc", "vae") for dataset in PICTURES]
    return Verdict(all(each["vsc"] < 0.65 * each["vae"] for each in on), "Dimensions on for an observation, of 16: "
                   + _by_dataset(PICTURES, on),
                   {"mnist": f"{on[0]['vsc']:.1f}", "fashion": f"{on[1]['vsc']:.1f}", "vae": f"{on[0]['vae']:.1f}",
                    "vae_fashion": f"{on[1]['vae']:.1f}"})


@claim("relaxed-spikes-flatter", suite="paper")
def _(runs):
    trained = runs.matching("mnist/vsc-*-t*/*").having("negative_elbo").frame
    gaps = (trained["negative_elbo"] - trained["loss"]).groupby(trained["estimator"])
    least, most = gaps.min(), gaps.max()
    return Verdict(least["concrete"] > 0 and least["scaled-sigmoid"] > 0 and abs(most["straight-through"]) < 0.01,
                   "Bound with true spikes minus objective, nats: " + "; ".join(
                       f"{name} {least[name]:.2f} to {most[name]:.2f}" for name in least.index))


# --- Experiments


@claim("best-bounds-sixteen", suite="site")
def _(runs):
    found = together(*_ahead(runs, "mnist", "negative_elbo", "vae"),
                     *_ahead(runs, "fashion-mnist", "negative_elbo", "vsc"))
    return Verdict(_ahead_in_every_run(runs, "mnist", "negative_elbo", "vae")
                   and _ahead_in_every_run(runs, "fashion-mnist", "negative_elbo", "vsc"),
                   "MNIST, then Fashion-MNIST, " + in_words(*found))


@claim("autoencoder-reconstructs-best", suite="site")
def _(runs):
    found = together(*(each for dataset in PICTURES
                       for each in _ahead(runs, dataset, "mean_squared_error", "autoencoder")))
    return Verdict(all(_ahead_in_every_run(runs, dataset, "mean_squared_error", "autoencoder") for dataset in PICTURES),
                   "MNIST, then Fashion-MNIST, " + in_words(*found))


@claim("vsc-samples-better", suite="site")
def _(runs):
    found = against(runs.where(latent_dim=16, model=["vae", "vsc"]), "vsc", "vae", "sample_detection",
                    at={"dataset": PICTURES})
    return Verdict(found.lower, f"Samples told: {found.text}")


@claim("vsc-samples-precise", suite="site")
def _(runs):
    precise, complete = together(*(
        against(runs.where(latent_dim=16, model=["vae", "vsc"]), "vsc", "vae", name, at={"dataset": PICTURES})
        for name in ("sample_precision", "sample_recall")))
    return Verdict(precise.higher and complete.lower, in_words(precise, complete))


@claim("hardly-by-heart", suite="site")
def _(runs):
    ratios = _sixteen(runs, "mnist").having("mse_ratio").means(["mse_ratio"])["mse_ratio"]
    return Verdict(ratios.max() < 1.05, f"MSE on test data over that on training data, MNIST: at most "
                   f"{ratios.max():.3f} ({ratios.idxmax()})")


@claim("warm-up-from-0-fails", suite="site")
def _(runs):
    mnist, fashion = (runs.where(group=f"{dataset}/vsc-warmup-from-0").frame["used_dimensions"].max()
                      for dataset in PICTURES)
    return Verdict(mnist == 2 and fashion == 0, f"Dimensions in use: MNIST {mnist:.0f}, Fashion-MNIST {fashion:.0f}")


@claim("runs-on-pictures", suite="site")
def _(runs):
    mnist, fashion = (_sixteen(runs, dataset).frame.groupby("group").size().tolist() for dataset in PICTURES)
    return Verdict(set(mnist) == {3} and set(fashion) == {1},
                   f"Runs of each model: MNIST {mnist}, Fashion-MNIST {fashion}")


@claim("one-training-for-all", suite="site")
def _(runs):
    alike = ["backbone", "hidden_dim", "decoder", "epochs", "batch_size", "learning_rate", "lr_warmup", "decay",
             "beta2", "validation", *(name for name in runs.frame if re.match(r"dataset\.(?!seed)", name))]
    counts = runs.frame.groupby("dataset")[alike].nunique(dropna=False)
    used = runs.frame.groupby("dataset")[["epochs", "learning_rate"]].first()
    return Verdict(counts.max().max() == 1, "Epochs and step size: " + "; ".join(
        f"{dataset} {row['epochs']:.0f} and {row['learning_rate']:g}" for dataset, row in used.iterrows()))


@claim("beta-vae-pays", suite="site")
def _(runs):
    wide = runs.where(model=["vae", "beta-vae"], latent_dim=lambda size: size > 2)
    found = together(*(against(wide, "beta-vae", "vae", measure, at={"dataset": [*PICTURES, "smiley"]})
                       for measure in ("negative_elbo", "mean_squared_error", "used_dimensions")))
    return Verdict(found[0].higher and found[1].higher and found[2].lower, in_words(*found))


@claim("beta-vae-saves-nothing", suite="site")
def _(runs):
    found = together(*(against(runs, "mnist/beta-vae", f"mnist/{model}", name)
                       for name in ("l0", "mean_squared_error") for model in ("vsc", "hybrid")))
    return Verdict(all(each.higher for each in found), in_words(*found))


@claim("beta-helps-on-new-people", suite="site")
def _(runs):
    found = against(runs.where(dataset="uci-har"), "beta-vae", "vae", "negative_elbo")
    return Verdict(found.lower, found.text)


@claim("order-importance-weighted", suite="site")
def _(runs):
    mnist, fashion = _vae_and_vsc(runs, "importance_weighted_bound")
    return Verdict(mnist.lower and fashion.lower, "MNIST and Fashion-MNIST, " + in_words(mnist, fashion))


@claim("order-of-activity", suite="site")
def _(runs):
    found = together(*(each for dataset in PICTURES
                       for each in _rising(runs, dataset, "l0", "topk", "hybrid", "vsc", "vae")))
    return Verdict(all(each.higher for each in found), "MNIST, then Fashion-MNIST, " + in_words(*found))


@claim("topk-entries-not-local", suite="site")
def _(runs):
    found = together(*(against(runs, f"{dataset}/{model}", f"{dataset}/vae", "entry_extent")
                       for dataset in PICTURES for model in ("topk", "hybrid", "vsc")))
    return Verdict(all(each.higher for each in found), "MNIST, then Fashion-MNIST, " + in_words(*found))


@claim("topk-sets-tell-classes", suite="site")
def _(runs):
    names = ["set_distance_within", "set_distance_between"]
    means = _sixteen(runs, "mnist").having(*names).means(names, by="model")
    within, between = means.loc["topk", names]
    return Verdict(means["set_distance_between"].idxmax() == "topk" and between > within,
                   f"TopK: {within:.2f} within a class, {between:.2f} between classes; the next between classes: "
                   f"{means['set_distance_between'].nlargest(2).iloc[1]:.2f}")


def _gains(runs, noise):
    """How many models gain over noisy copies of MNIST by PSNR and by SSIM, and of how many."""
    names = [f"psnr_gain_{noise}", f"ssim_gain_{noise}"]
    means = _sixteen(runs, "mnist").having(*names).means(names, by="group")
    by_psnr, by_ssim = ((means[name] > 0).sum() for name in names)
    return by_psnr, by_ssim, len(means)


@claim("psnr-and-ssim-disagree", suite="site")
def _(runs):
    by_psnr, by_ssim, all_models = _gains(runs, "salt_and_pepper")
    return Verdict(by_psnr == all_models and by_ssim == 0,
                   f"Of {all_models} models {by_psnr} gain by PSNR, {by_ssim} by SSIM")


@claim("masking-by-ssim", suite="site")
def _(runs):
    by_psnr, by_ssim, all_models = _gains(runs, "masking")
    return Verdict(by_psnr > all_models / 2 and by_ssim == 2,
                   f"Of {all_models} models {by_psnr} gain by PSNR, {by_ssim} by SSIM")


@claim("gaussian-noise-stays", suite="site")
def _(runs):
    gains, most = {}, 0
    for dataset in PICTURES:
        names = ["psnr_gain_gaussian", "ssim_gain_gaussian"]
        means = _sixteen(runs, dataset).having(*names).means(names, by="group")
        gains[dataset] = [[group.split("/")[1] for group in means.index[means[name] > 0]] for name in names]
        most = max(most, means[names[0]].max())
    return Verdict(gains == {"mnist": [["beta-vae"], []], "fashion-mnist": [[], []]} and most < 0.1,
                   "Models that gain by PSNR and by SSIM: " + "; ".join(
                       f"{dataset} {', '.join(by_psnr) or 'none'} and {', '.join(by_ssim) or 'none'}"
                       for dataset, (by_psnr, by_ssim) in gains.items()))


@claim("psnr-and-ssim-rank-alike", suite="site")
def _(runs):
    names = {noise: [f"{of}_gain_{noise}" for of in ("psnr", "ssim")]
             for noise in ("gaussian", "salt_and_pepper", "masking")}
    best = {f"{dataset}, {noise.replace('_', ' ')}": [
        _sixteen(runs, dataset).having(*pair).means(pair, by="group")[name].idxmax().split("/")[1] for name in pair]
        for dataset in PICTURES for noise, pair in names.items()}
    alike = [where for where, (by_psnr, by_ssim) in best.items() if by_psnr == by_ssim]
    return Verdict(alike == [where for where in best if where.startswith("fashion") or "salt" in where],
                   "First by PSNR and by SSIM: "
                   + "; ".join(f"{where}: {' and '.join(pair)}" for where, pair in best.items()))


@claim("best-bounds-elsewhere", suite="report")
def _(runs):
    best = {"smiley": "vae", "uci-har": "beta-vae", "returns": "vsc", "sinusoids": "vae"}
    found = together(*(each for dataset, model in best.items()
                       for each in _ahead(runs, dataset, "negative_elbo", model)))
    *clear, beta, vsc, hybrid = found
    return Verdict(all(each.lower for each in (*clear, hybrid)) and all(each.level and each.amount < 0
                                                                        for each in (beta, vsc)),
                   f"By data set, {', '.join(best)}: {in_words(*found)}")


@claim("by-heart-elsewhere", suite="report")
def _(runs):
    ratios = {dataset: runs.where(dataset=dataset).having("mse_ratio").means(["mse_ratio"])["mse_ratio"]
              for dataset in ("uci-har", "sinusoids")}
    return Verdict(all(each.min() > 1.15 for each in ratios.values()) and ratios["sinusoids"].max() > 2,
                   "MSE on test data over that on training data: " + "; ".join(
                       f"{dataset} from {each.min():.2f} ({each.idxmin()}) to {each.max():.2f} ({each.idxmax()})"
                       for dataset, each in ratios.items()))


@claim("pursuit-ahead-of-topk", suite="report")
def _(runs):
    def against_topk(name, *datasets):
        return [against(runs, f"{dataset}/matching-pursuit", f"{dataset}/topk", name, paired=dataset == "returns")
                for dataset in datasets]

    *errors, frequencies, factors = together(*against_topk("mean_squared_error", "uci-har", "sinusoids", "returns"),
                                             *against_topk("matched_correlation", "sinusoids", "returns"))
    rates = [runs.where(model=model, dataset=["uci-har", "sinusoids", "returns"]).frame["k"].tolist()
             for model in ("matching-pursuit", "topk")]
    return Verdict(all(each.lower for each in errors) and frequencies.higher and factors.higher
                   and {*rates[0], *rates[1]} == {4}, in_words(*errors, frequencies, factors))


def _beside_the_autoencoder(runs, name, *models):
    """A measure of sparse models against the plain autoencoder on each of the other data sets."""
    return together(*(against(runs, f"{dataset}/{model}", f"{dataset}/autoencoder", name, paired=dataset == "returns")
                      for dataset in ("smiley", "uci-har", "sinusoids", "returns") for model in models))


@claim("sparse-gap-narrower", suite="report")
def _(runs):
    found = _beside_the_autoencoder(runs, "mse_ratio", "sparse-autoencoder-l1", "sparse-autoencoder-kl", "topk",
                                    "batchtopk", "vsc", "hybrid")
    return Verdict(all(each.lower for each in found), "By data set, Smiley, UCI HAR, sinusoids, returns: "
                   + in_words(*found))


@claim("sparse-error-no-smaller", suite="report")
def _(runs):
    larger = _beside_the_autoencoder(runs, "mean_squared_error", "topk", "batchtopk", "hybrid")
    found = _beside_the_autoencoder(runs, "mean_squared_error", "sparse-autoencoder-l1", "sparse-autoencoder-kl", "vsc")
    return Verdict(all(each.higher for each in larger) and not any(each.lower for each in found),
                   "By data set, Smiley, UCI HAR, sinusoids, returns: " + in_words(*larger, *found))


@claim("seeds-elsewhere", suite="report")
def _(runs):
    frame = runs.where(dataset=["smiley", "uci-har", "sinusoids", "returns"]).frame
    seeds = {dataset: sorted(set(rows.groupby("group").size())) for dataset, rows in frame.groupby("dataset")}
    return Verdict(seeds == {"smiley": [5], "uci-har": [3], "sinusoids": [3], "returns": [5]}
                   and set(frame["latent_dim"]) == {18}, "Runs of each model: " + "; ".join(
        f"{dataset} {counts}" for dataset, counts in seeds.items()))


# --- Sparse coding, measured

VSC = {"model": "vsc", "prior": LEARNED, "alpha": 0.01, "estimator": "straight-through"}
REINMAX = {"model": "vsc", "prior": LEARNED, "alpha": 0.05, "estimator": "reinmax"}
OFTEN = {"model": "vsc", "prior": LEARNED, "alpha": 0.2, "estimator": "straight-through"}
WARMED = {"model": "vsc-warmup", "prior": LEARNED, "first_warmth": 0.0}
SOFTENED = {"model": "vsc-warmup", "prior": LEARNED, "first_warmth": 0.5}


def codes_of(runs, dataset="mnist"):
    """The runs of the study of codes with settings that the validation part chose, whose budget is the VAE's."""
    epochs = runs.where(run=f"{dataset}/vae-j50/seed0").frame["epochs"].iloc[0]
    return runs.where(dataset=dataset, epochs=epochs, learning_rate=0.004, prior=lambda prior: prior != FIXED)


@claim("vae-ahead-of-rare-spikes", suite="paper")
def _(runs):
    found = against(codes_of(runs), "vae", VSC, "negative_elbo", at={"latent_dim": [8, 16, 50]})
    return Verdict(found.lower, found.text)


@claim("vsc-ahead", suite="paper")
def _(runs):
    mnist = codes_of(runs)
    found = together(*(against(mnist, side, "vae", "negative_elbo", at={"latent_dim": [size]})
                       for side, size in ((OFTEN, 50), (REINMAX, 200))))
    least = min(-each.amount for each in found)
    return Verdict(all(each.lower for each in found), in_words(*found), {"least": f"{least:.1f}"})


@claim("units-and-use", suite="paper")
def _(runs):
    frame = runs.where(group="mnist/vsc-fixed-a0.2-j200").having("active_units", "used_dimensions").frame
    units, used = frame["active_units"].mean(), frame["used_dimensions"].mean()
    return Verdict((frame["active_units"] > 5 * frame["used_dimensions"]).all() and frame["active_units"].min() > 150,
                   f"Of 200, active units {units:.0f}, in use {used:.0f}; {len(frame)} runs",
                   {"units": f"{units:.0f}", "used": f"{used:.0f}"})


@claim("shorter-codes", suite="paper")
def _(runs):
    mnist = codes_of(runs)
    found = against(mnist, VSC, "vae", "l0", at={"latent_dim": [200]})
    vsc, vae = (mnist.where(latent_dim=200, **side).frame["l0"].mean() for side in (VSC, {"model": "vae"}))
    return Verdict(found.lower, found.text, {"vsc": f"{vsc:.0f}", "vae": f"{vae:.0f}"})


@claim("samples-of-wide-codes", suite="paper")
def _(runs):
    mnist = codes_of(runs)
    found = together(*(against(mnist, side, "vae", "sample_detection", at={"latent_dim": [size]})
                       for side, size in ((OFTEN, 50), (REINMAX, 200))))
    return Verdict(all(each.lower for each in found), in_words(*found))


@claim("warm-up-collapses", suite="paper")
def _(runs):
    warmed = codes_of(runs).where(**WARMED, latent_dim=[16, 50]).having("used_dimensions").frame
    used = {f"J = {size}": sorted(map(int, part)) for size, part in warmed.groupby("latent_dim")["used_dimensions"]}
    most = max(map(max, used.values()))
    told = "; ".join(f"{size}: {counts}" for size, counts in used.items())
    return Verdict(most < 5, f"Dimensions in use, by seed: {told}",
                   {"most": ("one", "two", "three", "four")[most - 1] if most < 5 else str(most)})


@claim("budget-of-codes", suite="paper")
def _(runs):
    kinds = {"codes": runs.where(dataset=PICTURES, run=lambda name: not re.search(r"-(t\d|rate|held|long)", name)),
             "spikes": runs.matching("mnist/vsc-*-t*"),
             **{dataset: runs.where(dataset=dataset) for dataset in ("smiley", "uci-har")}}
    budgets = {kind: sorted(set(zip(each.frame["epochs"].astype(int), each.frame["learning_rate"], strict=True)))
               for kind, each in kinds.items()}
    epochs = budgets["codes"][0][0]
    return Verdict(budgets == {"codes": [(epochs, 0.004)], "spikes": [(8, 0.004)], "smiley": [(30, 0.004)],
                               "uci-har": [(40, 0.001)]}, "Epochs and step sizes: " + "; ".join(
        f"{kind} {', '.join(f'{number} and {step:g}' for number, step in each)}" for kind, each in budgets.items()),
        {"epochs": str(epochs)})


@claim("longer-training-gains", suite="paper")
def _(runs):
    pairs = [(f"mnist/{model}-longer-j{size}", f"mnist/{usual}-j{size}") for size in (50, 200)
             for model, usual in (("vae", "vae"), ("vsc", "vsc-reinmax-a0.05"))]
    (longer, *others), (usual, *more) = (sorted(set(runs.where(group=list(side)).frame["epochs"].astype(int)))
                                         for side in zip(*pairs, strict=True))
    found = together(*(against(runs, *pair, "negative_elbo", names=(pair[0].split("/")[1], f"{usual} epochs"))
                       for pair in pairs))
    gains = [-each.amount for each in found]
    return Verdict(not others and not more and all(each.lower for each in found), in_words(*found),
                   {"longer": str(longer), "usual": str(usual), "least": f"{min(gains):.1f}",
                    "most": f"{max(gains):.1f}"})


@claim("longer-training-order", suite="paper")
def _(runs):
    dense, sparse = together(*(against(runs, *(f"mnist/{model}-longer-j{size}" for model in models), "negative_elbo",
                                       names=(f"{models[0]}, J = {size},", models[1]))
                               for size, models in ((50, ("vae", "vsc")), (200, ("vsc", "vae")))))
    return Verdict(dense.lower and sparse.lower, in_words(dense, sparse),
                   {"dense": f"{-dense.amount:.1f}", "sparse": f"{-sparse.amount:.1f}"})


@claim("vsc-overtakes-fashion", suite="paper")
def _(runs):
    fashion = codes_of(runs, "fashion-mnist")
    smaller, largest = together(*(against(fashion, "vae", VSC, "negative_elbo", at={"latent_dim": sizes})
                                  for sizes in ([16, 50], [200])))
    return Verdict(smaller.lower and largest.higher, in_words(smaller, largest))


@claim("vsc-ahead-fashion", suite="paper")
def _(runs):
    fashion = codes_of(runs, "fashion-mnist")
    found = together(*(against(fashion, side, "vae", "negative_elbo", at={"latent_dim": [size]})
                       for side, size in ((REINMAX, 50), (REINMAX, 200), (OFTEN, 200))))
    return Verdict(all(each.lower for each in found), in_words(*found),
                   {"least": f"{min(-each.amount for each in found[1:]):.1f}"})


@claim("fixed-prior-behind", suite="paper")
def _(runs):
    sizes, rates = [8, 16, 200], [0.5, 0.2, 0.01]
    places = [(dataset, rate) for dataset in PICTURES for rate in rates]
    found = together(*(against(
        runs.where(dataset=dataset, latent_dim=sizes, epochs=11), {"model": "vsc", "prior": FIXED, "alpha": rate},
        "vae", "negative_elbo", at={"latent_dim": sizes}, names=(f"α = {rate:g}", "VAE")) for dataset, rate in places))
    falls = []
    for dataset, size in itertools.product(PICTURES, sizes):
        own = runs.where(dataset=dataset, latent_dim=size, prior=FIXED, epochs=11)
        falls.append(own.means(["negative_elbo"], by="alpha")["negative_elbo"].reindex(rates).is_monotonic_increasing)
    return Verdict(all(each.higher for each in found) and all(falls), " ".join(
        f"{dataset}, {each.text}." for (dataset, _), each in zip(places, found, strict=True)))


@claim("learned-prior-gains", suite="paper")
def _(runs):
    own = runs.where(model="vsc", alpha=0.01, latent_dim=200, epochs=11, estimator="straight-through")
    found = together(*(against(own.where(dataset=dataset), {"prior": LEARNED}, {"prior": FIXED}, "negative_elbo",
                               names=(f"{dataset}, learned", "fixed")) for dataset in PICTURES))
    return Verdict(all(each.lower for each in found), in_words(*found),
                   {"least": f"{min(-each.amount for each in found):.0f}"})


@claim("warm-up-costs-dimensions", suite="paper")
def _(runs):
    found = against(codes_of(runs), WARMED, VSC, "used_dimensions", at={"latent_dim": [16, 50, 200]})
    return Verdict(found.lower, found.text)


@claim("softened-warm-up-adds-dimensions", suite="paper")
def _(runs):
    found = against(codes_of(runs), SOFTENED, VSC, "used_dimensions", at={"latent_dim": [50, 200]})
    return Verdict(found.higher, found.text)


@claim("softened-warm-up-no-better-bound", suite="paper")
def _(runs):
    found = against(codes_of(runs), SOFTENED, VSC, "negative_elbo", at={"latent_dim": [50, 200]})
    return Verdict(not any(test.difference < 0 and test.differs for test in found.tests), found.text)


@claim("long-warm-up-as-proposed", suite="paper")
def _(runs):
    warmed, plain = (runs.where(group=f"mnist/{name}-long-j50").frame for name in ("vsc-warmup", "vsc"))
    schedule = warmed[["first_warmth", "warmup_steps", "ramp_steps", "kl_ramp_steps"]].drop_duplicates().to_numpy()
    steps = runs.where(group="mnist/vsc-warmup-long-j50").histories["step"].max()
    left = (steps - 15000) / (warmed["decay"].max() * steps)  # of the largest step size, as it falls linearly to 0
    return Verdict(schedule.tolist() == [[0, 15000, 3000, 1]] and set(plain["kl_ramp_steps"]) == {1}
                   and set(warmed["epochs"]) == set(plain["epochs"]),
                   f"λ₀, steps at λ₀, steps of the rise, steps of the KL's ramp: {schedule.tolist()}; steps in all: "
                   f"{steps}; step size when λ begins to rise: {left:.0%} of the largest",
                   {"steps": f"{steps:,}", "left": f"{left:.0%}"})


@claim("long-warm-up-collapses", suite="paper")
def _(runs):
    sides = "mnist/vsc-warmup-long-j50", "mnist/vsc-long-j50"
    used, bound = together(*(against(runs, *sides, name, names=("long warm-up", "none"))
                             for name in ("used_dimensions", "negative_elbo")))
    most = int(runs.where(group=sides[0]).frame["used_dimensions"].max())
    return Verdict(most <= 2 and used.lower and bound.higher, in_words(used, bound),
                   {"most": ("none", "one", "two")[most] if most <= 2 else str(most), "nats": f"{bound.amount:.0f}",
                    "plain": f"{_mean(runs, sides[1], 'used_dimensions'):.0f}"})


@claim("long-warm-up-loses-early", suite="paper")
def _(runs):
    first = runs.where(group="mnist/vsc-warmup-long-j50").histories.query("epoch >= 5 and step <= 15000")
    return Verdict(first["train_used_dimensions"].max() <= 1,
                   f"Dimensions in use, epochs {first['epoch'].min()} to {first['epoch'].max()}, at most: "
                   f"{first['train_used_dimensions'].max():.0f}")


@claim("planes-kept", suite="paper")
def _(runs):
    kept = {group: runs.where(group=f"mnist/{group}").frame["used_dimensions"].tolist()
            for group in ("vae-j2", "vsc-j2", "vsc-warmup-j2")}
    behind = against(runs, "mnist/vsc-warmup-j2", "mnist/vsc-j2", "negative_elbo")
    return Verdict(list(kept.values()) == [[2, 2, 2], [2, 2, 2], [1, 1, 1]] and behind.higher,
                   f"In use, of two: {kept}. {behind.text}", {"behind": f"{behind.amount:.0f}"})


@claim("soft-spikes-off", suite="paper")
def _(runs):
    soft = runs.where(dataset="mnist", model="vsc", latent_dim=2, temperature=1.0).having("active_fraction").frame
    return Verdict(len(soft) == 3 and soft["active_fraction"].max() < 0.01,
                   f"A dimension is on for {100 * soft['active_fraction'].max():.2f}% of the observations at most")


@claim("smiley-vsc-keeps-bound", suite="paper")
def _(runs):
    vsc = runs.where(dataset="smiley", model="vsc")
    fixed, learned, dense = together(*(
        against(own, {"latent_dim": 60}, {"latent_dim": 18}, "negative_elbo", names=(f"{name}, J = 60,", "J = 18"))
        for own, name in ((vsc.where(prior=FIXED), "fixed prior"), (vsc.where(prior=LEARNED), "learned prior"),
                          (runs.where(dataset="smiley", model="vae"), "VAE"))))
    return Verdict(fixed.level and learned.lower and dense.higher, in_words(fixed, learned, dense))


@claim("neighbours-of-codes", suite="paper")
def _(runs):
    few, many = together(*(against(runs, "mnist/vsc-a0.2-j50", "mnist/vae-j50", f"cosine_{labels}",
                                   names=("VSC, α = 0.2,", "VAE")) for labels in (200, 5000)))
    shares = [f"{_mean(runs, f'mnist/{group}', 'cosine_200'):.0%}" for group in ("vsc-a0.2-j50", "vae-j50")]
    return Verdict(few.higher and many.level, in_words(few, many), dict(zip(("vsc", "vae"), shares, strict=True)))


@claim("weighted-neighbours", suite="paper")
def _(runs):
    budgets, groups = (200, 1000, 5000), {"vsc": "mnist/vsc-longer-j50", "vae": "mnist/vae-longer-j50"}
    few, some, many = together(*(against(runs, groups["vsc"], groups["vae"], f"weighted_{labels}",
                                         names=("VSC, 30 epochs,", "VAE")) for labels in budgets))
    return Verdict(few.higher and some.level and many.level, in_words(few, some, many),
                   {f"{side}_{labels}": f"{_mean(runs, group, f'weighted_{labels}'):.1%}"
                    for side, group in groups.items() for labels in budgets})


@claim("smiley-match-kept", suite="paper")
def _(runs):
    smiley = runs.where(dataset="smiley")
    kinds = smiley.frame[["model", "prior"]].drop_duplicates().to_dict("records")
    found = together(*(
        against(smiley.where(**kind), {"latent_dim": 60}, {"latent_dim": 18}, "matched_correlation",
                names=(" ".join(part for part in kind.values() if isinstance(part, str)) + ", J = 60,", "J = 18"))
        for kind in kinds))
    return Verdict(len(found) == 6 and all(each.amount > 0 for each in found), in_words(*found))


@claim("smiley-all-in-use", suite="paper")
def _(runs):
    smiley = runs.where(dataset="smiley").having("used_dimensions")
    parts = [smiley.where(model="vsc", prior=FIXED).frame, smiley.where(model="hybrid").frame]
    unused = [int((part["latent_dim"] - part["used_dimensions"]).max()) for part in parts]
    return Verdict(unused == [0, 0], f"Dimensions out of use, at most, of 18 and of 60: VSC {unused[0]}, "
                                     f"hybrid {unused[1]}")


@claim("smiley-learned-prior", suite="paper")
def _(runs):
    smiley = runs.where(dataset="smiley").having("negative_elbo", "used_dimensions")
    own = {"model": "vsc", "prior": LEARNED}
    used = smiley.where(**own).frame["used_dimensions"].max()
    larger = smiley.where(latent_dim=60)
    others = larger.where(run=lambda name: name not in set(larger.where(**own).frame["run"]))
    next_best = others.means(["negative_elbo"], by="group")["negative_elbo"].idxmin()
    found = against(larger, own, next_best, "negative_elbo")
    return Verdict(used < 18 and found.level, f"At most {used:.0f} dimensions in use; J = 60, {found.text}")


@claim("smiley-measures-disagree", suite="paper")
def _(runs):
    larger = runs.where(dataset="smiley", latent_dim=60)
    match, complete = together(*(
        against(larger, "vae", {"model": "vsc", "prior": LEARNED}, name, names=("VAE", "VSC, learned prior"))
        for name in ("matched_correlation", "dci_c")))
    return Verdict(match.higher and complete.lower, in_words(match, complete))


# --- Hybrid sparse VAE


@claim("hybrid-finds-frequencies", suite="hybrid")
def _(runs):
    groups = ["hybrid-linear", "hybrid-linear-normal", "vsc-fixed-a0.05-linear", "vsc-fixed-a0.05", "vae-j128"]
    found, errors = (_means(runs, "sinusoids", name, *groups) for name in ("frequency_f1", "mean_squared_error"))
    return Verdict(all((found[group] > 0.9) == (group in groups[:2]) and (found[group] < 0.3) == (group in groups[2:])
                       for group in groups)
                   and min(errors[group] for group in groups[:2]) > max(errors[group] for group in groups[2:]),
                   f"F1 of the frequencies: {_listed(found, '.2f')}. MSE: {_listed(errors)}")


@claim("gamma-is-not-what-matters", suite="hybrid")
def _(runs):
    ablation = runs.matching("sinusoids/hybrid-*")
    found = [against(ablation, "sinusoids/hybrid-linear-normal", "sinusoids/hybrid-linear",
                     measure, names=("normal magnitudes", "Gamma"))
             for measure in ("negative_elbo", "mean_squared_error")]
    return Verdict(all(each.level for each in found), in_words(*together(*found)))


@claim("what-matters", suite="hybrid")
def _(runs):
    def costs(variant, measure="negative_elbo"):
        return against(runs, f"sinusoids/hybrid-linear-{variant}", "sinusoids/hybrid-linear",
                       measure, names=(variant, "hybrid"))

    *bounds, atoms = together(*(costs(variant) for variant in ("sampled", "k-below-1", "loose")),
                              costs("loose", "used_dimensions"))
    whole = runs.where(group="sinusoids/hybrid-linear").frame["used_dimensions"].mean()
    enough = all(each.higher and each.amount > nats for each, nats in zip(bounds, (20, 50, 20), strict=True))
    return Verdict(enough and atoms.lower and -atoms.amount > whole / 3, in_words(*bounds, atoms))


@claim("weights-of-kls", suite="hybrid")
def _(runs):
    def changes(name, measure):
        return against(runs, f"sinusoids/hybrid-linear-beta-{name}", "sinusoids/hybrid-linear", measure,
                       names=(name, "1"))

    less, more = ("gamma-0.1", "gamma-0.3", "delta-0.3"), ("gamma-3.0", "delta-3.0")
    found = together(*(changes(name, measure) for measure in ("frequency_f1", "negative_elbo", "mean_squared_error")
                       for name in (*less, *more)))
    f1, bound, error = found[:3], found[5:8], found[10:13]
    return Verdict(all(each.level for each in found) and all(each.amount < 0 for each in f1)
                   and all(each.amount > 0 for each in (*bound, *error)), in_words(*found))


@claim("gamma-better-on-pictures", suite="hybrid")
def _(runs):
    found = together(*(against(runs, "mnist/hybrid-atoms", "mnist/hybrid-atoms-normal", measure,
                               names=("Gamma", "normal magnitudes"))
                       for measure in ("negative_elbo", "mean_squared_error")))
    return Verdict(all(each.lower for each in found), in_words(*found))


@claim("atoms-are-strokes", suite="hybrid")
def _(runs):
    smooth, spread = (_means(runs, "mnist", name, "hybrid-atoms", "vsc-atoms", "vae-atoms")
                      for name in ("feature_smoothness", "feature_spread"))
    return Verdict(min(smooth["hybrid-atoms"], smooth["vsc-atoms"]) > 1.5 * smooth["vae-atoms"]
                   and max(spread["hybrid-atoms"], spread["vsc-atoms"]) < 2 / 3 * spread["vae-atoms"],
                   f"Smoothness: {_listed(smooth, '.2f')}. Spread: {_listed(spread, '.2f')}")


@claim("dense-vae-best", suite="hybrid")
def _(runs):
    shown = runs.matching(["mnist/hybrid-atoms/*", "mnist/vsc-atoms/*", "mnist/vsc-gaussian/*", "mnist/vae-atoms/*"])
    table = shown.having("negative_elbo").frame.set_index("model")[["negative_elbo", "mean_squared_error"]]
    dense, others = table.loc[["vae"]], table.drop("vae")
    gain = others["negative_elbo"].min() - dense["negative_elbo"].max()
    errors = dense["mean_squared_error"].max(), others["mean_squared_error"].min()
    return Verdict(gain > 90 and errors[0] < errors[1], f"Its bound is {gain:.0f} nats better than that of any other "
                   f"run; MSE {errors[0]:.4f} against {errors[1]:.4f} at least")


@claim("not-at-their-end", suite="hybrid")
def _(runs):
    shown = runs.matching(["mnist/*-atoms/*", "mnist/vsc-gaussian/*"])
    epochs, falls = set(shown.frame["epochs"]), shown.convergence("train_total")["fall"]
    found = against(runs, "mnist/hybrid-atoms-long", "mnist/hybrid-atoms", "negative_elbo",
                    names=("20 epochs", "10 epochs"))
    longer = set(runs.where(group="mnist/hybrid-atoms-long").frame["epochs"])
    return Verdict(epochs == {10} and longer == {20} and falls.min() > 10 and -found.amount > 40,
                   f"{found.text}. Fall of the training loss in the tenth epoch, nats: {_listed(falls, '.0f')}")


@claim("random-dictionary-better", suite="hybrid")
def _(runs):
    sides = "mnist/hybrid-atoms-random", "mnist/hybrid-atoms"
    starts = [set(runs.where(group=side).frame["dictionary"]) for side in sides]
    found = together(*(against(runs, *sides, measure, names=("random", "observations"))
                       for measure in ("negative_elbo", "mean_squared_error")))
    return Verdict(starts == [{"random"}, {"data"}] and all(each.lower for each in found), in_words(*found))


@claim("more-atoms-better-bound", suite="hybrid")
def _(runs):
    groups = [f"hybrid-atoms{variant}" for variant in ("-presence-0.01", "-presence-0.03", "", "-presence-0.2")]
    shares = [set(runs.where(group=f"mnist/{group}").frame["prior_presence"]) for group in groups]
    atoms, bound, error = (_means(runs, "mnist", name, *groups, "hybrid-atoms-long")
                           for name in ("active_fraction", "negative_elbo", "mean_squared_error"))
    longer = [each.pop("hybrid-atoms-long") for each in (atoms, bound, error)]
    better = [{group: -mean for group, mean in each.items()} for each in (bound, error)]
    return Verdict(shares == [{0.01}, {0.03}, {0.05}, {0.2}] and _rises(atoms) and all(map(_rises, better))
                   and all(own < each[groups[-1]] for own, each in zip(longer, (atoms, bound, error), strict=True)),
                   f"Active: {_listed(atoms, '.1%')}. −ELBO (nats): {_listed(bound)}. MSE: {_listed(error)}. Twice the "
                   f"epochs: {longer[0]:.1%}, {longer[1]:.4g}, {longer[2]:.4g}")


@claim("hybrid-in-short", suite="hybrid")
def _(runs):
    frame = runs.where(group="mnist/hybrid-atoms").frame
    means = frame[["active_fraction", "latent_dim", "used_dimensions", "explained_variance"]].mean()
    active = means["active_fraction"] * means["latent_dim"]
    explained = f"{100 * means['explained_variance']:.0f}%"
    return Verdict(active < 26 and means["used_dimensions"] >= 251 and means["explained_variance"] > 0.85,
                   f"{active:.1f} of {means['latent_dim']:.0f} atoms for an observation, "
                   f"{means['used_dimensions']:.1f} in use, {explained} of the variance; {len(frame)} runs",
                   {"active": f"{active:.0f}", "explained": explained})


@claim("network-behind-vae", suite="hybrid", beside=["paper"])
def _(runs, paper):
    dense = paper.where(dataset="mnist", model="vae", latent_dim=200)
    bounds = [part.frame["negative_elbo"] for part in (runs.where(group="mnist/hybrid-network"), dense)]
    gap = bounds[0].mean() - bounds[1].mean()
    return Verdict(bounds[0].min() > bounds[1].max() and gap > 15,
                   f"−ELBO: hybrid {bounds[0].mean():.1f} nats (J = 256), VAE {bounds[1].mean():.1f} (J = 200)",
                   {"gap": f"{gap:.0f}"})


@claim("encoder-loses-twice", suite="hybrid")
def _(runs):
    means = runs.where(group="mnist/hybrid-atoms").having("refit_mse", "pursuit_mse").frame[
        ["mean_squared_error", "refit_mse", "pursuit_mse"]].mean()
    whole = means["mean_squared_error"] - means["pursuit_mse"]
    values = (means["mean_squared_error"] - means["refit_mse"]) / whole
    return Verdict(0.3 < values < 0.55,
                   f"MSE {means['mean_squared_error']:.4f}; {means['refit_mse']:.4f} with the values fitted anew; "
                   f"{means['pursuit_mse']:.4f} with as many atoms that a pursuit chooses",
                   {"values": f"{100 * values:.0f}%", "choice": f"{100 - 100 * values:.0f}%"})


@claim("small-shapes-pay", suite="hybrid")
def _(runs):
    found = together(*(against(runs, f"sinusoids/hybrid-amplitudes{many}-k-below-1",
                               f"sinusoids/hybrid-amplitudes{many}", measure,
                               names=(f"k at most 1, {signals} signals", "any k"))
                       for many, signals in (("", "2,000"), ("-many", "20,000"))
                       for measure in ("negative_elbo", "mean_squared_error")))
    return Verdict(all(each.lower for each in found), in_words(*found))


@claim("free-shapes-fail-twice", suite="hybrid")
def _(runs):
    few, many = (runs.where(group=f"sinusoids/hybrid-amplitudes{many}").having("mse_ratio").frame["mse_ratio"].mean()
                 for many in ("", "-many"))
    return Verdict(few > 3 and 0.8 < many < 1.2, "Error on test signals over that on training signals, any k: "
                   f"{few:.1f} with 2,000 signals, {many:.2f} with 20,000")


@claim("small-shapes-cost-in-noise", suite="hybrid")
def _(runs):
    found = against(runs, "sinusoids/hybrid-noise-k-below-1", "sinusoids/hybrid-noise",
                    "negative_elbo", names=("k at most 1", "any k"))
    return Verdict(found.higher, found.text)


# --- Exercises


@claim("l1-switches-units-off", suite="exercises")
def _(runs):
    weights = runs.matching("mnist/sparse-autoencoder-l1-w*/*").having("active_fraction", "used_dimensions")
    means = weights.means(["active_fraction", "used_dimensions"], by="sparsity_weight")
    active, used = 50 * means["active_fraction"], means["used_dimensions"]
    lost, off = active[1.0] - active[10.0], used[1.0] - used[10.0]
    return Verdict(0.35 < lost / active[1.0] < 0.45 and 0.8 * lost < off < 1.2 * lost and used.iloc[0] <= 49,
                   f"Units on for an observation: {active[1.0]:.1f} at the weight 1, {active[10.0]:.1f} at 10; units "
                   f"in use, of 50: {used[1.0]:.1f} and {used[10.0]:.1f}; {used.iloc[0]:.1f} at {used.index[0]:g}")


@claim("kl-weight-costs-little", suite="exercises")
def _(runs):
    errors = runs.matching("mnist/sparse-autoencoder-kl-w*/*").having("mean_squared_error").means(
        ["mean_squared_error"], by="sparsity_weight")["mean_squared_error"]
    small = errors.loc[0.001:10]
    return Verdict(len(small) > 2 and small.max() / small.min() < 1.1 and 1.15 < errors[1000] / errors.min() < 1.25,
                   "MSE: " + "; ".join(f"{error:.5f} with {weight:g}" for weight, error in errors.items()))


@claim("kl-weights", suite="exercises")
def _(runs):
    rates = runs.matching(["mnist/sparse-autoencoder-kl-r*/*", "!mnist/sparse-autoencoder-kl-r*-w*/*"]).frame
    weights = {rate: sorted(set(rows["sparsity_weight"])) for rate, rows in rates.groupby("target_rate")}
    return Verdict(weights == {0.01: [1000], 0.03: [1000], 0.1: [100], 0.3: [100]},
                   "; ".join(f"rate {rate}: {each}" for rate, each in weights.items()))


TEXTBOOK = {"dataset": "mnist", "model": "sparse-autoencoder-kl", "target_rate": 0.05}


@claim("textbook-nats", suite="exercises")
def _(runs):
    mean = _mean(runs, "mnist/sparse-autoencoder-kl-r0.05-w0.1", "mean_activation")
    idle = against(runs, *({"dataset": "mnist", "model": "sparse-autoencoder-l1", "decoder": "network",
                            "sparsity_weight": weight} for weight in (0.01, 0.0001)), "active_fraction",
                   names=("L1 with λ = 0.01", "λ = 0.0001"))
    return Verdict(mean > 0.3 and idle.level, f"Mean activation under KL: {mean:.3f}. {in_words(idle)}",
                   {"mean": f"{mean:.2f}"})


@claim("textbook-pair", suite="exercises")
def _(runs):
    l1 = {"dataset": "mnist", "model": "sparse-autoencoder-l1", "sparsity_weight": 6.5}
    error, hoyer = together(*(against(runs, l1, TEXTBOOK | {"sparsity_weight": 3000.0}, name, names=("L1", "KL"))
                              for name in ("mean_squared_error", "hoyer")))
    rate = _mean(runs, "mnist/sparse-autoencoder-kl-r0.05-w3000.0", "mean_activation")
    times = _mean(runs, "mnist/sparse-autoencoder-l1-w6.5", "hoyer") / _mean(
        runs, "mnist/sparse-autoencoder-kl-r0.05-w3000.0", "hoyer")
    dead = _mean(runs, "mnist/sparse-autoencoder-l1-w6.5", "dead_fraction")
    return Verdict(error.level and hoyer.higher and 4.5 < times < 5.5 and abs(rate - 0.05) < 0.0005
                   and 0.35 < dead < 0.45,
                   f"{in_words(error, hoyer)}. Mean activation under KL {rate:.4f}; dead units of L1 {dead:.0%}")


@claim("l1-and-kl", suite="exercises")
def _(runs):
    pair = "mnist/sparse-autoencoder-l1-w6.5", "mnist/sparse-autoencoder-kl-r0.05-w3000.0"
    names = ["mean_squared_error", "hoyer", "dead_fraction", "selectivity", "cosine_200", "logistic_5000",
             "psnr_gain_salt_and_pepper"]
    error, hoyer, dead, selectivity, neighbours, linear, noise = found = together(
        *(against(runs, *pair, name, names=("L1", "KL")) for name in names))
    values = {}
    for name in names:
        measure, means = find_measure(name), [_mean(runs, group, name) for group in pair]
        factor, digits = (1000, 1) if name == "mean_squared_error" else (measure.scale, measure.digits)
        for side, mean in zip(("l1", "kl"), means, strict=True):
            values[f"{side}_{name}"] = f"{factor * mean:.{digits}f}"
    return Verdict(error.level and all(each.higher for each in (hoyer, dead, selectivity, neighbours))
                   and linear.lower and noise.lower, in_words(*found), values)


@claim("equal-sparseness", suite="exercises")
def _(runs):
    l1 = {"dataset": "mnist", "model": "sparse-autoencoder-l1", "sparsity_weight": 0.1}
    kl = {"dataset": "mnist", "model": "sparse-autoencoder-kl", "target_rate": 0.01}
    hoyer, error = together(*(against(runs, l1, kl, name, names=("L1 with λ = 0.1", "KL with ρ = 0.01"))
                              for name in ("hoyer", "mean_squared_error")))
    return Verdict(hoyer.level and error.lower, in_words(hoyer, error))


@claim("error-falls-with-units", suite="exercises")
def _(runs):
    atoms = runs.matching("mnist/*-atoms-j*/*")
    falls = together(*(against(atoms, {"model": model, "latent_dim": larger}, {"model": model, "latent_dim": smaller},
                               "mean_squared_error", names=(f"{name}, J = {larger}", f"J = {smaller}"))
                       for model, name in {"topk": "TopK", "batchtopk": "BatchTopK",
                                           "sparse-autoencoder-l1": "L1"}.items()
                       for smaller, larger in itertools.pairwise([64, 128, 256, 512, 1024])))
    return Verdict(all(each.lower for each in falls), in_words(*falls))


@claim("rougher-features", suite="exercises")
def _(runs):
    means = {model: runs.matching(f"mnist/{model}-atoms-j*/*").means(
        ["feature_spread", "feature_smoothness"], by="latent_dim").loc[[64, 1024]] for model in
        ("topk", "batchtopk", "sparse-autoencoder-l1")}
    left = {model: each.loc[1024] / each.loc[64] for model, each in means.items()}
    return Verdict(all(0.75 < each["feature_spread"] < 0.85 and each["feature_smoothness"] < 0.7
                       for each in left.values()), "; ".join(
        f"{model}: spread {each['feature_spread'][64]:.3f} and {each['feature_spread'][1024]:.3f}, smoothness "
        f"{each['feature_smoothness'][64]:.3f} and {each['feature_smoothness'][1024]:.3f}"
        for model, each in means.items()))


@claim("units-out-of-use", suite="exercises")
def _(runs):
    groups = [f"{model}-atoms-j1024" for model in ("topk", "batchtopk")]
    used = {group: share / 1024 for group, share in _means(runs, "mnist", "used_dimensions", *groups).items()}
    dead = _means(runs, "mnist", "dead_fraction", *groups)
    return Verdict(max(used.values()) < 0.4 and 0.25 < dead[groups[0]] < 0.5 < dead[groups[1]],
                   f"In use: {_listed(used, '.0%')}. Dead: {_listed(dead, '.0%')}")


@claim("jumprelu-squared-error", suite="exercises")
def _(runs):
    frame = runs.matching("mnist/*-j50/*").frame
    own = frame["model"].isin(["jumprelu", "gated"])
    likelihoods = [sorted(set(frame["likelihood"][rows])) for rows in (own, ~own)]
    return Verdict(likelihoods == [["gaussian"], ["bernoulli"]],
                   f"Likelihoods: {likelihoods[0]} against {likelihoods[1]}")


@claim("few-on-selective", suite="exercises")
def _(runs):
    few, dense = ["hybrid", "topk", "batchtopk", "matryoshka"], ["autoencoder", "vae"]
    fifty = runs.matching("mnist/*-j50/*")
    found = together(*(against(fifty, one, other, "selectivity") for one in few for other in dense))
    active = {model: _mean(fifty, f"mnist/{model}-j50", "active_fraction") for model in few}
    means = {model: _mean(fifty, f"mnist/{model}-j50", "selectivity") for model in few + dense}
    return Verdict(all(each.higher for each in found) and max(active.values()) < 0.11
                   and min(means[model] for model in few) > 3 * max(means[model] for model in dense),
                   f"{in_words(*found)}. Active: {_listed(active, '.1%')}")


@claim("most-selective-units", suite="exercises")
def _(runs):
    units = runs.matching("mnist/*-j50/*").units()
    indices = units[units["rate"] >= 0.01].groupby("model")["selectivity"]
    most = indices.max()[["hybrid", "topk", "vsc"]]
    least = indices.min()[["autoencoder", "vae"]]
    return Verdict(most.min() > 0.95 and least.max() < 0.1,
                   f"The most selective: {_listed(most, '.2f')}. The least: {_listed(least, '.2f')}")


@claim("entries-of-fifty", suite="exercises")
def _(runs):
    needed = {model: _mean(runs, f"mnist/{model}-j50", "entries_needed")
              for model in ("hybrid", "topk", "autoencoder", "sparse-autoencoder-kl")}
    errors = {model: _mean(runs, f"mnist/{model}-j50", "mean_squared_error")
              for model in ("hybrid", "topk", "autoencoder")}
    return Verdict(needed["hybrid"] == needed["topk"] == 5
                   and needed["autoencoder"] == needed["sparse-autoencoder-kl"] > 40
                   and min(errors["hybrid"], errors["topk"]) > 5 * errors["autoencoder"],
                   f"Entries until the error is within 10% of that of the whole code: {_listed(needed)}. "
                   f"MSE of the whole code: {_listed(errors)}",
                   {group: f"{mean:.0f}" for group, mean in needed.items()})


@claim("few-entries", suite="report")
def _(runs):
    needed = _means(runs, "mnist", "entries_needed", "topk", "batchtopk", "hybrid", "vsc", "vae", "autoencoder")
    return Verdict(needed["topk"] < needed["batchtopk"] < needed["hybrid"] < needed["vsc"] < 16
                   and needed["vae"] == needed["autoencoder"] == 16,
                   f"Entries until the error is within 10% of that of the whole code, of 16: {_listed(needed)}",
                   {name: f"{needed[name]:.0f}" for name in ("topk", "vsc")})


# --- Finance


def _of_markets(runs, first, second, name, **options):
    """A comparison over the simulated markets, each of which both methods saw."""
    return against(runs.where(dataset="returns"), first, second, name, paired=True, **options)


ROTATIONS = {"factor-analysis": "varimax", "sparse-pca": "sparse PCA"}
WIDE_VSC = {"model": "vsc", "latent_dim": 16}


@claim("switches-find-factors", suite="exercises")
def _(runs):
    found = together(*(_of_markets(runs, WIDE_VSC, {"model": model, "latent_dim": size}, "matched_correlation",
                                   names=("VSC, J = 16", f"{model}, J = {size}"))
                       for model in ("vae", "topk") for size in (8, 16)))
    means = {group: _mean(runs, f"returns/{group}-j16", "matched_correlation") for group in ("vsc", "vae")}
    return Verdict(all(each.higher for each in found), in_words(*found),
                   {group: f"{mean:.2f}" for group, mean in means.items()})


@claim("rotations-find-factors", suite="exercises")
def _(runs):
    found = together(*(_of_markets(runs, {"model": model, "latent_dim": 8}, WIDE_VSC, "matched_correlation",
                                   names=(name, "VSC, J = 16")) for model, name in ROTATIONS.items()))
    return Verdict(all(each.level for each in found), in_words(*found))


@claim("rotations-date-factors", suite="exercises")
def _(runs):
    found = together(*(_of_markets(runs, {"model": model, "latent_dim": 8}, WIDE_VSC, name,
                                   names=(word, "VSC, J = 16"))
                       for model, word in ROTATIONS.items() for name in ("awake_f1_robust", "awake_ap")))
    level = together(*(_of_markets(runs, {"model": model, "latent_dim": 8}, WIDE_VSC, "awake_f1_at_rate",
                                   names=(word, "VSC, J = 16")) for model, word in ROTATIONS.items()))
    own = _mean(runs, "returns/vsc-j16", "awake_f1")
    rotated = _mean(runs, "returns/factor-analysis-j8", "awake_f1_robust")
    return Verdict(all(each.higher for each in found) and all(each.level for each in level) and rotated > own,
                   f"{in_words(*found, *level)}. F1 of VSC's own zeros: {own:.3f}",
                   {"own": f"{own:.2f}", "rotated": f"{rotated:.2f}"})


@claim("more-dimensions-not-settled", suite="exercises")
def _(runs):
    found = together(*(_of_markets(runs, {"model": model, "latent_dim": 16}, {"model": model, "latent_dim": 8},
                                   "matched_correlation", names=(f"{name}, J = 16", "J = 8"))
                       for model, name in {"vsc": "VSC", "hybrid": "hybrid"}.items()))
    return Verdict(all(each.level and each.amount > 0 for each in found), in_words(*found))


@claim("vaease-between", suite="exercises")
def _(runs):
    found = together(*(_of_markets(runs, {"model": first, "latent_dim": 16}, {"model": second, "latent_dim": 16},
                                   "matched_correlation", names=(first, second))
                       for first, second in (("vsc", "vaease"), ("vaease", "vae"))))
    return Verdict(all(each.higher for each in found), in_words(*found))


@claim("loadings-of-sparse-methods", suite="exercises")
def _(runs):
    groups = ["hybrid-j16", "vsc-j16", "matching-pursuit-j8", "sparse-pca-j8", "factor-analysis-j8", "vae-j16",
              "pca-j8"]
    means = _means(runs, "returns", "assets_ap", *groups)
    return Verdict(min(means[group] for group in groups[:5]) > 0.98 > 0.8 > max(means[group] for group in groups[5:]),
                   f"Average precision of the assets: {_listed(means, '.3f')}")


@claim("switches-explain-less", suite="exercises")
def _(runs):
    found = together(*(_of_markets(runs, {"model": model}, "vae", "explained_variance", at={"latent_dim": [8, 16]})
                       for model in ("vsc", "hybrid", "topk", "matching-pursuit")))
    return Verdict(all(each.lower for each in found), in_words(*found))


@claim("rotations-cost-little", suite="exercises")
def _(runs):
    explained = _means(runs, "returns", "explained_variance", "pca-j8", *(f"{model}-j8" for model in ROTATIONS))
    return Verdict(min(explained[f"{model}-j8"] for model in ROTATIONS) > 0.98 * explained["pca-j8"],
                   f"Explained variance: {_listed(explained, '.3f')}")


@claim("one-sided", suite="exercises")
def _(runs):
    found = _of_markets(runs, "matching-pursuit", "topk", "matched_correlation", at={"latent_dim": [8, 16]},
                        names=("matching pursuit", "TopK"))
    return Verdict(found.higher, in_words(found))


# --- Conclusions and limitations


@claim("dense-ahead", suite="report")
def _(runs):
    datasets = [*PICTURES, "smiley", "uci-har", "sinusoids", "returns"]
    found = together(*(against(runs, f"{dataset}/autoencoder", f"{dataset}/{model}", "mean_squared_error",
                               paired=dataset == "returns") for dataset in datasets for model in ("vsc", "hybrid")))
    best = {dataset: _best(runs, "negative_elbo", dataset)[0] for dataset in datasets}
    dense = [name for name in best.values() if name in ("vae", "beta-vae")]
    return Verdict(len(dense) == 4 and all(each.lower for each in found),
                   f"By data set, {', '.join(datasets)}: {in_words(*found)}. The best bound: "
                   + "; ".join(f"{dataset}: {name}" for dataset, name in best.items()))


@claim("sparse-prior-costs", suite="report")
def _(runs):
    datasets = [*PICTURES, "returns"]
    found = together(*(against(runs, f"{dataset}/{model}", f"{dataset}/vae", "mean_squared_error",
                               paired=dataset == "returns") for dataset in datasets for model in ("vsc", "hybrid")))
    errors = [_means(runs, dataset, "mean_squared_error", "vae", "vsc", "hybrid") for dataset in datasets]
    more = min(min(each["vsc"], each["hybrid"]) / each["vae"] - 1 for each in errors)
    return Verdict(all(each.higher for each in found) and more > 0.2,
                   f"By data set, {', '.join(datasets)}: {in_words(*found)}", {"least": f"{100 * more:.0f}%"})


@claim("sparse-prior-elsewhere", suite="report")
def _(runs):
    *vsc, smiley, sinusoids = found = together(*(
        against(runs, f"{dataset}/{model}", f"{dataset}/vae", "mean_squared_error")
        for model in ("vsc", "hybrid") for dataset in ("smiley", "sinusoids")))
    return Verdict(all(each.level for each in vsc) and smiley.higher and sinusoids.higher,
                   "Smiley, then sinusoids, " + in_words(*found))


@claim("learned-prior-samples", suite="paper")
def _(runs):
    told, covered = found = together(*(against(
        runs.where(dataset="mnist", model="vsc", alpha=0.01, estimator="straight-through", choice="optimal", epochs=11),
        {"prior": LEARNED}, {"prior": FIXED}, name, at={"latent_dim": [8, 16, 200]})
        for name in ("sample_detection", "sample_recall")))
    return Verdict(told.lower and covered.higher, in_words(*found))


@claim("large-codes-not-in-use", suite="paper")
def _(runs):
    most = [int(codes_of(runs, dataset).where(model="vsc", latent_dim=200).having("active_units").frame[
        "active_units"].max()) for dataset in PICTURES]
    return Verdict(max(most) < 70, f"Active units, of 200, at most: MNIST {most[0]}, Fashion-MNIST {most[1]}",
                   {"most": str(max(most))})


@claim("l1-or-kl", suite="report")
def _(runs):
    datasets = [*PICTURES, "smiley", "uci-har", "sinusoids", "returns"]
    found = together(*(against(runs, f"{dataset}/sparse-autoencoder-kl", f"{dataset}/{model}", measure,
                               paired=dataset == "returns")
                       for measure, model in (("hoyer", "autoencoder"), ("hoyer", "sparse-autoencoder-l1"),
                                              ("mean_squared_error", "sparse-autoencoder-l1"))
                       for dataset in datasets))
    unsure = [(measure, dataset) for (measure, dataset), each in zip(itertools.product(
        ("autoencoder", "hoyer", "mean_squared_error"), datasets), found, strict=True) if not each.lower]
    expected = [("hoyer", "mnist"), ("mean_squared_error", "mnist"), ("mean_squared_error", "uci-har")]
    return Verdict(unsure == expected and all(each.amount < 0 for each in found),
                   f"By data set, {', '.join(datasets)}: {in_words(*found)}")


@claim("small-shapes-two-ways", suite="hybrid")
def _(runs):
    costs, pays = together(
        against(runs, "sinusoids/hybrid-linear-k-below-1", "sinusoids/hybrid-linear",
                "negative_elbo", names=("sinusoids, k at most 1", "any k")),
        against(runs, "sinusoids/hybrid-amplitudes-many-k-below-1",
                "sinusoids/hybrid-amplitudes-many", "negative_elbo",
                names=("amplitudes of shape ½, k at most 1", "any k")))
    return Verdict(costs.higher and pays.lower, in_words(costs, pays))


# --- How sure are we?


def _compared(runs):
    """The runs on MNIST that chose the step size of the comparison of all models."""
    return runs.where(dataset="mnist", backbone=["auto", "conv"], latent_dim=16, model=lambda name: name != "gated")


@claim("larger-steps", suite="selection")
def _(runs):
    losses = _compared(runs).having("loss").means(["loss"], by=["title", "learning_rate"])["loss"].unstack()
    gains = (losses[0.002] - losses[0.004]).dropna()
    worse = [title for title in gains.index if gains[title] <= 0]
    return Verdict(len(gains) >= 10 and len(worse) == 1 and "WU" in worse[0],
                   "Validation loss at 0.002 minus that at 0.004, nats: "
                   + "; ".join(f"{title} {gain:.1f}" for title, gain in gains.items()))


@claim("larger-steps-wide", suite="selection")
def _(runs):
    wide = runs.matching("mnist/v*-mlp-j*-lr*").having("negative_elbo").frame
    steps = wide.pivot_table(index=["model", "latent_dim"], columns="learning_rate", values="negative_elbo")
    told = "; ".join(f"{model}, J = {size}, {row[0.004]:.1f} and {row[0.002]:.1f}"
                     for (model, size), row in steps.iterrows())
    return Verdict(len(steps) == 4 and bool((steps[0.004] < steps[0.002]).all()), f"−ELBO with 0.004 and 0.002: {told}")


@claim("larger-steps-penalties", suite="selection")
def _(runs):
    losses = {}
    for model in ("sparse-autoencoder-l1", "sparse-autoencoder-kl"):
        own = runs.where(dataset="mnist", model=model, latent_dim=50).frame.sort_values("learning_rate")
        losses[model] = dict(zip(own["learning_rate"], own["loss"], strict=True))
    return Verdict(all(list(each) == [0.002, 0.004, 0.008] and _rises({step: -loss for step, loss in each.items()})
                       for each in losses.values()), ". ".join(
        f"{model}, loss at steps of {', '.join(map(str, each))}: {', '.join(f'{loss:.1f}' for loss in each.values())}"
        for model, each in losses.items()))


@claim("steps-of-signals", suite="selection", beside=["report"])
def _(runs, taken):
    others = {}
    for dataset in ("uci-har", "sinusoids"):
        step, = set(taken.where(dataset=dataset).frame["learning_rate"])
        losses = runs.where(dataset=dataset, latent_dim=18).means(["loss"], by=["model", "learning_rate"])["loss"]
        losses = losses.unstack()
        best = losses.idxmin(axis=1)
        others[dataset] = len(losses), losses.shape[1], {model: each for model, each in best.items() if each != step}
    return Verdict(others["uci-har"] == (5, 3, {}) and others["sinusoids"] == (5, 3, {"hybrid": 0.004}), "; ".join(
        f"{dataset}: {models} models, {steps} steps, another one best for {dict(other) or 'none'}"
        for dataset, (models, steps, other) in others.items()))


@claim("fewest-atoms-taken", suite="selection", beside=["hybrid"])
def _(runs, hybrid):
    tried = runs.where(model="hybrid", decoder="linear", dataset="mnist", epochs=10, learning_rate=0.004).frame
    study = hybrid.where(group="mnist/hybrid-atoms").frame.iloc[0]
    taken = tried["run"][(tried["dictionary"] == study["dictionary"])
                         & (tried["prior_presence"] == study["prior_presence"])].tolist()
    active, bounds = (tried.set_index("run")[name] for name in ("active_fraction", "negative_elbo"))
    return Verdict(len(tried) > 2 and taken == [active.idxmin()] == [bounds.idxmax()],
                   f"The study's: {', '.join(taken)}. Active: {_listed(active, '.1%')}. −ELBO (nats): "
                   f"{_listed(bounds)}")


@claim("seeds-of-studies", suite="paper", beside=["hybrid", "exercises"])
def _(*studies):
    shares = {}
    for name, runs in zip(("paper", "hybrid", "exercises"), studies, strict=True):
        trained = runs.frame[~runs.frame["model"].isin(["cosines", "sinusoids"])]
        shares[name] = (trained.groupby("group")["seed"].nunique() >= 3).mean()
    return Verdict(min(shares.values()) > 0.9, f"Models with three seeds or more: {_listed(shares, '.0%')}")


@claim("precisions-mixed", suite="report", beside=["exercises", "hybrid", "paper"])
def _(runs, exercises, hybrid, paper):
    first, others = (set(_sixteen(runs, ["mnist", "smiley"]).where(seed=seeds).precisions)
                     for seeds in (0, [1, 2, 3, 4]))
    later = {"matching pursuit": runs.where(model="matching-pursuit"),
             "VAEase in finance": exercises.where(dataset="returns", model="vaease"),
             "weights of divergences": hybrid.matching("sinusoids/hybrid-linear-beta-*"),
             "planes": paper.where(latent_dim=2, epochs=11, seed=[1, 2]),
             "atoms of the VAE": hybrid.matching("*/vae-atoms/*").where(seed=[1, 2])}
    later = {name: set(each.precisions) for name, each in later.items()}
    return Verdict(first == {"bfloat16"} and others == {"float32"} and all(each == others for each in later.values()),
                   f"Seed 0: {first}, others: {others}; {later}")


@claim("precision-not-told", suite="hybrid")
def _(runs):
    sides = ["sinusoids/hybrid-linear-float32", "sinusoids/hybrid-linear"]
    found = together(*(against(runs, *sides, measure, names=("float32", "bfloat16"))
                       for measure in ("negative_elbo", "mean_squared_error")))
    precisions = [set(runs.where(group=side).precisions) for side in sides]
    return Verdict(precisions == [{"float32"}, {"bfloat16"}] and all(each.level for each in found), in_words(*found))


@claim("nearly-converged", suite="selection")
def _(runs):
    compared = _compared(runs).where(learning_rate=0.004)
    falls = compared.convergence()["fall"]
    return Verdict(falls.max() < 1 and set(compared.frame["epochs"]) == {12},
                   f"Fall of the validation loss in the last epoch, nats: {_listed(falls, '.2f')}",
                   {"most": f"{falls.max():.1f}"})


@claim("not-converged", suite="selection")
def _(runs):
    found = _compared(runs).where(learning_rate=0.004).convergence().query("n > 1")
    marked = found.index[found["not_converged"]]
    return Verdict(len(found) == 12 and len(marked) > len(found) / 2,
                   "Fall in the last epoch and standard error over seeds, nats: " + "; ".join(
                       f"{row.Index} {row.fall:.2f} and {row.error:.2f}" for row in found.itertuples()),
                   {"count": str(len(marked)), "of": str(len(found)), "models": "; ".join(marked)})


@claim("dictionaries-still-fall", suite="selection")
def _(runs):
    atoms = runs.where(dataset="mnist", decoder="linear", latent_dim=256, epochs=5, learning_rate=0.004)
    falls = atoms.convergence(by="title")["fall"]
    return Verdict(falls.min() > 5, "Fall of the validation loss in the fifth epoch, nats: " + "; ".join(
        f"{title} {fall:.0f}" for title, fall in falls.items()),
        {"least": f"{falls.min():.0f}", "most": f"{falls.max():.0f}"})


# --- Reproduce this report


@claim("hours-of-training", suite="report", beside=["paper", "hybrid", "exercises"])
def _(*suites):
    hours = sum(runs.frame["seconds"].sum() for runs in suites) / 3600
    return Verdict(20 < hours < 30, f"{sum(len(runs.frame) for runs in suites)} runs, {hours:.1f} hours",
                   {"hours": f"{hours:.0f}"})
