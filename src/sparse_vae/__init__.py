"""Sparse latent-variable models: autoencoders and variational autoencoders whose codes can be read."""
