"""The checks of the sentences that the chapters mark as claims, in the order of the chapters.

Each gets the published runs of its suite and says whether its sentence is true of them, with the numbers. See
:mod:`sparse_vae.report.claims`; `make check` names a sentence that does not hold.
"""

import itertools

from sparse_vae.report.claims import Verdict, against, claim, in_words, published_runs, together
from sparse_vae.report.suites import project_root

FIXED, LEARNED = "fixed", "pseudo-inputs"  # VSC's priors


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
    frame = runs.where(dataset="fashion-mnist").frame
    sparse = ["sparse-autoencoder-l1", "sparse-autoencoder-kl", "topk", "batchtopk", "jumprelu"]
    small = frame["model"].isin(sparse) & (frame["latent_dim"] == 64)
    careful = frame["model"].isin(["topk", "batchtopk"]) & (frame["latent_dim"] == 1024)
    epochs = [sorted(set(frame["epochs"][rows])) for rows in (small, ~small)]
    rates = [sorted(set(frame["learning_rate"][rows])) for rows in (careful, ~careful)]
    return Verdict(epochs == [[8], [5]] and max(rates[0]) < min(rates[1]),
                   f"Epochs: {epochs[0]} against {epochs[1]}; learning rates: {rates[0]} against {rates[1]}")


# --- Variational autoencoders


@claim("beta-vae-fewer-dimensions", suite="paper")
def _(runs):
    mnist, fashion = together(*(
        against(runs.where(dataset=dataset), "beta-vae", "vae", "used_dimensions", at={"latent_dim": sizes})
        for dataset, sizes in {"mnist": [16, 50, 200], "fashion-mnist": [8, 16, 50, 200]}.items()))
    return Verdict(mnist.lower and fashion.lower, f"MNIST, {mnist.text}. Fashion-MNIST, {fashion.text}")


# --- Variational sparse coding


@claim("softest-spikes-worst-bound", suite="paper")
def _(runs):
    trained = runs.matching("mnist/vsc-*-t*/*").having("negative_elbo", "used_dimensions")
    worst, second = trained.means(["negative_elbo"], by="group")["negative_elbo"].nlargest(2).index
    found = against(trained, {"group": worst}, {"group": second}, "negative_elbo",
                    names=("the worst, " + worst.split("/")[1], "the next, " + second.split("/")[1]))
    softest = trained.where(estimator="scaled-sigmoid", temperature=1.0).frame
    used = softest["used_dimensions"].max()
    return Verdict(set(softest["group"]) == {worst} and found.higher and used == 0,
                   f"{found.text}; dimensions in use with sharpness 1: {used:.0f}")


# --- Experiments


PICTURES = ["mnist", "fashion-mnist"]


def _sixteen(runs, dataset):
    """The runs of the comparison on a data set, without the planes."""
    return runs.where(dataset=dataset, latent_dim=lambda size: size > 2)


def _best(runs, name, dataset):
    """The group with the smallest mean of a measure, and the means in words."""
    means = _sixteen(runs, dataset).having(name).means([name], by="group")[name].sort_values()
    return means.index[0].split("/")[1], f"{dataset}: " + "; ".join(
        f"{group.split('/')[1]} {value:.4g}" for group, value in means.iloc[:4].items())


@claim("best-bounds-sixteen", suite="site")
def _(runs):
    (first, numbers), (second, others) = (_best(runs, "negative_elbo", dataset) for dataset in PICTURES)
    return Verdict((first, second) == ("vae", "vsc"), f"−ELBO (nats), the smallest. {numbers}. {others}")


@claim("autoencoder-reconstructs-best", suite="site")
def _(runs):
    (first, numbers), (second, others) = (_best(runs, "mean_squared_error", dataset) for dataset in PICTURES)
    return Verdict(first == second == "autoencoder", f"MSE, the smallest. {numbers}. {others}")


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


