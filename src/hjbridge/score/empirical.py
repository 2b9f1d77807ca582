"""The exact denoiser of a finite data set: what a perfect network would learn from it, and why that memorises."""

from __future__ import annotations

import torch
from torch import Tensor

from hjbridge.sde.posterior import PosteriorMean
from hjbridge.sde.process import Process, Time, as_time, broadcast, check_floating


class EmpiricalDenoiser(PosteriorMean):
    """E[x_0 | x_t] when x_0 is drawn uniformly from given points x_i.

        D(x, t) = sum_i w_i x_i,      w = softmax_i(-|x - alpha x_i|^2 / (2 sigma^2))

    The weights are computed in float64 on centred data; their logarithm has an error of about 1e-16 |x|^2 / sigma^2.

    Args:
        data: points (n, ...). process: forward process. labels: integers (n,); with a label only its points count, and
            label `classes` means all of them. chunk: most entries of the matrix of weights held at once.
    Raises: ValueError if the data are not finite or the shapes do not match.
    """

    def __init__(self, data: Tensor, process: Process, labels: Tensor | None = None, *, chunk: int = 2**23) -> None:
        if data.ndim < 2 or len(data) == 0 or not bool(data.isfinite().all()):
            raise ValueError(f"data must be finite points of shape (n, ...), got {data.dtype} {tuple(data.shape)}")
        if labels is not None and (labels.shape != data.shape[:1] or labels.is_floating_point()):
            raise ValueError(
                f"labels must be integers of shape ({len(data)},), got {labels.dtype} {tuple(labels.shape)}"
            )
        self.data, self.process, self.labels, self.chunk = data, process, labels, chunk
        points = data.double().flatten(1)
        self._centre = points.mean(0)
        self._points = points - self._centre
        self.classes = 0 if labels is None else int(labels.max()) + 1

    def __call__(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Posterior mean of x_0.

        Args: x (batch, ...); t number or (batch,) with sigma > 0; label (batch,) or None. Returns: the shape of x.
        Raises: ValueError if the shapes do not match, x is not floating or not finite, sigma(t) = 0, or a label has no
            points.
        """
        check_floating(x)
        if x.shape[1:] != self.data.shape[1:]:
            raise ValueError(
                f"x must have shape (batch, {', '.join(map(str, self.data.shape[1:]))}), got {tuple(x.shape)}"
            )
        if not bool(x.isfinite().all()):
            raise ValueError("x must be finite, got NaN or infinity")
        t = as_time(t)
        wide = x.double().flatten(1)
        alpha, sigma2 = (
            broadcast(c, wide).expand(len(x), 1) for c in (self.process.alpha(t), self.process.sigma(t) ** 2)
        )
        if not bool((sigma2 > 0).all()):
            raise ValueError(f"t must have a positive sigma, got t = {t.flatten().tolist()[:3]}")
        allowed = self.allowed(label, x)
        centre, points = self._centre.to(x.device), self._points.to(x.device)
        energy = (points**2).sum(1) / 2
        means = []
        for rows in torch.arange(len(x), device=x.device).split(max(1, self.chunk // len(points))):
            near = wide[rows] - alpha[rows] * centre
            # -|x - alpha x_i|^2 / 2 without the part that all i share
            logits = (alpha[rows] * (near @ points.T) - alpha[rows] ** 2 * energy) / sigma2[rows]
            if allowed is not None:
                logits = logits.masked_fill(~allowed[rows], -torch.inf)
            means.append(centre + logits.softmax(1) @ points)
        return torch.cat(means).reshape(x.shape).to(x.dtype)

    def allowed(self, label: Tensor | None, x: Tensor) -> Tensor | None:
        """Which points each label admits, (batch, n) of booleans; None for all."""
        if label is None:
            return None
        if self.labels is None:
            raise ValueError(f"label must be None for data without labels, got {tuple(label.shape)} labels")
        if label.shape != (len(x),) or label.is_floating_point():
            raise ValueError(f"label must be integers of shape ({len(x)},), got {label.dtype} {tuple(label.shape)}")
        chosen, labels = label.to(x.device)[:, None], self.labels.to(x.device)
        mask = (labels == chosen) | (chosen == self.classes)
        if not bool(mask.any(1).all()):
            raise ValueError(f"label must be one that the data have, or {self.classes}, got {label[~mask.any(1)][0]}")
        return mask
