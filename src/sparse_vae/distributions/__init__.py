"""Distributions of the models: samples, log-probabilities and closed-form divergences, pure torch."""

from sparse_vae.distributions.likelihood import bernoulli_nll, gaussian_nll
from sparse_vae.distributions.normal import standard_normal_kl

__all__ = ["bernoulli_nll", "gaussian_nll", "standard_normal_kl"]
