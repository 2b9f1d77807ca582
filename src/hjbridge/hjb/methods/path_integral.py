"""Linearly solvable problems by sampling: the path integral, with or without a guiding control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hjbridge.hjb.methods.importance import HopfColeEstimate, girsanov, log_mean, log_step
from hjbridge.hjb.methods.temperature import check_points, temperature
from hjbridge.hjb.problem import ControlProblem, Time
from hjbridge.hjb.simulate import Feedback
from hjbridge.hjb.solution import Solution


@dataclass(frozen=True)
class PathIntegral:
    """V(x, t) = -lam ln mean(w) over Euler paths from (x, t) to the horizon, w as in `hopf_cole_estimate`.

    Every point uses the same noise, so that V is one smooth function of x and t for each seed, and its gradient and
    control are pathwise derivatives of what is returned. Errors of different points are therefore correlated. It costs
    paths x steps evaluations for each point: a method for any dimension, at a few points.

    Attributes:
        paths, steps: for each point; the steps divide the time that is left.
        guide: control v(x, t) under which the paths run, differentiable in x if gradients are wanted; None runs them
            without control. The nearer to the optimum, the smaller the variance. The mean of w is unbiased for every
            guide; V is consistent, of bias lam (1/ess - 1)/(2n) for n paths, and off by the order of the step.
    """

    paths: int = 1024
    steps: int = 50
    guide: Feedback | None = None

    def __post_init__(self) -> None:
        if self.paths < 2:
            raise ValueError(f"paths must be at least 2, got {self.paths}")
        if self.steps < 1:
            raise ValueError(f"steps must be positive, got {self.steps}")

    def solve(self, problem: ControlProblem, seed: int = 0) -> Solution:
        """The solution that samples when it is asked.

        Raises: ValueError if the problem is not linearly solvable, or drift, dispersion or costs are NaN.
        """
        temp = _checked(problem)
        settings = {"paths": self.paths, "steps": self.steps, "seed": seed, "guided": self.guide is not None}
        return Solution(
            problem,
            "PathIntegral",
            value_function=lambda x, t: self._run(problem, temp, x, t, seed).value,
            settings=settings,
            history=[{"temperature": temp}],
        )

    def estimate(self, problem: ControlProblem, x: Tensor, t: Time = 0.0, seed: int = 0) -> HopfColeEstimate:
        """Value, standard error and effective sample size at x (n, d) and t, each (n,)."""
        return self._run(problem, _checked(problem), x, problem.time(x, t), seed)

    @classmethod
    def restore(cls, problem: ControlProblem, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Solution:
        """Rebuild what `Solution.save` wrote. Raises: ValueError if it was guided: no guide is saved."""
        if settings["guided"]:
            raise ValueError("guide must be None to load a solution, got one that was guided: solve again")
        return cls(int(settings["paths"]), int(settings["steps"])).solve(problem, int(settings["seed"]))

    def _run(self, problem: ControlProblem, temp: float, x: Tensor, t: Tensor, seed: int) -> HopfColeEstimate:
        assert problem.horizon is not None and problem.terminal_cost is not None
        generator = torch.Generator().manual_seed(seed)
        k = problem.noise(x[:1], t if t.ndim == 0 else t[:1]).shape[-1]
        # a root has no derivative at zero: there the time to go is held at 1e-13 T
        left = (problem.horizon - t).clamp(min=0) + 1e-13 * problem.horizon
        dt = (left / self.steps).expand(len(x)).repeat_interleave(self.paths)
        now = t.expand(len(x)).repeat_interleave(self.paths)
        here = x.repeat_interleave(self.paths, 0)
        log_weight = torch.zeros_like(dt)
        for _ in range(self.steps):
            z = torch.randn(self.paths, k, generator=generator, dtype=torch.float64).to(x)
            dw = dt.sqrt().unsqueeze(1) * z.repeat(len(x), 1)
            v = here.new_zeros(len(here), problem.controls) if self.guide is None else self.guide(here, now)
            sigma = problem.noise(here, now)
            theta = girsanov(problem, here, now, v, sigma)
            log_weight = log_weight + log_step(problem, temp, here, now, dt, theta, dw)
            shock = sigma * dw if sigma.ndim == 2 else (sigma @ dw.unsqueeze(-1)).squeeze(-1)
            # X <- X + (f + B v) dt + sigma dW
            here = here + problem.velocity(here, now, v) * dt.unsqueeze(1) + shock
            now = torch.minimum(now + dt, now.new_full((), problem.horizon))
        log_weight = log_weight - problem.terminal_cost(here) / temp
        return log_mean(log_weight.unflatten(0, (len(x), self.paths)), temp)


def _checked(problem: ControlProblem) -> float:
    if problem.horizon is None or problem.inside is not None:
        raise ValueError("problem must have a horizon and no exit for PathIntegral, got another: use FirstExit")
    x, t = check_points(problem)
    check_coefficients(problem, x, t)
    return temperature(problem, x, t)


def check_coefficients(problem: ControlProblem, x: Tensor, t: Tensor) -> None:
    """Refuse drift and dispersion if not finite, and costs of NaN or minus infinity, at points (n, d), times (n,).

    Raises: ValueError, naming the coefficient, the value and the point.
    """
    idle = x.new_zeros(len(x), problem.controls)
    found = {"drift": problem.drift(x, t), "dispersion": problem.noise(x, t, idle)}
    bad = {name: ~values.isfinite() for name, values in found.items()}
    costs = {} if problem.running_cost is None else {"running_cost": problem.running_cost(x, t)}
    if problem.terminal_cost is not None:
        costs["terminal_cost"] = problem.terminal_cost(x)
    # a state that is forbidden may cost infinitely much
    bad |= {name: values.isnan() | (values == -math.inf) for name, values in costs.items()}
    for name, values in (found | costs).items():
        if bool(bad[name].any()):
            row = int(bad[name].reshape(len(x), -1).any(1).nonzero()[0])
            got = values[bad[name]][0].item()
            raise ValueError(f"{name} must be finite, got {got} at x = {x[row].tolist()}, t = {t[row].item():g}")
