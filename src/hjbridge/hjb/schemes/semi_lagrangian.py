"""Semi-Lagrangian steps: the Bellman equation of a chain that follows characteristics from every lattice point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.schemes.howard import Discretised
from hjbridge.hjb.schemes.implicit import terminal
from hjbridge.hjb.schemes.interpolate import cells, extremes, weights
from hjbridge.hjb.schemes.lattice import Lattice

SUBSTEPS = 2
BISECTIONS = 40


@dataclass(frozen=True)
class Transition:
    """One step of the chain from every point under each of K controls, by r weighted end points.

    Attributes: matrix (K N r, N), interpolation at the end points; share (r,), their weights; cost (K N,) on the way;
    paid (K N r,), the discounted exit cost of end points behind an exit, NaN elsewhere; cell (K N r,), the cell of
    each end point, whose corners limit cubic interpolation, or None; worth, e^(-rho dt).
    """

    matrix: sparse.csr_matrix
    share: np.ndarray
    cost: np.ndarray
    paid: np.ndarray
    cell: np.ndarray | None
    worth: float
    lattice: Lattice

    def values(self, v: np.ndarray) -> np.ndarray:
        """Cost and discounted value ahead, (K, N), for the value v (N,) at the end of the step."""
        ahead = self.matrix @ v
        if self.cell is not None:
            low, high = extremes(self.lattice, v)
            ahead = np.clip(ahead, low[self.cell], high[self.cell])
        ahead = np.where(np.isnan(self.paid), self.worth * ahead, self.paid)
        return (self.cost + ahead.reshape(len(self.cost), -1) @ self.share).reshape(-1, len(v))


def march(grid: Discretised, count: int, members: Tensor, degree: int) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Values (K + 1, N) at K + 1 equally spaced times, from the terminal cost backwards, and the notes of each step.

        V_k(x) = min_u [ int_0^dt e^(-rho s) l ds + e^(-rho dt) sum_j w_j (I V_{k+1})(y(dt) + xi_j) ]

    y follows dy/ds = f + B u by Runge-Kutta of order 4 (two substeps) with u held, xi_j = +-sqrt(3 dt) sigma_i with
    w = 1/6 for each of the k noises and 1 - k/3 for 0, which has the first three moments of the noise, and along each
    sigma_i the first five. Of the fourth moments those that mix two noises are 0, not dt^2: with more than one noise
    this adds an error O(dt). A step that leaves `problem.inside` ends where its chord crosses the boundary; end points
    outside the domain are set back on it.

    degree 1  I is multilinear: all weights are positive and sum to one, so that the scheme is monotone and V_k is the
              value of a controlled Markov chain. Error O(dt + dx^2/dt): dt should shrink like dx, not faster.
    degree 3  I is cubic Lagrange interpolation, kept between the least and the largest corner of the cell: no new
              extrema, and an error of higher order in dx where V is smooth, but not monotone.
    Source: Camilli and Falcone 1995; Falcone and Ferretti 2014, chapter 5; Bermejo and Staniforth 1992 (limiter).
    """
    problem = grid.problem
    assert problem.horizon is not None
    clock, dt = torch.linspace(0, problem.horizon, count + 1, dtype=grid.x.dtype), problem.horizon / count
    values = np.empty((count + 1, len(grid.x)))
    values[-1] = terminal(grid, clock[-1])
    step, seen, notes = None, None, []
    for k in range(count - 1, -1, -1):
        probe = _probe(grid, clock[k], dt, members)
        if step is None or seen is None or not torch.equal(probe, seen):
            step, seen = transition(grid, clock[k], dt, members, degree), probe
        values[k] = _best(grid, [step], values[k + 1], clock[k])
        notes.append({"t": float(clock[k])})
    return values, notes


