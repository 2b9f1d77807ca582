"""How far samples are from a law that can be drawn from exactly, in units of what exact samples have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hjbridge.metrics.distances import energy_distance


def floors(
    draw: Callable[[int, torch.Generator], Tensor],
    exact: Any,
    n: int,
    seeds: Sequence[int],
    *,
    pairs: int = 40,
) -> list[float]:
    """Energy distance of n samples to n exact ones, divided by its mean between two exact samples; one for each seed.

    A sampler of the law itself has 1 on average, with a wide spread: the distance is a sum of squares.

    Args: draw(n, generator) -> (n, d); exact, with sample(n, generator), such as a `GaussianMixture`; n at least 2;
        seeds of the generators; pairs of exact samples behind the divisor.
    Raises: ValueError for n below 2, no seeds, or draws of another shape.
    """
    if n < 2 or not seeds:
        raise ValueError(f"n must be at least 2 and seeds not empty, got {n} and {list(seeds)}")

    def source(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    # seeds of exact samples do not meet those of the draws
    first, second = ([exact.sample(n, source(2**31 + 2 * k + i)) for k in range(pairs)] for i in (0, 1))
    floor = sum(map(energy_distance, first, second)) / pairs
    found = []
    for seed in seeds:
        x, truth = draw(n, source(seed)), exact.sample(n, source(2**30 + seed))
        if x.shape != truth.shape:
            raise ValueError(f"draw must return shape {tuple(truth.shape)}, got {tuple(x.shape)}")
        found.append(energy_distance(x, truth) / floor)
    return found
