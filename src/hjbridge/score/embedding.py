"""How a network is told the noise level."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal(level: Tensor, size: int) -> Tensor:
    """Features sin(w_i c), cos(w_i c) of a level c (batch,), w_i from 1 to 1e-4 in geometric steps; (batch, size)."""
    half = size // 2
    index = torch.arange(half, dtype=level.dtype, device=level.device)
    # w_i = 10000^(-i / (half - 1))
    angles = level[:, None] * (-math.log(10000.0) / (half - 1) * index).exp()
    return torch.cat([angles.sin(), angles.cos()], dim=1)