def iterate(
    grid: Discretised,
    dt: float | Sequence[float],
    members: Tensor,
    degree: int,
    tolerance: float = 1e-9,
    limit: int = 20000,
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Value (N,) of a problem without horizon as the fixed point of the step of `march`, and the change at each step.

        V(x) = min_k [ cost of member k for dt_k + e^(-rho dt_k) E V(X_{dt_k}) ]

    Value iteration from the exit cost, or zero: it contracts by e^(-rho dt), and without discount by the share of paths
    that end. Args: dt, one for all members (K, m), or one for each. Raises: FloatingPointError if it does not settle.
    """
    problem, zero = grid.problem, torch.zeros((), dtype=grid.x.dtype)
    parts = [(dt, members)] if isinstance(dt, int | float) else list(zip(dt, members.split(1), strict=True))
    steps = [transition(grid, zero, length, part, degree) for length, part in parts]
    v = np.zeros(len(grid.x)) if problem.exit_cost is None else problem.exit_cost(grid.x, zero).numpy()
    notes: list[dict[str, float]] = []
    for _ in range(limit):
        new = _best(grid, steps, v, zero)
        notes.append({"change": float(np.abs(new - v).max())})
        v = new
        if notes[-1]["change"] <= tolerance * (1 + np.abs(v).max()):
            return v, notes
    raise FloatingPointError(
        f"value iteration did not settle in {limit} steps: the change is {notes[-1]['change']:.3g}"
    )


def two_cells(grid: Discretised, members: Tensor) -> float:
    """The time in which the median of all points and members crosses two cells of the lattice."""
    spacing = torch.from_numpy(grid.stencils.spacing.min(0).T)
    t = torch.zeros((), dtype=grid.x.dtype)
    rates = [(grid.problem.velocity(grid.x, t, u.expand(len(grid.x), -1)).abs() / spacing).amax(1) for u in members]
    return 2 / torch.cat(rates).median().item()


def _best(grid: Discretised, steps: Sequence[Transition], v: np.ndarray, t: Tensor) -> np.ndarray:
    problem, table = grid.problem, np.concatenate([step.values(v) for step in steps])
    best = torch.from_numpy(table.min(0) if problem.sense == "min" else table.max(0))
    if problem.obstacle is not None:
        best = problem.better(best, problem.obstacle(grid.x, t))
    if problem.exit_cost is not None:
        best = torch.where(torch.from_numpy(grid.outside), problem.exit_cost(grid.x, t), best)
    return best.numpy()


def transition(grid: Discretised, t: Tensor, dt: float, members: Tensor, degree: int) -> Transition:
    """The chain's step from t to t + dt, for all members (K, m) at all points."""
    problem, lattice = grid.problem, grid.lattice
    x = grid.x.repeat(len(members), 1)
    u = members.to(x).repeat_interleave(len(grid.x), 0)
    y, cost = _characteristic(problem, x, u, t, dt)
    sigma = problem.noise(x, t, u)
    sigma = torch.diag_embed(sigma) if sigma.ndim == 2 else sigma
    columns = [sigma[:, :, j] for j in range(sigma.shape[2]) if bool(sigma[:, :, j].any())]
    if len(columns) > 3:
        raise ValueError(f"dispersion must have at most 3 noises for a semi-Lagrangian scheme, got {len(columns)}")
    kicks = [torch.zeros_like(y)]
    for column in columns:
        # +-sqrt(3 dt) sigma_i with weight 1/6 each
        kicks += [math.sqrt(3 * dt) * column, -math.sqrt(3 * dt) * column]
    share = np.array([1 - len(columns) / 3] + [1 / 6] * (2 * len(columns)))
    # the end points of one step stand next to each other
    ends = torch.stack([y + kick for kick in kicks], 1).flatten(0, 1)
    paid, part = np.full(len(ends), np.nan), np.ones(len(ends))
    if problem.inside is not None:
        paid, part = _exits(problem, x.repeat_interleave(len(kicks), 0), ends, t, dt)
    feet = lattice.clamp(ends).numpy()
    columns_of, weight = weights(lattice, feet, degree)
    start = np.arange(len(feet) + 1, dtype=np.int64) * weight.shape[1]
    return Transition(
        matrix=sparse.csr_matrix((weight.ravel(), columns_of.ravel(), start), shape=(len(feet), len(grid.x))),
        share=share, cost=cost.numpy() * (part.reshape(len(y), -1) @ share), paid=paid,
        cell=None if degree == 1 else cells(lattice, feet), worth=math.exp(-problem.discount * dt), lattice=lattice,
    )  # fmt: skip


def _characteristic(problem: ControlProblem, y: Tensor, u: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """End of dy/ds = f + B u after dt, and the discounted running cost on the way, by classical Runge-Kutta."""
    cost, h = y.new_zeros(len(y)), dt / SUBSTEPS
    for i in range(SUBSTEPS):
        s = t + i * h
        k1, l1 = problem.velocity(y, s, u), problem.cost(y, s, u)
        k2, l2 = problem.velocity(y + h / 2 * k1, s + h / 2, u), problem.cost(y + h / 2 * k1, s + h / 2, u)
        k3, l3 = problem.velocity(y + h / 2 * k2, s + h / 2, u), problem.cost(y + h / 2 * k2, s + h / 2, u)
        k4, l4 = problem.velocity(y + h * k3, s + h, u), problem.cost(y + h * k3, s + h, u)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        worth = [math.exp(-problem.discount * (i + place) * h) for place in (0, 0.5, 1)]
        cost = cost + h / 6 * (worth[0] * l1 + 2 * worth[1] * (l2 + l3) + worth[2] * l4)
    return y, cost


def _exits(problem: ControlProblem, x: Tensor, y: Tensor, t: Tensor, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Discounted exit cost where the chord from x to y leaves, NaN elsewhere; and the part of the cost till then."""
    assert problem.inside is not None and problem.exit_cost is not None
    left = ~problem.inside(y)
    start, along = x[left], (y - x)[left]
    low, high = start.new_zeros(len(start), 1), start.new_ones(len(start), 1)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        within = problem.inside(start + middle * along).unsqueeze(1)
        low, high = torch.where(within, middle, low), torch.where(within, high, middle)
    part, paid, rho = y.new_ones(len(y)), y.new_full((len(y),), math.nan), problem.discount
    # of int_0^dt e^(-rho s) ds: (1 - e^(-rho theta dt))/(1 - e^(-rho dt))
    share = torch.expm1(-rho * dt * high) / math.expm1(-rho * dt) if rho * dt else high
    part[left] = share.squeeze(1)
    worth = torch.exp(-rho * dt * high.squeeze(1))
    paid[left] = worth * problem.exit_cost(start + high * along, t)
    return paid.numpy(), part.numpy()


def _probe(grid: Discretised, t: Tensor, dt: float, members: Tensor) -> Tensor:
    """All coefficients at the times that a step takes them at: what decides whether a transition can be used again."""
    problem, x, parts = grid.problem, grid.x, []
    for i in range(2 * SUBSTEPS + 1):
        s = t + i * dt / (2 * SUBSTEPS)
        parts.append(problem.drift(x, s).flatten())
        if not isinstance(problem.control_matrix, Tensor):
            parts.append(problem.input_matrix(x, s).flatten())
        if problem.running_cost is not None:
            parts.append(problem.running_cost(x, s))
        if callable(problem.control_cost):
            parts += [problem.control_price(x, s, u.to(x).expand(len(x), -1)) for u in members]
    if callable(problem.dispersion):
        # only a controlled noise differs between the members
        kinds = members if problem.controlled_noise else members[:1]
        parts += [problem.noise(x, t, u.to(x).expand(len(x), -1)).flatten() for u in kinds]
    if problem.exit_cost is not None:
        parts.append(problem.exit_cost(x, t))
    return torch.cat(parts)
