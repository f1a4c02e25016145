"""Smiley: drawn faces whose 18 sources are known and sparse.

A filled disc of radius 10 in a 32×32 binary image may wear a bow tie, a hat, eyes and a mouth. Each of these four
groups is present with probability ½, independently; a present group has its own sources z ~ N(0, 1), which place and
size its parts: the value in pixels is mean + spread · z (the table below). Sources of an absent group are 0.

Source: F. Tonolini, B. S. Jensen, R. Murray-Smith, *Variational Sparse Coding*, UAI 2019, supplement E, and the
authors' generator (ftonolini45/Variational_Sparse_Coding). This is a new drawing of the same faces; it differs so:

- a pixel is on where its centre lies inside a shape with real-valued edges; the authors round positions first;
- a part is never smaller than one pixel, so that a present source never makes it vanish;
- the mouth's spreads are the paper's 0.5 pixels (the authors' code has 0.25 for its position), and it is centred on
  the head's axis (16.5; theirs 16); the bow tie is two triangles by formula (theirs a resampled picture);
- factors are in standard deviations (theirs are 0.5 · z, stored also for absent groups, beside a mask).
"""

from __future__ import annotations

import numpy as np
import torch

from sparse_vae.datasets.base import Dataset, Split
from sparse_vae.settings import Integer, Number, takes_settings

SIZE = 32  # pixels; their centres lie at 1..32 in both directions, and 16.5 is the middle
AXIS = 16.5
HEAD_RADIUS = 10
KNOT = 0.25  # height of the bow tie in its middle, as a share of its height at the ends
GROUPS = {"bow tie": 4, "hat": 6, "eyes": 3, "mouth": 5}  # number of sources, in the order of the table
SOURCES = {  # mean and spread in pixels
    "bow tie x": (AXIS, 0.25),
    "bow tie y": (29, 0.5),
    "bow tie width": (12, 1.5),
    "bow tie height": (5, 1),
    "hat x": (AXIS, 0.5),
    "hat y": (6, 0.5),
    "hat brim width": (16, 1.5),
    "hat brim height": (3, 1),
    "hat crown width": (11, 1),
    "hat crown height": (2, 0.5),
    "eyes distance": (4, 0.5),  # of each eye from the axis
    "eyes y": (14, 0.5),
    "eyes radius": (2, 0.5),
    "mouth width": (5, 0.5),
    "mouth height": (3, 0.5),
    "mouth x": (AXIS, 0.5),
    "mouth y": (22, 0.5),
    "mouth corners": (0, 0.5),  # how far they hang below the mouth's middle; negative: a smile
}
MEANS, SPREADS = np.array(list(SOURCES.values()), np.float32).T
SIZES = np.array([name.endswith(("width", "height", "radius")) for name in SOURCES])
GROUP_OF_SOURCE = np.repeat(np.arange(len(GROUPS)), list(GROUPS.values()))
CHUNK = 2048  # images drawn at once: keeps the work in the processor's cache

COLUMNS = np.arange(1, SIZE + 1, dtype=np.float32).reshape(1, 1, SIZE)
ROWS = COLUMNS.reshape(1, SIZE, 1)
HEAD = (COLUMNS - AXIS) ** 2 + (ROWS - AXIS) ** 2 <= HEAD_RADIUS**2


