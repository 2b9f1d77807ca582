"""Swing-up of a pendulum whose motor is too weak to lift it directly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem


def pendulum(
    gravity: float = 5.0,
    friction: float = 0.1,
    torque: float = 2.0,
    sigma: float = 0.3,
    R: float = 0.2,
    angle_cost: float = 2.0,
    speed_cost: float = 0.1,
    final_angle_cost: float = 5.0,
    final_speed_cost: float = 0.05,
    T: float = 3.0,
) -> ControlProblem:
    """Swing a pendulum up with a bounded torque, starting near the hanging position.

        dtheta = w dt,    dw = (gravity sin theta - friction w + u) dt + sigma dW,    |u| <= torque
        J = E[ int_0^T angle_cost (1 - cos theta) + speed_cost w^2 + R u^2/2 dt
               + final_angle_cost (1 - cos theta) + final_speed_cost w^2 ]

    State (angle from upright in rad, periodic; speed in rad/s), control (torque per inertia in rad/s^2,), time in s.
    Paths start at theta = pi + .3 N(0, 1), w = .3 N(0, 1). The box is [-pi, pi) x [-8, 8].

    Args: gravity: of the unstable equilibrium, 1/s^2. friction: 1/s. torque: bound, rad/s^2. sigma: of the noise on the
        speed, rad s^(-3/2). R: price of control. angle_cost, speed_cost, final_angle_cost, final_speed_cost: weights.
        T: horizon in s.
    Returns: the problem; no exact solution is known.
    Raises: ValueError for a number that is not finite; torque, R or T not positive; any other but gravity negative.
    """
    arguments = {
        "gravity": gravity, "friction": friction, "torque": torque, "sigma": sigma, "R": R, "angle_cost": angle_cost,
        "speed_cost": speed_cost, "final_angle_cost": final_angle_cost, "final_speed_cost": final_speed_cost, "T": T,
    }  # fmt: skip
    for name, number in arguments.items():
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite, got {number}")
        if name in ("torque", "R", "T") and number <= 0:
            raise ValueError(f"{name} must be positive, got {number}")
        if name != "gravity" and number < 0:
            raise ValueError(f"{name} must not be negative, got {number}")

    def drift(x: Tensor, t: Tensor) -> Tensor:
        # (w, gravity sin theta - friction w)
        return torch.stack([x[:, 1], gravity * x[:, 0].sin() - friction * x[:, 1]], 1)

    def initial(n: int, generator: torch.Generator | None) -> Tensor:
        device = generator.device if generator is not None else None
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64, device=device)
        return torch.tensor([math.pi, 0.0], dtype=z.dtype, device=device) + 0.3 * z

    bound = torch.tensor([float(torque)], dtype=torch.float64)
    return ControlProblem(
        name="pendulum", dim=2, controls=1,
        drift=drift, control_matrix=torch.tensor([[0.0], [1.0]], dtype=torch.float64),
        dispersion=torch.tensor([[0.0], [float(sigma)]], dtype=torch.float64),
        control_cost=torch.tensor([[float(R)]], dtype=torch.float64), bounds=(-bound, bound),
        running_cost=lambda x, t: angle_cost * (1 - x[:, 0].cos()) + speed_cost * x[:, 1] ** 2,
        terminal_cost=lambda x: final_angle_cost * (1 - x[:, 0].cos()) + final_speed_cost * x[:, 1] ** 2,
        horizon=float(T), initial=initial, periodic=(0,),
        box=(torch.tensor([-math.pi, -8.0], dtype=torch.float64), torch.tensor([math.pi, 8.0], dtype=torch.float64)),
        states=("angle from upright (rad)", "speed (rad/s)"), actions=("torque (rad/s²)",), arguments=arguments,
    )  # fmt: skip
