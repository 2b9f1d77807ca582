"""The linear equation of Hopf and Cole in one dimension, by Chebyshev collocation in state and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander
from scipy.linalg import solve_sylvester
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem

Array = np.ndarray
# what a path to the artificial boundary must cost in the exponent: e^-37 is rounding
BARRIER = 37.0
# degree in time, within a panel; how large the last coefficients in time and in x may be beside the largest; the span
# of ln chi in a panel
ORDER, TAIL, BLUR, RANGE = 14, 1e-12, 1e-9, 4.0


@dataclass(frozen=True)
class PanelValue:
    """V(x, t) = sum_ij c_kij T_i(y) T_j(r): one table of Chebyshev coefficients for each panel k of the time to go.

    Attributes: table (panels, N + 1, M + 1). edges (panels + 1,), of the time to go, from 0 to T. inner: lowest and
    highest state at which V is given. outer: the interval in which the equation was solved; y is x mapped to [-1, 1].
    """

    table: Tensor
    edges: Tensor
    inner: tuple[float, float]
    outer: tuple[float, float]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """V at x (n, 1) and t, of shape (n,). Raises: ValueError outside the inner interval."""
        low, high = self.inner
        outside = (x < low) | (x > high)
        if bool(outside.any()):
            raise ValueError(f"x must lie in [{low:g}, {high:g}], got {x[outside][0].item():g}")
        table, edges = self.table.to(x.device), self.edges.to(x.device)
        left, right = self.outer
        y = (2 * x.double()[:, 0] - left - right) / (right - left)
        s = (edges[-1] - t.double()).expand(len(x))
        panel = torch.bucketize(s.detach().contiguous(), edges[1:-1].contiguous())
        value = torch.zeros_like(y)
        for k in panel.unique().tolist():
            rows = (panel == k).nonzero().squeeze(1)
            r = (2 * s[rows] - edges[k] - edges[k + 1]) / (edges[k + 1] - edges[k])
            parts = (chebyshev(y[rows], table.shape[1] - 1) @ table[k]) * chebyshev(r, table.shape[2] - 1)
            value = value.index_put((rows,), parts.sum(1))
        return value.to(x.dtype)


def chebyshev(y: Tensor, degree: int) -> Tensor:
    """T_0 to T_degree at y (n,), of shape (n, degree + 1), differentiable everywhere."""
    T = torch.stack((torch.ones_like(y), y), 1)
    while T.shape[1] <= degree:
        # T_(m+j) = 2 T_m T_j - T_(m-j)
        T = torch.cat((T, 2 * T[:, -1:] * T[:, 1:] - T[:, :-1].flip(1)), 1)
    return T[:, : degree + 1]


def solve_panels(problem: ControlProblem, temp: float, degree: int, padding: float | None) -> PanelValue:
    """Solve for psi = e^(-V/lam) in panels of time, on `problem.box` and a margin around it.

    In each panel psi = e^(-W/lam) chi with W the value at its start, so that chi starts as 1 and stays within reach of
    rounding where psi itself spans many decades; with a = sigma^2 and s the time to go, chi solves

        chi_s = (f - a W'/lam) chi' + a chi''/2 - ([f W' - a W'^2/(2 lam) + a W''/2 + l]/lam) chi,    chi' = 0 outside

    Collocation in state and time makes each panel a Sylvester equation; it is halved until chi spans at most e^4 and
    its expansion in time has ended. Errors fall exponentially where the data are analytic. The coefficients must not
    depend on time.

    Args: temp, lam. degree: of the polynomials in x. padding: width of the margin; None takes what a path needs, so
        that reflection at its end does not reach the box.
    Raises: ValueError if the solution is not resolved. Source: Trefethen 2000, chapters 6 and 7.
    """
    assert problem.horizon is not None and problem.terminal_cost is not None and problem.box is not None
    line = _line(problem, degree, padding)
    W = problem.terminal_cost(line.x).detach().numpy()
    r, Dr = _collocation(ORDER)
    r, Dr = r[::-1], Dr[::-1, ::-1]
    to_x, to_r = np.linalg.inv(chebvander(line.y, degree)), np.linalg.inv(chebvander(r, ORDER))
    table, edges, length = [], [0.0], problem.horizon / 64
    while edges[-1] < problem.horizon * (1 - 1e-12):
        length = min(length, problem.horizon - edges[-1])
        value = _panel(line, temp, W, 2 * Dr / length)
        modes = value[line.within] @ to_r.T
        tail = np.abs(modes[:, -2:]).max() / max(np.abs(modes).max(), temp)
        # a NaN fails both
        if not (np.ptp(value - W[:, None]) <= RANGE * temp and tail <= TAIL):
            length /= 2
            if length < problem.horizon * 2**-12:
                raise ValueError(f"nodes must resolve the solution, got {degree} that do not: take more, or use Grid")
            continue
        table.append(to_x @ value @ to_r.T)
        blur = np.abs(table[-1][-4:]).max() / np.abs(table[-1]).max()
        if blur > BLUR:
            raise ValueError(f"nodes must resolve the solution, got {degree} that leave {blur:.1e} of it: take more")
        edges.append(edges[-1] + length)
        W, length = value[:, -1], 2 * length
    edges[-1] = problem.horizon
    ends = (problem.box[0].item(), problem.box[1].item())
    return PanelValue(torch.from_numpy(np.stack(table)), torch.tensor(edges, dtype=torch.float64), ends, line.outer)


class _Line(NamedTuple):
    """Collocation points y in [-1, 1] and x (N + 1, 1), those in the box, the differentiation matrix D in x, f, a, l
    there, the matrix that gives the end values from the others, and the interval.
    """

    y: Array
    x: Tensor
    within: Array
    D: Array
    f: Array
    a: Array
    cost: Array
    closure: Array
    outer: tuple[float, float]


def _line(problem: ControlProblem, degree: int, padding: float | None) -> _Line:
    assert problem.box is not None
    low, high = problem.box[0].item(), problem.box[1].item()
    left = low - (_margin(problem, low, -1) if padding is None else padding)
    right = high + (_margin(problem, high, 1) if padding is None else padding)
    y, D = _collocation(degree)
    D = 2 * D / (right - left)
    x = torch.from_numpy((left + right + (right - left) * y) / 2).unsqueeze(1)
    ends, rest = [0, degree], slice(1, degree)
    # chi' = 0 at both ends
    closure = -np.linalg.solve(D[np.ix_(ends, ends)], D[ends, rest])
    within = ((x >= low) & (x <= high)).squeeze(1).numpy()
    return _Line(y, x, within, D, *_coefficients(problem, x), closure, (left, right))


def _panel(line: _Line, temp: float, W: Array, step: Array) -> Array:
    """V at the collocation points (N + 1, M + 1) of one panel that starts from W; NaN where chi is not positive.

    Args: step, the differentiation matrix in time.
    """
    D, f, a = line.D, line.f, line.a
    n = len(W) - 1
    ends, rest, W1 = [0, n], slice(1, n), D @ W
    force = f * W1 - a * W1**2 / (2 * temp) + a * (D @ W1) / 2 + line.cost
    A = (f - a * W1 / temp)[:, None] * D + (a / 2)[:, None] * (D @ D) - np.diag(force / temp)
    inside = A[rest, rest] + A[rest][:, ends] @ line.closure
    chi, later, start = np.ones((n + 1, len(step))), step[1:, 1:].T, np.ones((n - 1, 1)) * step[1:, 0]
    # inside X - X later = start, with X the values of chi at the later times
    X = solve_sylvester(inside, -later, start)
    # once more for what rounding left: rows near the ends are larger by N^2
    chi[rest, 1:] = X + solve_sylvester(inside, -later, start - (inside @ X - X @ later))
    chi[ends, 1:] = line.closure @ chi[rest, 1:]
    # V = W - lam ln chi
    return W[:, None] - temp * np.log(np.where(chi > 0, chi, np.nan))


def _collocation(n: int) -> tuple[Array, Array]:
    """Chebyshev points cos(pi i/n), descending, and the differentiation matrix on them."""
    i = np.arange(n + 1)
    sign = np.where((i == 0) | (i == n), 2.0, 1.0) * (-1.0) ** i
    half = np.pi * (i[:, None] + i) / (2 * n), np.pi * (i[:, None] - i) / (2 * n)
    # y_i - y_j = -2 sin((i + j) pi/2n) sin((i - j) pi/2n)
    D = np.outer(sign, 1 / sign) / (-2 * np.sin(half[0]) * np.sin(half[1]) + np.eye(n + 1))
    return np.sin(np.pi * (n - 2 * i) / (2 * n)), D - np.diag(D.sum(1))


def _coefficients(problem: ControlProblem, x: Tensor) -> tuple[Array, Array, Array]:
    """f, a = sigma sigma' and l at x (n, 1), each (n,)."""
    t = x.new_zeros(())
    noise = problem.noise(x, t).reshape(len(x), -1).square().sum(1)
    cost = torch.zeros(len(x)).to(x) if problem.running_cost is None else problem.running_cost(x, t)
    return problem.drift(x, t)[:, 0].detach().numpy(), noise.detach().numpy(), cost.detach().numpy()


def _margin(problem: ControlProblem, end: float, side: int) -> float:
    """How far beyond an end of the box no path gets and returns, but for e^-37: by diffusion, or against the drift."""
    assert problem.horizon is not None
    there = torch.full((1, 1), end, dtype=torch.float64)
    spread = 8.6 * float(np.sqrt(_coefficients(problem, there)[1][0] * problem.horizon))
    away = np.linspace(0, spread, 2001)
    f, a, _ = _coefficients(problem, torch.from_numpy(end + side * away).unsqueeze(1))
    # the quasi-potential 2 int -f/a
    barrier = np.cumsum(-side * 2 * f / a) * away[1]
    enough = np.flatnonzero(barrier >= BARRIER)
    return float(away[enough[0]]) if len(enough) else spread
