"""Measures of trained models: tensors in, numbers out."""

from sparse_vae.evaluation.activity import activity_rates, explained_variance
from sparse_vae.evaluation.denoising import NOISES, add_noise
from sparse_vae.evaluation.disentanglement import (
    DCI,
    SourceMatching,
    dci,
    matched_sources,
    mutual_information_gap,
    sap,
    squared_correlation,
    threshold_accuracy,
)
from sparse_vae.evaluation.features import smoothness, spread, unit_responses
from sparse_vae.evaluation.likelihood import importance_weighted_nll
from sparse_vae.evaluation.probes import knn_probe, labelled_subset, logistic_probe
from sparse_vae.evaluation.reconstruction import mean_squared_error, psnr, ssim
from sparse_vae.evaluation.selectivity import Selectivity, class_selectivity
from sparse_vae.evaluation.sparsity import active_units, dead_fraction, hoyer, l0, treves_rolls
from sparse_vae.evaluation.summary import USED_RATE, batched, code_usage, summarise
from sparse_vae.evaluation.tradeoff import knee

__all__ = ["DCI", "NOISES", "USED_RATE", "Selectivity", "SourceMatching", "active_units", "activity_rates", "add_noise",
           "batched", "class_selectivity", "code_usage", "dci", "dead_fraction", "explained_variance", "hoyer",
           "importance_weighted_nll", "knee", "knn_probe", "l0", "labelled_subset", "logistic_probe", "matched_sources",
           "mean_squared_error", "mutual_information_gap", "psnr", "sap", "smoothness", "spread", "squared_correlation",
           "ssim", "summarise", "threshold_accuracy", "treves_rolls", "unit_responses"]
