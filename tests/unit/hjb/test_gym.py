"""The environment: gymnasium's own checks, and returns that are minus the costs of `simulate` for the same noises."""

import math
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit

from hjbridge.hjb import ControlProblem, simulate
from hjbridge.hjb.problems import american_put, european_option, merton, moon_landing


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


SWING = ControlProblem(
    name="a swing", dim=2, controls=1, horizon=1.0, terminal_cost=lambda x: 5 * (1 - x[:, 0].cos()),
    drift=lambda x, t: torch.stack([x[:, 1], x[:, 0].sin() + t], 1), control_matrix=tensor([0.0], [1.0]),
    dispersion=tensor([0.0], [0.3]), control_cost=tensor([0.2]), running_cost=lambda x, t: x[:, 1] ** 2 + t,
    bounds=(torch.tensor([-1.0]), torch.tensor([3.0])), periodic=(0,), box=(tensor(-3.0, -8.0), tensor(3.0, 8.0)),
    initial=lambda n, generator: torch.randn(n, 2, generator=generator, dtype=torch.float64),
)  # fmt: skip
PUT = american_put(40.0, 0.06, 0.2, 1.0)
INVESTOR = merton(0.03, 0.08, 0.2, 2.0, rho=0.5)
MOON = moon_landing(1.62, 4.0)


def episode(env, choose, **options):
    """One episode: rewards, noises, controls, observations and whether it was terminated and truncated."""
    observation, info = env.reset(options=options)
    rewards, noises, controls, seen = [], [], [], [observation]
    while True:
        observation, reward, terminated, truncated, info = env.step(choose(observation))
        rewards.append(reward)
        seen.append(observation)
        if "noise" in info:
            noises.append(torch.from_numpy(info["noise"]))
            controls.append(torch.from_numpy(info["control"]))
        if terminated or truncated:
            return rewards, noises, controls, seen, terminated, truncated


def replay(problem, dt, x0, noises, controls, **others):
    """Cost that `simulate` gives for the noises and controls of an episode."""
    grid = dt * torch.arange(len(noises) + 1, dtype=torch.float64)
    return simulate(
        problem, lambda x, t: controls[round(t.item() / dt)].unsqueeze(0), x0, grid,
        noises=torch.stack(noises).unsqueeze(1), **others,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "dt"), [(SWING, 0.1), (PUT, 0.1), (MOON, 0.5), (merton(0.03, 0.08, 0.2, 2.0, T=1), 0.1)]
)
def test_gymnasium_has_nothing_to_remark(problem, dt):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(problem.to_gym(dt))


def test_unbounded_controls_are_given_as_they_are():
    env = replace(SWING, bounds=None).to_gym(0.1)
    assert env.action_space == Box(-math.inf, math.inf, (1,), np.float64)
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        check_env(env)
    assert all("Box action space" in str(remark.message) for remark in remarks)


def test_return_is_minus_the_cost_of_the_same_noises():
    env, x0 = SWING.to_gym(0.05, seed=3), tensor([2.0, 1.0])
    draw = np.random.default_rng(0)
    rewards, noises, controls, seen, terminated, truncated = episode(
        env, lambda o: draw.uniform(-1, 1, 1), x0=[2.0, 1.0]
    )
    assert (len(rewards), terminated, truncated) == (20, True, False)
    path = replay(SWING, 0.05, x0, noises, controls)
    assert sum(rewards) == pytest.approx(-path.cost.item(), rel=1e-12)
    assert abs(path.terminal.item()) > 0.1
    assert seen[-1][1] == pytest.approx(path.x[0, 1].item(), rel=1e-12)
    assert [o[2] for o in seen] == pytest.approx([0.05 * i for i in range(21)])
    assert np.std(np.stack(noises)) == pytest.approx(math.sqrt(0.05), rel=0.5)


def test_discounted_return_is_the_reward_of_a_problem_that_maximises():
    env = TimeLimit(INVESTOR.to_gym(0.25, seed=0), 12)
    rewards, noises, controls, _, terminated, truncated = episode(env, lambda o: np.array([0.6, 0.05 * o[0]]), x0=[1.5])
    assert (len(rewards), terminated, truncated) == (12, False, True)
    gamma = env.unwrapped.gamma
    assert gamma == pytest.approx(math.exp(-0.5 * 0.25))
    path = replay(INVESTOR, 0.25, tensor([1.5]), noises, controls)
    assert sum(gamma**i * reward for i, reward in enumerate(rewards)) == pytest.approx(path.cost.item(), rel=1e-12)


def test_an_episode_ends_on_leaving_the_domain():
    env = MOON.to_gym(0.1)
    choose = lambda o: env.action(MOON.exact.control(tensor(o.tolist())))  # noqa: E731
    rewards, noises, controls, seen, terminated, truncated = episode(env, choose, x0=[300.0, -10.0])
    assert (terminated, truncated) == (True, False)
    assert seen[-1][0] <= 0 < seen[-2][0]
    path = replay(MOON, 0.1, tensor([300.0, -10.0]), noises, controls)
    assert path.terminal.item() > 0
    assert sum(rewards) == pytest.approx(-path.cost.item(), rel=1e-12)
    with pytest.raises(RuntimeError, match="reset must be called"):
        env.step(0)


def test_discount_counts_for_what_leaving_costs():
    # wealth is lost in the first step, at the time dt: e^(-rho dt) times the utility of nothing, -inf here
    problem = replace(INVESTOR, exit_cost=lambda x, t: torch.full_like(x[:, 0], -7.0))
    env = problem.to_gym(0.25)
    env.reset(options={"x0": [1.0]})
    _, reward, terminated, _, _ = env.step(np.array([0.0, 100.0]))
    assert terminated
    assert reward == pytest.approx(-0.01 * 0.25 - 7 * math.exp(-0.125))


