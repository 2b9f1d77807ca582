"""Error bars: the Wilson interval of a proportion and the bootstrap interval of a statistic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A number with its error: value, standard error, and the interval from low to high at `level`."""

    value: float
    stderr: float
    low: float
    high: float
    level: float = 0.95


def quantile_of(level: float) -> float:
    """Two-sided quantile of the standard normal: z with P(|Z| <= z) = level."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Wilson score interval of a proportion p = k / n.

    centre = (p + z^2 / 2n) / (1 + z^2 / n),   half width = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n)

    Args:
        successes: k, 0..n.
        n: number of trials, at least 1.
        level: coverage in (0, 1).

    Returns:
        Estimate with value p and standard error sqrt(p (1 - p) / n).

    Raises:
        ValueError: k outside 0..n, n < 1, level outside (0, 1).

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..{n}, got {successes}")
    z, p = quantile_of(level), successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Estimate(p, math.sqrt(p * (1 - p) / n), max(0.0, centre - half), min(1.0, centre + half), level)


def bootstrap(
    values: Tensor,
    statistic: Callable[[Tensor], Tensor] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Percentile bootstrap interval of a statistic of n independent rows.

    Args:
        values: (n, ...), n at least 2.
        statistic: maps rows (n, ...) to a scalar; None: the mean of all entries.
        resamples: number of draws of n rows with replacement.
        level: coverage in (0, 1).
        generator: source of randomness.

    Returns:
        Estimate: the statistic of `values`, the standard deviation over resamples, and their percentiles.

    Raises:
        ValueError: fewer than 2 rows or resamples, NaN or infinity in `values` or in a resampled statistic.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    quantile_of(level)
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(f"values must have at least 2 rows, got shape {tuple(values.shape)}")
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}")
    values = values.to(torch.float64)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("values must be finite, got NaN or infinity")
    of = statistic or (lambda rows: rows.mean())
    n, device = len(values), None if generator is None else generator.device
    chosen = (torch.randint(n, (n,), generator=generator, device=device) for _ in range(resamples))
    draws = torch.stack([torch.as_tensor(of(values[index.to(values.device)])) for index in chosen]).to(torch.float64)
    if not bool(torch.isfinite(draws).all()):
        raise ValueError("statistic must be finite on every resample, got NaN or infinity")
    tail = (1 - level) / 2
    low, high = torch.quantile(draws, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Estimate(float(of(values)), float(draws.std()), low, high, level)
