"""What `certify` found: named fields, four lines of text, a table of everything and a figure."""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from hjbridge.hjb.certificate.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Check(NamedTuple):
    """One test of optimality: what was compared, whether it held, and the numbers in words.

    measured: the number that was compared, with its error if it has one, as text. allowed: its bound.
    """

    name: str
    passed: bool
    detail: str
    measured: str
    allowed: float


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Measured quality of a solution; a field is None where the quantity does not exist or cannot be measured.

    As text it is the verdict and three lines: what was run, the cost at step zero and the claimed value; the residual;
    the check that decided. `report` tells all, and a notebook shows it folded below these lines.

    Costs are means over the starts that were drawn. Where a value is known (the claimed one, otherwise the exact one)
    it explains most of the noise, and the standard error is that of the mean over these starts; otherwise the spread of
    the starts is in it, as in plain_stderr. "Extrapolated" means to step zero.

    Attributes:
        problem, method: names. sense: "max" if every "cost" is a reward. paths, steps, horizon: of the closed loop;
            horizon is where an infinite one was cut.
        cost: closed-loop cost J at `steps`, stderr its standard error, plain_stderr that without control variate.
        step_change: J at `steps` less J at half as many, with the same noise. extrapolated: J at step zero.
        step_error: how far the latter lies from `cost`, relative to the mean size of a path's cost.
        outside: share of states on the paths that lie outside the solution's domain, where the control of the nearest
            state in it was used; a start that was drawn outside and moved to the border counts.
        tail: the part of J that was not simulated: e^(-rho T) times the value where the paths ended.
        value: the claimed value at the same starts. excess: J extrapolated less that value.
        baseline: cost of the allowed control nearest to zero, with the same noise and tail.
        defect_mean, defect_sd: of `path_defect` on the closed-loop paths; defect_sd_coarse: at half as many steps,
            sqrt(2) times as much for the true value. terminal_misfit: rms of V(X_T, T) - Phi(X_T), relative to the
            root of the mean squares of Phi there and of V at the starts.
        residual_quantiles: 50, 90 and 99 % quantiles of abs(HJB residual) over its largest term, on path points.
        value_error, gradient_error, control_error: relative L2 errors against `problem.exact` on path points.
        exact_value, exact_cost: V at the starts, and what the exact control costs with the same noise and step.
        cost_ratio: cost over exact_cost. exact_excess: J(u) - J(u*), paired by the noise, extrapolated;
            exact_step_change: change of the paired difference from half as many steps.
        control_gap: int e^(-rho t) [H(u) - H(u*)] dt, for a quadratic cost without bounds
            1/2 int e^(-rho t) (u - u*)'R(u - u*) dt; its mean is J(u) - V.
        hopf_cole: value at the first start by importance sampling under the control; effective_sample_size: share of
            useful paths; hopf_cole_step: the change of that value to step zero by extrapolation; hopf_cole_claim: the
            claimed value there. hopf_cole_excess: cost less value there, extrapolated; hopf_cole_excess_step: what
            extrapolation changed.
        checks; optimal: all of them passed and they suffice; reason: which failed and by how much, or what agreed.
        defects, ratios: the samples behind defect and residual, for the figure.
    """

    problem: str
    method: str
    sense: str
    paths: int
    steps: int
    horizon: float
    cost: float
    stderr: float
    plain_stderr: float
    step_change: float
    step_error: float
    extrapolated: Estimate
    outside: float = 0.0
    tail: float | None = None
    value: float | None = None
    excess: Estimate | None = None
    baseline: Estimate | None = None
    defect_mean: Estimate | None = None
    defect_sd: float | None = None
    defect_sd_coarse: float | None = None
    terminal_misfit: float | None = None
    residual_quantiles: tuple[float, float, float] | None = None
    value_error: float | None = None
    gradient_error: float | None = None
    control_error: float | None = None
    exact_value: float | None = None
    exact_cost: Estimate | None = None
    cost_ratio: Estimate | None = None
    exact_excess: Estimate | None = None
    exact_step_change: float | None = None
    control_gap: Estimate | None = None
    hopf_cole: Estimate | None = None
    hopf_cole_step: float | None = None
    hopf_cole_claim: float | None = None
    hopf_cole_excess: Estimate | None = None
    hopf_cole_excess_step: float | None = None
    effective_sample_size: float | None = None
    checks: tuple[Check, ...] = ()
    optimal: bool
    reason: str
    defects: Tensor | None = field(default=None, repr=False, compare=False)
    ratios: Tensor | None = field(default=None, repr=False, compare=False)

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of every quantity that is known."""
        rows: list[tuple[str, str | None]] = [
            ("closed-loop cost", _pm(Estimate(self.cost, self.stderr))),
            ("  error without control variate", f"{self.plain_stderr:.2g}"),
            ("  change from half as many steps", _signed(self.step_change)),
            ("  at step zero", _pm(self.extrapolated)),
            ("  of which beyond the horizon", _number(self.tail)),
            ("states outside the domain", f"{self.outside:.2g}" if self.outside else None),
            ("claimed value", _number(self.value)),
            ("cost less claimed value", _pm(self.excess)),
            ("cost of doing nothing", _pm(self.baseline)),
            ("exact value", _number(self.exact_value)),
            ("cost of the exact control", _pm(self.exact_cost)),
            ("cost ratio", _pm(self.cost_ratio)),
            ("cost less cost of the exact control", _pm(self.exact_excess)),
            ("control gap", _pm(self.control_gap)),
            ("error of value, gradient, control", self._errors()),
            ("defect: mean", _pm(self.defect_mean)),
            ("defect: sd (half as many steps)", _pair(self.defect_sd, self.defect_sd_coarse)),
            ("terminal misfit", _short(self.terminal_misfit)),
            ("residual / largest term, 50 90 99 %", " ".join(f"{q:.2g}" for q in self.residual_quantiles or ())),
            ("Hopf-Cole value at the first start", _pm(self.hopf_cole)),
            ("  change from this step to zero", _signed(self.hopf_cole_step)),
            ("  claimed value there", _number(self.hopf_cole_claim)),
            ("  cost there less Hopf-Cole value", _pm(self.hopf_cole_excess)),
            ("  effective sample size", _short(self.effective_sample_size)),
        ]
        word = "cost" if self.sense == "min" else "reward"
        return [(label.replace("cost", word), text) for label, text in rows if text]

    def report(self) -> str:
        """Everything that was measured, one line for each quantity, and the reason."""
        lines = [
            self._verdict(),
            f"{self.paths} paths, {self.steps} steps to t = {self.horizon:g}",
            *(f"  {label:<40}{text}" for label, text in self.rows()),
        ]
        for part in self.reason.split("; "):
            lines += textwrap.wrap(part, 80, initial_indent="- ", subsequent_indent="  ")
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n  ".join([self._verdict(), *self._lines()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [("paths, steps, horizon", f"{self.paths}, {self.steps}, {self.horizon:g}"), *self.rows()]
        body = "".join(
            f'<tr><th scope="row">{html.escape(label).replace("  ", "&emsp;")}</th><td>{html.escape(text)}</td></tr>\n'
            for label, text in rows
        )
        reasons = "".join(f"<li>{html.escape(part)}</li>\n" for part in self.reason.split("; "))
        return (
            f'<div class="certificate">\n<pre>{html.escape(str(self))}</pre>\n'
            f"<details><summary>All that was measured</summary>\n"
            f"<table>\n<tbody>\n{body}</tbody>\n</table>\n<ul>\n{reasons}</ul>\n</details>\n</div>"
        )

    def _verdict(self) -> str:
        return f"{self.method} on {self.problem}: {'optimal' if self.optimal else 'not shown to be optimal'}"

    def _lines(self) -> tuple[str, str, str]:
        """What was run and what it cost; the residual; what decided."""
        word = "cost" if self.sense == "min" else "reward"
        claim = "no claimed value" if self.value is None else f"claimed value {self.value:.6g}"
        ran = f"{self.paths} paths, {self.steps} steps to t = {self.horizon:g}"
        equation = "the equation was not tested"
        if self.residual_quantiles is not None:
            equation = f"residual up to {self.residual_quantiles[1]:.2g} of the largest term at 90 % of the points"
        return f"{ran}: {word} {_pm(self.extrapolated)}, {claim}", equation, self._decided()

    def _decided(self) -> str:
        """The first check that failed; otherwise the one that compares costs. Without either, the reason."""
        failed = [check for check in self.checks if not check.passed]
        if self.optimal == bool(failed) or len(self.checks) < 2:
            return self.reason
        decisive = failed[0] if failed else self.checks[1]
        count = (
            f"{len(failed)} of {len(self.checks)} checks failed" if failed else f"all {len(self.checks)} checks passed"
        )
        return f"{count}; {decisive.name} {decisive.measured}, allowed {decisive.allowed:.2g}"

    def draw(self) -> Figure:
        """The certificate as one figure: costs beside values, residual quantiles, histogram of the defect."""
        from hjbridge.hjb.certificate.draw import draw_certificate

        return draw_certificate(self)

    def _errors(self) -> str | None:
        errors = (self.value_error, self.gradient_error, self.control_error)
        return None if all(e is None for e in errors) else " ".join("-" if e is None else f"{e:.2g}" for e in errors)


def _pm(value: Estimate | None) -> str | None:
    return None if value is None else f"{value.mean:.6g} ± {value.stderr:.2g}"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.2e}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"


def _pair(value: float | None, other: float | None) -> str | None:
    return None if value is None or other is None else f"{value:.2g} ({other:.2g})"
