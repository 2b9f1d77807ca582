"""How large a chapter runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

PROFILES = ("smoke", "book", "full", "paper")
T = TypeVar("T")


@dataclass(frozen=True)
class Profile:
    """A size of run: `smoke` (seconds, tests only), `book` (the record), `full` (CPU hours), `paper` (a GPU).

    Raises: ValueError for another name; lists the known ones.
    """

    name: str = "book"

    def __post_init__(self) -> None:
        if self.name not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {self.name!r}")

    def pick(self, *, smoke: T, book: T, full: T | None = None, paper: T | None = None) -> T:
        """The setting for this profile; where `full` or `paper` is not given, the next smaller one serves."""
        sizes = {"smoke": smoke, "book": book}
        sizes["full"] = sizes["book"] if full is None else full
        sizes["paper"] = sizes["full"] if paper is None else paper
        return sizes[self.name]

    @property
    def judged(self) -> bool:
        """Whether claims are judged on this profile's numbers; those of `smoke` are too small to say anything."""
        return self.name != "smoke"