@claim("beta-vae-pays", suite="site")
def _(runs):
    wide = runs.where(model=["vae", "beta-vae"], latent_dim=lambda size: size > 2)
    found = together(*(against(wide, "beta-vae", "vae", measure, at={"dataset": [*PICTURES, "smiley"]})
                       for measure in ("negative_elbo", "mean_squared_error", "used_dimensions")))
    return Verdict(found[0].higher and found[1].higher and found[2].lower, in_words(*found))


@claim("beta-helps-on-new-people", suite="site")
def _(runs):
    found = against(runs.where(dataset="uci-har"), "beta-vae", "vae", "negative_elbo")
    return Verdict(found.lower, found.text)


@claim("topk-entries-not-local", suite="site")
def _(runs):
    found = against(_sixteen(runs, "mnist"), "topk", "vae", "entry_extent")
    return Verdict(found.higher, f"Extent of an entry: {found.text}")


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
    return Verdict(by_psnr > all_models / 2 and by_ssim <= 1,
                   f"Of {all_models} models {by_psnr} gain by PSNR, {by_ssim} by SSIM")


# --- Sparse coding, measured

VSC = {"model": "vsc", "prior": LEARNED, "alpha": 0.01, "estimator": "straight-through"}
WARMED = {"model": "vsc-warmup", "prior": LEARNED, "first_warmth": 0.0}
SOFTENED = {"model": "vsc-warmup", "prior": LEARNED, "first_warmth": 0.5}


@claim("vae-best-bound-mnist", suite="paper")
def _(runs):
    mnist = runs.where(dataset="mnist").matching(["*-j*"]).having("negative_elbo")
    means = mnist.means(["negative_elbo"], by=["latent_dim", "group"])["negative_elbo"]
    best = [key[1].split("/")[1] for key in means.groupby("latent_dim").idxmin()]
    lower, level = (against(mnist, "vae", VSC, "negative_elbo", at={"latent_dim": sizes})
                    for sizes in ([2, 8, 16, 50], [200]))
    return Verdict(all(name.startswith("vae-") for name in best) and lower.lower and level.level,
                   in_words(*together(lower, level)))


@claim("vsc-overtakes-fashion", suite="paper")
def _(runs):
    fashion = runs.where(dataset="fashion-mnist")
    smaller, largest = together(*(against(fashion, "vae", VSC, "negative_elbo", at={"latent_dim": sizes})
                                  for sizes in ([8, 16, 50], [200])))
    return Verdict(smaller.lower and largest.higher, in_words(smaller, largest))


@claim("warm-up-costs-dimensions", suite="paper")
def _(runs):
    mnist = runs.where(dataset="mnist")
    found = against(mnist, WARMED, VSC, "used_dimensions", at={"latent_dim": [16, 50, 200]})
    return Verdict(found.lower, found.text)


@claim("softened-warm-up-adds-dimensions", suite="paper")
def _(runs):
    mnist = runs.where(dataset="mnist")
    found = against(mnist, SOFTENED, VSC, "used_dimensions", at={"latent_dim": [50, 200]})
    return Verdict(found.higher, found.text)


@claim("soft-spikes-off", suite="paper")
def _(runs):
    soft = runs.where(dataset="mnist", model="vsc", latent_dim=2, temperature=1.0).having("used_dimensions").frame
    return Verdict(soft["used_dimensions"].max() == 0,
                   f"Of 2 dimensions {soft['used_dimensions'].max():.0f} are on for 1% of the observations or more; on "
                   f"average one is on for {100 * soft['active_fraction'].max():.2f}%")


@claim("smiley-vsc-keeps-bound", suite="paper")
def _(runs):
    vsc = runs.where(dataset="smiley", model="vsc")
    fixed, learned = together(*(
        against(vsc, {"prior": prior, "latent_dim": 60}, {"prior": prior, "latent_dim": 18}, "negative_elbo",
                names=(f"{name} prior, J = 60,", "J = 18"))
        for prior, name in ((FIXED, "fixed"), (LEARNED, "learned"))))
    return Verdict(fixed.level and learned.lower, in_words(fixed, learned))


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
    found = against(larger, own, {"group": next_best}, "negative_elbo")
    return Verdict(used < 18 and found.lower, f"At most {used:.0f} dimensions in use; J = 60, {found.text}")


