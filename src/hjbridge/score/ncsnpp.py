"""NCSN++ and DDPM++, the networks of Song et al. 2021, as one U-Net."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hjbridge.score.embedding import sinusoidal
from hjbridge.score.resample import double, halve, smooth
from hjbridge.score.unet import Attention


def average(a: Tensor, b: Tensor) -> Tensor:
    """(a + b) / sqrt 2: of unit variance if a and b are and do not correlate."""
    return (a + b) / math.sqrt(2)


def spread(layer: nn.Conv2d | nn.Linear, scale: float = 1.0) -> None:
    """Weights uniform with variance 2 scale / (fan_in + fan_out) and no bias, as DDPM's layers start."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def normalisation(channels: int) -> nn.GroupNorm:
    """Normalisation of groups of at least four channels, of at most 32 groups."""
    groups = min(channels // 4, 32)
    if groups == 0 or channels % groups:
        raise ValueError(f"channels must give widths that {groups or 'some'} groups divide, got a width of {channels}")
    return nn.GroupNorm(groups, channels, eps=1e-6)


class RandomFeatures(nn.Module):
    """Features sin(2 pi w_i c), cos(2 pi w_i c) of a level c (batch,), w_i from N(0, scale^2), drawn once and kept."""

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", scale * torch.randn(size))

    def forward(self, level: Tensor) -> Tensor:
        angles = 2 * math.pi * level[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class BigGANBlock(nn.Module):
    """R x -> (shortcut(R x) + conv(silu(norm(conv(R silu(norm x)) + shift)))) / sqrt 2, with a resampling R or none.

    The block of BigGAN (Brock et al. 2019) with sums divided by sqrt 2 (Song et al. 2021, appendix H).
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        embedding: int,
        dropout: float,
        resample: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = normalisation(inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.shift = nn.Linear(embedding, outer)
        self.norm2 = normalisation(outer)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.shortcut = nn.Conv2d(inner, outer, 1) if inner != outer or resample else None
        self.resample = resample
        for layer in (self.conv1, self.shift, self.shortcut):
            if layer is not None:
                spread(layer)
        spread(self.conv2, 1e-10)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = self.conv1(h) + self.shift(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return average(x if self.shortcut is None else self.shortcut(x), h)


class Stage(nn.Module):
    """A block, and attention between pixels behind it if `attend`."""

    def __init__(self, block: BigGANBlock, attend: bool) -> None:
        super().__init__()
        self.block = block
        self.attention: Attention | None = None
        if attend:
            norm = block.norm2
            self.attention = Attention(norm.num_channels, norm.num_groups)
            for layer in (self.attention.query, self.attention.key, self.attention.value):
                spread(layer, 0.1)
            spread(self.attention.out, 1e-10)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.block(x, embedding)
        return h if self.attention is None else self.attention(h) / math.sqrt(2)


class Shrink(nn.Module):
    """Smooth an image and take it to half its size by a strided convolution, one step of the pyramid of inputs."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, stride=2)
        spread(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(smooth(x, padding=2))


class NCSNpp(nn.Module):
    """U-Net of Song et al. 2021, appendix H: DDPM++ at its defaults, NCSN++ with fir, pyramid, fourier = 16.

    Compared with the published program: as many parameters, and for equal weights of a small network outputs within
    6e-14 in float64. Only what its networks for CIFAR-10 have is here: no pyramid of outputs.

    Args:
        size: height and width of the image. image_channels: its channels.
        channels: width of the first level. multipliers: width of each level in units of `channels`.
        blocks: residual blocks per level on the way down (one more on the way up); 4, or 8 in the "deep" networks.
        attention: heights at which every block on the way down, and the last on the way up, is followed by attention;
            the middle always has one.
        fir: smooth images with the filter of `hjbridge.score.resample` when their size changes.
        pyramid: add the image itself, smoothed and shrunk, to the features of each level on the way down.
        fourier: scale of the frequencies of random features of the level (0: sinusoidal features).
        classes: number of labels (0: unconditional); label `classes` means none.
        dropout: probability in the blocks. centred: data lie around 0; if not, in [0, 1], and the network sees 2 x - 1.

    Called with x (batch, image_channels, size, size) and level (batch,): 999 t in DDPM++, log sigma in NCSN++.
    """

    def __init__(
        self,
        size: int = 32,
        image_channels: int = 3,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        *,
        fir: bool = False,
        pyramid: bool = False,
        fourier: float = 0.0,
        classes: int = 0,
        dropout: float = 0.1,
        centred: bool = True,
    ) -> None:
        super().__init__()
        factor = 2 ** (len(multipliers) - 1)
        if size < 1 or size % factor:
            raise ValueError(f"size must be a positive multiple of {factor} for {len(multipliers)} levels, got {size}")
        heights = [size >> level for level in range(len(multipliers))]
        if not set(attention) <= set(heights):
            raise ValueError(f"attention must be among the heights {heights}, got {tuple(attention)}")
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {blocks}")
        if fourier < 0:
            raise ValueError(f"fourier must not be negative, got {fourier}")
        self.shape, self.channels, self.centred = (image_channels, size, size), channels, centred
        width = 4 * channels
        widths = [channels * m for m in multipliers]

        def block(inner: int, outer: int, resample: Callable[..., Tensor] | None = None) -> BigGANBlock:
            return BigGANBlock(inner, outer, width, dropout, resample and partial(resample, fir=fir))

        self.features = RandomFeatures(channels, fourier) if fourier else None
        self.embed = nn.Sequential(nn.Linear((1 + bool(fourier)) * channels, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.stem = nn.Conv2d(image_channels, channels, 3, padding=1)

        current, skips = channels, [channels]
        self.down, self.halves, self.pyramid = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, outer in enumerate(widths):
            if level > 0:
                self.halves.append(block(current, current, halve))
                if pyramid:
                    self.pyramid.append(Shrink(widths[level - 2] if level > 1 else image_channels, current))
                skips.append(current)
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(Stage(block(current, outer), heights[level] in attention))
                current = outer
                skips.append(current)
            self.down.append(stages)
        self.middle = nn.ModuleList([Stage(block(current, current), True), Stage(block(current, current), False)])
        self.up, self.doubles = nn.ModuleList(), nn.ModuleList()
        for level, outer in reversed(list(enumerate(widths))):
            stages = nn.ModuleList()
            for i in range(blocks + 1):
                stages.append(Stage(block(current + skips.pop(), outer), i == blocks and heights[level] in attention))
                current = outer
            self.up.append(stages)
            if level > 0:
                self.doubles.append(block(current, current, double))
        self.norm = normalisation(current)
        self.head = nn.Conv2d(current, image_channels, 3, padding=1)
        for layer in (self.embed[0], self.embed[2], self.stem):
            spread(layer)  # type: ignore[arg-type]
        spread(self.head, 1e-10)

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """Prediction of the shape of x (batch, image_channels, size, size); level (batch,); label (batch,) or None.

        Raises: ValueError if x has another shape, or there is a label and no classes.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"x must have shape (batch, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        features = sinusoidal(level, self.channels) if self.features is None else self.features(level)
        embedding = self.embed(features.to(x.dtype))
        if label is not None:
            if self.label is None:
                raise ValueError(f"label must be None for a network without classes, got {tuple(label.shape)} labels")
            embedding = embedding + self.label(label)
        embedding = F.silu(embedding)

        image = x if self.centred else 2 * x - 1
        h = self.stem(image)
        skips = [h]
        for i, stages in enumerate(self.down):
            if i > 0:
                h = self.halves[i - 1](h, embedding)
                if self.pyramid:
                    h = image = average(self.pyramid[i - 1](image), h)
                skips.append(h)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(h, embedding)
                skips.append(h)
        for stage in self.middle:
            h = stage(h, embedding)
        for i, stages in enumerate(self.up):
            if i > 0:
                h = self.doubles[i - 1](h, embedding)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(torch.cat([h, skips.pop()], 1), embedding)
        return self.head(F.silu(self.norm(h)))
