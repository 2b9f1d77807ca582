"""A control problem as a gymnasium environment. Needs the extra `rl`; the rest of the library does not."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.envs.registration import EnvSpec
except ImportError as error:
    raise ImportError('to_gym needs gymnasium: pip install "hjbridge[rl]" or pip install gymnasium') from error

Array = NDArray[np.float64]


class ControlEnv(gymnasium.Env[Array, Any]):
    """One path of a problem, Euler-Maruyama with step dt, as in `simulate`.

        X <- X + (f + B u) dt + sigma dW,    reward = -(l + c) dt, and at the end - e^(-rho dt) (what the end costs)

    with + for a problem whose sense is max. The end is exit or horizon. Stopping takes no step: its reward is minus
    (plus) what stopping costs at the present state and time, undiscounted. The return discounted by `gamma` =
    e^(-rho dt) a step is minus (plus) the cost that `simulate` gives for the same noises, which `info["noise"]` holds;
    without discount it is the plain sum.

    Observation: the state, periodic axes wrapped into the problem's box; then the time, if the horizon is finite: the
    best control depends on it.
    Action: a member's number for a finite control set; a vector in [-1, 1]^m, stretched to the bounds, for bounded
    controls; otherwise the control itself, in its units, unbounded; hold (0) or stop (1) where all one can do is stop.
    `action` gives the action of a control. An episode is terminated on leaving or stopping, and at the horizon, as the
    terminal cost is then paid and nothing comes after; it is never truncated: `gymnasium.wrappers.TimeLimit` does that.

    Args: problem; dt: step, which must divide the horizon; seed: of the first reset without one.
    Raises: ValueError for such a dt, a problem without decision, one with controls and a right to stop.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012, gymnasium's own name

    def __init__(self, problem: ControlProblem, dt: float, seed: int | None = None) -> None:
        if not 0 < dt < math.inf:
            raise ValueError(f"dt must be positive and finite, got {dt}")
        self.steps: int | None = None
        if problem.horizon is not None:
            self.steps = round(problem.horizon / dt)
            if self.steps == 0 or abs(self.steps * dt / problem.horizon - 1) > 1e-9:
                raise ValueError(f"dt must divide the horizon {problem.horizon:g}, got {dt}")
        if (problem.controls > 0) == (problem.obstacle is not None):
            what = "neither" if problem.obstacle is None else "both"
            raise ValueError(f"problem must have either controls or an obstacle, {problem.name!r} has {what}")
        self.problem, self.dt, self.gamma = problem, float(dt), math.exp(-problem.discount * dt)
        name = re.sub(r"\W+", "-", problem.name)
        self.spec = EnvSpec(f"{name}-v0", entry_point=partial(ControlEnv, problem, dt, seed))
        self.action_space = _action_space(problem)
        self.observation_space = _observation_space(problem)
        self._seed, self._generator = seed, torch.Generator()
        self._x: Tensor | None = None
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start a path: at options["x0"], a state (d,), or where the problem's paths start.

        Raises: ValueError if neither is given or the state is outside the domain.
        """
        seed, self._seed = self._seed if seed is None else seed, None
        super().reset(seed=seed)
        self._generator.manual_seed(int(self.np_random.integers(2**62)))
        problem, given = self.problem, (options or {}).get("x0")
        if given is not None:
            x = torch.as_tensor(given, dtype=torch.float64).reshape(1, -1)
        elif problem.initial is not None:
            x = problem.initial(1, self._generator).double()
        else:
            raise ValueError('options must hold "x0": this problem does not say where paths start')
        problem.time(x, 0.0)
        if problem.inside is not None and not bool(problem.inside(x).all()):
            raise ValueError(f"x0 must lie inside the domain, got {x[0].tolist()}")
        self._x, self._step = x, 0
        return self._observe(x), {"t": 0.0}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One step dt.

        Raises: RuntimeError after the end of an episode; ValueError for an action that is none, as `control`, or that
        is neither 0 nor 1 where all one can do is stop; FloatingPointError if the state overflows.
        """
        if self._x is None:
            raise RuntimeError("reset must be called before the first step and after the end of an episode")
        problem, x, dt = self.problem, self._x, self.dt
        t = torch.tensor(self._step * dt, dtype=torch.float64)
        if problem.obstacle is not None and not self.action_space.contains(action):
            raise ValueError(f"action must be 0 (hold) or 1 (stop), got {action!r}")
        if problem.obstacle is not None and int(action) == 1:
            self._x = None
            paid = problem.obstacle(x, t).item()
            return self._observe(x), self._reward(paid), True, False, {"t": t.item()}
        u = self.control(action)
        sigma = problem.noise(x, t, u)
        noise = torch.randn(1, sigma.shape[-1], generator=self._generator, dtype=torch.float64) * math.sqrt(dt)
        shock = sigma * noise if sigma.ndim == 2 else (sigma @ noise.unsqueeze(-1)).squeeze(-1)
        paid = problem.cost(x, t, u).item() * dt
        # X <- X + (f + B u) dt + sigma dW
        x = x + problem.velocity(x, t, u) * dt + shock
        self._step += 1
        later = torch.tensor(self._step * dt, dtype=torch.float64)
        left = problem.inside is not None and not bool(problem.inside(x).all())
        ends = left or self._step == self.steps
        if left:
            assert problem.exit_cost is not None
            paid += self.gamma * problem.exit_cost(x, later).item()
        elif ends:
            assert problem.terminal_cost is not None
            paid += self.gamma * problem.terminal_cost(x).item()
        if not bool(x.isfinite().all()) or math.isnan(paid):
            raise FloatingPointError(
                f"state and cost must be finite, got {x[0].tolist()} and {paid}: shorten dt = {dt:g}"
            )
        self._x = None if ends else x
        info = {"t": later.item(), "control": u[0].numpy(), "noise": noise[0].numpy()}
        return self._observe(x), self._reward(paid), ends, False, info

    def control(self, action: Any) -> Tensor:
        """The control (1, m) that an action means; beyond [-1, 1] it is clipped to the bounds.

        Raises: ValueError for a wrong shape or NaN, or a number that is no member of a finite control set.
        """
        problem = self.problem
        if problem.controls == 0:
            return torch.zeros(1, 0, dtype=torch.float64)
        if problem.control_set is not None:
            if not self.action_space.contains(action):
                raise ValueError(f"action must be a number below {len(problem.control_set)}, got {action}")
            return problem.control_set[int(action)].double().unsqueeze(0)
        a = torch.as_tensor(np.asarray(action, dtype=np.float64)).clone()
        if a.shape != (problem.controls,) or not bool(a.isfinite().all()):
            raise ValueError(f"action must be finite, of shape ({problem.controls},), got {action}")
        if problem.bounds is None:
            return a.unsqueeze(0)
        low, high = (end.double() for end in problem.bounds)
        # u = low + (high - low)(a + 1)/2
        return (low + (high - low) * (a.clamp(-1.0, 1.0) + 1) / 2).unsqueeze(0)

    def action(self, u: Tensor) -> Any:
        """The action that a control u (m,) or (1, m) needs: of a finite set the nearest member."""
        problem, u = self.problem, u.detach().double().reshape(-1)
        if problem.control_set is not None:
            return np.int64((problem.control_set.double() - u).square().sum(1).argmin())
        if problem.bounds is not None:
            low, high = (end.double() for end in problem.bounds)
            # a = 2 (u - low)/(high - low) - 1
            u = 2 * (u - low) / (high - low) - 1
        return u.numpy()

    def _reward(self, paid: float) -> float:
        return paid if self.problem.sense == "max" else -paid

    def _observe(self, x: Tensor) -> Array:
        state, problem = x[0].clone(), self.problem
        if problem.box is not None:
            low, high = (end.double() for end in problem.box)
            for axis in problem.periodic:
                state[axis] = low[axis] + (state[axis] - low[axis]) % (high[axis] - low[axis])
        end = [] if problem.horizon is None else [min(self._step * self.dt, problem.horizon)]
        return np.concatenate([state.numpy(), end])


def _action_space(problem: ControlProblem) -> spaces.Space[Any]:
    if problem.controls == 0:
        return spaces.Discrete(2)
    if problem.control_set is not None:
        return spaces.Discrete(len(problem.control_set))
    limit = math.inf if problem.bounds is None else 1.0
    return spaces.Box(-limit, limit, (problem.controls,), np.float64)


def _observation_space(problem: ControlProblem) -> spaces.Space[Any]:
    high = np.full(problem.dim, np.finfo(np.float64).max)
    low = -high
    if problem.box is not None:
        for axis in problem.periodic:
            low[axis], high[axis] = (end[axis].item() for end in problem.box)
    if problem.horizon is not None:
        low, high = np.append(low, 0.0), np.append(high, problem.horizon)
    return spaces.Box(low, high, dtype=np.float64)
