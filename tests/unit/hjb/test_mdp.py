"""Finite problems: their solutions against equations and enumeration, and what is refused."""

import itertools

import pytest
import torch

from hjbridge.hjb import problems
from hjbridge.hjb.discrete import MDP, LinearlySolvable, backup, evaluate, kl_residual

F64 = torch.float64


def passive(states=30, exits=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    P = torch.rand(states, states, generator=generator, dtype=F64)
    P[-exits:] = torch.eye(states, dtype=F64)[-exits:]
    return P / P.sum(1, keepdim=True), torch.rand(states, generator=generator, dtype=F64)


def test_random_mdp_is_what_its_seed_says():
    mdp, again, other = (problems.random_mdp(6, 3, 0.9, seed) for seed in (4, 4, 5))
    assert torch.equal(mdp.transition, again.transition) and torch.equal(mdp.cost, again.cost)
    assert not torch.equal(mdp.cost, other.cost)
    assert mdp.transition.shape == (6, 3, 6) and mdp.cost.dtype == F64
    torch.testing.assert_close(mdp.transition.sum(-1), torch.ones(6, 3, dtype=F64), rtol=1e-15, atol=0)
    assert 0 <= mdp.cost.min() and mdp.cost.max() <= 1


def test_exact_value_is_the_best_of_all_policies():
    mdp = problems.random_mdp(4, 3, 0.8, 1)
    choices = torch.eye(3, dtype=F64)
    values = [evaluate(mdp, choices[list(p)]) for p in itertools.product(range(3), repeat=4)]
    torch.testing.assert_close(mdp.exact.value, torch.stack(values).amin(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(backup(mdp, mdp.exact.value).amin(1), mdp.exact.value, rtol=1e-13, atol=0)


def test_kl_bellman_equation_of_a_random_linearly_solvable_mdp():
    for seed in range(3):
        problem = problems.linearly_solvable_mdp(*passive(seed=seed))
        value = problem.exact.value
        assert kl_residual(problem, value).abs().max() < 1e-13
        torch.testing.assert_close(value[-2:], problem.cost[-2:], rtol=1e-15, atol=0)
        # the residual sees a value that is off, and by how much
        off = torch.where(problem.absorbing, 0.0, 0.01)
        assert kl_residual(problem, value + off).abs().max() > 1e-5


def test_chosen_transitions_cost_what_the_value_says():
    problem = problems.linearly_solvable_mdp(*passive())
    u, inside = problem.exact.policy, ~problem.absorbing
    torch.testing.assert_close(u.sum(1), torch.ones(30, dtype=F64), rtol=1e-14, atol=0)

    def cost(u):  # V = q + KL(u || P) + u V inside, V = q outside
        rate = problem.cost + torch.where(inside, (torch.xlogy(u, u) - torch.xlogy(u, problem.passive)).sum(1), 0.0)
        return torch.linalg.solve(torch.eye(30, dtype=F64) - u * inside[:, None], rate)

    torch.testing.assert_close(cost(u), problem.exact.value, rtol=1e-12, atol=1e-13)
    wrong = torch.where(inside[:, None], 0.9 * u + 0.1 * problem.passive, u)
    assert (cost(wrong) - problem.exact.value)[inside].min() > 1e-5


def test_a_walk_of_two_steps_by_hand():
    # 0 -> 1 or exit a with probability one half each, 1 -> exit a or b
    P = torch.tensor([[0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=F64)
    q = torch.tensor([0.1, 0.2, 1.0, 3.0], dtype=F64)
    one = 0.2 - torch.log(0.5 * torch.exp(-q[2]) + 0.5 * torch.exp(-q[3]))
    zero = 0.1 - torch.log(0.5 * torch.exp(-one) + 0.5 * torch.exp(-q[2]))
    value = problems.linearly_solvable_mdp(P, q).exact.value
    torch.testing.assert_close(value, torch.stack([zero, one, q[2], q[3]]), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("P", "q", "message"),
    [
        ([[0.5, 0.4], [0, 1]], [1, 1], r"P must have rows that sum to 1, got 0.9 in row \(0,\)"),
        ([[1.5, -0.5], [0, 1]], [1, 1], r"P must not be negative, got -0.5 at \(0, 1\)"),
        ([[0.5, 0.5], [0.5, 0.5]], [1, 1], "P must lead every state to an absorbing one, got none from 0"),
        ([[0.9, 0.1], [0, 1]], [-1, 1], "contraction inside, got the spectral radius 2.44"),
        ([[0.5, 0.5], [0, 1]], [float("nan"), 1], "q must be finite"),
        ([[0.5, 0.5], [0, 1]], [1, 1, 1], "P must have shape"),
        ([[0.5, float("nan")], [0, 1]], [1, 1], "P must be finite"),
    ],
)
def test_bad_linearly_solvable_problems(P, q, message):
    with pytest.raises(ValueError, match=message):
        problems.linearly_solvable_mdp(torch.tensor(P, dtype=F64), torch.tensor(q, dtype=F64))


def test_a_desirability_beyond_floating_point_is_no_value():
    P = torch.tensor([[0.5, 0.5], [0, 1]], dtype=F64)
    with pytest.raises(FloatingPointError, match="scale the cost"):
        problems.linearly_solvable_mdp(P, torch.tensor([1.0, 2000.0], dtype=F64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"transition": torch.full((2, 1, 2), 0.6)},
            r"transition must have rows that sum to 1, got 1.2 in row \(0, 0\)",
        ),
        ({"transition": torch.tensor([[[2.0, -1.0]], [[0.0, 1.0]]])}, r"must not be negative, got -1 at \(0, 0, 1\)"),
        ({"transition": torch.full((2, 2), 0.5)}, r"transition must have shape \(S, A, S\)"),
        ({"cost": torch.tensor([[1.0], [float("inf")]])}, "cost must be finite"),
        ({"discount": 1.0}, r"discount must lie in \[0, 1\), got 1.0"),
        ({"discount": -0.1}, r"discount must lie in \[0, 1\), got -0.1"),
    ],
)
def test_bad_mdps(change, message):
    good = {"transition": torch.full((2, 1, 2), 0.5), "cost": torch.ones(2, 1), "discount": 0.9}
    MDP(**good)
    with pytest.raises(ValueError, match=message):
        MDP(**(good | change))


@pytest.mark.parametrize(("states", "actions", "discount"), [(0, 1, 0.9), (1, 0, 0.9), (2, 2, 1.0)])
def test_bad_random_mdps(states, actions, discount):
    with pytest.raises(ValueError, match="must"):
        problems.random_mdp(states, actions, discount, 0)


def test_the_class_alone_checks_too():
    with pytest.raises(ValueError, match="sum to 1"):
        LinearlySolvable(torch.tensor([[0.5, 0.4], [0, 1]]), torch.ones(2))
