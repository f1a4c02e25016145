"""The backbones that every model shares: three convolutions for images, one hidden layer for vectors.

An encoder maps ``(batch, *input_shape)`` to ``(batch, n_outputs)``; a decoder maps ``(batch, latent_dim)``
back to ``(batch, *input_shape)``, without a last non-linearity: logits or means, as the likelihood reads them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from sparse_vae.checks import SettingError

CHANNELS = (16, 32, 64)
"""Feature maps of the three convolutions, each of stride 2."""


def _halved_sizes(size: int) -> list[int]:
    """Lengths of one image side before and after each convolution: 28 → 28, 14, 7, 4."""
    sizes = [size]
    for _ in CHANNELS:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


class Flatten(nn.Module):
    """Feature maps ``(batch, channels, height, width)`` to vectors, a free view of the channels_last layout."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


class Unflatten(nn.Module):
    """The inverse of :class:`Flatten`, for maps of ``shape``, ``(channels, height, width)``.

    >>> Unflatten((2, 3, 3))(torch.zeros(5, 18)).shape
    torch.Size([5, 2, 3, 3])
    """

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__()
        self.shape = shape

    def forward(self, vectors: Tensor) -> Tensor:
        channels, height, width = self.shape
        return vectors.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)


class _ImageConvolution(nn.ConvTranspose2d):
    """The decoder's last layer, from maps to an image: 3×3, stride 2, padding 1.

    On a CPU torch's own kernel, made for many output channels, takes about half of the decoder's forward pass for the
    one channel of a grey image; here the result is the same up to rounding.
    """

    def __init__(self, channels: int, image_channels: int, output_padding: tuple[int, int]):
        super().__init__(channels, image_channels, 3, stride=2, padding=1, output_padding=output_padding)

    def forward(self, maps: Tensor) -> Tensor:  # type: ignore[override]  # the size of what comes out is known
        if not maps.is_cpu or self.out_channels > 3:
            return super().forward(maps)
        with torch.autocast("cpu", enabled=False):
            return _SumOfTaps.apply(maps.to(self.weight.dtype), self.weight, self.bias, self.output_padding)


class _SumOfTaps(torch.autograd.Function):
    """What :class:`_ImageConvolution` computes: one matrix product of all positions with the nine taps of the kernel,
    then a sum for each tap, which lies on every second pixel. The gradient is torch's own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, weight: Tensor, bias: Tensor, output_padding: tuple[int, int]) -> Tensor:
        batch, channels, height, width = maps.shape
        positions = maps.permute(0, 2, 3, 1).reshape(-1, channels)
        taps = (weight.reshape(channels, -1).t() @ positions.t()).view(-1, 3, 3, batch, height, width)
        taps = taps.transpose(0, 3)  # (batch, 3, 3, image channels, height, width)
        # A frame of one pixel, the padding, is cut off in the end.
        framed = taps.new_zeros(batch, taps.shape[3], 2 * height + 1, 2 * width + 1)
        for row in range(3):
            for column in range(3):
                framed[:, :, row:row + 2 * height:2, column:column + 2 * width:2] += taps[:, row, column]
        rows, columns = (2 * size + extra for size, extra in zip((height, width), output_padding, strict=True))
        return framed[:, :, 1:rows, 1:columns] + bias.view(-1, 1, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, tuple[int, int]], output: Tensor) -> None:
        maps, weight, _, ctx.output_padding = inputs
        ctx.save_for_backward(maps, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        maps, weight = ctx.saved_tensors
        found = torch.ops.aten.convolution_backward(
            gradient.contiguous(), maps, weight, [weight.shape[1]], (2, 2), (1, 1), (1, 1), True, ctx.output_padding, 1,
            (True, True, True))
        return *found, None


def _convolutional(input_shape: tuple[int, ...], n_outputs: int,
                   latent_dim: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Three 3×3 convolutions of stride 2 and their mirror image, for images of any size and channel count."""
    channels, *sides = input_shape
    heights, widths = map(_halved_sizes, sides)
    deepest = (CHANNELS[-1], heights[-1], widths[-1])
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for narrow, wide in zip((channels, *CHANNELS), CHANNELS, strict=False):
        down += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.ReLU()]
    for level in reversed(range(len(CHANNELS))):
        # A side of n is reached from ⌈n/2⌉ by 2⌈n/2⌉ − 1 plus this padding, 0 or 1.
        padding = 1 - heights[level] % 2, 1 - widths[level] % 2
        up.append(nn.ReLU())
        if level:
            up.append(nn.ConvTranspose2d(CHANNELS[level], CHANNELS[level - 1], 3, stride=2, padding=1,
                                         output_padding=padding))
        else:
            up.append(_ImageConvolution(CHANNELS[0], channels, padding))
    encoder = nn.Sequential(*down, Flatten(), nn.Linear(math.prod(deepest), n_outputs))
    decoder = nn.Sequential(nn.Linear(latent_dim, math.prod(deepest)), Unflatten(deepest), *up)
    for layer in (*encoder[:-1], *decoder[:-1]):
        _initialise_before_relu(layer)
    return encoder, decoder


