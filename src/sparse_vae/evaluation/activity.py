"""Which latent dimensions a model uses, and what they explain."""

from __future__ import annotations

from torch import Tensor

from sparse_vae.checks import SettingError, check_same_shape
from sparse_vae.models.base import LatentVariableModel


def activity_rates(active: Tensor) -> Tensor:
    """How often each dimension is active: its share of the observations, ``(latent_dim,)``, in [0, 1].

    The lifetime sparsity of a unit is one minus this.

    Args:
        active: bool, ``(n, latent_dim)``, from ``model.active``.

    >>> import torch
    >>> activity_rates(torch.tensor([[True, False], [True, True]]))
    tensor([1.0000, 0.5000])
    """
    return active.float().mean(0)


def explained_variance(x: Tensor, reconstruction: Tensor) -> float:
    """1 − Σ‖x − x̂‖² / Σ‖x − x̄‖² over a data set: 1 is exact, 0 no better than the mean of the data.

    Args:
        x, reconstruction: ``(n, *features)``.

    Raises:
        SettingError: two shapes.

    >>> import torch
    >>> x = torch.tensor([[0.0], [2.0]])
    >>> explained_variance(x, x), explained_variance(x, torch.ones(2, 1))
    (1.0, 0.0)
    """
    check_same_shape(x=x, reconstruction=reconstruction)
    residual = (x - reconstruction).square().sum()
    total = (x - x.mean(0)).square().sum()
    return (1 - residual / total).item()


def spikes(model: LatentVariableModel, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """P(zⱼ ≠ 0 | x) and E[zⱼ|x], ``(n, latent_dim)`` both, of a posterior with spikes; None of any other.

    A code is exactly 0 where a spike is rather off than on; this mean is not.

    >>> import torch
    >>> from sparse_vae import make_model
    >>> probability, mean = spikes(make_model("vsc", (5,), latent_dim=3), torch.rand(2, 5))
    >>> probability.shape, mean.shape, spikes(make_model("vae", (5,), latent_dim=3), torch.rand(2, 5))
    (torch.Size([2, 3]), torch.Size([2, 3]), None)
    """
    posterior = model.encode(x)
    if hasattr(posterior, "spike_logit"):
        q = posterior.distribution()  # type: ignore[attr-defined]
        return q.probs, q.mean
    if hasattr(posterior, "structure"):
        signs = posterior.structure()
        return signs.presence, posterior.concentration * posterior.scale * signs.mean  # type: ignore[attr-defined]
    return None


def set_distances(active: Tensor, other: Tensor) -> Tensor:
    """Jaccard distances 1 − |A ∩ B| / |A ∪ B| of the sets of active dimensions, ``(n, m)``, in [0, 1].

    Two empty sets are equal.

    Args:
        active, other: bool, ``(n, latent_dim)`` and ``(m, latent_dim)``.

    Raises:
        SettingError: sets of different dimensions.

    >>> import torch
    >>> sets = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])
    >>> set_distances(sets[:1], sets)
    tensor([[0.0000, 0.6667, 1.0000]])
    """
    if active.shape[1:] != other.shape[1:]:
        raise SettingError(f"sets must be of the same dimensions; got {active.shape[1]} and {other.shape[1]}")
    active, other = active.float(), other.float()
    shared = active @ other.T
    union = active.sum(1)[:, None] + other.sum(1) - shared
    return 1 - (shared / union.clamp(min=1)).masked_fill(union == 0, 1)


def robust_threshold(codes: Tensor, deviations: float = 2.5) -> tuple[Tensor, Tensor]:
    """The centre of each dimension and the distance from it that counts as active, ``(latent_dim,)`` both: the median,
    and so many robust deviations, 1.4826 times the median absolute one, which is the deviation of a normal variable.

    >>> import torch
    >>> robust_threshold(torch.tensor([[0.0], [1.0], [2.0], [3.0], [99.0]]), 1.0)
    (tensor([2.]), tensor([1.4826]))
    """
    centre = codes.median(0).values
    return centre, deviations * 1.4826 * (codes - centre).abs().median(0).values
