"""Prices of an American put for 200 spots: one solve on our grid against one binomial tree for each spot."""

from __future__ import annotations

import numpy as np
import torch
from paired import Outcome, Row, interleaved, ratios
from put_integral import american_put_by_integral

from hjbridge.hjb import Grid, problems, solve

STRIKE, RATE, VOLATILITY, MATURITY = 40.0, 0.06, 0.2, 1.0
SPOTS, TREE_STEPS, BATCH = np.linspace(30, 60, 200), 4000, 8
OURS = Grid(points=1001, steps=250)


def run(quick: bool) -> Outcome:
    problem = problems.american_put(STRIKE, RATE, VOLATILITY, MATURITY)
    truth = american_put_by_integral(SPOTS, STRIKE, RATE, VOLATILITY, MATURITY)
    market = (STRIKE, RATE, VOLATILITY, MATURITY, TREE_STEPS)

    def ours():
        return solve(problem, OURS).value(torch.from_numpy(SPOTS).unsqueeze(1), 0.0).numpy()

    def trees():
        return np.concatenate([problems.binomial_put(part, *market) for part in np.split(SPOTS, len(SPOTS) // BATCH)])

    mine, theirs = interleaved([ours, trees], 1 if quick else 5)
    errors = [np.abs(found() - truth) for found in (ours, trees)]
    largest, rms = [float(e.max()) for e in errors], [float(np.sqrt((e**2).mean())) for e in errors]
    return Outcome(
        f"strike {STRIKE:g}, rate {RATE:g}, volatility {VOLATILITY:g}, one year; {len(SPOTS)} spots from {SPOTS[0]:g} "
        f"to {SPOTS[-1]:g}. Ours: {OURS.points} points, {OURS.steps} steps, which gives every spot and time; the "
        f"trees: {TREE_STEPS} steps a spot, {BATCH} spots at a time, the fastest way in NumPy. Errors against the "
        "integral equation of the exercise boundary (put_integral.py); error ratios: largest, rms",
        (
            Row("American put: CPU trees / ours", ratios(theirs, mine), ">=", 5),
            Row("American put: error ours / trees", (largest[0] / largest[1], rms[0] / rms[1]), "<=", 1, "worst"),
        ),
        (f"largest error {largest[0]:.2g}, of the trees {largest[1]:.2g}; rms {rms[0]:.2g} and {rms[1]:.2g}",),
    )
