"""The diagonal normal distribution of the VAE's posterior."""

from __future__ import annotations

from torch import Tensor


def standard_normal_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""KL(N(μ, σ²) ‖ N(0, 1)) = ½ (σ² + μ² − 1 − ln σ²), elementwise, in nats (Kingma & Welling 2014, appendix B).

    Args:
        mean: μ, any shape.
        log_variance: ln σ², same shape.

    Returns:
        Nats, one value per element, same shape; not reduced.

    >>> import torch
    >>> standard_normal_kl(torch.tensor([0.0, 1.0]), torch.zeros(2))
    tensor([0.0000, 0.5000])
    """
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance)
