"""Posterior sampling for a linear observation by weighted particles, consistent as their number grows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from hjbridge.score.guidance.moments import Belief, believe
from hjbridge.score.guidance.observation import Observation, cholesky, gaussian_log_prob
from hjbridge.score.rules import levels, standard_normal
from hjbridge.score.sample import check_grid


@dataclass(frozen=True, eq=False)
class Particles:
    """Weighted samples from `particle_posterior`.

    Attributes: x (n, *shape); log_weights (n,), normalised: their exponentials sum to one; log_evidence, the estimate
    of log p(y), 0-d; ess (steps + 1,), the effective sample size 1 / sum w^2 at each point of the grid, before
    resampling; in float64 but for x.
    """

    x: Tensor
    log_weights: Tensor
    log_evidence: Tensor
    ess: Tensor

    def resample(self, generator: torch.Generator | None = None) -> Tensor:
        """n samples of equal weight, some of them repeated, by systematic resampling; (n, *shape)."""
        return self.x[systematic(self.log_weights, generator)]


def particle_posterior(
    denoiser: Any,
    observation: Observation,
    n: int,
    grid: Tensor,
    *,
    shape: tuple[int, ...] | None = None,
    label: int | None = None,
    generator: torch.Generator | None = None,
    batch: int | None = None,
) -> Particles:
    """Draw from p(x_0 | y), y = A x_0 + e, e ~ N(0, r^2 I), by twisted sequential Monte Carlo.

    With D and C from `moments`, a step s -> t (ratios sigma/alpha, k = t^2/s^2) of the sampler that is corrected
    draws x_0 ~ N(D, C) and x_t from the posterior q(x_t | x_s, x_0) of `ancestral`:

        p(x_t | x_s) = N(a x_s + c D, c^2 C + v I),
        a = k alpha_t / alpha_s,   c = alpha_t (1 - k),   v = sigma_t^2 (1 - k)

    The particles draw x_0 given y in its place, from the N(D', C') of `Belief`, and are weighted for that, and for what
    the matched likelihood psi(x, s) = N(y; A D, A C A' + r^2 I) promises:

        w <- w  psi(x_t, t) / psi(x_s, s)  p(x_t | x_s) / N(x_t; a x_s + c D', c^2 C' + v I)

    In the last step, to sigma = 0, x is x_0 itself, psi its likelihood N(y; A x, r^2 I), and the factor is 1. For
    Gaussian data every factor is 1, whatever the grid. Before a step with an effective sample size below n/2 the
    particles are drawn anew from themselves in proportion to their weights (systematic resampling).

    As n grows, the weighted particles tend to p(x) p(y | x) / p(y), where p(x) is what the steps N(a x_s + c D, c^2 C +
    v I) draw from N(0, sigma^2 I) on this grid, and exp(log_evidence), unbiased for every n, to p(y). What is left is
    the bias of that sampler, of second order in the step. Where a process keeps noise at t = 0, so do the particles,
    and the last psi is the matched one.

    Args:
        denoiser: E[x_0 | x_t] with `.process`. observation: of flattened samples of d coordinates.
        n: number of particles. grid: times (steps + 1,), strictly descending, sigma/alpha finite at the first.
        shape: of one sample; None: (d,). label: one for all particles, or None.
        generator: source of all noise; None: torch's default one. batch: most particles per call of the denoiser, to
        bound memory; None: all of them. A call costs d backward passes.
    Returns: `Particles`, in the type of the observation's matrix, without a graph.
    Raises: ValueError for n < 1, batch < 1, a shape without d coordinates, a grid that `sample` refuses;
        FloatingPointError if all weights vanish or one is not finite (says at which t), or the Jacobian of the
        denoiser is of no use.
    Source: Wu et al. 2023, "Practical and asymptotically exact conditional sampling in diffusion models", with C in
        the steps.
    """
    matrix, process = observation.matrix, denoiser.process
    shape = (matrix.shape[1],) if shape is None else shape
    if n < 1 or n != int(n):
        raise ValueError(f"n must be a positive integer, got {n}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1 or None, got {batch}")
    if math.prod(shape) != matrix.shape[1]:
        raise ValueError(f"shape must have the {matrix.shape[1]} coordinates of the observation, got {shape}")
    grid = check_grid(process, grid)
    labels = None if label is None else torch.full((n,), label, device=matrix.device)

    def look(x: Tensor, t: Tensor) -> Belief:
        beliefs = []
        for part in x.reshape(n, *shape).split(batch or n):
            label = None if labels is None else labels[: len(part)]
            beliefs.append(believe(denoiser, observation, part, t, label))
        return Belief(*(torch.cat(columns) for columns in zip(*beliefs, strict=True)))

    with torch.no_grad():
        points = levels(process, grid)
        x = process.prior_sample((n, matrix.shape[1]), generator, t=float(grid[0]), dtype=matrix.dtype)
        x = x.to(matrix.device)
        now = look(x, points[0].t)
        weights, evidence = now.log_prob.double(), torch.zeros((), dtype=torch.float64, device=x.device)
        sizes = [effective_size(weights, points[0].t)]
        for here, there in pairwise(points):
            if sizes[-1] < n / 2:
                evidence = evidence + weights.logsumexp(0) - math.log(n)
                chosen = systematic(weights, generator)
                x, now, weights = x[chosen], Belief(*(v[chosen] for v in now)), torch.zeros_like(weights)
            k = (there.ratio / here.ratio) ** 2
            # a = k alpha_t / alpha_s,   c = alpha_t (1 - k),   v = sigma_t^2 (1 - k)
            a, c, v = k * there.alpha / here.alpha, there.alpha * (1 - k), there.sigma**2 * (1 - k)
            if there.sigma > 0:
                noise = v * torch.eye(x.shape[1]).to(x)
                free, given = c**2 * now.covariance + noise, c**2 * now.given_covariance + noise
                centre = a * x + c * now.given_mean
                # x_t ~ N(a x_s + c D', c^2 C' + v I)
                x = centre + draw(cholesky(given), standard_normal(x, generator))
                # log p(x_t | x_s) - log q(x_t | x_s)
                ratio = gaussian_log_prob(x - centre + c * (now.given_mean - now.mean), free)
                weights = weights + ratio - gaussian_log_prob(x - centre, given) - now.log_prob
                now = look(x, there.t)
                weights = weights + now.log_prob
            else:
                # x_0 ~ N(D', C')
                x = there.alpha * (now.given_mean + draw(root(now.given_covariance), standard_normal(x, generator)))
            sizes.append(effective_size(weights, there.t))
        evidence = evidence + weights.logsumexp(0) - math.log(n)
    return Particles(x.reshape(n, *shape), weights.log_softmax(0), evidence, torch.tensor(sizes, dtype=torch.float64))


def draw(factor: Tensor, z: Tensor) -> Tensor:
    """Products L_i z_i; factor (n, d, m), z (n, m), returns (n, d)."""
    return (factor @ z.unsqueeze(-1)).squeeze(-1)


def root(covariance: Tensor) -> Tensor:
    """Q sqrt(v) of covariances Q diag(v) Q', which may be singular."""
    values, axes = torch.linalg.eigh(covariance)
    return axes * values.clamp(min=0).sqrt().unsqueeze(-2)


def effective_size(log_weights: Tensor, t: Tensor) -> float:
    """Effective sample size (sum w)^2 / sum w^2. Raises: FloatingPointError if all weights are zero or one is NaN."""
    if not math.isfinite(log_weights.logsumexp(0).item()):
        raise FloatingPointError(f"the weights of the particles are not finite, or all zero, at t = {t.item():g}")
    # (sum w)^2 / sum w^2
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp().item()


def systematic(log_weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Indices of n draws in proportion to n weights, from one uniform number: (i + U) / n through the cumulative sum.

    A weight w is drawn floor(n w) or ceil(n w) times (Kitagawa 1996). Args: log_weights (n,). Returns: (n,), ascending.
    """
    n = len(log_weights)
    device = log_weights.device if generator is None else generator.device
    offset = torch.rand((), generator=generator, device=device, dtype=torch.float64).to(log_weights.device)
    places = (torch.arange(n, device=log_weights.device) + offset) / n
    return torch.searchsorted(log_weights.double().softmax(0).cumsum(0), places).clamp(max=n - 1)
