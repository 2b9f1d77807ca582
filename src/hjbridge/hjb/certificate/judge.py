"""Whether what was measured allows to call a solution optimal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hjbridge.hjb.certificate.certificate import Check
from hjbridge.hjb.certificate.estimate import Estimate

# below this share of useful paths the standard error of the Hopf-Cole value cannot be trusted
LEAST_SHARE = 0.05
# with a longer step a comparison of costs decides nothing
LARGEST_STEP_ERROR = 0.05


def judge(
    found: Mapping[str, Any], cost_tolerance: float, residual_tolerance: float
) -> tuple[tuple[Check, ...], bool, str]:
    """The checks, whether all passed and suffice, and the reason in words.

    A difference of costs is accepted up to 3 standard errors + the step correction + cost_tolerance of the value.
    """
    cost: Estimate = found["extrapolated"]
    words = "change of the cost between this step and zero, relative"
    step_check = _small("step", words, found["step_error"], LARGEST_STEP_ERROR)
    checks = []
    if "value" in found:
        value = found["value"]
        words = f"cost less claimed value, {cost.mean:.6g} - {value:.6g}"
        step = abs(cost.mean - found["cost"])
        checks.append(_close("cost against value", words, found["excess"], step, cost_tolerance, value))
        words = "90 % quantile of the relative residual"
        if found.get("residual_quantiles") is not None:
            checks.append(_small("residual", words, found["residual_quantiles"][1], residual_tolerance))
        if found.get("terminal_misfit") is not None:
            words = "relative misfit at the horizon"
            checks.append(_small("terminal", words, found["terminal_misfit"], residual_tolerance))
    if "exact_excess" in found:
        words, step = "cost less cost of the exact control", abs(found["exact_step_change"])
        checks.append(
            _close("cost against exact", words, found["exact_excess"], step, cost_tolerance, found["exact_value"])
        )
    if found.get("effective_sample_size", 0.0) >= LEAST_SHARE:
        truth, step = found["hopf_cole"], abs(found["hopf_cole_step"])
        value = truth.mean + found["hopf_cole_step"]
        if found["hopf_cole_claim"] is not None:
            # the extrapolated value is 2 V(h) - V(2h), of at most sqrt(5) times the error
            error = Estimate(found["hopf_cole_claim"] - value, 5**0.5 * truth.stderr)
            checks.append(
                _close("value against Hopf-Cole", "claimed less Hopf-Cole value", error, step, cost_tolerance, value)
            )
        words, step = "cost less Hopf-Cole value", abs(found["hopf_cole_excess_step"])
        checks.append(_close("cost against Hopf-Cole", words, found["hopf_cole_excess"], step, cost_tolerance, value))
    if not checks and "hopf_cole" in found:
        words = f"effective sample size {found['effective_sample_size']:.2g} below {LEAST_SHARE:g}"
        return (step_check,), False, f"undecided: a control without a value, and a Hopf-Cole value of {words}"
    if not checks:
        return (step_check,), False, "undecided: a control without a value, and nothing exact to compare its cost with"
    checks.insert(0, step_check)
    failed = [check.detail for check in checks if not check.passed]
    reason = "; ".join(failed) if failed else "; ".join(check.detail for check in checks)
    return tuple(checks), not failed, reason


def _close(name: str, words: str, excess: Estimate, step: float, tolerance: float, size: float) -> Check:
    """Whether a difference of costs is zero up to the errors named in `judge`, and up to rounding."""
    allowed = 3 * excess.stderr + step + (tolerance + 1e-9) * abs(size)
    return _check(name, abs(excess.mean) <= allowed, words, f"{excess.mean:+.3g} ± {excess.stderr:.1g}", allowed)


def _small(name: str, words: str, number: float, tolerance: float) -> Check:
    return _check(name, number <= tolerance, words, f"{number:.2g}", tolerance)


def _check(name: str, passed: bool, words: str, measured: str, allowed: float) -> Check:
    detail = f"{words}: {measured} ({'within' if passed else 'beyond'} the allowed {allowed:.2g})"
    return Check(name, passed, detail, measured, allowed)
