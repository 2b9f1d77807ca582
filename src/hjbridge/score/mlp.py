"""A residual multilayer perceptron for vectors and very small images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hjbridge.score.embedding import sinusoidal


class ResidualMLP(nn.Module):
    """h <- h + W2 silu((1 + a) W1 norm(h) + b), `blocks` times, between two linear layers; a, b from the embedding.

    Args:
        shape: shape of one sample; it is flattened inside. width: hidden units. blocks: residual blocks.
        classes: number of labels (0: unconditional); label `classes` means none.
        level_scale: factor on the level before its sinusoidal features.

    The last layer of each block and of the network starts at zero. Called with x (batch, *shape), level (batch,).
    """

    def __init__(
        self, shape: Sequence[int], width: int = 256, blocks: int = 3, *, classes: int = 0, level_scale: float = 100.0
    ) -> None:
        super().__init__()
        size = math.prod(shape)
        self.width, self.level_scale = width, level_scale
        self.embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.stem = nn.Linear(size, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.scale_shift = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.outer = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, size)
        for layer in (*self.outer, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """Prediction of the shape of x; level (batch,); label (batch,) or None."""
        embedding = self.embed(sinusoidal(self.level_scale * level, self.width))
        if self.label is not None and label is not None:
            embedding = embedding + self.label(label)
        embedding = F.silu(embedding)
        h = self.stem(x.flatten(1))
        for norm, inner, modulate, outer in zip(self.norms, self.inner, self.scale_shift, self.outer, strict=True):
            a, b = modulate(embedding).chunk(2, dim=1)
            # h <- h + W2 silu((1 + a) W1 norm(h) + b)
            h = h + outer(F.silu((1 + a) * inner(norm(h)) + b))
        return self.head(F.silu(h)).reshape(x.shape)
