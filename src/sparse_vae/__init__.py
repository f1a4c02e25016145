"""Sparse latent-variable models: autoencoders and variational autoencoders whose codes can be read.

    from sparse_vae import TrainingSettings, load_dataset, make_model, train

    data = load_dataset("digits")
    model = make_model("vsc", data.input_shape, likelihood=data.likelihood, latent_dim=8)
    train(model, data, TrainingSettings(epochs=30, batch_size=32, learning_rate=2e-3))
    codes = model.code(data.test.x)
"""

import lazy_loader

__version__ = "0.1.0"

# A module is imported when something of it is first used: torch alone takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["datasets", "distributions", "evaluation", "models"],
    {
        "checks": ["SettingError"],
        "configuration": ["RunConfig", "configure"],
        "datasets": ["Dataset", "load_dataset"],
        "distributions": ["Gamma", "SpikeSlab", "Ternary"],
        "models": ["MODELS", "LatentVariableModel", "make_model"],
        "training": ["TrainingSettings", "train"],
    })