def _initialise_before_relu(layer: nn.Module) -> None:
    """Weights that keep the variance of what passes through a ReLU (He et al. 2015); torch's default, a sixth of that
    variance, lets the signal fade over three convolutions, and small data sets then train for long without moving."""
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        return
    assert layer.bias is not None
    fan_in: float = layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose2d):
        # Of the kernel, a pixel meets one part in stride² for each input channel.
        fan_in = layer.in_channels * math.prod(layer.kernel_size) / math.prod(layer.stride)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
    nn.init.zeros_(layer.bias)


def _perceptron(input_shape: tuple[int, ...], n_outputs: int, latent_dim: int,
                hidden_dim: int) -> tuple[nn.Sequential, nn.Sequential]:
    """D–hidden–outputs and latents–hidden–D with ReLU: the network of the reference tables (784-400-J)."""
    features = math.prod(input_shape)
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(features, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, n_outputs))
    decoder = nn.Sequential(
        nn.Linear(latent_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, features), nn.Unflatten(1, input_shape))
    return encoder, decoder


BACKBONES = ("auto", "conv", "mlp")
SMALLEST_SIDE = 16
"""Of images that are convolved: three halvings leave nothing of a smaller one to share weights over."""


def make_backbone(kind: str, input_shape: tuple[int, ...], n_outputs: int, latent_dim: int,
                  hidden_dim: int = 400) -> tuple[nn.Sequential, nn.Sequential]:
    """An encoder and a decoder for observations of ``input_shape``.

    Args:
        kind: ``"conv"`` (images only), ``"mlp"``, or ``"auto"``: conv for images with sides of ``SMALLEST_SIDE`` at
            least, MLP for everything else.
        input_shape: shape of one observation; ``(channels, height, width)`` is an image.
        n_outputs: outputs of the encoder (the number of posterior parameters).
        latent_dim: inputs of the decoder.
        hidden_dim: hidden units of the MLP.

    Raises:
        SettingError: ``"conv"`` for something that is not an image.

    >>> encoder, decoder = make_backbone("auto", (1, 28, 28), n_outputs=6, latent_dim=3)
    >>> encoder(torch.zeros(2, 1, 28, 28)).shape, decoder(torch.zeros(2, 3)).shape
    (torch.Size([2, 6]), torch.Size([2, 1, 28, 28]))
    """
    input_shape = tuple(input_shape)
    is_image = len(input_shape) == 3
    if kind == "conv" and not is_image:
        raise SettingError(f"backbone 'conv' needs images (channels, height, width); observations are {input_shape}")
    if kind == "conv" or (kind == "auto" and is_image and min(input_shape[1:]) >= SMALLEST_SIDE):
        return _convolutional(input_shape, n_outputs, latent_dim)
    return _perceptron(input_shape, n_outputs, latent_dim, hidden_dim)


class _UnitColumns(nn.Module):
    """A matrix with every column divided by its Euclidean norm."""

    def forward(self, matrix: Tensor) -> Tensor:
        return F.normalize(matrix, dim=0)


def linear_layer(network: nn.Module | None, index: int) -> nn.Linear:
    """The layer of a backbone at ``index``, which is linear at the code's end."""
    assert isinstance(network, nn.Sequential)
    layer = network[index]
    assert isinstance(layer, nn.Linear)
    return layer


def keep_unit_columns(layer: nn.Module) -> None:
    """Give the columns of a layer's matrix norm 1, now and throughout training: its inputs then keep their scale.

    >>> layer = nn.Linear(4, 9)
    >>> keep_unit_columns(layer)
    >>> layer.weight.detach().norm(dim=0).round(decimals=3)
    tensor([1., 1., 1., 1.])
    """
    register_parametrization(layer, "weight", _UnitColumns())


def count_parameters(module: nn.Module) -> int:
    """Number of trained values.

    >>> count_parameters(nn.Linear(4, 9))
    45
    """
    return sum(parameter.numel() for parameter in module.parameters())


__all__ = ["BACKBONES", "Flatten", "Unflatten", "count_parameters", "keep_unit_columns", "linear_layer",
           "make_backbone"]
