"""Interleaved measurements of CPU time, and ratios with their threshold and verdict."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


def cpu_seconds(function: Callable[[], object]) -> float:
    """Process time of one call, every thread included."""
    start = time.process_time()
    function()
    return time.process_time() - start


def interleaved(functions: Sequence[Callable[[], object]], repetitions: int) -> list[list[float]]:
    """CPU seconds of each function, (functions, repetitions), after one call that is not counted.

    One repetition calls all of them, every second one in the opposite order, so that what else the machine does meets
    all alike.
    """
    for function in functions:
        function()
    seconds: list[list[float]] = [[] for _ in functions]
    gc.disable()
    try:
        for repetition in range(repetitions):
            order = list(enumerate(functions))
            for i, function in order if repetition % 2 == 0 else reversed(order):
                seconds[i].append(cpu_seconds(function))
            gc.collect()
    finally:
        gc.enable()
    return seconds


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes: what is compared; ratios, one per repetition; sense and limit, the threshold; judged by the median (for
    times, whose repetitions differ by disturbance) or by the worst (for errors, whose repetitions are other problems).
    """

    what: str
    ratios: tuple[float, ...]
    sense: Literal[">=", "<="]
    limit: float
    by: Literal["median", "worst"] = "median"

    @property
    def judged(self) -> float:
        if self.by == "median":
            return statistics.median(self.ratios)
        return min(self.ratios) if self.sense == ">=" else max(self.ratios)

    @property
    def passed(self) -> bool:
        if not all(map(math.isfinite, self.ratios)):  # NaN would pass a comparison, or not, by its place
            return False
        return self.judged >= self.limit if self.sense == ">=" else self.judged <= self.limit

    def cells(self) -> list[str]:
        """Cells of the table: what, min, median, max, threshold, judged by, verdict."""
        numbers = (min(self.ratios), statistics.median(self.ratios), max(self.ratios))
        verdict = "PASS" if self.passed else "FAIL"
        return [self.what, *(f"{n:.3g}" for n in numbers), f"{self.sense} {self.limit:g}", self.by, verdict]


@dataclass(frozen=True)
class Outcome:
    """What a benchmark returns: the protocol in words, its rows, and remarks with measured numbers."""

    protocol: str
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """above / below, repetition by repetition."""
    return tuple(a / b for a, b in zip(above, below, strict=True))
