"""Optimal costs of the deterministic pendulum by open-loop control: a truth that knows no grid.

From each start, every piecewise constant control of a coarse set is tried; the best of each kind is improved by
gradient descent, then Pontryagin's equations are solved from there by collocation. The least cost of all is taken.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.integrate import solve_bvp

# the constants stand here once more, so that a wrong one in the library would be seen
GRAVITY, FRICTION, TORQUE, R, T = 5.0, 0.1, 2.0, 0.2, 3.0
LEVELS, PIECES, STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0), 5, 60
DESCENT, RATE = 300, 0.03


def slope(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Derivatives of angle from upright, speed and cost so far; x (3, n), u (n,)."""
    running = 2 * (1 - np.cos(x[0])) + 0.1 * x[1] ** 2 + R * u**2 / 2
    return np.stack([x[1], GRAVITY * np.sin(x[0]) - FRICTION * x[1] + u, running])


def total(x: np.ndarray) -> np.ndarray:
    """Cost so far plus terminal cost, (n,)."""
    return x[2] + 5 * (1 - np.cos(x[0])) + 0.05 * x[1] ** 2


def costate_slope(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """p' = -dH/dx, (2, n)."""
    return -np.stack([2 * np.sin(x[0]) + GRAVITY * np.cos(x[0]) * p[1], 0.2 * x[1] + p[0] - FRICTION * p[1]])


def costate_end(x: np.ndarray) -> np.ndarray:
    return np.stack([5 * np.sin(x[0]), 0.1 * x[1]])


def runge_kutta(x: np.ndarray, h: float, u: np.ndarray) -> np.ndarray:
    """One step of order 4 with u held."""
    a = slope(x, u)
    b = slope(x + h / 2 * a, u)
    c = slope(x + h / 2 * b, u)
    return x + h / 6 * (a + 2 * b + 2 * c + slope(x + h * c, u))


def rollout(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """States (STEPS + 1, 3, n) from x (3, n) under u (STEPS, n)."""
    states = [x]
    for now in u:
        states.append(runge_kutta(states[-1], T / STEPS, now))
    return np.stack(states)


def costates(states: np.ndarray) -> np.ndarray:
    """Costates (STEPS + 1, 2, n) along the states, by Heun's method backwards."""
    h, p = T / STEPS, [costate_end(states[-1])]
    for later, now in zip(states[:0:-1], states[-2::-1], strict=True):
        a = costate_slope(later, p[-1])
        p.append(p[-1] - h / 2 * (a + costate_slope(now, p[-1] - h * a)))
    return np.stack(p[::-1])


def guesses(start: np.ndarray) -> tuple[np.ndarray, float]:
    """Controls (STEPS, k), the best for each number of turns and sign of the first push, and the least cost seen."""
    pieces = np.array(list(itertools.product(LEVELS, repeat=PIECES)))
    u = pieces.repeat(STEPS // PIECES, 1).T
    end = rollout(np.tile([[start[0]], [start[1]], [0.0]], len(pieces)), u)[-1]
    cost, kinds = total(end), np.stack([np.round(end[0] / (2 * np.pi)), np.sign(pieces[:, 0])], 1)
    best = [min(np.flatnonzero((kinds == kind).all(1)), key=cost.__getitem__) for kind in np.unique(kinds, axis=0)]
    return u[:, [i for i in best if cost[i] < 1.2 * cost.min() + 1]], cost.min()


def descend(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The best controls met by Adam's descent from u, all columns at once; dJ/du = R u + p_speed."""
    first, second = np.zeros_like(u), np.zeros_like(u)
    best, least = u, np.full(u.shape[1], np.inf)
    for i in range(DESCENT):
        states = rollout(x, u)
        cost = total(states[-1])
        best, least = np.where(cost < least, u, best), np.minimum(cost, least)
        push = costates(states)[:, 1]
        gradient = R * u + (push[1:] + push[:-1]) / 2
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        step = first / (1 - 0.9 ** (i + 1)) / (np.sqrt(second / (1 - 0.99 ** (i + 1))) + 1e-9)
        u = np.clip(u - RATE / 2 * (1 + np.cos(np.pi * i / DESCENT)) * step, -TORQUE, TORQUE)
    return best


def extremal(states: np.ndarray, p: np.ndarray) -> float:
    """Cost of the solution of Pontryagin's equations near states (K + 1, 3), p (K + 1, 2); inf if none is found."""

    def equations(t, y):
        # u = -p_speed/R, clipped
        u = np.clip(-y[4] / R, -TORQUE, TORQUE)
        return np.concatenate([slope(y[:3], u), costate_slope(y[:2], y[3:])])

    def ends(a, b):
        return np.concatenate([a[:3] - states[0], b[3:] - costate_end(b)])

    found = solve_bvp(equations, ends, np.linspace(0, T, STEPS + 1), np.hstack([states, p]).T, tol=1e-6, max_nodes=5000)
    return float(total(found.y[:, -1])) if found.status == 0 else np.inf


def optimal_costs(starts: np.ndarray) -> np.ndarray:
    """Least costs (n,) from starts (n, 2), to about 1e-6 of themselves.

    Raises: RuntimeError if from a start no extremal is as good as the best coarse control.
    """
    tried = [guesses(start) for start in starts]
    owner = np.repeat(np.arange(len(starts)), [u.shape[1] for u, _ in tried])
    x = np.vstack([starts[owner].T, np.zeros(len(owner))])
    states = rollout(x, descend(x, np.hstack([u for u, _ in tried])))
    p = costates(states)
    costs = np.full(len(starts), np.inf)
    for j, i in enumerate(owner):
        costs[i] = min(costs[i], extremal(states[:, :, j], p[:, :, j]))
    for start, cost, (_, coarse) in zip(starts, costs, tried, strict=True):
        if not cost <= coarse + 1e-6:
            raise RuntimeError(f"from {start.tolist()} the least cost must not exceed {coarse:.4f}, got {cost:.4f}")
    return costs


def closed_loop_costs(control, starts: np.ndarray, steps: int = 600) -> np.ndarray:
    """Costs (n,) from starts (n, 2) of a feedback control(x (n, 2), t) -> (n,), held over each of the steps."""
    x = np.vstack([starts.T, np.zeros(len(starts))])
    for k in range(steps):
        x = runge_kutta(x, T / steps, control(x[:2].T, k * T / steps))
    return total(x)
