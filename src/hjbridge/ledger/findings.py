"""What a check has found, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass

from hjbridge.ledger import seals


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `level` is "error" or "warning"; `mend` is the command that mends it.

    `otherwise` makes the thing anew, or, as `hjbridge seal`, keeps the change. `file` is the sealed file whose harm
    this explains.
    """

    level: str
    subject: str
    problem: str
    mend: str
    otherwise: str = ""
    file: str = ""

    def __str__(self) -> str:
        ways = {"hjbridge seal": "keep the change", "rm": "take it off the record"}
        how = next((way for start, way in ways.items() if self.otherwise.startswith(start)), "make it anew")
        otherwise = f", or {how} with `{self.otherwise}`" if self.otherwise else ""
        return f"{self.subject}: {self.problem}; mend it with `{self.mend}`{otherwise}"


def harmed(name: str, subject: str, problem: str, otherwise: str = "") -> Finding:
    """An error whose mending is the committed file."""
    return Finding("error", subject, problem, seals.restore(name), otherwise or seals.maker(name), name)
