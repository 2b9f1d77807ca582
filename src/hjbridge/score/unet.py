"""One U-Net: DDPM's networks at its defaults, and a small one with a patch stem that trains on a laptop CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hjbridge.score.embedding import sinusoidal


class ResidualBlock(nn.Module):
    """x -> shortcut(x) + conv(silu(norm(conv(silu(norm x)) + shift))), the block of DDPM.

    With `scale`, ... + conv(silu((1 + scale) norm(conv(silu(norm x))) + shift)) (Dhariwal and Nichol 2021, section 3).
    """

    def __init__(self, inner: int, outer: int, embedding: int, groups: int, dropout: float, scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inner, eps=1e-6)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.scale = scale
        self.shift = nn.Linear(embedding, 2 * outer if scale else outer)
        self.norm2 = nn.GroupNorm(groups, outer, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.shortcut = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h, shift = self.conv1(F.silu(self.norm1(x))), self.shift(embedding)[:, :, None, None]
        if self.scale:
            scale, shift = shift.chunk(2, dim=1)
            h = (1 + scale) * self.norm2(h) + shift
        else:
            h = self.norm2(h + shift)
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Self-attention between pixels with one head and a residual connection."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(self.query(pixels), self.key(pixels), self.value(pixels))
        return x + self.out(mixed).transpose(1, 2).reshape(x.shape)


class Down(nn.Module):
    """Halve height and width by a strided convolution, padded on the right and below as in DDPM."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    """Double height and width by repetition, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Overview(nn.Module):
    """x + W_2 silu((1 + scale) W_1 norm(x) + shift) with dense W_1, W_2 through `rank` features of the whole image.

    At large noise the denoised image is a sum of patterns as large as the image, each times how much of it the noisy
    one shows. That is a projection, which convolutions learn slowly; scale and shift, from the embedding, set its gain.
    """

    def __init__(self, channels: int, height: int, embedding: int, groups: int, rank: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.inner = nn.Linear(channels * height**2, rank)
        self.shift = nn.Linear(embedding, 2 * rank)
        self.out = nn.Linear(rank, channels * height**2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.shift(embedding).chunk(2, dim=1)
        h = (1 + scale) * self.inner(self.norm(x).flatten(1)) + shift
        return x + self.out(F.silu(h)).view(x.shape)


class UNet(nn.Module):
    """U-Net of DDPM (Ho et al. 2020, appendix B), optionally on patches and with labels.

    Args:
        size: height and width of the image. image_channels: its channels.
        channels: width of the first level. multipliers: width of each level in units of `channels`.
        blocks: residual blocks per level on the way down (one more on the way up).
        attention: heights (after the patch stem) at which every block is followed by attention; the middle always is.
        patch: side of the square that the stem folds into channels (1: none); cost falls by its square.
        classes: number of labels (0: unconditional); label `classes` means none.
        groups: groups of the normalisation. dropout: probability in the blocks.
        level_scale: factor on the level before its sinusoidal features (1 for DDPM's step index).
        scale: let level and label scale the features of each block as well as shift them.
        overview: features of a dense layer over the whole image in the middle (0: none), see `Overview`.

    The defaults are the CIFAR-10 network of DDPM. Called with x (batch, image_channels, size, size) and level (batch,).
    """

    def __init__(
        self,
        size: int = 32,
        image_channels: int = 3,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        *,
        patch: int = 1,
        classes: int = 0,
        groups: int = 32,
        dropout: float = 0.0,
        level_scale: float = 1.0,
        scale: bool = False,
        overview: int = 0,
    ) -> None:
        super().__init__()
        factor = patch * 2 ** (len(multipliers) - 1)
        if size % factor:
            raise ValueError(f"size must be a multiple of {factor} (patch and levels), got {size}")
        if channels % groups:
            raise ValueError(f"groups must divide channels = {channels}, got {groups}")
        if overview < 0:
            raise ValueError(f"overview must not be negative, got {overview}")
        self.patch, self.channels, self.level_scale = patch, channels, level_scale
        width = 4 * channels
        widths = [channels * m for m in multipliers]

        def block(inner: int, outer: int) -> ResidualBlock:
            return ResidualBlock(inner, outer, width, groups, dropout, scale)

        def attend(channels: int, height: int) -> nn.Module:
            return Attention(channels, groups) if height in attention else nn.Identity()

        self.embed = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.stem = nn.Conv2d(image_channels * patch**2, channels, 3, padding=1)

        height, current, skips = size // patch, channels, [channels]
        self.down = nn.ModuleList()
        for level, outer in enumerate(widths):
            for _ in range(blocks):
                self.down.append(nn.ModuleList([block(current, outer), attend(outer, height)]))
                current = outer
                skips.append(current)
            if level < len(widths) - 1:
                self.down.append(nn.ModuleList([Down(current)]))
                height //= 2
                skips.append(current)
        self.middle = nn.ModuleList([block(current, current), Attention(current, groups), block(current, current)])
        self.overview = Overview(current, height, width, groups, overview) if overview else None
        self.up = nn.ModuleList()
        for level, outer in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(nn.ModuleList([block(current + skips.pop(), outer), attend(outer, height)]))
                current = outer
            if level > 0:
                self.up.append(nn.ModuleList([Up(current)]))
                height *= 2
        self.norm = nn.GroupNorm(groups, current, eps=1e-6)
        self.head = nn.Conv2d(current, image_channels * patch**2, 3, padding=1)

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """Prediction of the shape of x (batch, image_channels, size, size); level (batch,); label (batch,) or None."""
        features = self.embed[:3](sinusoidal(self.level_scale * level, self.channels).to(x.dtype))
        if self.label is not None and label is not None:
            features = features + self.label(label)
        embedding = self.embed[3](features)

        h = self.stem(F.pixel_unshuffle(x, self.patch))
        skips = [h]
        for stage in self.down:
            h = stage[0](h) if len(stage) == 1 else stage[1](stage[0](h, embedding))  # type: ignore[index, arg-type]
            skips.append(h)
        first, attention, second = self.middle
        h = attention(first(h, embedding))
        h = second(h if self.overview is None else self.overview(h, embedding), embedding)
        for stage in self.up:
            h = stage[0](h) if len(stage) == 1 else stage[1](stage[0](torch.cat([h, skips.pop()], 1), embedding))  # type: ignore[index, arg-type]
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)


def zero_outputs(network: nn.Module) -> nn.Module:
    """Set the last layer of each residual branch and of the network to zero: training starts at the identity."""
    for module in network.modules():
        last = {ResidualBlock: "conv2", Attention: "out", Overview: "out", UNet: "head"}.get(type(module))
        if last is not None:
            for parameter in getattr(module, last).parameters():
                nn.init.zeros_(parameter)
    return network
