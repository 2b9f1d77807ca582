"""Clouds of particles on a line: how far two of them lie apart, and how far two exact draws of one law would."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hjbridge.metrics.distances import wasserstein
from hjbridge.sde import GaussianMixture, Process, integrate, reverse


def distribution(law: GaussianMixture, x: Tensor) -> Tensor:
    """Distribution function of a one-dimensional mixture, F(x) = sum_k w_k Phi((x - m_k) / s_k).

    Args: law; x (m,) points. Returns: (m,), in the wider type of the two.
    Raises: ValueError if the mixture is not one-dimensional.
    """
    if law.means.shape[-1] != 1:
        raise ValueError(f"law must be one-dimensional, got {law.means.shape[-1]} dimensions")
    dtype = torch.promote_types(x.dtype, law.means.dtype)
    means, covariances, weights = (part.to(dtype) for part in (law.means, law.covariances, law.weights))
    # F(x) = sum_k w_k Phi((x - m_k) / s_k)
    return torch.special.ndtr((x.to(dtype)[:, None] - means[:, 0]) / covariances[:, 0, 0].sqrt()) @ weights


def _line(law: GaussianMixture, points: int, width: float = 10.0) -> Tensor:
    """Evenly spread points (points,) that reach `width` standard deviations beyond the means of a mixture."""
    reach = width * law.covariances.max().sqrt()
    return torch.linspace(float(law.means.min() - reach), float(law.means.max() + reach), points, dtype=torch.float64)


def quantiles(law: GaussianMixture, n: int, points: int = 40_001) -> Tensor:
    """Quantiles of a one-dimensional mixture at the levels (i - 1/2)/n, i = 1 .. n: an evenly spread exact sample.

    Args: law; n; points of the table from which they are interpolated. Returns: (n, 1), ascending, float64.
    Raises: ValueError if n < 1 or the mixture is not one-dimensional.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    x = _line(law, points)
    level, wanted = distribution(law, x), (torch.arange(n, dtype=torch.float64) + 0.5) / n
    above = torch.searchsorted(level, wanted).clamp(1, points - 1)
    below = above - 1
    share = (wanted - level[below]) / (level[above] - level[below])
    return (x[below] + share * (x[above] - x[below]))[:, None]


def floor(law: GaussianMixture, n: int, points: int = 40_001) -> Tensor:
    """Wasserstein-1 distance at which two independent exact clouds of n points lie on average, n large.

        E W_1 = 2 / sqrt(pi n)  int sqrt(F (1 - F)) dx

    At each x the difference of the two distribution functions is normal with variance 2 F (1 - F) / n.
    Args: law, one-dimensional; n points in each cloud; points of the trapezoid rule. Returns: 0-d, float64.
    Raises: ValueError if n < 1 or the mixture is not one-dimensional.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    x = _line(law, points)
    level = distribution(law, x).clamp(0, 1)
    # E W_1 = 2 / sqrt(pi n)  int sqrt(F (1 - F)) dx
    return 2 / math.sqrt(math.pi * n) * torch.trapezoid((level * (1 - level)).sqrt(), x)


def from_exact(
    states: Tensor, laws: Sequence[GaussianMixture], n: int, generator: torch.Generator | None = None
) -> Tensor:
    """Wasserstein-1 distances of clouds of n particles from as many fresh draws of their exact laws, at several times.

    Args: states (times, clouds * n, 1), cut into clouds in their order; laws, one-dimensional, one for each time; n
        particles in a cloud; generator of the exact draws.
    Returns: (times, clouds). Raises: ValueError if the shapes do not match.
    """
    if states.ndim != 3 or len(states) != len(laws) or states.shape[2] != 1 or n < 1 or states.shape[1] % n:
        raise ValueError(f"states must be ({len(laws)}, clouds * {n}, 1), got {tuple(states.shape)}")
    exact = torch.stack([law.sample(states.shape[1], generator) for law in laws])
    return wasserstein(states.reshape(-1, n).T, exact.reshape(-1, n).T).reshape(len(laws), -1)


class Member(NamedTuple):
    """What `family` found of one member: distances (times, clouds) and the quadratic variation for each generator."""

    distances: Tensor
    variations: list[float]


def family(
    mixture: GaussianMixture,
    process: Process,
    etas: Mapping[str, float],
    times: Sequence[float],
    size: tuple[int, int, int],
    generators: Sequence[torch.Generator],
) -> dict[str, Member]:
    """Members of the reverse family, run by Euler's method from the exact p_1, against fresh draws of the exact p_t.

    Args: mixture, the data, one-dimensional; process; etas, name to eta; times, points of the grid of the steps; size,
        particles in a cloud, clouds and steps of a run; generators, one for each run: they draw in the order of etas.
    Returns: name to `Member`, first "exact": draws of the law itself, without variations. The clouds of all runs stand
        side by side; a variation is the mean over the particles of the sum of their squared increments.
    Raises: ValueError if a time is no point of the grid, or as `from_exact` does.
    """
    n, clouds, steps = size
    places = [round((1 - t) * steps) for t in times]
    for t, place in zip(times, places, strict=True):
        if not 0 <= place <= steps or abs(1 - place / steps - t) > 1e-9:
            raise ValueError(f"times must be points of the grid of {steps} steps, got {t:g}")
    grid, laws = torch.linspace(1, 0, steps + 1, dtype=torch.float64), [mixture.marginal(process, t) for t in times]
    score, first = mixture.denoiser(process).score, mixture.marginal(process, 1.0)
    found: dict[str, list[Tensor]] = {name: [] for name in ("exact", *etas)}
    variations: dict[str, list[float]] = {name: [] for name in found}
    for generator in generators:
        exact = torch.stack([law.sample(n * clouds, generator) for law in laws])
        found["exact"].append(from_exact(exact, laws, n, generator))
        for name, eta in etas.items():
            start = first.sample(n * clouds, generator)
            path = integrate(reverse(process, score, eta), start, grid, generator=generator, record=True)
            assert path.states is not None
            found[name].append(from_exact(path.states[places], laws, n, generator))
            variations[name].append(path.states.diff(dim=0).square().sum(dim=0).mean().item())
    return {name: Member(torch.cat(found[name], dim=1), variations[name]) for name in found}