@takes_settings({
    "n_train": Integer(60_000, "images in the training part; the authors' number"),
    "n_test": Integer(20_000, "images in the test part, which does not depend on the training part"),
    "presence": Number(0.5, "probability that a group is present", above=0, maximum=1),
    "seed": Integer(0, "of the drawing", minimum=0),
})
def load_smiley(n_train: int, n_test: int, presence: float, seed: int) -> Dataset:
    """Drawn faces, binary images of 32×32 pixels, with 18 known sources in four groups (Tonolini et al. 2019).

    ``factors`` are the sources, ``(n, 18)`` in standard deviations, 0 where the group is absent; ``render_faces``
    draws ``x`` from them.
    """
    parts = []
    for part, n in enumerate((n_train, n_test)):
        random = np.random.default_rng([seed, part])
        present = random.random((n, len(GROUPS))) < presence
        factors = random.standard_normal((n, len(SOURCES)), dtype=np.float32) * present[:, GROUP_OF_SOURCE]
        images = torch.from_numpy(render_faces(factors)).unsqueeze(1).to(torch.float32)
        parts.append(Split(images, factors=torch.from_numpy(factors)))
    return Dataset("smiley", parts[0], parts[1], likelihood="bernoulli", factor_names=tuple(SOURCES))


def render_faces(factors: np.ndarray) -> np.ndarray:
    """The faces with these sources.

    Args:
        factors: ``(n, 18)``, in standard deviations, in the order of ``SOURCES``. A group whose sources are all 0 is
            absent.

    Returns:
        Boolean images, ``(n, 32, 32)``.
    """
    factors = np.asarray(factors, dtype=np.float32)
    faces = np.empty((len(factors), SIZE, SIZE), dtype=bool)
    for start in range(0, len(factors), CHUNK):
        faces[start:start + CHUNK] = _render_chunk(factors[start:start + CHUNK])
    return faces


def _render_chunk(factors: np.ndarray) -> np.ndarray:
    pixels = MEANS + SPREADS * factors
    pixels = np.where(SIZES, np.maximum(pixels, 1), pixels)
    v = dict(zip(SOURCES, pixels.T[..., None, None], strict=True))  # each (n, 1, 1), to meet the rows and columns
    shapes = {"bow tie": _bow_tie(v), "hat": _hat(v), "eyes": _eyes(v), "mouth": _mouth(v)}
    for group, shape in enumerate(shapes.values()):
        shape &= np.any(factors[:, group == GROUP_OF_SOURCE], axis=1)[:, None, None]
    return ((HEAD | shapes["bow tie"]) & ~(shapes["eyes"] | shapes["mouth"])) | shapes["hat"]


def _bow_tie(v: dict[str, np.ndarray]) -> np.ndarray:
    outwards = np.abs(COLUMNS - v["bow tie x"]) / (v["bow tie width"] / 2)  # 0 in the middle, 1 at the ends
    height = v["bow tie height"] * (KNOT + (1 - KNOT) * outwards)
    return (outwards <= 1) & (np.abs(ROWS - v["bow tie y"]) <= height / 2)


def _hat(v: dict[str, np.ndarray]) -> np.ndarray:
    brim_top = v["hat y"] - v["hat brim height"] / 2
    brim = _box(v["hat x"], v["hat y"], v["hat brim width"], v["hat brim height"])
    crown = _box(v["hat x"], brim_top - v["hat crown height"] / 2, v["hat crown width"], v["hat crown height"])
    return brim | crown


def _eyes(v: dict[str, np.ndarray]) -> np.ndarray:
    to_nearer_eye = np.abs(COLUMNS - AXIS) - v["eyes distance"]
    return to_nearer_eye**2 + (ROWS - v["eyes y"]) ** 2 <= v["eyes radius"] ** 2


def _mouth(v: dict[str, np.ndarray]) -> np.ndarray:
    beside = np.abs(COLUMNS - v["mouth x"]) - v["mouth width"] / 2  # pixels from the mouth's end, negative inside
    hanging = v["mouth corners"] * np.where(beside > 1, 1.4, 1)  # two pixels on each side, the outer one further
    corners = (beside > 0) & (beside <= 2) & (np.abs(ROWS - v["mouth y"] - hanging) <= 0.5)
    return _box(v["mouth x"], v["mouth y"], v["mouth width"], v["mouth height"]) | corners


def _box(x: np.ndarray, y: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    return (np.abs(COLUMNS - x) <= width / 2) & (np.abs(ROWS - y) <= height / 2)