def test_stopping_pays_the_obstacle():
    env = PUT.to_gym(0.1, seed=1)
    assert env.action_space == Discrete(2)
    rewards, noises, _, seen, terminated, _ = episode(env, lambda o: int(o[1] > 0.45), x0=[30.0])
    assert terminated
    assert (len(rewards), len(noises)) == (6, 5)
    assert rewards[:5] == [0.0] * 5
    assert rewards[5] == pytest.approx(40.0 - seen[-1][0])
    # it takes no step, as in `simulate`: nothing is discounted on the way
    still = [torch.zeros(1, dtype=torch.float64)] * 5
    path = replay(
        PUT, 0.1, tensor([30.0]), noises + still, [torch.zeros(0)] * 11, stop=lambda x, t: (x[:, 0] > 0) & (t > 0.45)
    )
    discounted = sum(math.exp(-0.06 * 0.1 * i) * reward for i, reward in enumerate(rewards))
    assert discounted == pytest.approx(path.cost.item(), rel=1e-12)
    held = episode(PUT.to_gym(0.5, seed=1), lambda o: 0, x0=[30.0])
    path = replay(PUT, 0.5, tensor([30.0]), held[1], held[2])
    gamma = math.exp(-0.06 * 0.5)
    assert held[0][0] + gamma * held[0][1] == pytest.approx(path.cost.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("problem", "u"), [(SWING, [2.5]), (SWING, [-1.0]), (INVESTOR, [0.3, 0.7]), (MOON, [4.0]), (MOON, [0.0])]
)
def test_action_and_control_are_inverse(problem, u):
    env = problem.to_gym(0.1)
    action = env.action(torch.tensor(u))
    assert env.action_space.contains(action)
    assert env.control(action).tolist() == [pytest.approx(u)]


def test_actions_beyond_the_box_are_clipped_to_the_bounds():
    env = SWING.to_gym(0.1)
    assert env.control(np.array([7.0])).item() == 3.0
    assert env.control(np.array([-7.0])).item() == -1.0
    assert env.control(np.array([0.0])).item() == 1.0


def test_periodic_axes_are_wrapped_in_what_is_observed():
    env = SWING.to_gym(0.1)
    observation, _ = env.reset(options={"x0": [4.0, 0.0]})
    assert observation.tolist() == pytest.approx([-2.0, 0.0, 0.0])
    assert (env.observation_space.low[0], env.observation_space.high[0]) == (-3.0, 3.0)
    assert (env.observation_space.low[2], env.observation_space.high[2]) == (0.0, 1.0)


def test_seeds_fix_start_and_noise():
    def noises(env, **given):
        first = env.reset(**given)[0][0]
        return first, env.step(np.zeros(1))[4]["noise"][0]

    env = SWING.to_gym(0.1, seed=5)
    once, again = noises(env), noises(env)
    assert once != again
    assert noises(SWING.to_gym(0.1, seed=5)) == once
    assert noises(env, seed=5) == once
    assert noises(env, seed=6) != once


def test_it_says_how_to_install_gymnasium(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "hjbridge.hjb.gym", raising=False)
    with pytest.raises(ImportError, match=r'to_gym needs gymnasium: pip install "hjbridge\[rl\]"'):
        SWING.to_gym(0.1)


@pytest.mark.parametrize(
    ("problem", "dt", "message"),
    [
        (SWING, 0.0, "dt must be positive and finite, got 0.0"),
        (SWING, 0.3, "dt must divide the horizon 1, got 0.3"),
        (SWING, 2.5, "dt must divide the horizon 1, got 2.5"),
        (
            european_option(40.0, 0.06, 0.2, 1.0, "put"),
            0.1,
            "must have either controls or an obstacle, 'european_option' has",
        ),
        (
            replace(SWING, obstacle=lambda x, t: x[:, 0]),
            0.1,
            "must have either controls or an obstacle, 'a swing' has both",
        ),
    ],
)
def test_problems_and_steps_that_do_not_fit_are_refused(problem, dt, message):
    with pytest.raises(ValueError, match=message):
        problem.to_gym(dt)


def test_bad_starts_and_actions_are_refused():
    env = replace(SWING, initial=None).to_gym(0.1)
    with pytest.raises(RuntimeError, match="reset must be called"):
        env.step(np.zeros(1))
    with pytest.raises(ValueError, match='options must hold "x0"'):
        env.reset()
    with pytest.raises(ValueError, match="x must be floating, of shape"):
        env.reset(options={"x0": [1.0, 2.0, 3.0]})
    env.reset(options={"x0": [1.0, 2.0]})
    for action in (np.zeros(2), np.array([math.nan])):
        with pytest.raises(ValueError, match="action must be finite, of shape"):
            env.step(action)
    moon = MOON.to_gym(0.1)
    with pytest.raises(ValueError, match="x0 must lie inside the domain"):
        moon.reset(options={"x0": [-1.0, 0.0]})
    moon.reset()
    with pytest.raises(ValueError, match="action must be a number below 2, got 2"):
        moon.step(2)
    put = PUT.to_gym(0.1)
    put.reset(options={"x0": [30.0]})
    for action in (7, -1, 1.9, 0.2, math.nan):
        with pytest.raises(ValueError, match=rf"action must be 0 \(hold\) or 1 \(stop\), got {action}"):
            put.step(action)
    assert put.step(np.int64(0))[2] is False and put.step(np.array(1))[2] is True
    wild = replace(SWING, drift=lambda x, t: 1e200 * x).to_gym(0.1)
    wild.reset()
    wild.step(np.zeros(1))
    with pytest.raises(FloatingPointError, match="state and cost must be finite"):
        wild.step(np.zeros(1))
