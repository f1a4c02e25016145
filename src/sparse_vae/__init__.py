"""Sparse latent-variable models: autoencoders and variational autoencoders whose codes can be read."""

__version__ = "0.1.0"
