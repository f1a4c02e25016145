"""Measures of trained models: tensors in, numbers out."""

import lazy_loader

# A module is imported when something of it is first used: scikit-learn alone takes two seconds, in every notebook.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "activity": ["activity_rates", "explained_variance", "robust_threshold", "set_distances", "spikes"],
    "denoising": ["NOISES", "add_noise"],
    "disentanglement": ["DCI", "SourceMatching", "dci", "matched_sources", "mutual_information_gap", "sap",
                        "squared_correlation", "threshold_accuracy"],
    "features": ["extent", "smoothness", "spread", "unit_responses"],
    "likelihood": ["importance_weighted_bounds", "importance_weighted_nll"],
    "probes": ["knn_probe", "labelled_subset", "logistic_probe"],
    "reconstruction": ["mean_squared_error", "psnr", "ssim"],
    "refitting": ["pursued", "refitted"],
    "samples": ["Components", "SampleQuality", "sample_quality"],
    "selectivity": ["Selectivity", "class_selectivity"],
    "sparsity": ["active_units", "dead_fraction", "hoyer", "l0", "treves_rolls"],
    "spike_gradients": ["GradientError", "spike_gradient_errors"],
    "summary": ["USED_RATE", "batched", "code_usage"],
    "tradeoff": ["knee"],
})
