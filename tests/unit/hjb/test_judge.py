import html
import math
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from hjbridge.hjb import Certificate, Solution, certify
from hjbridge.hjb.certificate.estimate import Estimate
from hjbridge.hjb.certificate.judge import judge
from hjbridge.hjb.problems import lqg, stationary_lqr

F64 = torch.float64
ONE = torch.ones(1, 1, dtype=F64)
QUICK = {"paths": 512, "steps": 24, "points": 64}
LINE = lqg(0.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0)
# here P = 1 at all times: V = x^2/2 + s^2 (T - t)/2, u = -x
LINE = replace(LINE, exact=Solution(LINE, value_function=lambda x, t: x[:, 0] ** 2 / 2 + 0.125 * (1 - t)))


def changed(problem, control=None, value=None):
    """The exact solution with another control or value, under the name `learnt`."""
    exact = problem.exact
    return Solution(
        problem, "learnt", value_function=value or exact.value, control_function=control or exact.control
    )  # fmt: skip


def failed(certificate):
    return [check.name for check in certificate.checks if not check.passed]


def test_a_control_without_a_value_is_judged_by_what_is_exact():
    best = LINE.exact.control
    alone = Solution(LINE, "learnt", control_function=best)
    found = certify(LINE, alone, **QUICK)
    assert found.optimal and found.value is None and found.residual_quantiles is None and found.excess is None
    assert found.value_error is None and found.control_error == 0 and found.defects is None
    assert "cost against exact" in [check.name for check in found.checks]
    assert found.stderr < found.plain_stderr / 5


def test_hopf_cole_judges_where_nothing_else_is_known():
    unknown, x0 = replace(LINE, exact=None), 1.5 * ONE
    truth = LINE.exact.value(x0, 0.0).item()
    for factor, optimal in ((1.0, True), (0.9, False)):
        alone = Solution(unknown, "learnt", control_function=lambda x, t, f=factor: f * LINE.exact.control(x, t))
        found = certify(unknown, alone, x0=x0, paths=1000, steps=60)
        assert found.optimal is optimal and found.exact_value is None
        value = found.hopf_cole.mean + found.hopf_cole_step
        assert value == pytest.approx(truth, abs=7 * found.hopf_cole.stderr)
        assert found.effective_sample_size > (0.99 if optimal else 0.9)
        judged = certify(LINE, replace(alone, problem=LINE), x0=x0, paths=1000, steps=60)
        allowed = 4 * math.hypot(found.hopf_cole_excess.stderr, judged.control_gap.stderr) + 2e-4
        assert allowed < 2e-3
        assert found.hopf_cole_excess.mean == pytest.approx(judged.control_gap.mean, abs=allowed)
    assert failed(found) == ["cost against Hopf-Cole"]
    idle = certify(unknown, replace(alone, control_function=lambda x, t: 0 * x), x0=4 * ONE, **QUICK)
    assert not idle.optimal and "undecided" in idle.reason and "effective sample size" in idle.reason
    wrong = replace(
        alone, value_function=lambda x, t: LINE.exact.value(x, t) + 0.1, control_function=LINE.exact.control
    )
    assert "value against Hopf-Cole" in failed(certify(unknown, wrong, x0=x0, **QUICK))


def test_without_anything_to_compare_it_is_undecided():
    bounded = replace(LINE, exact=None, bounds=(-ONE[0], ONE[0]))
    found = certify(bounded, Solution(bounded, control_function=lambda x, t: -x.clamp(-1, 1)), **QUICK)
    assert not found.optimal and found.reason.startswith("undecided: a control without a value")
    assert found.hopf_cole is None and [check.name for check in found.checks] == ["step"]


def test_a_step_that_is_too_long_decides_nothing():
    problem = stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)
    found = certify(problem, problem.exact, paths=64, steps=50)
    assert not found.optimal and failed(found)[0] == "step" and found.step_error > 0.05


def test_tolerances_are_what_they_say():
    weaker = changed(LINE, lambda x, t: 0.9 * LINE.exact.control(x, t))
    assert not certify(LINE, weaker, x0=ONE, **QUICK).optimal
    assert certify(LINE, weaker, x0=ONE, cost_tolerance=0.05, **QUICK).optimal
    scaled = changed(LINE, value=lambda x, t: 1.02 * LINE.exact.value(x, t))
    assert failed(certify(LINE, scaled, x0=ONE, cost_tolerance=0.1, **QUICK)) == []
    strict = certify(LINE, scaled, x0=ONE, cost_tolerance=0.1, residual_tolerance=0.001, **QUICK)
    assert failed(strict) == ["residual", "terminal"]


