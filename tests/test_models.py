"""Every registered model keeps the interface, on images and vectors; objectives are what their equations say."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from sparse_vae.checks import SettingError
from sparse_vae.distributions import bernoulli_nll, gaussian_nll
from sparse_vae.models import MODELS, GenerativeModel, make_model, model_settings
from sparse_vae.models.base import FIRST_NOISE, LIKELIHOODS, SMALLEST_LOG_SCALE
from sparse_vae.models.vae import ACTIVE_KL
from sparse_vae.nets import count_parameters
from sparse_vae.settings import defaults

SHAPES = [(1, 28, 28), (3, 9, 7), (1, 8, 8), (12,), (9, 16)]
BATCH, LATENTS = 6, 5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(name: str, shape: tuple[int, ...] = (1, 8, 8), **settings):
    torch.manual_seed(0)
    return make_model(name, shape, **{"latent_dim": LATENTS, **settings})


def observations(shape: tuple[int, ...], likelihood: str = "bernoulli", n: int = BATCH) -> torch.Tensor:
    x = torch.rand(n, *shape, generator=seeded(1))
    return x if likelihood == "bernoulli" else 4 * x - 2


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_the_interface(name, shape, likelihood):
    model, x = make(name, shape, likelihood=likelihood), observations(shape, likelihood)

    encoded = model.encode(x)
    assert all(getattr(encoded, field).shape == (BATCH, LATENTS) for field in encoded._fields)
    code = model.code(x)
    assert code.shape == (BATCH, LATENTS)
    assert torch.equal(code, model.code(x))
    assert torch.allclose(code[:2], model.code(x[:2]), atol=1e-5)  # an observation's code is its own
    assert model.active(x).shape == (BATCH, LATENTS)
    assert model.active(x).dtype == torch.bool
    assert model.decode(code).shape == x.shape
    assert torch.equal(model.reconstruct(x), model.decode_mean(code))
    if likelihood == "bernoulli":
        assert torch.equal(model.decode_mean(code), model.decode(code).sigmoid())
    else:
        assert torch.equal(model.decode_mean(code), model.decode(code))

    loss = model.loss(x, step=0, generator=seeded())
    assert loss._fields[:2] == ("total", "reconstruction")
    assert all(term.shape == () and term.isfinite() for term in loss)
    assert loss.total.item() == pytest.approx(sum(term.item() for term in loss[1:]), rel=1e-5)
    assert loss == model.loss(x, step=0, generator=seeded())

    if isinstance(model, GenerativeModel):
        bound = model.negative_elbo(x, generator=seeded())
        assert bound.shape == (BATCH,)
        assert bound.isfinite().all()
        drawn = model.sample(30, generator=seeded())  # of a sparse prior, some are empty and so alike
        assert drawn.shape == (30, *shape)
        assert torch.equal(drawn, model.sample(30, generator=seeded()))
        assert not torch.equal(drawn, model.sample(30, generator=seeded(1)))
        assert len(drawn.unique(dim=0)) > 1

    loss.total.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_a_linear_decoder(name, likelihood):
    model, shape = make(name, (1, 4, 4), likelihood=likelihood, decoder="linear", backbone="mlp"), (1, 4, 4)
    x = observations(shape, likelihood, n=200)
    z = torch.randn(3, LATENTS, generator=seeded(3))
    model.prepare(x, generator=seeded())
    assert torch.allclose(model.decode(z), (z @ model.decoder[0].weight.T + model.decoder[0].bias).view(3, *shape),
                          atol=1e-5)
    # It starts at the mean of the data, and a Gaussian one at a third of their standard deviation about it.
    assert torch.allclose(model.decode_mean(torch.zeros(1, LATENTS)), x.mean(0), atol=1e-4)
    if likelihood == "gaussian":
        deviation = (x - x.mean(0)).square().mean().sqrt()
        assert model.log_scale.exp().item() == pytest.approx(deviation.item() / 3, rel=1e-5)
    assert ", linear decoder" in model.title
    assert model.loss(x, generator=seeded()).total.isfinite()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (50,), (9, 128)])
def test_models_have_about_as_many_parameters(shape):
    """Of the networks; pseudo-inputs belong to a prior. A posterior of more numbers has a wider last layer."""
    models = {name: make_model(name, shape, latent_dim=16) for name in MODELS if name != "matching-pursuit"}
    counts = {name: count_parameters(model.encoder) + count_parameters(model.decoder)
              for name, model in models.items()}
    assert max(counts.values()) <= 1.7 * min(counts.values()), counts


@pytest.mark.parametrize(("height", "width"), itertools.product([1, 2, 5, 8, 13], [1, 3, 4, 16, 17]))
def test_images_of_any_size_come_back_in_their_size(height, width):
    model, x = make("vae", (2, height, width)), observations((2, height, width))
    assert model.reconstruct(x).shape == x.shape


@pytest.mark.parametrize(("name", "encoder_outputs"), [("autoencoder", 10), ("vae", 20)])
def test_the_reference_perceptron_is_784_400_J(name, encoder_outputs):
    model = make(name, (1, 28, 28), backbone="mlp", latent_dim=10)
    encoder = 784 * 400 + 400 + 400 * encoder_outputs + encoder_outputs
    decoder = 10 * 400 + 400 + 400 * 784 + 784
    assert count_parameters(model) == encoder + decoder
    linear = [module.weight.shape for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert linear == [(400, 784), (encoder_outputs, 400), (400, 10), (784, 400)]


def test_the_default_backbone_of_images_is_three_convolutions_each_way():
    layers = [type(module).__name__ for module in make("vae", (1, 28, 28)).modules()]
    assert (layers.count("Conv2d"), layers.count("ConvTranspose2d"), layers.count("Linear")) == (3, 2, 2)
    assert layers.count("_ImageConvolution") == 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("sides", [(28, 28), (9, 14), (1, 2)])
def test_the_decoders_last_layer_is_torchs_transposed_convolution(channels, sides):
    torch.manual_seed(0)
    layer = make("autoencoder", (channels, *sides), backbone="conv").decoder[-1].double()
    maps = torch.randn(5, layer.in_channels, *((side + 1) // 2 for side in sides), dtype=torch.float64)
    inputs = (maps.requires_grad_(), layer.weight, layer.bias)
    expected = torch.nn.functional.conv_transpose2d(*inputs, stride=2, padding=1, output_padding=layer.output_padding)
    found = layer(maps)
    assert found.shape == (5, channels, *sides)
    assert torch.allclose(found, expected, rtol=1e-12)
    slopes = [torch.autograd.grad(output.square().sum(), inputs, create_graph=True) for output in (found, expected)]
    for own, theirs in zip(*slopes, strict=True):
        assert torch.allclose(own, theirs, rtol=1e-10)
    each = torch.func.vmap(torch.func.grad(lambda one: layer(one[None]).square().sum()))(maps)
    assert torch.allclose(each, slopes[1][0], rtol=1e-10)
    second = [torch.autograd.grad(slope[0].square().sum(), layer.weight)[0] for slope in slopes]
    assert torch.allclose(*second, rtol=1e-10)


def test_the_decoders_last_layer_is_float32_under_autocast():
    layer = make("autoencoder", (1, 28, 28)).decoder[-1]
    maps = torch.randn(5, layer.in_channels, 14, 14, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = layer(maps.bfloat16())
    assert torch.equal(image, layer(maps.bfloat16().float()))
    image.sum().backward()
    assert maps.grad.dtype == layer.weight.grad.dtype == torch.float32


def same_weights(*models):
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    return models


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_beta_1_is_the_vae(likelihood):
    vae, beta_vae = same_weights(make("vae", likelihood=likelihood), make("beta-vae", likelihood=likelihood, beta=1))
    x = observations((1, 8, 8), likelihood)
    assert vae.loss(x, generator=seeded()) == beta_vae.loss(x, generator=seeded())


def test_beta_0_leaves_the_reconstruction():
    vae, beta_vae = same_weights(make("vae"), make("beta-vae", beta=0))
    x = observations((1, 8, 8))
    loss = beta_vae.loss(x, generator=seeded())
    assert loss.total == loss.reconstruction == vae.loss(x, generator=seeded()).reconstruction
    assert loss.kl == 0


def test_beta_weights_the_divergence_and_not_the_bound():
    vae, beta_vae = same_weights(make("vae"), make("beta-vae", beta=4))
    x = observations((1, 8, 8))
    assert beta_vae.loss(x, generator=seeded()).kl.item() == pytest.approx(
        4 * vae.loss(x, generator=seeded()).kl.item(), rel=1e-6)
    assert torch.equal(beta_vae.negative_elbo(x, generator=seeded()), vae.negative_elbo(x, generator=seeded()))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_vae_loss_from_its_equation(likelihood):
    model, x = make("vae", (12,), likelihood=likelihood), observations((12,), likelihood)
    mean, log_variance = model.encode(x)
    z = mean + (0.5 * log_variance).exp() * torch.randn(BATCH, LATENTS, generator=seeded())
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    kl = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), prior).sum(1).mean()
    nll = bernoulli_nll if likelihood == "bernoulli" else gaussian_nll
    loss = model.loss(x, generator=seeded())
    assert loss.reconstruction.item() == pytest.approx(nll(model.decode(z), x).mean().item(), rel=1e-5)
    assert loss.kl.item() == pytest.approx(kl.item(), rel=1e-5)
    assert model.negative_elbo(x, generator=seeded()).mean().item() == pytest.approx(loss.total.item(), rel=1e-5)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_autoencoder_loss_from_its_equation(likelihood):
    model, x = make("autoencoder", (12,), likelihood=likelihood), observations((12,), likelihood)
    nll = bernoulli_nll if likelihood == "bernoulli" else gaussian_nll
    expected = nll(model.decoder(model.encoder(x)), x).mean()
    assert model.loss(x).total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_posterior_sample_has_its_mean_and_variance():
    posterior = make("vae").encode(observations((1, 8, 8), n=1))
    n = 40_000
    many = type(posterior)(*(parameter.expand(n, -1) for parameter in posterior)).rsample(seeded())
    scale = (0.5 * posterior.log_variance[0]).exp()
    assert ((many.mean(0) - posterior.mean[0]).abs() < 4 * scale / n**0.5).all()  # four standard errors
    assert torch.allclose(many.std(0), scale, rtol=4 / (2 * n) ** 0.5)


def test_samples_come_from_the_prior():
    model = make("vae")
    z = torch.randn(7, LATENTS, generator=seeded(3))
    assert torch.equal(model.sample(7, generator=seeded(3)), model.decode(z).sigmoid())


def test_what_is_active():
    x = observations((1, 8, 8))
    vae, autoencoder = make("vae"), make("autoencoder")
    # The output layer alone decides: mean 0 and variance 1 but for dimension 2, whose KL is ½ μ² = 2 ACTIVE_KL.
    last = vae.encoder[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    last.bias.data[2] = 2 * ACTIVE_KL**0.5
    assert vae.active(x).tolist() == [[False, False, True, False, False]] * BATCH
    torch.nn.init.zeros_(autoencoder.encoder[-1].weight)
    autoencoder.encoder[-1].bias.data = torch.tensor([0.0, 1e-6, -3.0, 0.0, 1.0])
    assert autoencoder.active(x).tolist() == [[False, True, True, False, True]] * BATCH


@pytest.mark.parametrize("name", ["autoencoder", "vae", "vaease", "vsc"])
def test_a_gaussian_network_starts_at_the_mean_with_little_noise(name):
    model, x = make(name, (12,), likelihood="gaussian"), observations((12,), "gaussian", n=60)
    model.prepare(x, generator=seeded())
    outputs, mean = model.decode(torch.zeros(1, LATENTS)), x.mean(0)
    assert (outputs - mean).abs().mean() < 0.2 * (x - mean).abs().mean()
    deviation = (x - mean).square().mean().sqrt().item()
    assert model.log_scale.exp().item() == pytest.approx(FIRST_NOISE * deviation, rel=1e-5)


def test_the_learned_scale_has_a_floor():
    model, x = make("autoencoder", (12,), likelihood="gaussian"), torch.zeros(1, 12)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    at_floor, below = [], []
    for log_scale, losses in ((SMALLEST_LOG_SCALE, at_floor), (SMALLEST_LOG_SCALE - 5, below)):
        torch.nn.init.constant_(model.log_scale, log_scale)
        losses.append(model.loss(x).total.item())
    assert at_floor == below
    assert at_floor[0] == pytest.approx(12 * (SMALLEST_LOG_SCALE + 0.918938533), rel=1e-6)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_observations_of_another_shape_are_refused(likelihood):
    model = make_model("vae", (1, 8, 8), likelihood=likelihood, backbone="mlp")
    with pytest.raises(SettingError, match=r"must have one shape; got \(5, 1, 8, 8\) and \(5, 8, 8\)"):
        model.loss(torch.rand(5, 8, 8))


def test_convolutions_refuse_vectors():
    with pytest.raises(SettingError, match=r"backbone 'conv' needs images .* observations are \(12,\)"):
        make("vae", (12,), backbone="conv")


def test_model_settings_lists_own_settings_and_shared_ones():
    assert defaults(model_settings("vae")) == {"latent_dim": 16, "likelihood": "bernoulli", "backbone": "auto",
                                               "hidden_dim": 400, "decoder": "network"}
    assert list(model_settings("beta-vae")) == ["beta", *model_settings("vae")]
    assert model_settings("vsc-warmup").items() > model_settings("vsc").items()


def test_unknown_names_name_the_nearest():
    with pytest.raises(SettingError, match="unknown model 'hybird'; did you mean 'hybrid'"):
        make_model("hybird", (12,))
    with pytest.raises(SettingError, match="unknown setting of VAE 'latent_dmi'; did you mean 'latent_dim'"):
        make_model("vae", (12,), latent_dmi=3)
    with pytest.raises(SettingError, match="unknown setting of VAE 'beta'"):
        make_model("vae", (12,), beta=1.0)


@pytest.mark.parametrize(("setting", "value", "allowed"), [
    ("latent_dim", 0, "an integer of at least 1"), ("latent_dim", 2.0, "an integer of at least 1"),
    ("latent_dim", "16", "an integer of at least 1"), ("latent_dim", True, "an integer of at least 1"),
    ("latent_dim", None, "an integer of at least 1"), ("hidden_dim", -1, "an integer of at least 1"),
    ("beta", -0.1, "at least 0"), ("beta", float("nan"), "a finite number"), ("beta", float("inf"), "a finite number"),
    ("beta", "4", "a finite number"), ("beta", None, "a finite number"), ("beta", False, "a finite number"),
    ("likelihood", "poisson", "one of bernoulli, gaussian"), ("backbone", "resnet", "one of auto, conv, mlp"),
    ("backbone", 3, "one of auto, conv, mlp"),
])
def test_a_setting_that_cannot_be_used_is_named(setting, value, allowed):
    with pytest.raises(SettingError) as error:
        make("beta-vae", (12,), **{setting: value})
    assert str(error.value).startswith(f"{setting} must be ")
    assert allowed in str(error.value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if issubclass(model, GenerativeModel)])
def test_importance_weights_average_to_the_bound(name, likelihood):
    """E_q[ln p(x, z) − ln q(z|x)] is the ELBO; of a mixture prior, whose choice −ELBO charges, it may be better."""
    def both(**settings) -> tuple[float, float, float]:
        """The mean of minus the log-weights, its standard error, and the mean of −ELBO."""
        model = make(name, likelihood=likelihood, **settings)
        with torch.no_grad():
            weights = -model.log_importance_weight(many, generator=seeded())
            bound = model.negative_elbo(many, generator=seeded())
        return weights.mean().item(), weights.std().item() / len(many) ** 0.5, bound.mean().item()

    many = observations((1, 8, 8), likelihood, n=1).expand(20_000, -1, -1, -1)
    if name.startswith("vsc"):
        weights, error, bound = both()
        assert weights <= bound + 5 * error
    weights, error, bound = both(prior="fixed") if name.startswith("vsc") else both()
    assert error < 0.1
    assert weights == pytest.approx(bound, abs=5 * error)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if issubclass(model, GenerativeModel)])
def test_the_divergence_of_the_dimensions_is_that_of_the_bound(name):
    settings = {"prior": "fixed"} if name.startswith("vsc") else {}
    model, x = make(name, **settings), observations((1, 8, 8))
    assert model.kl_per_dimension(x).shape == (BATCH, LATENTS)
    loss = model.loss(x, generator=seeded())
    weight = getattr(model, "beta", 1.0)
    assert loss.kl.item() == pytest.approx(weight * model.kl_per_dimension(x).sum(1).mean().item(), rel=1e-4)
