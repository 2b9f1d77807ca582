"""The figure of a certificate, in the colours of the current matplotlib style."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hjbridge.hjb.certificate.estimate import Estimate


def draw_certificate(certificate: Any) -> Figure:
    """Costs with three standard errors beside the claimed value, quantiles of the residual, histogram of the defect.

    Args: certificate, a `Certificate`, whose module imports this one. Returns: the figure, without the panels whose
    quantity the certificate lacks.
    """
    panels = [_costs]
    panels += [_residual] if certificate.ratios is not None else []
    panels += [_defect] if certificate.defects is not None else []
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.6), squeeze=False, layout="constrained")
    for panel, ax in zip(panels, axes[0], strict=True):
        panel(certificate, ax)
    verdict = "optimal" if certificate.optimal else "not shown to be optimal"
    figure.suptitle(f"{certificate.method} on {certificate.problem}: {verdict}")
    return figure


def _costs(certificate: Any, ax: Axes) -> None:
    """One mark for each cost; the value that is claimed, and the exact one, as lines."""
    shown: list[tuple[str, Estimate | None]] = [
        ("closed loop", certificate.extrapolated),
        ("exact control", certificate.exact_cost),
        ("no control", certificate.baseline),
    ]
    marks = [(label, cost) for label, cost in shown if cost is not None]
    for i, (_, cost) in enumerate(marks):
        ax.errorbar(i, cost.mean, yerr=3 * cost.stderr, marker="o", capsize=5, color=f"C{i}")
    for label, value, line in (
        ("claimed value", certificate.value, "--"),
        ("exact value", certificate.exact_value, ":"),
    ):
        if value is not None:
            ax.axhline(value, color="grey", linestyle=line, label=label)
    ax.set_xticks(range(len(marks)), [label.replace(" ", "\n") for label, _ in marks])
    ax.set(xlim=(-0.6, len(marks) - 0.4), ylabel="cost" if certificate.sense == "min" else "reward")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()


def _residual(certificate: Any, ax: Axes) -> None:
    """Share of points whose relative residual lies below a bound."""
    assert certificate.ratios is not None
    ratios = np.sort(certificate.ratios.double().cpu().numpy()).clip(1e-17)
    ax.plot(ratios, (np.arange(len(ratios)) + 1) / len(ratios), color="C0")
    ax.set(xscale="log", ylim=(0, 1), xlabel="residual / largest term", ylabel="share of points below")


def _defect(certificate: Any, ax: Axes) -> None:
    assert certificate.defects is not None
    ax.hist(certificate.defects.double().cpu().numpy(), bins=40, color="C0")
    ax.axvline(0, color="grey", linestyle=":")
    ax.set(xlabel="path defect", ylabel="paths")
