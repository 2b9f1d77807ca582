"""Options: closed form against quadrature, parity and the equation; obstacle and uncertain volatility; the tree."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from hjbridge.hjb import Solution, hjb_residual, load, simulate
from hjbridge.hjb.problems import american_put, binomial_put, butterfly, european_option, uncertain_volatility

TERMS = {"strike": 40.0, "rate": 0.06, "volatility": 0.2, "maturity": 1.0}
SPOTS = torch.linspace(15, 110, 96, dtype=torch.float64).unsqueeze(1)


def column(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def discounted(payoff, spot, time, strike, rate, volatility, maturity):
    """e^(-r s) E payoff(X_T) by quadrature over the lognormal density."""
    s = maturity - time

    def integrand(z):
        x = spot * math.exp((rate - volatility**2 / 2) * s + volatility * math.sqrt(s) * z)
        return payoff(x) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    kink = (math.log(strike / spot) - (rate - volatility**2 / 2) * s) / (volatility * math.sqrt(s))
    return math.exp(-rate * s) * (
        quad(integrand, -12, kink, epsabs=1e-12)[0] + quad(integrand, kink, 12, epsabs=1e-12)[0]
    )


@pytest.mark.parametrize(("kind", "sign"), [("call", 1), ("put", -1)])
def test_price_is_the_discounted_expectation_of_the_payoff(kind, sign):
    exact = european_option(**TERMS, kind=kind).exact
    for spot, time in ((40.0, 0.0), (33.0, 0.4), (52.0, 0.9)):
        expect = discounted(lambda x: max(sign * (x - 40.0), 0.0), spot, time, **TERMS)
        assert exact.value(column(spot), time).item() == pytest.approx(expect, abs=1e-10)


def test_the_known_numbers_and_parity():
    put, call = european_option(**TERMS, kind="put").exact, european_option(**TERMS, kind="call").exact
    assert put.value(column(40.0)).item() == pytest.approx(2.06640, abs=5e-6)
    bond = 40.0 * math.exp(-0.06 * 0.7)
    gap = call.value(SPOTS, 0.3) - put.value(SPOTS, 0.3)
    assert gap.numpy() == pytest.approx((SPOTS[:, 0] - bond).numpy(), abs=1e-12)
    slopes = call.gradient(SPOTS, 0.3) - put.gradient(SPOTS, 0.3)
    assert slopes.numpy() == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("kind", ["call", "put"])
def test_the_equation_holds(kind):
    problem = european_option(**TERMS, kind=kind)
    for t in (0.0, 0.5, 0.9):
        near = SPOTS[(SPOTS[:, 0] > 20) & (SPOTS[:, 0] < 80)]
        residual, terms = hjb_residual(problem, problem.exact.value, near, t, True)
        assert (residual.abs() / terms.scale()).max().item() < 1e-10


@pytest.mark.parametrize("kind", ["call", "put"])
def test_delta_is_the_slope_of_the_price(kind):
    exact, h = european_option(**TERMS, kind=kind).exact, 1e-4
    slope = (exact.value(SPOTS + h, 0.2) - exact.value(SPOTS - h, 0.2)) / (2 * h)
    assert exact.gradient(SPOTS, 0.2)[:, 0].numpy() == pytest.approx(slope.numpy(), abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("kind", "payoff", "slope"), [("call", [0, 0, 5], [0, 0.5, 1]), ("put", [5, 0, 0], [-1, -0.5, 0])]
)
def test_at_maturity_price_and_slope_are_those_of_the_payoff(kind, payoff, slope, dtype):
    problem = european_option(**TERMS, kind=kind)
    x = column(35.0, 40.0, 45.0).to(dtype)
    assert problem.exact.value(x, 1.0).tolist() == pytest.approx(payoff, abs=1e-5)
    assert problem.exact.value(x, 1.0).dtype == dtype
    assert problem.exact.gradient(x, 1.0).flatten().tolist() == pytest.approx(slope, abs=1e-6)
    assert problem.terminal_cost(x).tolist() == pytest.approx(payoff)
    # the equation holds up to maturity, off the kink
    residual, terms = hjb_residual(problem, problem.exact.value, x[::2], 1.0, True)
    assert (residual.abs() <= 1e-5 * terms.scale()).all()


def test_simulated_payments_average_to_the_price():
    problem, n = european_option(**TERMS, kind="put"), 20000
    x0, generator = torch.full((n, 1), 40.0, dtype=torch.float64), torch.Generator().manual_seed(0)
    path = simulate(problem, problem.exact.control, x0, torch.linspace(0, 1, 26), generator)
    error = path.cost.std().item() / math.sqrt(n)
    assert abs(path.cost.mean().item() - 2.06640) < 3 * error < 0.1


def test_the_perpetual_put_solves_the_variational_inequality():
    # V = (K - b)(x/b)^(-2r/sigma^2) above b = K a/(1 + a), a = 2r/sigma^2; K - x below: the American put without end
    problem, power = american_put(**TERMS), 2 * 0.06 / 0.2**2
    edge = 40.0 * power / (1 + power)

    def perpetual(x, t):
        s = x[:, 0]
        return torch.where(s > edge, (40.0 - edge) * (s.clamp_min(edge) / edge) ** -power, 40.0 - s)

    x = SPOTS[(SPOTS[:, 0] - edge).abs() > 1]
    assert hjb_residual(problem, perpetual, x, 0.5).abs().max().item() < 1e-12
    # where one should stop and does not, and where one should not stop and does, it is seen
    too_low = hjb_residual(problem, lambda x, t: 0.99 * perpetual(x, t), x, 0.5)
    assert too_low[x[:, 0] < edge].min().item() > 0.05
    assert problem.exact is None


def test_uncertain_volatility_takes_the_extreme_that_curvature_asks_for():
    pay = butterfly(90.0, 100.0, 110.0)
    x, t = column(95.0, 95.0), torch.tensor(0.1, dtype=torch.float64)
    p, M = torch.zeros(2, 1).double(), torch.tensor([[[1.0]], [[-1.0]]], dtype=torch.float64)
    for side, chosen in (("ask", [0.25, 0.15]), ("bid", [0.15, 0.25])):
        problem = uncertain_volatility(0.15, 0.25, 0.1, 0.25, pay, side)
        u = problem.best_control(x, t, p, M)
        assert u.flatten().tolist() == chosen
        expect = [u**2 * 95.0**2 / 2 * m for u, m in zip(chosen, (1.0, -1.0), strict=True)]
        assert problem.hamiltonian(x, t, u, p, M).tolist() == pytest.approx(expect)


@pytest.mark.parametrize(("side", "volatility"), [("ask", 0.25), ("bid", 0.15)])
def test_a_convex_payoff_is_priced_at_one_of_the_extremes(side, volatility):
    problem = uncertain_volatility(0.15, 0.25, 0.06, 1.0, lambda x: (x - 40.0).clamp_min(0.0), side)
    terms = {**TERMS, "volatility": volatility}
    price = european_option(**terms, kind="call").exact.value
    x = SPOTS[(SPOTS[:, 0] > 25) & (SPOTS[:, 0] < 65)]
    residual, parts = hjb_residual(problem, price, x, 0.3, True)
    assert (residual.abs() / parts.scale()).max().item() < 1e-10
    other = european_option(**{**terms, "volatility": 0.2}, kind="call").exact.value
    worst = hjb_residual(problem, other, x, 0.3)
    assert (worst > 0).all() if side == "ask" else (worst < 0).all()
    assert problem.terminal_cost(column(47.0)).item() == 7.0


def test_the_butterfly_is_a_tent_of_calls():
    s = torch.linspace(50, 150, 401, dtype=torch.float64)
    calls = [(s - k).clamp_min(0.0) for k in (90.0, 100.0, 115.0)]
    expect = calls[0] - (1 + 10 / 15) * calls[1] + 10 / 15 * calls[2]
    assert butterfly(90.0, 100.0, 115.0)(s).numpy() == pytest.approx(expect.numpy(), abs=1e-12)


def test_the_box_holds_what_can_happen_and_starts_lie_in_it():
    pay = butterfly(90.0, 100.0, 110.0)
    for problem, low, high in (
        (european_option(**TERMS, kind="put"), 40, 40), (american_put(**TERMS), 40, 40),
        (uncertain_volatility(0.15, 0.25, 0.1, 0.25, pay, "ask"), 90, 110),
    ):  # fmt: skip
        reach = math.exp(6 * max(0.2 if low == 40 else 0.125, 0))
        assert problem.box[0].item() < 1.02 * low / reach
        assert problem.box[1].item() > high * reach / 1.02
        assert problem.box[1].item() < 2 * high * reach
        starts = problem.initial(300, torch.Generator().manual_seed(0))
        assert ((starts > problem.box[0]) & (starts < problem.box[1])).all()
        assert starts.std().item() > 1


def test_the_tree():
    american = binomial_put([36.0, 40.0, 44.0, 20.0], **TERMS, steps=4000)
    assert american[1] == pytest.approx(2.31950, abs=5e-6)
    assert american[3] == pytest.approx(20.0, abs=1e-12)  # exercised at once
    alone = [binomial_put(s, **TERMS, steps=500)[0] for s in (36.0, 44.0)]
    assert binomial_put([36.0, 44.0], **TERMS, steps=500) == pytest.approx(alone, rel=1e-14)
    exact = european_option(**TERMS, kind="put").exact.value(column(40.0)).item()
    errors = [abs(binomial_put(40.0, **TERMS, steps=n, american=False)[0] - exact) for n in (250, 500, 1000)]
    assert errors[0] < 4e-3
    assert np.array(errors[:2]) / errors[1:] == pytest.approx(2.0, rel=0.02)
    free = {**TERMS, "rate": 0.0}
    assert binomial_put(40.0, **free, steps=200) == pytest.approx(binomial_put(40.0, **free, steps=200, american=False))


def test_save_and_load(tmp_path):
    exact = european_option(**TERMS, kind="call").exact
    back = load(exact.save(tmp_path / "call.safetensors"))
    assert back.value(column(41.0), 0.3) == exact.value(column(41.0), 0.3)
    assert american_put(**american_put(**TERMS).arguments).box == american_put(**TERMS).box


def test_a_payoff_is_not_in_the_file(tmp_path):
    problem = vague()
    path = Solution(problem, "exact", lambda x, t: x[:, 0]).save(tmp_path / "ask.safetensors")
    with pytest.raises(ValueError, match="problem must be given: its payoff is a function, which"):
        load(path)
    known = replace(problem, exact=Solution(problem, "exact", lambda x, t: 2 * x[:, 0]))
    assert load(path, problem=known).value(column(3.0)).item() == 6


CALL, PUT, TREE = (
    lambda **change: european_option(**{**TERMS, "kind": "call", **change}),
    lambda **change: american_put(**{**TERMS, **change}),
    lambda **change: binomial_put(**{"spots": 40.0, **TERMS, "steps": 50, **change}),
)


def vague(**change):
    given = {
        "low": 0.1,
        "high": 0.2,
        "rate": 0.1,
        "maturity": 1.0,
        "payoff": butterfly(90.0, 100.0, 110.0),
        "side": "ask",
    }
    return uncertain_volatility(**{**given, **change})


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (CALL, {"volatility": 0.0}, "volatility must be positive and finite, got 0.0"),
        (CALL, {"maturity": -1.0}, "maturity must be positive and finite, got -1.0"),
        (CALL, {"strike": math.nan}, "strike must be positive and finite, got nan"),
        (CALL, {"rate": -0.01}, "rate must be finite and not negative, got -0.01"),
        (CALL, {"kind": "straddle"}, "kind must be call or put, got 'straddle'"),
        (PUT, {"volatility": -0.2}, "volatility must be positive and finite, got -0.2"),
        (PUT, {"maturity": 0.0}, "maturity must be positive and finite, got 0.0"),
        (vague, {"low": 0.3}, "low must not exceed high = 0.2, got 0.3"),
        (vague, {"low": 0.0}, "low must be positive and finite, got 0.0"),
        (vague, {"maturity": -0.5}, "maturity must be positive and finite, got -0.5"),
        (vague, {"side": "mid"}, "side must be ask or bid, got 'mid'"),
        (vague, {"payoff": lambda x: 2 * x + 1}, "payoff must not be linear in the spot"),
        (vague, {"payoff": lambda x: (x - 40).log()}, "payoff must map spots"),
        (TREE, {"volatility": 0.0}, "volatility must be positive and finite, got 0.0"),
        (TREE, {"spots": [40.0, -1.0]}, "spots must be positive and finite, got -1.0"),
        (TREE, {"steps": 0}, "steps must be at least 1, got 0"),
        (TREE, {"rate": 2.0, "steps": 90}, "steps must be more than .* = 100, got 90"),
        (butterfly, {"low": 90.0, "middle": 90.0, "high": 110.0}, "strikes must be positive and ascending, got 90.0"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(make, change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_no_price_at_a_spot_that_is_not_positive():
    exact = european_option(**TERMS, kind="call").exact
    for function in (exact.value, exact.gradient):
        with pytest.raises(ValueError, match="spot must be positive, got -3"):
            function(column(40.0, -3.0))
    with pytest.raises(ValueError, match="t must lie in"):
        exact.value(column(40.0), 1.1)
