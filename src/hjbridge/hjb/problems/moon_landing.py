"""Soft landing on the Moon with the least fuel: free fall, then full thrust from the switching curve on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.solution import Solution

GRID_POINTS = 241


def moon_landing(gravity: float, thrust: float) -> ControlProblem:
    """Bring a rocket of constant mass to the ground at rest with the least fuel int u dt (delta-v).

        h' = v,    v' = u - gravity,    u = 0 or thrust
        V(h, v) = sqrt(thrust (v^2 + 2 gravity h)/(thrust - gravity))    where h >= v^2/(2 (thrust - gravity)) or v > 0

    V is a function of energy, so that free fall keeps it (v V_h - gravity V_v = 0), and 1 + V_v > 0 says that thrust
    does not pay; 1 + V_v = 0 is the switching curve h = v^2/(2 (thrust - gravity)), on which full thrust just stops in
    time. Below the curve every control crashes: the exact value is inf there, and its gradient and `soft_landing` raise
    an error that names the crash.

    A path of discrete steps never ends at rest. So that its cost is finite, touching down at a speed s > 0 costs what
    braking it away would have cost, thrust s/(thrust - gravity). This leaves V on and above the curve as it is; under a
    smaller charge a hard landing would be cheaper than a soft one.

    A grid follows the switching curve when heights grow like the square of speeds and a step of full thrust crosses one
    speed: then the points of the curve are lattice points, and so are the next ones that thrust takes them to. Steps of
    free fall are as long, or a whole number of times shorter where gravity exceeds thrust - gravity, so that they cross
    one speed at most: longer ones would miss the moment of ignition. `Grid()` has 241 of each. Its value is .13 % too
    high for gravity 1.62 and thrust 4, .04 % for 9.81 and 12, half as much with twice as many; its gradient is right
    to 1e-5, and paths under its control land, at a cost within .5 % of those under the exact one (steps of .05 s).

    Args: gravity, thrust: accelerations in m/s^2, thrust the larger.
    State: (height in m, velocity upwards in m/s). Control: (thrust in m/s^2,). Value: m/s. The horizon is free.
    Raises: ValueError for gravity <= 0 or thrust <= gravity; the exact solution for a height below the ground.
    Source: Meditch 1964, "On the problem of optimal thrust programming for a lunar soft landing".
    """
    g, U = _checked(gravity, thrust)
    one = torch.ones(1, 1, dtype=torch.float64)
    top = 1.5 * (1000 + 200 / (U - g))
    fastest = math.sqrt(2 * (U - g) * top)
    part = torch.linspace(0, 1, GRID_POINTS, dtype=torch.float64)
    # thrust crosses one speed in a step, free fall g/(U - g) in as long: it takes shorter steps where that exceeds one
    rate, shorter = (GRID_POINTS - 1) * (U - g) / fastest, math.ceil(g / (U - g))
    steps = rate if shorter == 1 else (shorter * rate, rate)

    def initial(n: int, generator: torch.Generator | None) -> Tensor:
        device = None if generator is None else generator.device
        fall, height = torch.rand(2, n, generator=generator, device=device, dtype=torch.float64)
        v = -20 * fall
        return torch.stack([v**2 / (2 * (U - g)) + 500 + 500 * height, v], 1)

    problem = ControlProblem(
        name="moon_landing", dim=2, controls=1,
        drift=lambda x, t: torch.stack([x[:, 1], torch.full_like(x[:, 1], -g)], 1),
        control_matrix=torch.tensor([[0.0], [1.0]], dtype=torch.float64), dispersion=0.0,
        control_cost=lambda x, u, t: u[:, 0], control_set=torch.cat([0 * one, U * one]),
        inside=lambda x: x[:, 0] > 0,
        exit_cost=lambda x, t: U * (-x[:, 1]).clamp_min(0.0) / (U - g),
        initial=initial,
        # no path from a point of this box on or above the curve leaves it but by landing
        box=(torch.tensor([0.0, -fastest]).double(), torch.tensor([top, 0.0]).double()),
        grid={"axes": (top * part**2, -fastest * part.flip(0)), "steps": steps},
        states=("height (m)", "velocity upwards (m/s)"), actions=("thrust (m/s²)",),
        arguments={"gravity": gravity, "thrust": thrust},
    )  # fmt: skip

    def value(x: Tensor, t: Tensor) -> Tensor:
        h, v = _above_ground(x)
        lands = _lands(h, v, g, U)
        # V = sqrt(U (v^2 + 2 g h)/(U - g))
        energy = torch.where(lands, U * (v**2 + 2 * g * h) / (U - g), 1.0)
        positive = energy > 0
        root = torch.where(positive, torch.where(positive, energy, 1.0).sqrt(), 0.0)
        return torch.where(lands, root, math.inf)

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        h, v = _above_ground(x)
        lands = _lands(h, v, g, U)
        if not bool(lands.all()):
            raise ValueError(_crash(h[~lands][0].item(), v[~lands][0].item(), g, U))
        level = value(x, t)
        if bool((level == 0).any()):
            raise ValueError("x must not be the landing point (0, 0), where V has no gradient")
        # V_h = g U/((U - g) V),  V_v = U v/((U - g) V)
        return torch.stack([torch.full_like(h, g), v], 1) * (U / (U - g) / level).unsqueeze(1)

    def control(x: Tensor, t: Tensor) -> Tensor:
        # full thrust on the curve and below it: u = U where v < 0 and h <= v^2/(2 (U - g))
        h, v = x[:, :1], x[:, 1:]
        return U * ((v < 0) & (h <= v**2 / (2 * (U - g)) * (1 + 1e-12))).to(x)

    return replace(problem, exact=Solution(problem, "exact", value, gradient, control))


@dataclass(frozen=True)
class Landing:
    """The optimal landing from one start, in closed form.

    Attributes: gravity, thrust (m/s^2); height, velocity: the start (m, m/s); ignition_time (s), ignition_height (m),
    ignition_speed (m/s, downwards); time: of touchdown (s); fuel: delta-v (m/s).
    """

    gravity: float
    thrust: float
    height: float
    velocity: float
    ignition_time: float
    ignition_height: float
    ignition_speed: float
    time: float
    fuel: float

    def at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Height, velocity and thrust at times t (N,) in s. Raises: ValueError for t outside [0, time]."""
        outside = ~((t >= 0) & (t <= self.time * (1 + 1e-12)))
        if bool(outside.any()):
            raise ValueError(f"t must lie in [0, {self.time:g}], got {t[outside][0].item():g}")
        # free fall: h = h0 + v0 t - g t^2/2
        free = self.height + self.velocity * t - self.gravity * t**2 / 2
        # full thrust, counted back from touchdown at rest: h = (U - g) s^2/2
        left = (self.time - t).clamp_min(0.0)
        burn = (self.thrust - self.gravity) * left
        burns = t >= self.ignition_time
        height = torch.where(burns, burn * left / 2, free)
        velocity = torch.where(burns, -burn, self.velocity - self.gravity * t)
        return height, velocity, self.thrust * burns.to(t)