def limited(problem):
    """The exact solution, on [-1, 1] only."""

    def value(x, t):
        if bool((x.abs() > 1).any()):
            raise ValueError("x must lie in [-1, 1]")
        return problem.exact.value(x, t)

    return Solution(problem, "limited", value_function=value, domain=(-ONE[0], ONE[0]))


def test_outside_its_domain_a_solution_lends_the_control_of_the_nearest_state():
    found = certify(LINE, limited(LINE), **QUICK)
    assert found.outside > 0.001 and "states outside the domain" in found.report()
    # every start is moved into the domain
    x0 = LINE.initial(512, torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert found.value == pytest.approx(LINE.exact.value(x0, 0.0).mean().item())
    assert found.residual_quantiles[2] < 1e-12 and found.value_error < 1e-14


def test_starts_outside_the_domain_are_refused_if_given_and_counted_if_drawn():
    x0 = torch.zeros(512, 1, dtype=F64)
    x0[3], x0[4] = 1.5, -1.0
    with pytest.raises(ValueError, match=r"x0 must lie in the solution's domain, \[-1.0\] to \[1.0\], got \[1.5\]"):
        certify(LINE, limited(LINE), x0=x0, **QUICK)
    assert certify(LINE, limited(LINE), x0=x0.clamp(-1, 1), **QUICK).value > 0.125
    # without noise u = -x leads inwards: only starts lie outside, at one of 24 times
    still = lqg(0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0)
    share = (still.initial(512, torch.Generator().manual_seed(0)).abs() > 1).double().mean().item()
    assert 0.2 < share and certify(still, limited(still), **QUICK).outside == pytest.approx(share / 24, rel=1e-12)


def test_an_extrapolated_hopf_cole_value_errs_by_the_root_of_five():
    """2 V(h) - V(2h), each with the standard error e: 6.5 e lies within 3 sqrt(5) e = 6.71 e, and 6.9 e does not."""
    measured = {
        "extrapolated": Estimate(1.0, 0.0), "step_error": 0.0, "effective_sample_size": 0.5, "hopf_cole_step": 0.0,
        "hopf_cole": Estimate(1.0, 0.01), "hopf_cole_excess": Estimate(0.0, 0.01), "hopf_cole_excess_step": 0.0,
    }  # fmt: skip
    for off, passes in ((0.065, True), (-0.065, True), (0.069, False), (-0.069, False)):
        checks, optimal, _ = judge({**measured, "hopf_cole_claim": 1 + off}, 0.0, 0.05)
        assert optimal is passes and [c.name for c in checks if not c.passed] == (
            [] if passes else ["value against Hopf-Cole"]
        )


def test_it_prints_a_verdict_and_three_lines():
    shifted = certify(LINE, changed(LINE, lambda x, t: LINE.exact.control(x, t) + 0.5), **QUICK)
    for found, decided in (
        (certify(LINE, LINE.exact, **QUICK), "all 7 checks passed; cost against value "),
        (shifted, "3 of 7 checks failed; cost against value +0.12"),
    ):
        verdict, ran, equation, last = str(found).splitlines()
        assert verdict == f"{found.method} on lqg: {'optimal' if found.optimal else 'not shown to be optimal'}"
        cost = f"cost {found.extrapolated.mean:.6g} ± {found.extrapolated.stderr:.2g}"
        assert ran == f"  512 paths, 24 steps to t = 1: {cost}, claimed value {found.value:.6g}"
        assert f" {found.residual_quantiles[1]:.2g} of the largest term" in equation
        assert last.startswith(f"  {decided}") and last.endswith(f", allowed {found.checks[1].allowed:.2g}")
        assert repr(found) == str(found) and max(map(len, str(found).splitlines())) <= 80


def test_without_a_comparison_the_last_line_says_what_is_missing():
    bounded = replace(LINE, exact=None, linear_quadratic=None, bounds=(-ONE[0], ONE[0]))
    found = certify(bounded, Solution(bounded, "learnt", control_function=lambda x, t: -x.clamp(-1, 1)), **QUICK)
    verdict, ran, equation, last = str(found).splitlines()
    assert verdict.endswith("not shown to be optimal") and ran.endswith("no claimed value")
    assert equation == "  the equation was not tested" and last == f"  {found.reason}"


def test_a_notebook_shows_the_same_lines_and_folds_the_rest():
    tricky = replace(changed(LINE), method="<b>learnt</b>")
    found = certify(LINE, tricky, **QUICK)
    page = found._repr_html_()
    shown, folded = page.split("<details>")
    assert html.unescape(shown.split("<pre>")[1].split("</pre>")[0]) == str(found)
    assert "<b>" not in page and "&lt;b&gt;learnt" in shown
    assert not re.search(r"style=|src=|href=|<script|color", page)
    cells = re.findall(r'<tr><th scope="row">(.*)</th><td>(.*)</td></tr>', folded)
    assert [tuple(map(html.unescape, cell)) for cell in cells[1:]] == [
        (a.replace("  ", "\N{EM SPACE}"), b) for a, b in found.rows()
    ]
    assert [html.unescape(part) for part in re.findall("<li>(.*)</li>", folded)] == found.reason.split("; ")


def test_it_reports_a_table_and_draws_a_figure():
    found = certify(LINE, changed(LINE, lambda x, t: 0.7 * LINE.exact.control(x, t)), **QUICK)
    text = found.report()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.splitlines()[0] == "learnt on lqg: not shown to be optimal"
    assert f"{found.cost:.6g} ± {found.stderr:.2g}" in text and "effective sample size" in text
    figure = found.draw()
    assert len(figure.axes) == 3 and [ax.get_xlabel() for ax in figure.axes][1:] == [
        "residual / largest term",
        "path defect",
    ]
    assert sum(p.get_height() for p in figure.axes[2].patches) == 512
    plt.close(figure)
    bare = certify(LINE, Solution(LINE, control_function=LINE.exact.control), **QUICK).draw()
    assert len(bare.axes) == 1
    plt.close(bare)


def test_a_seed_fixes_everything():
    one, other, third = (certify(LINE, LINE.exact, seed=seed, **QUICK) for seed in (3, 3, 4))
    assert isinstance(one, Certificate) and one == other and one != third


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"paths": 8}, "paths must be at least 16, got 8"),
        ({"points": 0}, "points must be at least 1, got 0"),
        ({"steps": 5}, "steps must be positive and even, so that the step can be doubled, got 5"),
        ({"steps": 0}, "steps must be positive and even"),
        ({"horizon": 2.0}, "horizon must be None: the problem ends at 1, got 2.0"),
        ({"cost_tolerance": -0.1}, r"cost_tolerance must lie in \[0, 1\), got -0.1"),
        ({"residual_tolerance": math.nan}, r"residual_tolerance must lie in \[0, 1\), got nan"),
        ({"x0": torch.zeros(3, 1, dtype=F64), "paths": 64}, r"x0 must have shape \(1, 1\) or \(64, 1\), got \(3, 1\)"),
        ({"x0": torch.full((1, 1), math.nan, dtype=F64)}, "x must be finite"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        certify(LINE, LINE.exact, **options)


def test_what_does_not_fit_is_named():
    other = lqg([[0.0, 1.0], [1.0, -0.2]], [[0.0], [1.0]], 1.0, 1.0, 1.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="solution must be of 1 states and 1 controls, got one of 2 states"):
        certify(LINE, other.exact)
    with pytest.raises(ValueError, match="x0 must be given: the problem 'lqg' has no initial sampler"):
        certify(replace(LINE, initial=None), LINE.exact)
    problem = stationary_lqr(-0.5, 1.0, 1.0, 0.5, 0.3, 0.4)
    with pytest.raises(ValueError, match="horizon must be positive and finite, got -1"):
        certify(problem, problem.exact, horizon=-1.0)
    broken = replace(LINE, running_cost=lambda x, t: torch.full_like(x[:, 0], math.inf))
    with pytest.raises(FloatingPointError, match="closed-loop cost is not finite on 16 of 16 paths"):
        certify(broken, LINE.exact, paths=16, steps=2)
