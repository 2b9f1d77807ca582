"""Mean and covariance of x_0 given x_t, from a denoiser and its Jacobian; and given a linear observation, too."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap

from hjbridge.score.guidance.classifier import signal_weight
from hjbridge.score.guidance.observation import Observation, gaussian_log_prob
from hjbridge.sde.process import Time, as_time, broadcast


def moments(denoiser: Any, x: Tensor, t: Time, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean D and covariance C = sigma^2/alpha dD/dx of x_0 given x_t, by Tweedie's formulas.

    Args: as for a denoiser; x (n, ...) of d coordinates. It costs one evaluation and d backward passes.
    Returns: D, of the shape of x; C (n, d, d), the nearest covariance where the Jacobian of a network is not one.
    Raises: ValueError if alpha(t) = 0; FloatingPointError if the Jacobian is not finite.
    """
    t = as_time(t)
    weight = signal_weight(denoiser.process, t)
    mean, pull = vjp(lambda x: denoiser(x, t, label), x)  # type: ignore[misc]
    seeds = torch.eye(x.shape[1:].numel()).to(x).reshape(-1, *x.shape[1:])
    # dD/dx, one row at a time, as (n, d, d)
    slopes = vmap(lambda seed: pull(seed.expand(x.shape))[0])(seeds).movedim(0, 1).flatten(2)
    # C = sigma^2/alpha dD/dx
    return mean, nearest_covariance(broadcast(weight, slopes) * slopes, t)


class Belief(NamedTuple):
    """What x_t tells of x_0 without and with an observation y = A x_0 + e, e ~ N(0, r^2 I), by Gaussian moments.

        D' = D + K (y - A D),   C' = C - K A C,   K = C A' S^{-1},   S = A C A' + r^2 I,   log_prob = log N(y; A D, S)

    mean D and given_mean D' (n, d); covariance C and given_covariance C' (n, d, d); log_prob (n,).
    """

    mean: Tensor
    covariance: Tensor
    given_mean: Tensor
    given_covariance: Tensor
    log_prob: Tensor


def believe(denoiser: Any, observation: Observation, x: Tensor, t: Time, label: Tensor | None = None) -> Belief:
    """`Belief` at x_t, in the wider of the types of x and the observation; arguments and errors as for `moments`."""
    mean, covariance = moments(denoiser, x, t, label)
    residual = observation.residual(mean)
    flat, covariance, matrix = (v.to(residual) for v in (mean.flatten(1), covariance, observation.matrix))
    # S = A C A' + r^2 I,   K = C A' S^{-1}
    spread = matrix @ covariance @ matrix.mT + observation.noise**2 * torch.eye(len(matrix)).to(matrix)
    gain = torch.linalg.solve(spread, matrix @ covariance).mT
    keep = torch.eye(matrix.shape[1]).to(matrix) - gain @ matrix
    # C' = (I - K A) C (I - K A)' + r^2 K K', which is C - K A C and stays a covariance under rounding
    given_covariance = keep @ covariance @ keep.mT + observation.noise**2 * gain @ gain.mT
    # D' = D + K (y - A D)
    given_mean = flat + (gain @ residual.unsqueeze(-1)).squeeze(-1)
    return Belief(flat, covariance, given_mean, given_covariance, gaussian_log_prob(residual, spread))


def nearest_covariance(matrix: Tensor, t: Tensor) -> Tensor:
    """The nearest positive semi-definite matrix (Higham 1988): the symmetric part without its negative eigenvalues.

    Args: matrix (n, m, m); t for the message. Raises: FloatingPointError if it is not finite.
    """
    if not bool(matrix.isfinite().all()):
        raise FloatingPointError(f"the Jacobian of the denoiser is not finite at t = {t.flatten()[0].item():g}")
    symmetric = (matrix + matrix.mT) / 2
    values, axes = torch.linalg.eigh(symmetric)
    rounding = matrix.shape[-1] * torch.finfo(matrix.dtype).eps * values.abs().amax(dim=1, keepdim=True)
    if bool((values >= -rounding).all()):
        return symmetric
    # Q max(v, 0) Q'
    return (axes * values.clamp(min=0).unsqueeze(-2)) @ axes.mT
