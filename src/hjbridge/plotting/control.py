"""Figures of control problems: a value with paths, landings, prices of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hjbridge.hjb import Solution
from hjbridge.hjb.problems import Landing
from hjbridge.plotting.style import BLUE, GREEN, INK, ORANGE, PALE, PURPLE, RED, SKY, lines


def value_map(solution: Solution, paths: Tensor, labels: tuple[str, str], points: int = 61) -> Figure:
    """The value at t = 0 over the box of a plane problem, as shading and level lines, with paths from their starts.

    Args: solution, of a problem with two states; paths (steps, n, 2); labels of the axes; points along each axis.
    """
    assert solution.problem.box is not None
    low, high = solution.problem.box
    right, up = (
        torch.linspace(a, b, points, dtype=low.dtype) for a, b in zip(low.tolist(), high.tolist(), strict=True)
    )
    plane = torch.stack(torch.meshgrid(right, up, indexing="xy"), -1)
    value = solution.value(plane.reshape(-1, 2)).reshape(points, points)
    figure, ax = plt.subplots(figsize=(6.4, 4.6))
    shade = ax.contourf(right, up, value, levels=14, cmap="Blues")
    level = ax.contour(right, up, value, levels=list(shade.levels)[1::2], colors=INK, linewidths=0.6)
    ax.clabel(level, fontsize=11)
    ax.plot(paths[..., 0], paths[..., 1], color=RED, linewidth=1.2)
    ax.plot(paths[0, :, 0], paths[0, :, 1], "o", color=RED)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    return figure


def landings(flights: Sequence[Landing]) -> Figure:
    """Landings in the plane of velocity and height: free fall, thrust, and the switching curve.

    Args: flights, of one rocket, by `soft_landing`.
    """
    figure, ax = plt.subplots(figsize=(6.4, 4.8))
    gravity, thrust = flights[0].gravity, flights[0].thrust
    fastest = max(flight.ignition_speed for flight in flights)
    v = torch.linspace(-1.15 * fastest, 0, 200)
    curve = v**2 / (2 * (thrust - gravity))
    ax.fill_between(v, 0, curve, color=PALE, alpha=0.5, linewidth=0, label="every control crashes")
    ax.plot(v, curve, color=INK, linestyle="--", label="switching curve")
    for i, flight in enumerate(flights):
        for start, end, colour, width, label in (
            (0.0, flight.ignition_time, BLUE, 2.0, "engine off"),
            (flight.ignition_time, flight.time, RED, 4.0, "full thrust"),
        ):
            height, velocity, _ = flight.at(torch.linspace(start, end, 200, dtype=torch.float64))
            ax.plot(velocity, height, color=colour, linewidth=width, alpha=0.8, label=None if i else label)
        ax.plot(flight.velocity, flight.height, "o", color=BLUE)
    ax.set(xlabel="velocity upwards (m/s)", ylabel="height (m)", ylim=(0, 1.9 * max(f.height for f in flights)))
    ax.legend(loc="upper right")
    return figure


def puts(american: Solution, european: Solution, spot: Tensor) -> Figure:
    """Prices of two puts today over the payoff (left), and where the American one is exercised (right).

    Args: solutions of `american_put` and of the European put with the same terms; spot (k,), ascending.
    """
    problem, x = american.problem, spot.unsqueeze(1)
    assert problem.horizon is not None and problem.terminal_cost is not None
    payoff = problem.terminal_cost(x)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.8))
    left.plot(spot, payoff, color=INK, linestyle=":", label="payoff")
    left.plot(spot, american.value(x), color=ORANGE, label="American")
    left.plot(spot, european.value(x), color=BLUE, linestyle="--", label="European")
    left.set(xlabel="spot today", ylabel="price")
    left.legend()
    times = torch.linspace(0, problem.horizon, 61, dtype=spot.dtype)
    dense = torch.linspace(spot[0].item(), spot[-1].item(), 4001, dtype=spot.dtype)
    paid = dense[problem.terminal_cost(dense.unsqueeze(1)) > 0]
    level = torch.stack([paid[american.stop(paid.unsqueeze(1), t)].max() for t in times])
    floor = level.min().item() - 2
    right.plot(times, level, color=INK)
    right.fill_between(times, floor, level, color=ORANGE, alpha=0.4, linewidth=0)
    right.text(0.5, 0.12, "exercise", transform=right.transAxes)
    right.text(0.15, 0.7, "hold", transform=right.transAxes)
    right.set(xlabel="time (years)", ylabel="spot", xlim=(0, problem.horizon), ylim=(floor, None))
    return figure


def wrong_models(factors: Sequence[float], linear: Mapping[str, Sequence[float]], driven: Mapping[str, Tensor]) -> Axes:
    """Cost above the best against the factor by which a model is wrong.

    Args: factors (k,). linear: symbol to the losses of a closed form (k,), in per cent. driven: label to measured ones
        (seeds, k).
    """
    curves = {f"pendulum, {name}": (factors, values) for name, values in driven.items()}
    curves |= {f"linear, ${name}$": (factors, torch.tensor([list(values)] * 3)) for name, values in linear.items()}
    ax = lines(curves)
    ax.set(xlabel="model / truth", ylabel="cost above the best (%)", xticks=factors)
    return ax


def price_interval(prices: Mapping[str, Solution], spot: Tensor) -> Axes:
    """Prices today between a lowest and a highest one, as curves in a band.

    Args: prices: bid and ask, and vol15 and the like, prices at constant volatilities in per cent; spot (k,).
    """
    ax, x = plt.subplots()[1], spot.unsqueeze(1)
    inside = {f"{name[3:]} %": found for name, found in prices.items() if name.startswith("vol")}
    ax.fill_between(
        spot, prices["bid"].value(x), prices["ask"].value(x), color=SKY, alpha=0.4, linewidth=0, label="bid to ask"
    )
    for (label, found), colour, line in zip(inside.items(), (BLUE, GREEN, PURPLE), ("-", "--", ":"), strict=False):
        ax.plot(spot, found.value(x), color=colour, linestyle=line, label=label)
    ax.set(xlabel="spot today", ylabel="price")
    ax.legend()
    return ax