def soft_landing(gravity: float, thrust: float, height: float, velocity: float) -> Landing:
    """The optimal trajectory of `moon_landing`: free fall until E/thrust above the ground, then full thrust.

        E = velocity^2/2 + gravity height,    fuel = thrust s/(thrust - gravity)
        ignition at height E/thrust and speed s = sqrt(2 (thrust - gravity) E/thrust), after (velocity + s)/gravity

    Args: gravity, thrust: m/s^2. height, velocity (upwards): the start, in m and m/s.
    Raises: ValueError for a start that is not finite or under the ground and for one from which every control crashes,
        with the speed of it.
    """
    g, U = _checked(gravity, thrust)
    for name, given in (("height", height), ("velocity", velocity)):
        if not math.isfinite(given):
            raise ValueError(f"{name} must be finite, got {given}")
    h, v = _above_ground(torch.tensor([[height, velocity]], dtype=torch.float64))
    if not bool(_lands(h, v, g, U).all()):
        raise ValueError(_crash(height, velocity, g, U))
    energy = velocity**2 / 2 + g * height
    speed = math.sqrt(2 * (U - g) * energy / U)
    free, burn = max((velocity + speed) / g, 0.0), speed / (U - g)
    return Landing(g, U, height, velocity, free, energy / U, speed, free + burn, U * burn)


def _checked(gravity: float, thrust: float) -> tuple[float, float]:
    if not 0 < gravity < math.inf:
        raise ValueError(f"gravity must be positive and finite, got {gravity}")
    if not gravity < thrust < math.inf:
        raise ValueError(f"thrust must be greater than gravity = {gravity:g}, got {thrust}: the rocket cannot brake")
    return float(gravity), float(thrust)


def _above_ground(x: Tensor) -> tuple[Tensor, Tensor]:
    h, v = x[:, 0], x[:, 1]
    if not bool((h >= 0).all()):
        raise ValueError(f"height must not be negative, got {h[h < 0][0].item():g} m: the start is under the ground")
    return h, v


def _lands(h: Tensor, v: Tensor, g: float, U: float) -> Tensor:
    """Whether a soft landing is possible; the curve belongs to it, up to rounding."""
    return (v > 0) | (h >= v**2 / (2 * (U - g)) * (1 - 1e-12))


def _crash(h: float, v: float, g: float, U: float) -> str:
    # speed at the ground under full thrust: s^2 = v^2 - 2 (U - g) h
    speed = math.sqrt(v**2 - 2 * (U - g) * h)
    return (
        f"height {h:g} m at velocity {v:g} m/s ends in a crash at {speed:.4g} m/s: no thrust up to {U:g} stops in time"
    )