# --- Hybrid sparse VAE


@claim("gamma-is-not-what-matters", suite="hybrid")
def _(runs):
    ablation = runs.matching("sinusoids/hybrid-*")
    found = [against(ablation, {"group": "sinusoids/hybrid-linear-normal"}, {"group": "sinusoids/hybrid-linear"},
                     measure, names=("normal magnitudes", "Gamma"))
             for measure in ("negative_elbo", "mean_squared_error")]
    return Verdict(all(each.level for each in found), in_words(*together(*found)))


@claim("what-matters", suite="hybrid")
def _(runs):
    def costs(variant, measure="negative_elbo"):
        return against(runs, {"group": f"sinusoids/hybrid-linear-{variant}"}, {"group": "sinusoids/hybrid-linear"},
                       measure, names=(variant, "hybrid"))

    *bounds, atoms = together(*(costs(variant) for variant in ("sampled", "k-below-1", "loose")),
                              costs("loose", "used_dimensions"))
    whole = runs.where(group="sinusoids/hybrid-linear").frame["used_dimensions"].mean()
    enough = all(each.higher and each.amount > nats for each, nats in zip(bounds, (20, 50, 20), strict=True))
    return Verdict(enough and atoms.lower and -atoms.amount > whole / 3, in_words(*bounds, atoms))


@claim("gamma-better-on-pictures", suite="hybrid")
def _(runs):
    found = together(*(against(runs, {"group": "mnist/hybrid-atoms"}, {"group": "mnist/hybrid-atoms-normal"}, measure,
                               names=("Gamma", "normal magnitudes"))
                       for measure in ("negative_elbo", "mean_squared_error")))
    return Verdict(all(each.lower for each in found), in_words(*found))


@claim("dense-vae-best", suite="hybrid")
def _(runs):
    shown = runs.matching(["mnist/hybrid-atoms/*", "mnist/vsc-atoms/*", "mnist/vsc-gaussian/*", "mnist/vae-atoms/*"])
    table = shown.having("negative_elbo").frame.set_index("model")[["negative_elbo", "mean_squared_error"]]
    dense, others = table.loc[["vae"]], table.drop("vae")
    gain = others["negative_elbo"].min() - dense["negative_elbo"].max()
    errors = dense["mean_squared_error"].max(), others["mean_squared_error"].min()
    return Verdict(gain > 100 and errors[0] < errors[1], f"Its bound is {gain:.0f} nats better than that of any other "
                   f"run; MSE {errors[0]:.4f} against {errors[1]:.4f} at least")


@claim("not-at-their-end", suite="hybrid")
def _(runs):
    epochs = set(runs.matching(["mnist/*-atoms/*", "mnist/vsc-gaussian/*"]).frame["epochs"])
    found = against(runs, {"group": "mnist/hybrid-atoms-long"}, {"group": "mnist/hybrid-atoms"}, "negative_elbo",
                    names=("20 epochs", "10 epochs"))
    longer = set(runs.where(group="mnist/hybrid-atoms-long").frame["epochs"])
    return Verdict(epochs == {10} and longer == {20} and -found.amount > 40, found.text)


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


