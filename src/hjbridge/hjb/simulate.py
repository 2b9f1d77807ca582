"""Paths of a controlled equation, with what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem
from hjbridge.sde.integrate import Path, check_grid

Feedback = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ControlledPath(Path):
    """A `Path` with its controls and costs.

    Attributes: x (n, d), grid (N + 1,), states (N + 1, n, d) and noises (N, n, k) of `Path`; controls (N, n, m);
    running and terminal, the discounted costs (n,), of which the second is also what leaving or stopping costs;
    end (n,): the time at which each path ended; sigmas (N, n, d) or (N, n, d, k), the dispersion at each step.
    """

    controls: Tensor
    running: Tensor
    terminal: Tensor
    end: Tensor
    sigmas: Tensor

    @property
    def cost(self) -> Tensor:
        """Running and terminal cost together, (n,)."""
        return self.running + self.terminal


def simulate(
    problem: ControlProblem,
    control: Feedback,
    x0: Tensor,
    grid: Tensor | Sequence[float | int],
    generator: torch.Generator | None = None,
    *,
    stop: Feedback | None = None,
    noises: Tensor | None = None,
) -> ControlledPath:
    """Euler-Maruyama paths of dX = (f + B u) dt + sigma dW under u = control(x, t), and their discounted costs.

    The running cost is the left-point sum of e^(-rho t) (l + c) dt, so that costs have an error of first order in the
    step. A path that leaves `problem.inside`, or at which `stop` says so, ends there and pays the exit or stopping
    cost; an infinite horizon ends with the grid and leaves the rest of the cost out.

    Args:
        control: u(x, t) -> (n, m), e.g. `solution.control`. x0: starts (n, d). grid: ascending times (N + 1,).
        generator: source of the noise. stop: (x, t) -> (n,) of bool, e.g. `solution.stop`, where stopping is allowed.
        noises: Brownian increments (N, n, k) to use again, for costs with common random numbers.
    Returns: `ControlledPath`. Raises: ValueError for a grid that does not ascend or does not end at the horizon, a
        start outside the domain, controls or noises of another shape; FloatingPointError if a path is not finite or a
        cost is NaN.
    """
    # numbers of a list keep their digits: torch would make them float32
    grid = grid if isinstance(grid, Tensor) else torch.tensor(grid, dtype=torch.float64)
    grid = check_grid(grid, ascending=True).to(device=x0.device, dtype=x0.dtype)
    problem.time(x0, grid[0])
    problem.time(x0, grid[-1])
    if problem.horizon is not None and float(grid[-1]) < problem.horizon * (1 - 1e-6):
        raise ValueError(f"grid must end at the horizon {problem.horizon:g}, got {float(grid[-1]):g}")
    if problem.inside is not None and not bool(problem.inside(x0).all()):
        raise ValueError(f"x0 must lie inside the domain, got {x0[~problem.inside(x0)][0].tolist()}")
    if noises is not None and noises.shape[:2] != (len(grid) - 1, len(x0)):
        raise ValueError(f"noises must have shape ({len(grid) - 1}, {len(x0)}, k), got {tuple(noises.shape)}")
    if stop is not None and problem.obstacle is None:
        raise ValueError("stop must be None: this problem does not allow to stop")
    x, alive = x0, torch.ones(len(x0), dtype=torch.bool, device=x0.device)
    running, terminal = x0.new_zeros(len(x0)), x0.new_zeros(len(x0))
    end = grid[-1].expand(len(x0)).clone()
    states: list[Tensor] = [x0]
    used: list[Tensor] = []
    drawn: list[Tensor] = []
    sigmas: list[Tensor] = []
    for i, (t, dt) in enumerate(zip(grid[:-1], grid.diff(), strict=True)):
        # e^(-rho t)
        worth = torch.exp(-problem.discount * t)
        if stop is not None:
            assert problem.obstacle is not None
            ends = alive & stop(torch.where(alive.unsqueeze(-1), x, x0), t)
            terminal = torch.where(ends, worth * problem.obstacle(x, t), terminal)
            end, alive = torch.where(ends, t, end), alive & ~ends
        # an ended path stands where a control need not be defined: its control and noise, never used, are taken at x0
        here = torch.where(alive.unsqueeze(-1), x, x0)
        u = control(here, t)
        if u.shape != (len(x), problem.controls):
            raise ValueError(f"control must return shape {(len(x), problem.controls)}, got {tuple(u.shape)}")
        sigma = problem.noise(here, t, u)
        shape = (len(x), sigma.shape[-1])
        if noises is None:
            dw = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype) * dt.sqrt()
        elif noises.shape[2] != shape[1]:
            raise ValueError(f"noises must have {shape[1]} Brownian motions, got {noises.shape[2]}")
        else:
            dw = noises[i]
        shock = sigma * dw if sigma.ndim == 2 else (sigma @ dw.unsqueeze(-1)).squeeze(-1)
        running = running + torch.where(alive, worth * problem.cost(here, t, u) * dt, 0.0)
        # X <- X + (f + B u) dt + sigma dW
        x = torch.where(alive.unsqueeze(-1), x + problem.velocity(here, t, u) * dt + shock, x)
        if problem.inside is not None:
            assert problem.exit_cost is not None
            left = alive & ~problem.inside(x)
            later = torch.exp(-problem.discount * grid[i + 1])
            terminal = torch.where(left, later * problem.exit_cost(x, grid[i + 1]), terminal)
            end, alive = torch.where(left, grid[i + 1], end), alive & ~left
        for kept, item in zip((states, used, drawn, sigmas), (x, u, dw, sigma), strict=True):
            kept.append(item)
    if not bool(x.isfinite().all()):
        raise FloatingPointError("a path is not finite: the control is singular there, or a step is too long")
    if problem.terminal_cost is not None:
        worth = torch.exp(-problem.discount * grid[-1])
        terminal = torch.where(alive, worth * problem.terminal_cost(x), terminal)
    bad = int((running + terminal).isnan().sum())
    if bad:
        raise FloatingPointError(f"a cost is not a number on {bad} of {len(x)} paths")
    return ControlledPath(
        x=x, grid=grid, states=torch.stack(states), noises=torch.stack(drawn), controls=torch.stack(used),
        running=running, terminal=terminal, end=end, sigmas=_stack(sigmas, same=not callable(problem.dispersion)),
    )  # fmt: skip


def _stack(items: list[Tensor], same: bool) -> Tensor:
    """The items along a new first axis; without copies if all are the same."""
    return items[0].expand(len(items), *items[0].shape) if same else torch.stack(items)
