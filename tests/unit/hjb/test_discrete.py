"""Value and policy iteration, hard and soft, against enumeration, contraction and the definition of the minimum."""

import math

import pytest
import torch

from hjbridge.hjb import problems
from hjbridge.hjb.discrete import (
    MDP,
    backup,
    best_response,
    evaluate,
    policy_iteration,
    soft_minimum,
    value_iteration,
)

F64 = torch.float64
MODEL = problems.random_mdp(20, 4, 0.9, 0)


def test_backup_by_loops():
    V = torch.linspace(0, 1, 20, dtype=F64)
    s, a = 7, 2
    by_hand = MODEL.cost[s, a] + 0.9 * sum(MODEL.transition[s, a, t] * V[t] for t in range(20))
    torch.testing.assert_close(backup(MODEL, V)[s, a], by_hand, rtol=1e-14, atol=0)


def test_value_of_a_policy_is_its_discounted_sum():
    policy = torch.full((20, 4), 0.25, dtype=F64)
    chain, cost = MODEL.transition.mean(1), MODEL.cost.mean(1)
    total, law = torch.zeros(20, dtype=F64), torch.eye(20, dtype=F64)
    for k in range(400):
        total, law = total + 0.9**k * law @ cost, law @ chain
    torch.testing.assert_close(evaluate(MODEL, policy), total, rtol=1e-13, atol=0)
    # entropy of the uniform policy is log 4 in each step
    soft = evaluate(MODEL, policy, 0.3)
    torch.testing.assert_close(total - soft, torch.full_like(total, 0.3 * math.log(4) / 0.1), rtol=1e-12, atol=0)


def test_soft_minimum_is_the_least_of_cost_minus_entropy():
    generator = torch.Generator().manual_seed(0)
    Q = torch.randn(5, 4, generator=generator, dtype=F64)
    for alpha in (0.1, 1.0):
        best = best_response(Q, alpha)
        reached = (best * Q).sum(1) + alpha * torch.xlogy(best, best).sum(1)
        torch.testing.assert_close(reached, soft_minimum(Q, alpha), rtol=1e-13, atol=1e-14)
        for _ in range(50):
            pi = torch.softmax(best.log() + 0.3 * torch.randn(5, 4, generator=generator, dtype=F64), 1)
            assert ((pi * Q).sum(1) + alpha * torch.xlogy(pi, pi).sum(1) >= reached - 1e-14).all()
    assert torch.equal(soft_minimum(Q), Q.amin(1))
    assert torch.equal((best_response(Q) * Q).sum(1), Q.amin(1))


def test_value_iteration_contracts_and_keeps_its_promise():
    exact = MODEL.exact.value
    for tolerance in (1e-2, 1e-6, 1e-10):
        found = value_iteration(MODEL, tolerance=tolerance)
        assert 1e-3 * tolerance < (found.value - exact).abs().max() <= tolerance
    change = torch.tensor(found.history[:150], dtype=F64)
    assert (change[1:] / change[:-1]).max() <= 0.9 + 1e-6
    assert (change[101:] / change[100:-1]).min() > 0.89
    torch.testing.assert_close(found.policy, MODEL.exact.policy)
    with pytest.raises(RuntimeError, match="more than 3 sweeps"):
        value_iteration(MODEL, sweeps=3)


def test_policy_iteration_is_newtons_method():
    found = policy_iteration(MODEL)
    assert len(found.history) <= 5 and found.history[-1] < 1e-14
    torch.testing.assert_close(found.value, value_iteration(MODEL, tolerance=1e-12).value, rtol=0, atol=2e-12)
    history = policy_iteration(MODEL, 0.1).history
    # quadratic convergence: the residual's logarithm doubles until it meets rounding
    assert history[-2] < history[-3] ** 1.8 and len(history) <= 8
    with pytest.raises(RuntimeError, match="more than 1 rounds"):
        policy_iteration(MODEL, 0.1, rounds=1)


def test_soft_and_hard_agree_in_the_limit_within_the_bound():
    previous = None
    for alpha in (0.1, 0.01, 0.001):
        soft = policy_iteration(MODEL, alpha)
        torch.testing.assert_close(soft.value, value_iteration(MODEL, alpha).value, rtol=0, atol=1e-10)
        torch.testing.assert_close(soft.value, evaluate(MODEL, soft.policy, alpha), rtol=1e-12, atol=0)
        gap = (MODEL.exact.value - soft.value).max().item()
        # 0 <= V - V_alpha <= alpha log A/(1 - gamma)
        assert 0 < gap < alpha * math.log(4) / 0.1
        assert previous is None or gap < previous / 5
        previous = gap


def test_any_policy_costs_at_least_the_value():
    pi = torch.softmax(torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=F64), 1)
    assert (evaluate(MODEL, pi) - MODEL.exact.value).min() > 0.1


def test_an_mdp_without_costs_is_free():
    free = MDP(torch.full((2, 2, 2), 0.5, dtype=F64), torch.zeros(2, 2, dtype=F64), 0.5)
    assert policy_iteration(free).value.tolist() == [0, 0] == value_iteration(free).value.tolist()


def test_single_precision_stays_single():
    mdp = MDP(MODEL.transition.float(), MODEL.cost.float(), 0.9)
    found = policy_iteration(mdp)
    assert found.value.dtype == torch.float32
    torch.testing.assert_close(found.value.double(), MODEL.exact.value, rtol=1e-5, atol=0)


def test_bad_arguments():
    for call in (soft_minimum, best_response):
        with pytest.raises(ValueError, match="temperature must be finite and not negative, got -1"):
            call(MODEL.cost, -1)
    with pytest.raises(ValueError, match=r"policy must have shape \(20, 4\), got \(20, 3\)"):
        evaluate(MODEL, torch.full((20, 3), 1 / 3, dtype=F64))
    with pytest.raises(ValueError, match="policy must have rows that sum to 1"):
        evaluate(MODEL, torch.full((20, 4), 0.3, dtype=F64))