@claim("network-behind-vae", suite="hybrid")
def _(runs):
    dense = published_runs(project_root(), "paper").where(dataset="mnist", model="vae", latent_dim=200)
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
    found = together(*(against(runs, {"group": f"sinusoids/hybrid-amplitudes{many}-k-below-1"},
                               {"group": f"sinusoids/hybrid-amplitudes{many}"}, measure,
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
    found = against(runs, {"group": "sinusoids/hybrid-noise-k-below-1"}, {"group": "sinusoids/hybrid-noise"},
                    "negative_elbo", names=("k at most 1", "any k"))
    return Verdict(found.higher, found.text)


# --- Exercises


@claim("l1-switches-units-off", suite="exercises")
def _(runs):
    weights = runs.matching("mnist/sparse-autoencoder-l1-w*/*").having("active_fraction", "used_dimensions")
    means = weights.means(["active_fraction", "used_dimensions"], by="sparsity_weight")
    active, used = 50 * means["active_fraction"], means["used_dimensions"]
    lost, off = active[1.0] - active[10.0], used[1.0] - used[10.0]
    return Verdict(active[10.0] < active[1.0] / 1.9 and 0.8 * lost < off < 1.2 * lost,
                   f"Units on for an observation: {active[1.0]:.1f} at the weight 1, {active[10.0]:.1f} at 10; units "
                   f"in use: {used[1.0]:.1f} and {used[10.0]:.1f}")


@claim("kl-weight-costs-little", suite="exercises")
def _(runs):
    errors = runs.matching("mnist/sparse-autoencoder-kl-w*/*").having("mean_squared_error").means(
        ["mean_squared_error"], by="sparsity_weight")["mean_squared_error"]
    return Verdict(errors.max() / errors.min() < 1.05 and errors.index.max() >= 1e4 * errors.index.min(),
                   f"MSE from {errors.min():.5f} to {errors.max():.5f} for weights from {errors.index.min():g} to "
                   f"{errors.index.max():g}")


@claim("kl-weights", suite="exercises")
def _(runs):
    rates = runs.matching("mnist/sparse-autoencoder-kl-r*/*").frame
    weights = {rate: sorted(set(rows["sparsity_weight"])) for rate, rows in rates.groupby("target_rate")}
    return Verdict(weights == {0.01: [1000], 0.03: [1000], 0.1: [100], 0.3: [100]},
                   "; ".join(f"rate {rate}: {each}" for rate, each in weights.items()))


@claim("error-falls-with-units", suite="exercises")
def _(runs):
    atoms = runs.matching("mnist/*-atoms-j*/*")
    falls = together(*(against(atoms, {"model": model, "latent_dim": larger}, {"model": model, "latent_dim": smaller},
                               "mean_squared_error", names=(f"{name}, J = {larger}", f"J = {smaller}"))
                       for model, name in {"topk": "TopK", "batchtopk": "BatchTopK",
                                           "sparse-autoencoder-l1": "L1"}.items()
                       for smaller, larger in itertools.pairwise([64, 128, 256, 512, 1024])))
    return Verdict(all(each.lower for each in falls), in_words(*falls))


@claim("jumprelu-squared-error", suite="exercises")
def _(runs):
    frame = runs.matching("mnist/*-j50/*").frame
    own = frame["model"] == "jumprelu"
    likelihoods = [sorted(set(frame["likelihood"][rows])) for rows in (own, ~own)]
    return Verdict(likelihoods == [["gaussian"], ["bernoulli"]],
                   f"Likelihoods: {likelihoods[0]} against {likelihoods[1]}")


# --- Finance


@claim("vae-explains-most-returns", suite="exercises")
def _(runs):
    returns = runs.where(dataset="returns")
    found = together(*(against(returns, "vae", model, "explained_variance", at={"latent_dim": [8, 16]})
                       for model in sorted(set(returns.frame["model"]) - {"vae"})))
    return Verdict(all(each.higher for each in found), in_words(*found))


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


@claim("nearly-converged", suite="selection")
def _(runs):
    falls = _compared(runs).where(learning_rate=0.004).convergence()["fall"]
    return Verdict(falls.max() < 1, "Fall of the validation loss in the last epoch, nats: " + "; ".join(
        f"{label} {fall:.2f}" for label, fall in falls.items()), {"most": f"{falls.max():.1f}"})


@claim("dictionaries-still-fall", suite="selection")
def _(runs):
    atoms = runs.where(dataset="mnist", decoder="linear", epochs=5, learning_rate=0.004)
    falls = atoms.convergence(by="title")["fall"]
    return Verdict(falls.min() > 5, "Fall of the validation loss in the fifth epoch, nats: " + "; ".join(
        f"{title} {fall:.0f}" for title, fall in falls.items()),
        {"least": f"{falls.min():.0f}", "most": f"{falls.max():.0f}"})
