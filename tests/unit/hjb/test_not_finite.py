"""NaN and infinity in: an error that names the argument, not NaN out."""

import math
from dataclasses import replace

import pytest
import torch

from hjbridge.hjb import problems
from hjbridge.hjb.discrete import backup, best_response, kl_residual, soft_minimum
from hjbridge.hjb.discrete.greedy_regret import noisy_greedy, regret
from hjbridge.hjb.discrete.held_control import advantage, advantage_by_difference, held
from hjbridge.hjb.discrete.spectral import excess_cost, held_action_values, soft_circle
from hjbridge.hjb.problem import check_finite

F64 = torch.float64
MODEL = problems.random_mdp(3, 2, 0.9, 0)
CHAIN = problems.linearly_solvable_mdp(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([1.0, 0.0]))
CIRCLE = problems.circle()
LINE = problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)
STEP = held(LINE, torch.tensor([0.1], dtype=F64))
X, ZERO = torch.tensor([[0.5], [-1.0]], dtype=F64), torch.zeros((), dtype=F64)
M = torch.ones(2, 1, 1, dtype=F64)
ACTIONS, EVEN = torch.linspace(-2, 2, 5, dtype=F64), torch.full((9, 5), 0.2, dtype=F64)
NINE = torch.ones(9, dtype=F64)


def spoil(tensor, bad):
    tensor = tensor.clone()
    tensor.flatten()[-1] = bad
    return tensor


CALLS = {
    "backup value": lambda bad: backup(MODEL, spoil(torch.ones(3, dtype=F64), bad)),
    "kl_residual value": lambda bad: kl_residual(CHAIN, spoil(torch.ones(2), bad)),
    "noisy_greedy q": lambda bad: noisy_greedy(spoil(torch.ones(2, 3, dtype=F64), bad), 0.3),
    "regret actions": lambda bad: regret(CIRCLE, spoil(ACTIONS, bad), 0.3, 9),
    "regret_of_chance actions": lambda bad: regret(CIRCLE, spoil(ACTIONS, bad), math.inf, 9),
    "held_action_values value": lambda bad: held_action_values(CIRCLE, spoil(NINE, bad), 0.1, ACTIONS),
    "held_action_values actions": lambda bad: held_action_values(CIRCLE, NINE, 0.1, spoil(ACTIONS, bad)),
    "soft_circle actions": lambda bad: soft_circle(CIRCLE, spoil(ACTIONS, bad), 0.1, 0.1, 9),
    "excess_cost actions": lambda bad: excess_cost(CIRCLE, spoil(ACTIONS, bad), EVEN),
    "excess_cost policy": lambda bad: excess_cost(CIRCLE, ACTIONS, spoil(EVEN, bad)),
    "advantage x": lambda bad: advantage(STEP, bad, 0.0, 1.0, 1.0),
    "advantage u": lambda bad: advantage(STEP, 1.0, bad, 1.0, 1.0),
    "advantage P": lambda bad: advantage(STEP, 1.0, 0.0, bad, 1.0),
    "advantage c": lambda bad: advantage_by_difference(STEP, 1.0, 0.0, 1.0, bad),
    "best_control x": lambda bad: LINE.best_control(spoil(X, bad), ZERO, X),
    "best_control t": lambda bad: LINE.best_control(X, spoil(ZERO, bad), X),
    "best_control p": lambda bad: LINE.best_control(X, ZERO, spoil(X, bad)),
    "best_control M": lambda bad: LINE.best_control(X, ZERO, X, spoil(M, bad)),
    "best_control_of_few p": lambda bad: FEW.best_control(X, ZERO, spoil(X, bad)),
    "cost x": lambda bad: LINE.cost(spoil(X, bad), ZERO, X),
    "cost t": lambda bad: LINE.cost(X, spoil(ZERO, bad), X),
    "cost u": lambda bad: LINE.cost(X, ZERO, spoil(X, bad)),
}  # fmt: skip
FEW = replace(LINE, control_set=torch.tensor([[-1.0], [1.0]]), exact=None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("call", CALLS)
def test_the_argument_is_named(call, bad):
    with pytest.raises(ValueError, match=f"^{call.split()[1]} must be finite, got {bad}"):
        CALLS[call](bad)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("function", [soft_minimum, best_response])
def test_an_action_may_be_forbidden_and_nothing_else(function, alpha):
    Q = torch.tensor([[1.0, 2.0, math.inf], [0.5, math.inf, 0.1]], dtype=F64)
    for row, kept in enumerate(([0, 1], [0, 2])):
        found, alone = function(Q, alpha)[row], function(Q[row, kept], alpha)
        if function is best_response:
            assert found[~Q[row].isfinite()].item() == 0
            found = found[kept]
        torch.testing.assert_close(found, alone, rtol=1e-14, atol=0)
    for bad in (math.nan, -math.inf):
        with pytest.raises(
            ValueError, match=rf"Q must be finite, or inf for a forbidden action, got {bad} at \(1, 2\)"
        ):
            function(spoil(Q, bad), alpha)
    Q[1] = math.inf
    with pytest.raises(ValueError, match=r"Q must allow an action in every row, got inf alone in row \(1,\)"):
        function(Q, alpha)


def test_the_place_is_named_and_what_is_finite_passes():
    check_finite(a=1.0, b=None, c=X)
    with pytest.raises(ValueError, match=r"c must be finite, got nan at \(1, 0\)"):
        check_finite(a=1.0, c=spoil(X, math.nan))
    with pytest.raises(ValueError, match="a must be finite, got inf$"):
        check_finite(a=math.inf)
