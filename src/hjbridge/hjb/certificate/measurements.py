"""The measurements that `certify` collects; each function returns fields of `Certificate` by name."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hjbridge.hjb.certificate.closed_loop import (
    Run,
    closed_loop,
    control_gap,
    girsanov_noise,
    halved,
    martingale,
    nearest,
    tail,
)
from hjbridge.hjb.certificate.estimate import Estimate, estimate, extrapolate, relative_error
from hjbridge.hjb.defect import path_defect, uncovered
from hjbridge.hjb.methods.hopf_cole import hopf_cole_estimate, temperature
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.residual import hjb_residual
from hjbridge.hjb.simulate import ControlledPath, Feedback
from hjbridge.hjb.solution import Solution

# path points are taken at so many times
SLICES = 16
Fields = dict[str, Any]


class Pair(NamedTuple):
    """One control at steps h and 2h on the same noise.

    fine, coarse: the runs. costs: of both, (n,), with the tail. noise: the martingales of both, (n,). starts: value at
    the starts less its mean, (n,). Regression on the last leaves the mean as it is and takes the spread of the starts
    out of its error, which is then that of the mean over these starts.
    """

    fine: Run
    coarse: Run
    costs: tuple[Tensor, Tensor]
    noise: tuple[Tensor, Tensor]
    starts: Tensor


def run_pair(
    problem: ControlProblem, control: Feedback, stop: Feedback | None, guide: Solution | None, x0: Tensor,
    grid: Tensor, generator: torch.Generator | None = None, noises: Tensor | None = None,
) -> Pair:  # fmt: skip
    """Simulate at both steps; `guide`, if known, gives the tail of an infinite horizon and the control variate."""
    fine = closed_loop(problem, control, x0, grid, generator, stop=stop, noises=noises)
    assert fine.path.noises is not None
    coarse = closed_loop(problem, control, x0, grid[::2], stop=stop, noises=halved(fine.path.noises))
    return with_guide(problem, fine, coarse, guide)


def with_guide(problem: ControlProblem, fine: Run, coarse: Run, guide: Solution | None) -> Pair:
    """The runs with the tail and the martingale of this guide."""
    value = None if guide is None else guide.value
    sums = [run.path.cost + tail(problem, run, value) for run in (fine, coarse)]
    noise, starts = [torch.zeros_like(total) for total in sums], torch.zeros_like(sums[0])
    if guide is not None and fine.path.states is not None:
        starts = guide.value(fine.path.states[0], 0.0).detach()
        if bool(fine.path.sigmas.any()):
            noise = [martingale(problem, guide, run.path) for run in (fine, coarse)]
    return Pair(fine, coarse, (sums[0], sums[1]), (noise[0], noise[1]), starts - starts.mean())


def order(problem: ControlProblem, run: Run) -> float:
    """Weak order of the closed loop: 1; 1/2 where noise drives paths out of a domain (Gobet 2000)."""
    exits = problem.inside is not None and not bool(run.open.all()) and bool(run.path.sigmas.any())
    return 0.5 if exits else 1.0


def step_error(problem: ControlProblem, pair: Pair) -> float:
    """Mean error of the cost at the step, by extrapolation, relative to the mean size of the cost."""
    fine = pair.costs[0]
    error = (extrapolate(pair.costs, order(problem, pair.fine)) - fine).mean().abs().item()
    size = fine.abs().mean().item()
    return error / size if size > 0 else 0.0


def costs(problem: ControlProblem, pair: Pair) -> Fields:
    """Cost at the step, its errors with and without control variate, its change under halving, and at step zero."""
    fine, coarse = pair.costs
    found = estimate(fine, pair.noise[0], pair.starts)
    change = estimate(fine - coarse, *pair.noise)
    rate = order(problem, pair.fine)
    beyond = (fine - pair.fine.path.cost).mean().item()
    return {
        "cost": found.mean, "stderr": found.stderr, "plain_stderr": estimate(fine).stderr, "step_change": change.mean,
        "extrapolated": estimate(extrapolate(pair.costs, rate), *pair.noise, pair.starts),
        "tail": beyond if problem.horizon is None else None, "step_error": step_error(problem, pair),
    }  # fmt: skip


def outside(solution: Solution, run: Run, moved: Tensor) -> Fields:
    """Share of the states of living paths that lie outside the solution's domain.

    Args: moved, which starts lay outside before they were moved to its border, (n,) of bool.
    """
    path = run.path
    assert path.states is not None
    if solution.domain is None:
        return {}
    alive = path.end > path.grid[:-1, None]
    out = (path.states[:-1] != nearest(solution, path.states[:-1])).any(-1)
    out[0] |= moved
    return {"outside": (out & alive).sum().item() / max(1, alive.sum().item())}


def claims(problem: ControlProblem, solution: Solution, pair: Pair) -> Fields:
    """The claimed value at the starts, the cost above it, the defect and the misfit at the horizon."""
    path, rate = pair.fine.path, order(problem, pair.fine)
    assert path.states is not None
    value = solution.value(path.states[0], 0.0).detach()
    excess = extrapolate(pair.costs, rate) - value
    found: Fields = {
        "value": value.mean().item(),
        "excess": estimate(excess, *pair.noise, pair.starts),
    }
    if uncovered(problem) is None:
        defects, coarse = (path_defect(problem, solution, run.path) for run in (pair.fine, pair.coarse))
        found |= {
            "defects": defects, "defect_mean": estimate(defects),
            "defect_sd": defects.std().item(), "defect_sd_coarse": coarse.std().item(),
        }  # fmt: skip
    ended = pair.fine.open & (path.x == nearest(solution, path.x)).all(1)
    if problem.terminal_cost is not None and problem.horizon is not None and bool(ended.any()):
        x = path.x[ended]
        cost, claim = problem.terminal_cost(x), solution.value(x, problem.horizon).detach()
        scale = (cost.square().mean() + value.square().mean()).sqrt().item()
        found["terminal_misfit"] = (claim - cost).square().mean().sqrt().item() / scale if scale > 0 else None
    return found


def baseline(problem: ControlProblem, guide: Solution | None, pair: Pair) -> Fields:
    """Cost of the allowed control nearest to zero on the same noise; None where it is not finite or not defined."""
    path = pair.fine.path
    assert path.states is not None
    if problem.controls == 0:
        return {}
    nearest = path.x.new_zeros(problem.controls)
    if problem.control_set is not None:
        nearest = problem.control_set[problem.control_set.norm(dim=1).argmin()].to(path.x)
    elif problem.bounds is not None:
        nearest = nearest.clamp(*(end.to(path.x) for end in problem.bounds))
    try:
        idle = closed_loop(
            problem, lambda x, t: nearest.expand(len(x), -1), path.states[0], path.grid, noises=path.noises
        )
        found = idle.path.cost + tail(problem, idle, None if guide is None else guide.value)
    except (FloatingPointError, ValueError):
        # it blows up, or leaves the domain in which the tail is known
        return {}
    return {"baseline": estimate(found, pair.starts)}


def on_points(
    problem: ControlProblem, solution: Solution, exact: Solution | None, path: ControlledPath, count: int,
    generator: torch.Generator,
) -> Fields:  # fmt: skip
    """Quantiles of the relative residual, and relative L2 errors against the exact solution, on points of paths."""
    count = count if problem.dim <= 16 else 16 * count // problem.dim
    known = solution.value_function is not None
    ratios: list[Tensor] = []
    errors: dict[str, list[tuple[Tensor, Tensor]]] = {"value": [], "gradient": [], "control": []}
    for x, t in _points(path, count, generator):
        for limit in (solution, exact):
            if limit is not None and len(x):
                x = x[(x == nearest(limit, x)).all(1)]
            if limit is not None and len(x) and limit.value_function is not None:
                x = x[limit.value(x, t).isfinite()]
        if not len(x):
            continue
        if known:
            residual, terms = hjb_residual(problem, solution.value, x, t, terms=True)
            # f.grad V counts coordinate by coordinate: its sum may vanish, as in free fall
            drift = (problem.drift(x, t) * solution.gradient(x, t)).detach().abs().amax(1)
            ratios.append(residual.abs() / torch.maximum(terms.scale(), drift).clamp_min(torch.finfo(x.dtype).tiny))
        if exact is None:
            continue
        for name in errors if known else ("control",):
            errors[name].append((getattr(solution, name)(x, t).detach(), getattr(exact, name)(x, t).detach()))
    found: Fields = {
        f"{name}_error": relative_error(*(torch.cat([pair[i] for pair in pairs]).flatten() for i in (0, 1)))
        for name, pairs in errors.items()
        if pairs and (name != "control" or problem.controls)
    }
    if ratios:
        joined = torch.cat(ratios)
        levels = torch.tensor([0.5, 0.9, 0.99], dtype=joined.dtype, device=joined.device)
        found |= {"ratios": joined, "residual_quantiles": tuple(torch.quantile(joined, levels).tolist())}
    return found


def against_exact(
    problem: ControlProblem, solution: Solution, exact: Solution, stop: Feedback | None, pair: Pair
) -> Fields:
    """Costs beside those of the exact control on the same noise, and the control gap."""
    path = pair.fine.path
    assert path.states is not None
    x0, rate = path.states[0], order(problem, pair.fine)
    # the exact value closes both, so that a wrong claim does not enter the comparison
    guided = solution is exact or solution.value_function is None
    own = pair if guided else with_guide(problem, pair.fine, pair.coarse, exact)
    ideal = own
    if solution is not exact:
        ideal = run_pair(problem, exact.control, stop, exact, x0, path.grid, noises=path.noises)
    difference = [a - b for a, b in zip(own.costs, ideal.costs, strict=True)]
    variates = (*own.noise, *ideal.noise, own.starts)
    found: Fields = {
        "exact_value": exact.value(x0, 0.0).mean().item(),
        "exact_cost": estimate(ideal.costs[0], ideal.noise[0], ideal.starts),
        "exact_excess": estimate(extrapolate(difference, rate), *variates),
        "exact_step_change": (difference[0] - difference[1]).mean().item(),
    }
    lower = found["exact_cost"]
    if abs(lower.mean) > 3 * lower.stderr:
        known = (own.noise[0], ideal.noise[0], own.starts)
        ratio = estimate(own.costs[0], own.noise[0], own.starts).mean / lower.mean
        spread = estimate((own.costs[0] - ratio * ideal.costs[0]) / lower.mean, *known)
        found["cost_ratio"] = Estimate(ratio, spread.stderr)
    if problem.obstacle is None and problem.controls:
        try:
            gaps = [control_gap(problem, exact, run.path) for run in (pair.fine, pair.coarse)]
        except ValueError:
            # a path runs where the exact value is infinite, as below the switching curve of a landing
            return found
        found["control_gap"] = estimate(extrapolate(gaps, rate), *own.noise, own.starts)
    return found


def importance(problem: ControlProblem, solution: Solution, pair: Pair, generator: torch.Generator) -> Fields:
    """Hopf-Cole value at the first start by importance sampling under the control of a linearly solvable problem.

        S = cost + lam int theta.dW,    sigma theta = B u,    V = -lam ln E e^(-S/lam),    J(u) = E S

    Both means are taken on the same paths, so that their difference, the excess of cost, is known better than either.
    """
    path = pair.fine.path
    assert path.states is not None
    times = torch.stack([path.grid[0], path.grid[-1]]).repeat_interleave(len(path.x))
    try:
        temp = temperature(problem, torch.cat([path.states[0], path.x]), times)
    except ValueError:
        return {}
    x0 = path.states[0][:1].expand(len(path.x), -1)
    fine = closed_loop(problem, solution.control, x0, path.grid, generator)
    if problem.horizon is None and bool(fine.open.any()):
        return {}
    assert fine.path.noises is not None
    coarse = closed_loop(problem, solution.control, x0, path.grid[::2], noises=halved(fine.path.noises))
    near, far = (hopf_cole_estimate(problem, run.path) for run in (fine, coarse))
    sums = [run.path.cost + girsanov_noise(problem, temp, run.path) for run in (fine, coarse)]
    # mean S - V, and what each path adds to it: S_i + lam w_i/mean w
    weights = [torch.softmax(-total / temp, 0) * len(total) for total in sums]
    parts = [total + temp * (weight - 1) for total, weight in zip(sums, weights, strict=True)]
    rate = order(problem, fine)
    excess = extrapolate([part - found.value for part, found in zip(parts, (near, far), strict=True)], rate)
    return {
        "hopf_cole": Estimate(near.value.item(), near.stderr.item()),
        "hopf_cole_step": (extrapolate((near.value, far.value), rate) - near.value).item(),
        "hopf_cole_excess": estimate(excess),
        "hopf_cole_excess_step": (excess - parts[0] + near.value).mean().item(),
        "effective_sample_size": near.ess.item(),
        "hopf_cole_claim": solution.value(x0[:1], 0.0).item() if solution.value_function is not None else None,
    }  # fmt: skip


def _points(path: ControlledPath, count: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """About `count` states of living paths, as (x, t) for each of some times."""
    assert path.states is not None
    steps = len(path.grid) - 1
    chosen = sorted({round(i * (steps - 1) / max(1, SLICES - 1)) for i in range(SLICES)})
    found = []
    for i in chosen:
        alive = (path.end > path.grid[i]).nonzero().squeeze(1)
        rows = alive[torch.randperm(len(alive), generator=generator, device=alive.device)]
        if len(rows):
            found.append((path.states[i][rows[: max(1, count // len(chosen))]], path.grid[i]))
    return found
