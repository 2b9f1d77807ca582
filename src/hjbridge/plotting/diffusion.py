"""Figures of noise and denoising: clouds on a line, the bound and its weights, guidance, pictures that appear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hjbridge.plotting.style import (
    INK,
    MARKERS,
    density_and_paths,
    image_animation,
    image_grid,
    lines,
    particle_animation,
)
from hjbridge.sde import GaussianMixture, Process


def marginals_and_paths(law: GaussianMixture, process: Process, paths: Tensor, width: float = 4.0) -> Figure:
    """The marginals of a process that starts from a one-dimensional mixture, with some of its paths (any, n) on top."""
    times, x = torch.linspace(0, 1, 150), torch.linspace(-width, width, 240)
    density = torch.stack([law.marginal(process, t).log_prob(x[:, None]).exp() for t in times])
    return density_and_paths(x.numpy(), times.numpy(), density.numpy(), paths.numpy())


#: members of the family of reverse equations by the names under which a chapter keeps them
MEMBERS = {"exact": "exact draws", "ode": "$\\eta$ = 0", "half": "$\\eta$ = 0.5", "sde": "$\\eta$ = 1"}


def floor_ratios(times: Sequence[float], ratios: Mapping[str, Tensor]) -> Axes:
    """Distances in units of their floor, at several times, with standard errors; the marks are set apart for the eye.

    Args: times (k,); ratios, a name of `MEMBERS` to its ratios (k, clouds).
    """
    curves = {
        MEMBERS[name]: ([t + 0.012 * shift for t in times], values.T)
        for shift, (name, values) in enumerate(ratios.items())
    }
    ax = lines(curves, reference=("floor", 1.0))
    ax.set(xlabel="time $t$", ylabel="W1 / floor", ylim=(0.5, 1.7))
    return ax


def out_and_back(out: Tensor, home: Tensor, every: int = 12):
    """An animation of particles in the plane that dissolve and gather again; every 12th state of (steps, n, 2) each."""
    start = out[0]
    return particle_animation(
        torch.cat([out[::every], home[::every]]),
        torch.atan2(start[:, 1], start[:, 0]),
        alt=f"{len(start)} dots in eight clusters on a ring dissolve into a cloud and gather in eight clusters again.",
        caption="Out and back. Each dot has the colour of its first cluster. The ring returns, the colours do not.",
    )


def nearest_images(images: Tensor, train: Tensor) -> Figure:
    """Images (n, c, h, w) in one row, and below each the training image that is nearest to it."""
    nearest = torch.cdist(images.flatten(1), train.flatten(1)).argmin(dim=1)
    return image_grid(torch.cat([images, train[nearest]]), columns=len(images), titles=["sample", "nearest"])


def bound_gaps(
    sizes: Sequence[int], gaps: Mapping[str, Sequence[float]], weights: Tensor, limit: tuple[str, float]
) -> Figure:
    """What the bound loses against the entropy, by the number of steps, and how it weighs the steps of a chain.

    Args: sizes (k,) numbers of steps; gaps, label to (k,) in nats; weights (N - 1,) of the steps 2 .. N; limit, label
        and height of a dotted line among the gaps.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.4))
    for marker, (label, values) in zip(MARKERS, gaps.items(), strict=False):
        left.plot(sizes, values, marker=marker, label=label)
    left.axhline(limit[1], color=INK, linestyle=":", label=limit[0])
    left.set(xlabel="steps $N$", ylabel="gap (nats)", xscale="log", yscale="log")
    left.set_xticks(sizes, [str(size) for size in sizes])
    left.minorticks_off()
    left.legend()
    right.plot(range(2, len(weights) + 2), weights / weights.mean(), label="the bound")
    right.plot([2, len(weights) + 1], [1, 1], label="the loss in use")
    right.set(xlabel="step $k$", ylabel="weight", yscale="log")
    right.legend()
    return figure


def rules(curves: Mapping[str, tuple[Sequence[int], Sequence[Sequence[float]]]], real: float) -> Axes:
    """Frechet distance by number of evaluations, both logarithmic, with standard errors and that of real images.

    Args: curves, rule to (evaluations (k,), values (k, seeds)); real.
    """
    turned = {rule: (evaluations, torch.tensor(values).T) for rule, (evaluations, values) in curves.items()}
    ax = lines(turned, reference=("real images", real), log="xy")
    ax.set(xlabel="evaluations", ylabel="FD")
    return ax


def guidance(
    weights: Sequence[float], agreement: Sequence[Sequence[float]], coverage: Sequence[Sequence[float]]
) -> Figure:
    """Agreement and coverage of guided samples; for each of the weights (k,) the values of several seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.2))
    for ax, values, label in zip(axes, (agreement, coverage), ("agreement", "coverage"), strict=True):
        lines({"": (weights, torch.tensor(values).T)}, ax).set(xlabel="guidance $w$", ylabel=label)
    return figure


def appearing(images: Sequence[Tensor], what: str, frames: int = 25):
    """An animation of noise that turns into pictures; the frames lie closer at the end, where something is to be seen.

    Args: images, of each step (n, c, h, w) in [0, 1]; what, the words for them, such as "the digits 3, 5 and 8".
    """
    shown = torch.linspace(0, 1, frames).sqrt().mul(len(images) - 1).round().long().tolist()
    return image_animation(
        [images[i] for i in shown],
        columns=len(images[0]),
        still=-1,
        scale=1.8,
        alt=f"Squares of grey noise, {len(images[0])} of them, in which {what} slowly appear.",
        caption=f"The {len(images) - 1:,} ancestral steps from noise to {what}; the frames lie closer at the end.",
    )
