"""Which latent dimensions a model uses, and what they explain."""

from __future__ import annotations

from torch import Tensor

from sparse_vae.checks import check_same_shape


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
