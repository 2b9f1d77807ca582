"""Values of the deterministic pendulum: our grid against hj_reachability, errors against open-loop optimal costs."""

from __future__ import annotations

import os

# read by XLA when it starts: one thread, on the CPU
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hj_reachability as hj
import jax.numpy as jnp
import numpy as np
import torch
from paired import Outcome, Row, cpu_seconds, interleaved, ratios
from pendulum_truth import FRICTION, GRAVITY, TORQUE, R, T, closed_loop_costs, optimal_costs

from hjbridge.hjb import Grid, problems, solve

SHAPE, FASTEST = (120, 121), 4.0
OURS = Grid(points=(120, 121), steps=30, scheme="cubic", controls=15)


class Pendulum(hj.ControlAndDisturbanceAffineDynamics):
    """The peer knows reachability only: the running cost comes in by overriding the Hamiltonian."""

    def __init__(self) -> None:
        torque, none = (hj.sets.Box(jnp.array([-b]), jnp.array([b])) for b in (TORQUE, 0.0))
        super().__init__("min", "max", torque, none)

    def open_loop_dynamics(self, state, time):
        return jnp.array([state[1], GRAVITY * jnp.sin(state[0]) - FRICTION * state[1]])

    def control_jacobian(self, state, time):
        return jnp.array([[0.0], [1.0]])

    def disturbance_jacobian(self, state, time):
        return jnp.zeros((2, 1))

    def optimal_control_and_disturbance(self, state, time, grad_value):
        # u = -V_speed/R, clipped
        return jnp.clip(-grad_value[1:] / R, -TORQUE, TORQUE), jnp.zeros(1)

    def hamiltonian(self, state, time, value, grad_value):
        u, none = self.optimal_control_and_disturbance(state, time, grad_value)
        running = 2 * (1 - jnp.cos(state[0])) + 0.1 * state[1] ** 2 + R * u[0] ** 2 / 2
        return running + grad_value @ self(state, u, none, time)


def peer(accuracy: str):
    """A function that computes the peer's values (120, 121) today."""
    box = hj.sets.Box(np.array([-np.pi, -8.0]), np.array([np.pi, 8.0]))
    grid = hj.Grid.from_lattice_parameters_and_boundary_conditions(box, SHAPE, periodic_dims=0)
    settings, dynamics = hj.SolverSettings.with_accuracy(accuracy), Pendulum()
    end = 5 * (1 - jnp.cos(grid.states[..., 0])) + 0.05 * grid.states[..., 1] ** 2
    return lambda: np.asarray(hj.step(settings, dynamics, grid, 0.0, end, -T, progress_bar=False), dtype=float)


def nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (n, 2) and states (n, 2) of random nodes of the peer's lattice, so that it need not interpolate."""
    at = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1).reshape(-1, 2)
    x = np.array([-np.pi, -8.0]) + at * np.array([2 * np.pi / SHAPE[0], 16 / (SHAPE[1] - 1)])
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(np.abs(x[:, 1]) <= FASTEST))[:count]
    return at[chosen], x[chosen]


def run(quick: bool) -> Outcome:
    problem, high = problems.pendulum(sigma=0.0), peer("high")
    at, x = nodes(12 if quick else 96)
    truth = optimal_costs(x)
    mine, theirs = interleaved([lambda: solve(problem, OURS), high], 2 if quick else 7)

    def errors(values):
        return values[at[:, 0], at[:, 1]] - truth

    solution = solve(problem, OURS)
    found = {"ours": solution.value(torch.from_numpy(x), 0.0).numpy() - truth, "high": errors(high())}
    finer = peer("very_high")
    finer()
    ratio = cpu_seconds(lambda: found.update({"very_high": errors(finer())})) / sorted(theirs)[len(theirs) // 2]

    def control(states, t):
        return solution.control(torch.from_numpy(states.copy()), t).numpy()[:, 0]

    realised = closed_loop_costs(control, x) - truth
    if realised.min() < -1e-4:
        raise RuntimeError(
            f"no control may beat the truth, ours does by {-realised.min():.2g}: it is not the least cost"
        )
    rms = {name: [float(np.sqrt((e[k::3] ** 2).mean())) for k in range(3)] for name, e in found.items()}
    told = {
        name: f"rms {np.sqrt((e**2).mean()):.3g}, median {np.median(abs(e)):.2g}, largest {abs(e).max():.3g}"
        for name, e in found.items()
    }
    return Outcome(
        f"swing-up without noise, 3 s; ours {OURS.scheme} on {' x '.join(map(str, OURS.points))}, {OURS.steps} steps, "
        f"{OURS.controls} controls; the peer WENO3 on {' x '.join(map(str, SHAPE))}, its compilation not counted. "
        f"Errors of V(., 0) in {len(x)} random nodes of the peer's lattice with a speed up to {FASTEST:g}, where ours "
        "interpolates, against optimal costs by open-loop search and collocation (pendulum_truth.py), in three groups",
        (
            Row("pendulum: CPU ours / hj_reachability", ratios(mine, theirs), "<=", 1),
            Row("pendulum: rms error ours / hj_reachability", ratios(rms["ours"], rms["high"]), "<=", 1, "worst"),
        ),
        (
            f"ours {told['ours']}; the peer {told['high']}; V is steep along a line, which rules the rms",
            f"the peer with WENO5 {told['very_high']}, at {ratio:.3g} times its CPU time with WENO3",
            f"costs realised by our control exceed the truth by {realised.min():.1g} to {realised.max():.2g}, "
            f"median {np.median(realised):.2g}",
        ),
    )
