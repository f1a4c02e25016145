r"""Classical methods as models: what they know of the training observations is computed at once, without gradients.

    x ≈ x̄ + zA,   the rows of A atoms (or loadings), x̄ the mean of the training observations

    PCA, sparse PCA, factor analysis     z = (x − x̄) W, a linear code; Zou, Hastie & Tibshirani 2006, Kaiser 1958
    dictionary learning                  A learned, atoms of norm 1; Mairal, Bach, Ponce & Sapiro 2009
    cosines, sinusoids                   A fixed, atoms of norm 1

The codes on a dictionary are searched for, observation by observation:

    OMP     z = argmin ‖x − x̄ − zA‖²  over codes with the K atoms that are chosen greedily; Pati et al. 1993
    lasso   z = argmin ½‖x − x̄ − zA‖² + penalty ‖z‖₁

They minimise squared errors and have no likelihood of their own, so there is no :meth:`loss`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse_vae.checks import SettingError
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.models.hybrid import cosines
from sparse_vae.settings import Choice, Integer, Number, Setting, resolve

METHODS = ("omp", "lasso")
TENTH = 0.1
LASSO_SWEEPS = 2000
LEARNING_BATCH = 256
PURSUED_AT_ONCE = 50
"""Observations; the memory is this times atoms times coefficients."""
NOTHING_LEFT = 1e-5
"""A pursuit ends where no atom's product with what is left is above this share of the observation's norm."""


class ClassicalMethod(LatentVariableModel):
    """Base of the classical methods: the dictionary and the mean, kept with the weights, and the linear decoder.

    Args:
        input_shape: shape of one observation.
        **given: values of ``settings``, defaults for the others.
    """

    trained_by_fit = True
    likelihood, decoder_kind = "gaussian", "linear"
    mean: Tensor
    atoms: Tensor

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        nn.Module.__init__(self)  # no networks
        self.input_shape = tuple(input_shape)
        self.setting_values = self.check_settings(given)
        for name, value in vars(resolve(self.settings, self.setting_values)).items():
            setattr(self, name, value)
        features = math.prod(self.input_shape)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("atoms", torch.zeros(self.latent_dim, features))

    def centred(self, x: Tensor) -> Tensor:
        """Observations about the mean, ``(n, features)``."""
        return x.flatten(1) - self.mean

    def decode(self, z: Tensor) -> Tensor:
        return (self.mean + z @ self.atoms).unflatten(1, self.input_shape)

    @property
    def device(self) -> torch.device:
        return self.mean.device


ClassicalMethod.settings = {"latent_dim": Integer(16, "number of components or atoms, J")}  # and none of a network's


class LinearMethod(ClassicalMethod):
    """Base of the methods whose code is linear, too."""

    weights: Tensor

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        self.register_buffer("weights", torch.zeros(self.atoms.shape[::-1]))

    def estimator(self, seed: int) -> Any:
        """The scikit-learn estimator that is fitted."""
        raise NotImplementedError

    def fit(self, x: Tensor, *, seed: int = 0) -> None:
        flat = x.flatten(1).double()
        if self.latent_dim > min(flat.shape):
            raise SettingError(f"latent_dim of {self.label} must be at most {min(flat.shape)}, the number of features "
                               f"or observations; got {self.latent_dim}")
        mean = flat.mean(0)
        estimator = self.estimator(seed).fit(flat.numpy())
        # A linear code is known from the codes of single features.
        weights = estimator.transform((mean + torch.eye(len(mean)).double()).numpy())
        for buffer, value in ((self.mean, mean), (self.atoms, estimator.components_), (self.weights, weights)):
            buffer.copy_(torch.as_tensor(value))

    def code(self, x: Tensor) -> Tensor:
        return self.centred(x) @ self.weights


class PCA(LinearMethod):
    """Principal component analysis: the orthogonal directions of largest variance.

    >>> _ = torch.manual_seed(0)
    >>> model = PCA((6,), latent_dim=2)
    >>> model.fit(torch.randn(50, 6), seed=0)
    >>> model.code(torch.randn(3, 6)).shape
    torch.Size([3, 2])
    """

    def estimator(self, seed: int) -> Any:
        from sklearn.decomposition import PCA as Estimator

        return Estimator(self.latent_dim, svd_solver="covariance_eigh")


class SparsePCA(LinearMethod):
    """Sparse principal component analysis: components with an L1 penalty, so that each moves few features."""

    label = "Sparse PCA"
    settings: ClassVar = {"penalty": Number(1.0, "weight of the L1 norm of the components", minimum=0)}
    penalty: float

    def estimator(self, seed: int) -> Any:
        from sklearn.decomposition import SparsePCA as Estimator

        return Estimator(self.latent_dim, alpha=self.penalty, random_state=seed)


class FactorAnalysis(LinearMethod):
    """Factor analysis, rotated so that each factor has few large loadings (varimax); the code is the posterior mean."""

    label = "Factor analysis, varimax"

    def estimator(self, seed: int) -> Any:
        from sklearn.decomposition import FactorAnalysis as Estimator

        return Estimator(self.latent_dim, rotation="varimax", random_state=seed)


class SparseCoding(ClassicalMethod):
    """Base of the methods that search for each code: with at most so many atoms, or with a penalty."""

    atom_names = "atoms"
    settings: ClassVar[dict[str, Setting]] = {
        "method": Choice("omp", "how a code is searched for: orthogonal matching pursuit, or the lasso",
                         choices=METHODS),
        "n_nonzero": Integer(None, "coefficients of a pursuit, at most as many as atoms; none is a tenth of the atoms",
                             otherwise=lambda settings: max(1, round(TENTH * settings.latent_dim))),
        "penalty": Number(0.1, "weight of the L1 norm of the lasso's codes", above=0),
    }
    method: str
    n_nonzero: int
    penalty: float

    @classmethod
    def check_together(cls, settings: SimpleNamespace) -> None:
        if settings.n_nonzero > settings.latent_dim:
            raise SettingError(f"n_nonzero must be at most latent_dim, {settings.latent_dim}; got {settings.n_nonzero}")

    def code(self, x: Tensor) -> Tensor:
        if self.method == "omp":
            return torch.cat([matching_pursuit(part, self.atoms, self.n_nonzero)
                              for part in self.centred(x).split(PURSUED_AT_ONCE)])
        from sklearn.decomposition import sparse_encode

        codes = sparse_encode(self.centred(x).double().numpy(), self.atoms.double().numpy(), algorithm="lasso_cd",
                              alpha=self.penalty, max_iter=LASSO_SWEEPS)
        return torch.from_numpy(codes).float()

    @classmethod
    def title_of(cls, values: Mapping[str, object]) -> str:
        settings = resolve(cls.settings, dict(values))
        if settings.method == "lasso":
            return f"Lasso on {settings.latent_dim} {cls.atom_names} (weight {settings.penalty:g})"
        return f"OMP on {settings.latent_dim} {cls.atom_names} ({settings.n_nonzero} coefficients)"


class DictionaryLearning(SparseCoding):
    """Dictionary learning in small batches, with codes that are searched for."""

    label = "Dictionary"
    settings: ClassVar = {
        "learned_from": Integer(10_000, "training observations that the dictionary is learned from, the first ones"),
        "sweeps": Integer(2, "passes over them"),
    }
    learned_from: int
    sweeps: int

    def fit(self, x: Tensor, *, seed: int = 0) -> None:
        from sklearn.decomposition import MiniBatchDictionaryLearning
        from sklearn.exceptions import ConvergenceWarning

        self.mean.copy_(x.flatten(1).double().mean(0))
        learner = MiniBatchDictionaryLearning(self.latent_dim, alpha=1, batch_size=LEARNING_BATCH, fit_algorithm="cd",
                                              max_iter=self.sweeps, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            learner.fit(self.centred(x[:self.learned_from]).double().numpy())
        self.atoms.copy_(F.normalize(torch.from_numpy(learner.components_), dim=1))

    @classmethod
    def title_of(cls, values: Mapping[str, object]) -> str:
        settings = resolve(cls.settings, dict(values))
        if settings.method == "lasso":
            return f"{cls.label} + lasso (weight {settings.penalty:g})"
        share = TENTH if values.get("n_nonzero") is None else settings.n_nonzero / settings.latent_dim
        return f"{cls.label} + OMP ({share:.0%})"


class FixedDictionary(SparseCoding):
    """Base of the dictionaries that are known beforehand; only the mean is taken from the observations."""

    settings: ClassVar = {"latent_dim": Integer(128, "number of atoms, J")}

    def fit(self, x: Tensor, *, seed: int = 0) -> None:
        self.mean.copy_(x.flatten(1).double().mean(0))
        self.atoms.copy_(F.normalize(self.fixed_atoms(), dim=1))

    def fixed_atoms(self) -> Tensor:
        """The atoms, ``(latent_dim, features)``, of any norm; a :class:`SettingError` where there are not so many."""
        raise NotImplementedError


class Cosines(FixedDictionary):
    """Sparse codes on the cosines of lowest frequency, an orthonormal dictionary (DCT-II)."""

    atom_names = "cosines"

    def fixed_atoms(self) -> Tensor:
        features = math.prod(self.input_shape)
        if self.latent_dim > features:
            raise SettingError(f"latent_dim must be at most {features}, the number of features; got {self.latent_dim}")
        return cosines(self.input_shape, self.latent_dim)


class Sinusoids(FixedDictionary):
    """Sparse codes on sines and cosines of whole frequencies: the dictionary that the data set sinusoids is made of."""

    atom_names = "sinusoids"
    settings: ClassVar = {"latent_dim": Integer(38, "number of atoms, J: sines of frequency 1 … J/2, then cosines",
                                                minimum=2)}

    @classmethod
    def check_together(cls, settings: SimpleNamespace) -> None:
        super().check_together(settings)
        if settings.latent_dim % 2:
            raise SettingError(f"latent_dim of sinusoids must be even; got {settings.latent_dim}")

    def fixed_atoms(self) -> Tensor:
        length = math.prod(self.input_shape)
        if self.latent_dim >= length:
            raise SettingError(f"latent_dim of sinusoids must be below {length}, the length of a signal; got "
                               f"{self.latent_dim}")
        frequencies = torch.arange(1, self.latent_dim // 2 + 1, dtype=torch.float64)
        angles = torch.outer(frequencies, 2 * math.pi * torch.arange(length, dtype=torch.float64) / length)
        return torch.cat([angles.sin(), angles.cos()])


CLASSICAL: dict[str, type[ClassicalMethod]] = {
    "pca": PCA,
    "sparse-pca": SparsePCA,
    "factor-analysis": FactorAnalysis,
    "dictionary": DictionaryLearning,
    "cosines": Cosines,
    "sinusoids": Sinusoids,
}


def matching_pursuit(x: Tensor, atoms: Tensor, n_nonzero: int) -> Tensor:
    """Codes of ``x`` by orthogonal matching pursuit, ``(n, latent_dim)``, with at most ``n_nonzero`` values not 0.

    1. choose the atom whose product with what is left of x is the largest;
    2. make it orthogonal to the atoms that were chosen before, q (Gram–Schmidt);
    3. take its part (q·x) q from what is left, and go to 1;
    4. in the end, write Σ (q·x) q in the chosen atoms: a triangular system.

    What is kept are the products of all atoms with what is left and with each q, never these themselves. scikit-learn
    has the same method for single observations; this is for many at once, three times as fast for long codes.

    Args:
        x: ``(n, features)``.
        atoms: of about norm 1, ``(latent_dim, features)``.
        n_nonzero: at most ``latent_dim``.

    >>> matching_pursuit(torch.tensor([[3.0, 1.0, -2.0]]), torch.eye(3), 2)
    tensor([[ 3.,  0., -2.]])
    """
    gram, left = atoms @ atoms.T, x @ atoms.T  # (J, J), (n, J)
    rows, enough = torch.arange(len(x)), NOTHING_LEFT * x.norm(dim=1)
    basis = left.new_zeros(len(x), n_nonzero, len(atoms))  # products of each q with all atoms
    parts = left.new_zeros(len(x), n_nonzero)  # q·x
    chosen = torch.zeros(len(x), n_nonzero, dtype=torch.long)
    free = torch.ones_like(left, dtype=torch.bool)
    for step in range(n_nonzero):
        size, pick = left.abs().masked_fill(~free, -1).max(1)
        free[rows, pick] = False
        chosen[:, step] = pick
        before = basis[:, :step]
        along = before[rows, :, pick]  # products of the new atom with each q
        products = gram[pick] - (along[:, None] @ before)[:, 0]
        norm = products[rows, pick].clamp(min=0).sqrt()
        useful = (size > enough) & (norm > NOTHING_LEFT)
        scale = torch.where(useful, 1 / norm, 0)
        basis[:, step] = scale[:, None] * products
        parts[:, step] = scale * left[rows, pick]
        left = left - parts[:, step, None] * basis[:, step]
    triangular = basis.gather(2, chosen[:, None].expand(-1, n_nonzero, -1)).triu()
    # An atom that added nothing has a row and a part of 0; 1 on the diagonal leaves its coefficient at 0.
    diagonal = triangular.diagonal(dim1=1, dim2=2)
    diagonal.masked_fill_(diagonal == 0, 1)
    coefficients = torch.linalg.solve_triangular(triangular, parts[..., None], upper=True)[..., 0]
    return torch.zeros_like(left).scatter_(1, chosen, coefficients)
