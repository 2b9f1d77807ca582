"""Means of paths with standard errors: control variates, and extrapolation in the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """A mean and its standard error."""

    mean: float
    stderr: float


def estimate(samples: Tensor, *variates: Tensor) -> Estimate:
    """Mean of samples (n,) with its standard error, after regression on control variates (n,) of mean zero.

        mean(samples) - b' mean(variates),    b by least squares

    The fitted b costs a bias of order 1/n, far below the standard error for n of some hundreds. Variates that are not
    finite or have no variance are left out. Source: Glasserman 2003, section 4.1.
    """
    used = [m for m in variates if bool(m.isfinite().all()) and bool(m.var() > 0)]
    centred = samples - samples.mean()
    if not used or not bool(centred.any()):
        return Estimate(samples.mean().item(), _stderr(samples))
    m = torch.stack(used, 1)
    # relative cut-off: two variates may be the same, as when a solution is compared with itself
    b = torch.linalg.pinv(m - m.mean(0), rtol=1e-10) @ centred.unsqueeze(1)
    cleaned = samples - (m @ b).squeeze(1)
    return Estimate(cleaned.mean().item(), _stderr(cleaned))


def extrapolate(results: Sequence[Tensor], order: float) -> Tensor:
    """Richardson's value at step zero, from two results, at steps h and 2h, whose error is of the given order in h."""
    fine, coarse = results
    # a(h) + (a(h) - a(2h)) / (2^order - 1)
    return fine + (fine - coarse) / (2**order - 1)


def relative_error(found: Tensor, truth: Tensor) -> float | None:
    """Norm of the difference over the norm of the truth; None if the truth is zero."""
    size = truth.norm().item()
    return (found - truth).norm().item() / size if size > 0 else None


def _stderr(samples: Tensor) -> float:
    return samples.std().item() / math.sqrt(len(samples))
