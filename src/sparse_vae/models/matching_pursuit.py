r"""Matching-pursuit autoencoder (Costa, Fel, Lubana, Tolooshams & Ba 2025, arXiv 2506.05239): an encoder that searches.

    r ← x − b,  h ← 0
    k times:  i = argmaxⱼ dⱼᵀr,  v = dᵢᵀr,  hᵢ ← hᵢ + v,  r ← r − v dᵢ          atoms dⱼ of norm 1
    L = −ln p(x|h)

With a linear decoder and the Gaussian likelihood, b + Σⱼ hⱼ dⱼ is the reconstruction, as in the paper: its error falls
with every step. Any other decoder reads h with weights of its own, and the atoms are an encoder that the gradient
shapes (not in the paper). ``signs="both"`` takes the largest \|dⱼᵀr\|, as Mallat & Zhang (1993) do.

**Speed.** A step needs the products c = D(x − b) and the Gram matrix G = DDᵀ alone: v = cᵢ, c ← c − v Gᵢ (Rubinstein,
Zibulevsky & Elad 2008). Given the atoms i₁ … iₖ that were picked, v solves a triangular system of size k,

    v_t + Σ_{s<t} G(i_t, i_s) v_s = c⁰(i_t),  Lv = c⁰,

so that the gradient through all k steps is u = L⁻ᵀ ∂L/∂v for c⁰, and −u_t v_s for G(i_t, i_s): no graph of k steps.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import cached

from sparse_vae.checks import SettingError
from sparse_vae.models.autoencoder import AutoencoderLoss, Code
from sparse_vae.models.sparse_autoencoder import SparseAutoencoder
from sparse_vae.nets import keep_unit_columns, linear_layer
from sparse_vae.settings import Choice, Integer

SIGNS = ("positive", "both")


class MatchingPursuit(SparseAutoencoder):
    """Autoencoder whose code is found atom by atom, in what the atoms before have left of the observation.

    >>> model = MatchingPursuit((64,), latent_dim=20, k=3, decoder="linear", likelihood="gaussian")
    >>> (model.code(torch.rand(5, 64)) != 0).sum(1) <= 3
    tensor([True, True, True, True, True])
    """

    label = "Matching pursuit"
    settings: ClassVar = {
        "k": Integer(None, "steps, at most latent_dim; an atom may be picked again, so that up to k are active; none "
                           "is a tenth of latent_dim", symbol="k",
                     otherwise=lambda settings: max(1, settings.latent_dim // 10)),
        "signs": Choice("positive", "of the products that a step picks the largest of", choices=SIGNS,
                        title="{} signs"),
    }
    k: int
    signs: str
    encoder: nn.Linear | None
    suited: ClassVar = {"digits": {"latent_dim": 100}}

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        # The paper's decoder is the dictionary; any other one has it beside it.
        is_tied = self.decoder_kind == "linear" and self.likelihood == "gaussian"
        self.encoder = None if is_tied else nn.Linear(self.latent_dim, math.prod(self.input_shape))
        keep_unit_columns(self.dictionary)

    @classmethod
    def check_together(cls, settings: SimpleNamespace) -> None:
        if settings.k > settings.latent_dim:
            raise SettingError(f"k must be at most latent_dim, {settings.latent_dim}; got {settings.k}")

    @property
    def dictionary(self) -> nn.Linear:
        """The atoms are the columns of its matrix, its bias is what they are added to."""
        return linear_layer(self.decoder, 0) if self.encoder is None else self.encoder

    @torch.no_grad()
    def prepare(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Start the decoder, and what the pursuit takes off, at the mean of the data."""
        self.start_decoder_at_mean(x)
        self.dictionary.bias.copy_(x.mean(0).flatten())

    def encode(self, x: Tensor) -> Code:
        with torch.autocast(x.device.type, enabled=False):
            centre, atoms = self.dictionary.bias, self.dictionary.weight.T
            products = nn.functional.linear(x.flatten(1), atoms, -(atoms @ centre))
            return Code(_Pursuit.apply(products, atoms, self.k, self.signs == "both"))

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> AutoencoderLoss:
        with cached():  # the atoms' norms, which code and decoder ask for
            reconstruction = self.reconstruction_nll(x, self.code(x)).mean()
        return AutoencoderLoss(reconstruction, reconstruction)


class _Pursuit(torch.autograd.Function):
    """The code ``(n, J)`` from the products c⁰ ``(n, J)`` of centred observations with ``atoms``, ``(J, D)``, of norm
    1; ``both``: whatever their sign."""

    @staticmethod
    def forward(ctx: Any, products: Tensor, atoms: Tensor, k: int, both: bool) -> Tensor:
        gram, left = atoms @ atoms.T, products.clone()
        rows = torch.empty_like(left)
        picks = torch.empty(len(left), k, dtype=torch.long, device=left.device)
        values = left.new_empty(len(left), k)
        for step in range(k):
            pick = picks[:, step] = _argmax(left.abs() if both else left)
            value = left.gather(1, pick[:, None])
            values[:, step] = value[:, 0]
            torch.index_select(gram, 0, pick, out=rows)
            left.addcmul_(rows, value, value=-1)
        ctx.save_for_backward(atoms, picks, values, gram)
        return torch.zeros_like(left).scatter_add_(1, picks, values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        atoms, picks, values, gram = ctx.saved_tensors
        pairs = picks[:, :, None] * len(gram) + picks[:, None, :]
        upper = gram.flatten().take(pairs)  # Lᵀ, with what lies below its diagonal, which is not read
        slopes = torch.linalg.solve_triangular(upper, gradient.gather(1, picks)[..., None], upper=True,
                                               unitriangular=True)
        of_pairs = (slopes * values[:, None]).tril(-1)
        of_gram = torch.zeros_like(gram).flatten().scatter_add_(0, pairs.flatten(), of_pairs.flatten()).view_as(gram)
        of_products = torch.zeros_like(gradient).scatter_add_(1, picks, slopes[..., 0])
        return of_products, -(of_gram + of_gram.T) @ atoms, None, None


def _argmax(values: Tensor) -> Tensor:
    """The column of each row's largest value; NumPy's is ten times as fast as torch's on a CPU."""
    return torch.from_numpy(values.numpy().argmax(1)) if values.is_cpu else values.argmax(1)


__all__ = ["SIGNS", "MatchingPursuit"]
