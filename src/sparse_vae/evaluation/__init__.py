"""Measures of trained models: tensors in, numbers out."""

from sparse_vae.evaluation.activity import activity_rates, explained_variance
from sparse_vae.evaluation.denoising import NOISES, add_noise
from sparse_vae.evaluation.reconstruction import mean_squared_error, psnr, ssim
from sparse_vae.evaluation.summary import batched, summarise

__all__ = ["NOISES", "activity_rates", "add_noise", "batched", "explained_variance", "mean_squared_error", "psnr",
           "ssim", "summarise"]
