"""What controllers cost when they are driven: the price of a value that is only approximate, or of a wrong model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hjbridge.hjb.certificate.certify import certify
from hjbridge.hjb.certificate.closed_loop import extended, nearest
from hjbridge.hjb.certificate.measurements import costs, run_pair
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.problems.linear import stationary_lqr
from hjbridge.hjb.simulate import simulate
from hjbridge.hjb.solution import Method, Solution, solve


def realised_cost(solution: Solution, x0: Tensor, seeds: Sequence[int], *, paths: int, steps: int) -> list[float]:
    """Mean closed-loop cost of a solution's control and stopping rule from one state, one number for each seed.

    Costs at `steps` and at half as many steps, on the same noise, are extrapolated to step zero; the martingale
    sum e^(-rho t) grad V . sigma dW of the solution's own value takes noise out, as in `certify`. At states outside the
    solution's domain, which paths may reach, the control of the nearest state in it is used.

    Args: solution, of a problem with a horizon, with a value. x0: the start (1, d), in the solution's domain. seeds: of
        the noise. paths: for each seed. steps: of time, even.
    Returns: the means, not the errors of the value: their spread over the seeds is the statistical error.
    Raises: ValueError for an infinite horizon, another shape of x0, an x0 outside the solution's domain, odd steps.
    """
    problem = solution.problem
    if problem.horizon is None:
        raise ValueError("problem must have a horizon, got none: use certify, which says where to cut it")
    if x0.shape != (1, problem.dim):
        raise ValueError(f"x0 must have shape (1, {problem.dim}), got {tuple(x0.shape)}")
    if solution.domain is not None and bool(((x0 != nearest(solution, x0)) & x0.isfinite()).any()):
        low, high = (end.tolist() for end in solution.domain)
        raise ValueError(f"x0 must lie in the solution's domain, {low} to {high}, got {x0[0].tolist()}")
    if steps < 2 or steps % 2:
        raise ValueError(f"steps must be positive and even, so that the step can be doubled, got {steps}")
    guide, starts = extended(solution), x0.expand(paths, -1)
    stop = None if problem.obstacle is None else guide.stop
    times = torch.linspace(0, problem.horizon, steps + 1, dtype=x0.dtype, device=x0.device)
    found = []
    for seed in seeds:
        generator = torch.Generator(device=x0.device).manual_seed(seed)
        pair = run_pair(problem, guide.control, stop, guide, starts, times, generator)
        found.append(costs(problem, pair)["extrapolated"].mean)
    return found


def model_losses(
    problem: ControlProblem, models: Sequence[ControlProblem], method: Method, seeds: Sequence[int], *,
    paths: int, steps: int,
) -> Tensor:  # fmt: skip
    """What the controls that are best for other models cost on the true problem, in per cent above its own control.

    Each model and the problem itself are solved, and each control drives the problem from the same starts, through the
    same noise.

    Args: problem, the truth, with a horizon and an initial sampler. models: what each controller believes. method:
        solves them. seeds: of starts and noise. paths: for each seed. steps: of time.
    Returns: (seeds, models). Raises: ValueError for a problem without horizon or sampler.
    """
    if problem.horizon is None or problem.initial is None:
        raise ValueError(f"problem must have a horizon and an initial sampler, got {problem.name!r} without")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    x0 = torch.cat([problem.initial(paths, generator) for generator in generators])
    times = torch.linspace(0, problem.horizon, steps + 1, dtype=x0.dtype)
    motions = problem.noise(x0[:1], times[0], x0.new_zeros(1, problem.controls)).shape[-1]
    drawn = [torch.randn(steps, paths, motions, generator=g, dtype=x0.dtype) for g in generators]
    noises = torch.cat(drawn, 1) * (problem.horizon / steps) ** 0.5

    def cost(model: ControlProblem) -> Tensor:
        path = simulate(problem, solve(model, method).control, x0, times, noises=noises)
        return path.cost.reshape(len(seeds), paths).mean(1)

    return 100 * (torch.stack([cost(model) for model in models], 1) / cost(problem).unsqueeze(1) - 1)


def gain_loss(problem: ControlProblem, **believed: float) -> float:
    """What a `stationary_lqr` loses under the gain that is best for another model, in per cent of x'Px/2 and of c.

        P_K = (q + r K^2) / (rho + 2 (beta K - alpha)),    loss = 100 (P_K / P - 1),

    with the gain K of the model that is believed in and alpha, beta, q, r, rho of the truth.

    Args: problem, the truth. believed: arguments of `stationary_lqr` in which the model differs.
    Raises: ValueError for another problem; if e^(-rho t) E X^2 does not go to zero under that gain.
    """
    if problem.name != "stationary_lqr" or problem.exact is None:
        raise ValueError(f"problem must be a stationary_lqr, got {problem.name!r}")
    one, truth = torch.ones(1, 1, dtype=torch.float64), dict(problem.arguments)
    model = stationary_lqr(**(truth | believed)).exact
    assert model is not None
    gain = -model.control(one).item()
    decay = truth["rho"] + 2 * (truth["beta"] * gain - truth["alpha"])
    if decay <= 0:
        raise ValueError(f"believed must give a gain that keeps the cost finite, got {believed} and K = {gain:g}")
    # P_K = (q + r K^2) / (rho + 2 (beta K - alpha))
    return 100 * ((truth["q"] + truth["r"] * gain**2) / decay / problem.exact.gradient(one).item() - 1)


def excess_percent(
    problem: ControlProblem, solution: Solution, x0: Tensor, seeds: Sequence[int], *,
    paths: int, steps: int, horizon: float | None = None,
) -> list[float]:  # fmt: skip
    """Closed-loop cost above that of the exact control, from one state on the same noise, in per cent of the value.

    Args: problem, with an exact solution. solution: any of its dimensions. x0 (1, d). seeds; paths, steps and horizon
        as in `certify`, whose `exact_excess` it is.
    """
    if problem.exact is None:
        raise ValueError(f"problem must have an exact solution, got {problem.name!r} without")
    value, found = problem.exact.value(x0).item(), []
    for seed in seeds:
        made = certify(problem, solution, x0=x0, paths=paths, steps=steps, horizon=horizon, seed=seed)
        assert made.exact_excess is not None
        found.append(100 * made.exact_excess.mean / value)
    return found


def compare(
    problem: ControlProblem, candidates: Mapping[str, Solution], seeds: Sequence[int], *, paths: int, steps: int
) -> dict[str, dict[str, Any]]:
    """Certify several solutions of a problem with a known answer, each once for every seed.

    Args: problem, with an exact value. candidates: name to solution. seeds, paths, steps: see `certify`.
    Returns: name of a measurement -> name of the candidate -> number, or one number for each seed: certified, how often
        it was called optimal; promised, cost less the value it claims; excess, cost less that of the exact control;
        gap, half the squared distance to that control; value, what it claims over the exact value, less 1, in per cent.
        A candidate that is a control without a value has no entry in value, and none but an empty list in promised.
    Raises: ValueError for a problem without exact value.
    """
    if problem.exact is None or problem.exact.value_function is None:
        raise ValueError(f"problem must have an exact value, got {problem.name!r} without")
    found: dict[str, dict[str, Any]] = {name: {} for name in ("certified", "promised", "excess", "gap", "value")}
    for name, solution in candidates.items():
        made = [certify(problem, solution, paths=paths, steps=steps, seed=seed) for seed in seeds]
        found["certified"][name] = sum(c.optimal for c in made)
        found["promised"][name] = [c.excess.mean for c in made if c.excess]
        found["excess"][name] = [c.exact_excess.mean for c in made if c.exact_excess]
        found["gap"][name] = [c.control_gap.mean for c in made if c.control_gap]
        if solution.value_function is not None:
            claimed, exact = sum(c.value or 0.0 for c in made), sum(c.exact_value or 0.0 for c in made)
            found["value"][name] = 100 * (claimed / exact - 1)
    return found
