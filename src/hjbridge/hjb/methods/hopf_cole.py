"""Linearly solvable problems: V = -lam ln psi with psi an expectation over uncontrolled paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hjbridge.hjb.methods.desirability import PanelValue, solve_panels
from hjbridge.hjb.methods.first_exit import FirstExit
from hjbridge.hjb.methods.importance import HopfColeEstimate, hopf_cole_estimate
from hjbridge.hjb.methods.path_integral import PathIntegral, check_coefficients
from hjbridge.hjb.methods.temperature import check_points, temperature
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.residual import hjb_residual
from hjbridge.hjb.simulate import Feedback
from hjbridge.hjb.solution import Solution

__all__ = ["HopfCole", "HopfColeEstimate", "hopf_cole_estimate", "temperature"]

# nodes along each axis, by the number of Brownian motions, and how many standard deviations they reach
NODES = {1: 320, 2: 160, 3: 64}
REACH = 10.0
# points times nodes that are held in memory at once
CHUNK = 2**20
# the largest change of V against half the nodes that the trapezoidal rule accepts, in units of min(lam, max abs V)
LARGEST_CHANGE = 0.03


@dataclass(frozen=True)
class HopfCole:
    """V = -lam ln E[e^(-(int l dt + Phi)/lam)] over uncontrolled paths, without sampling unless paths are given.

    Without drift and running cost and with constant sigma, up to three Brownian motions: the trapezoidal rule for
    V = -lam ln E[e^(-Phi(x + sigma sqrt(T - t) Z)/lam)], at every x; it converges exponentially where Phi is analytic.
    Otherwise in one dimension, with coefficients free of time: Chebyshev collocation of the linear equation, on
    `problem.box`. First exit without horizon: one sparse linear system, `FirstExit`. With paths, in any dimension:
    Monte Carlo, `PathIntegral`. The method of a solution is the one that has solved it.

    Attributes:
        nodes: for each axis; None takes 320, 160 or 64 for the trapezoidal rule in 1, 2 or 3 dimensions, 220 for
            collocation, 401 or 101 in 1 or 2 dimensions for a first exit. The trapezoidal rule notes it in the
            solution's settings. For `han_jentzen_e` at abs(x_i) <= 1.5 the errors of V and, relative to its largest
            entry, of grad V are then below 1e-12 and 1e-11 to lam = 2 in 1 and 2 dimensions; for lam = 10 the same in
            1 and 2e-9 and 1e-7 in 2; to lam = 2 in 3 below 1e-5 and 1e-4, where lam = 10 is refused.
        padding: the margin around the box for collocation; None takes what its paths need.
        paths, steps, guide: of `PathIntegral`.
    """

    nodes: int | None = None
    padding: float | None = None
    paths: int | None = None
    steps: int = 50
    guide: Feedback | None = None

    def __post_init__(self) -> None:
        if self.nodes is not None and self.nodes < 8:
            raise ValueError(f"nodes must be at least 8, got {self.nodes}")
        if self.padding is not None and not self.padding > 0:
            raise ValueError(f"padding must be positive, got {self.padding}")
        if self.paths is None and self.guide is not None:
            raise ValueError("paths must be given with a guide, got None")

    def solve(self, problem: ControlProblem, seed: int = 0) -> Solution:
        """Solve the problem; nothing is random without paths.

        The history has one entry: lam and, in "error", what is left of the HJB equation at 200 points, relative to its
        largest term (collocation), or the largest change of V at 32 of them and 8 starts against half the nodes
        (trapezoidal rule): with an analytic Phi the error of V itself is at most about the square of that, both in
        units of lam.
        Raises: ValueError if the problem is not linearly solvable (names the largest deviation) or of another class, or
        drift, dispersion or costs are not finite at 200 points; if the nodes are too few: the residual is 1e-4 or more,
        or the change is over 3 % of lam, or of the largest V at these points where that is less. FloatingPointError if
        paths that matter end beyond the nodes.
        """
        if self.paths is not None:
            return PathIntegral(self.paths, self.steps, self.guide).solve(problem, seed)
        if problem.horizon is None:
            return FirstExit(self.nodes).solve(problem, seed)
        if problem.inside is not None:
            raise ValueError("inside must be None with a horizon for HopfCole, got a domain: use Grid")
        x, t = check_points(problem)
        check_coefficients(problem, x, t)
        temp = temperature(problem, x, t)
        settings: dict[str, Any] = {"temperature": temp}
        if _is_gaussian(problem, x, t):
            n, x, t = self.nodes or NODES[problem.noise(x, t).shape[-1]], x[:32], t[:32]
            if problem.initial is not None:
                starts = problem.initial(8, torch.Generator().manual_seed(0)).double()
                x, t = torch.cat([x, starts]), torch.cat([t, t.new_zeros(len(starts))])
            found = self.restore(problem, {**settings, "nodes": n}, {})
            coarse = self.restore(problem, {**settings, "nodes": n // 2}, {})
            v = found.value(x, t)
            error = (v - coarse.value(x, t)).abs().max().item()
            accepted = LARGEST_CHANGE * v.abs().max().clamp(1e-9 * temp, temp).item()
            if not error <= accepted:
                raise ValueError(
                    f"nodes must resolve e^(-Phi/lam), got {n}: against half of them V changes by {error:.3g}, "
                    f"accepted is {accepted:.3g}: take more nodes, or give paths"
                )
        else:
            _check_line(problem, x)
            value = solve_panels(problem, temp, self.nodes or 220, self.padding)
            settings |= {"inner": list(value.inner), "outer": list(value.outer)}
            found = self.restore(problem, settings, {"table": value.table, "edges": value.edges})
            residual, terms = hjb_residual(problem, found.value, x, t, terms=True)
            floor = 1e-6 * temp / problem.horizon
            error = (residual.abs() / terms.scale().clamp(min=floor)).max().item()
            if not error < 1e-4:
                raise ValueError(f"nodes must resolve the solution, got the relative residual {error:.3g}: take more")
        return Solution(
            problem, "HopfCole", value_function=found.value_function, settings=found.settings, tensors=found.tensors,
            history=[{"temperature": temp, "error": error}], domain=found.domain,
        )  # fmt: skip

    @classmethod
    def restore(cls, problem: ControlProblem, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Solution:
        """Rebuild a solution from what `Solution.save` wrote."""
        temp = float(settings["temperature"])
        if "table" in tensors:
            left, right = settings["inner"], settings["outer"]
            value = PanelValue(tensors["table"], tensors["edges"], (left[0], left[1]), (right[0], right[1]))
            domain = (torch.tensor([left[0]], dtype=torch.float64), torch.tensor([left[1]], dtype=torch.float64))
            return Solution(problem, "HopfCole", value, settings=settings, tensors=tensors, domain=domain)
        nodes = int(settings["nodes"])
        return Solution(problem, "HopfCole", lambda x, t: _gaussian(problem, temp, nodes, x, t), settings=settings)


def _is_gaussian(problem: ControlProblem, x: Tensor, t: Tensor) -> bool:
    sigma = problem.noise(x, t)
    still = not bool(problem.drift(x, t).any())
    free = problem.running_cost is None or not bool(problem.running_cost(x, t).any())
    return still and free and not callable(problem.dispersion) and sigma.shape[-1] in NODES


def _gaussian(problem: ControlProblem, temp: float, nodes: int, x: Tensor, t: Tensor) -> Tensor:
    """V = -lam ln sum_k w_k e^(-Phi(x + sigma sqrt(T - t) z_k)/lam), z_k even on [-10, 10]^k, w_k ~ e^(-|z_k|^2/2)."""
    assert problem.horizon is not None and problem.terminal_cost is not None
    y = x.double()
    sigma = problem.noise(y[:1], t)
    sigma = torch.diag_embed(sigma)[0] if sigma.ndim == 2 else sigma[0]
    line = torch.linspace(-REACH, REACH, nodes, dtype=y.dtype, device=y.device)
    z = torch.cartesian_prod(*[line] * sigma.shape[1]).reshape(-1, sigma.shape[1])
    log_weight = torch.log_softmax(-z.square().sum(1) / 2, 0)
    edge = (z.abs() == REACH).any(1)
    # a root has no derivative at zero: there the time to go is held at 1e-13 T, which moves V by as little
    spread = ((problem.horizon - t.double()).clamp(min=0) + 1e-13 * problem.horizon).sqrt().expand(len(x))
    found, size = [], max(1, CHUNK // len(z))
    for point, root in zip(y.split(size), spread.split(size), strict=True):
        there = point.unsqueeze(1) + root[:, None, None] * (z @ sigma.T)
        cost = problem.terminal_cost(there.flatten(0, 1)).unflatten(0, there.shape[:2])
        total = torch.logsumexp(log_weight - cost / temp, 1)
        beyond = torch.logsumexp((log_weight - cost / temp)[:, edge], 1) - total
        if bool((beyond > -25).any()):
            raise FloatingPointError(f"paths that matter lie over {REACH:g} deviations away: give paths and a guide")
        found.append(-temp * total)
    return torch.cat(found).to(x.dtype)


def _check_line(problem: ControlProblem, x: Tensor) -> None:
    if problem.dim != 1 or problem.box is None or problem.periodic:
        raise ValueError(
            f"problem must be free of drift and running cost with at most 3 noises, or have one state with a box, got "
            f"{problem.dim} states: give paths"
        )
    assert problem.horizon is not None
    now, later = x.new_zeros(()), x.new_full((), 0.7 * problem.horizon)
    same = torch.equal(problem.drift(x, now), problem.drift(x, later))
    same &= torch.equal(problem.noise(x, now), problem.noise(x, later))
    same &= problem.running_cost is None or torch.equal(problem.running_cost(x, now), problem.running_cost(x, later))
    if not same:
        raise ValueError("drift, dispersion and running_cost must not depend on time for HopfCole: give paths")
