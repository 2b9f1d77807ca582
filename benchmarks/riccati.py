"""LQG in 100 dimensions: seconds of our Riccati solver, its error beside that of scipy's solve_ivp."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import torch
from paired import Outcome, Row, interleaved, ratios
from scipy.integrate import solve_ivp

from hjbridge.hjb import Riccati, problems, solve

DIM, SIGMA, T, TOLERANCE, TIMES, STATES = 100, 0.5, 1.0, 1e-12, 21, 20


def system(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random A (d, d) and B (d, d/2), each with independent entries of standard deviation .7 and 1.4 over sqrt d."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((0.7, DIM), (1.4, DIM // 2))
    A, B = (s * torch.randn(DIM, n, generator=generator, dtype=torch.float64) / math.sqrt(DIM) for s, n in sizes)
    return A, B


class Peer:
    """The Riccati equation for solve_ivp; y holds P and c, tau is the time to go."""

    def __init__(self, A: torch.Tensor, B: torch.Tensor) -> None:
        self.A, self.M = A.numpy(), (B @ B.T).numpy()
        self.end = np.append(np.eye(DIM).ravel(), 0.0)

    def slope(self, tau, y):
        P = y[:-1].reshape(DIM, DIM)
        PA = P @ self.A
        # dP/dtau = Q + A'P + PA - P B R^-1 B'P,   dc/dtau = sigma^2 tr P/2
        return np.append((np.eye(DIM) + PA + PA.T - P @ self.M @ P).ravel(), SIGMA**2 * np.trace(P) / 2)

    def solve(self):
        options = {"method": "DOP853", "rtol": TOLERANCE, "atol": TOLERANCE, "dense_output": True}
        return solve_ivp(self.slope, (0, T), self.end, **options).sol

    def truth(self, times: np.ndarray) -> list[np.ndarray]:
        """y at ascending times to go from 0, from one to the next at the tightest tolerance."""
        found = [self.end]
        for span in itertools.pairwise(times):
            found.append(solve_ivp(self.slope, span, found[-1], method="DOP853", rtol=3e-14, atol=3e-14).y[:, -1])
        return found


def run(quick: bool) -> Outcome:
    x = torch.randn(STATES, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = np.linspace(0, T, TIMES)

    def value(y):
        P = y[:-1].reshape(DIM, DIM)
        return ((x.numpy() @ P) * x.numpy()).sum(1) / 2 + y[-1]

    seconds: tuple[list[float], list[float]] = ([], [])
    errors: tuple[list[float], list[float]] = ([], [])
    for seed in range(1 if quick else 3):
        A, B = system(seed)
        problem, peer = problems.lqg(A, B, 1.0, 1.0, 1.0, SIGMA, T), Peer(A, B)
        measured = interleaved([lambda p=problem: solve(p, Riccati()), peer.solve], 2 if quick else 5)
        exact = np.stack([value(y) for y in peer.truth(times)])
        solution, dense = solve(problem, Riccati()), peer.solve()
        mine = np.stack([solution.value(x, T - tau).numpy() for tau in times])
        theirs = np.stack([value(dense(tau)) for tau in times])
        for i, found in enumerate((mine, theirs)):
            seconds[i].extend(measured[i])
            errors[i].append(float(np.abs(found / exact - 1).max()))
    cheaper = statistics.median(ratios(*seconds))
    return Outcome(
        f"d = {DIM}, {DIM // 2} controls, T = {T:g}, random A and B, another pair for each error; ours gives V as a "
        "function of t that can be differentiated; the peer DOP853 with dense output, tolerance "
        f"{TOLERANCE:g}; largest relative error of V at {STATES} states and {TIMES} times, against DOP853 from one "
        "time to the next at 3e-14",
        (
            Row(f"LQG d = {DIM}: CPU seconds of ours", tuple(seconds[0]), "<=", 1),
            Row(f"LQG d = {DIM}: error ours / solve_ivp", ratios(*errors), "<=", 1, "worst"),
        ),
        (
            f"largest error {max(errors[0]):.1g}, of solve_ivp {max(errors[1]):.1g}",
            f"CPU time against solve_ivp: {cheaper:.3g} times (median); for ten digits of P at one time it is the "
            "cheaper way",
        ),
    )
