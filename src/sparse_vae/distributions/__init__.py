"""Distributions of the models: samples, log-probabilities and closed-form divergences."""

from sparse_vae.distributions.gamma import Gamma, gamma_log_sample_grad
from sparse_vae.distributions.likelihood import bernoulli_nll, gaussian_nll
from sparse_vae.distributions.normal import standard_normal_kl
from sparse_vae.distributions.spike_slab import SPIKES, SpikeSlab, bernoulli_kl, disarm, sample_spikes
from sparse_vae.distributions.ternary import Ternary

__all__ = ["SPIKES", "Gamma", "SpikeSlab", "Ternary", "bernoulli_kl", "bernoulli_nll", "disarm",
           "gamma_log_sample_grad", "gaussian_nll", "sample_spikes", "standard_normal_kl"]
