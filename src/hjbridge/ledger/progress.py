"""One line per chapter that tells how far a run is."""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """Tells nothing; what `run` uses when it is called from code."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None: ...

    def start(self, chapter: str, name: str) -> None:
        """A chapter has started."""

    def advance(self, chapter: str, done: int, total: int) -> None:
        """A chapter has finished `done` of `total` cells."""

    def finish(self, chapter: str, seconds: float, good: bool) -> None:
        """A chapter has ended."""


class Lines(Progress):
    """Bars on a terminal; elsewhere a line when a chapter starts and one when it ends."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self.bars = Bars(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("cells"),
            TimeElapsedColumn(), console=Console(stderr=True),
        )  # fmt: skip
        self.tasks: dict[str, Any] = {}
        self.live = sys.stderr.isatty()
        self.started: dict[str, float] = {}

    def __enter__(self) -> Progress:
        if self.live:
            self.bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live:
            self.bars.stop()

    def start(self, chapter: str, name: str) -> None:
        self.started[chapter] = time.perf_counter()
        if self.live:
            self.tasks[chapter] = self.bars.add_task(name, total=None)
        else:
            print(f"chapter {chapter} started ({name})", file=sys.stderr, flush=True)

    def advance(self, chapter: str, done: int, total: int) -> None:
        if self.live:
            self.bars.update(self.tasks[chapter], completed=done, total=total)

    def finish(self, chapter: str, seconds: float, good: bool) -> None:
        if self.live:
            colour = "green" if good else "red"
            task = self.tasks[chapter]
            self.bars.update(task, description=f"[{colour}]{self.bars.tasks[task].description}")
            self.bars.stop_task(task)
        else:
            print(f"chapter {chapter} {'done' if good else 'FAILED'} in {seconds:.1f} s", file=sys.stderr, flush=True)
