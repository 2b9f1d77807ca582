"""One recorded number: how it is read from the record and how it is printed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hjbridge.ledger import files, schema
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.schema import ID

TIMES = "\N{MULTIPLICATION SIGN}"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class UnknownId(LedgerError):
    """An id that the record, or the list of claims, does not hold; the text suggests the nearest."""


@dataclass(frozen=True, repr=False)
class Result:
    """A number of the record with all that is needed to judge it.

    Attributes:
        id: `chNN.name`. value: finite number. stderr: its standard error; None for an exact number.
        n: samples. seeds: list of seeds, or their count. unit, protocol: words. reference: the value it is held
        against. tolerance: the largest absolute deviation allowed. claims: ids of claims it speaks to.
        digits: significant digits to print where there is no error. run: profile, seed, versions and hashes of its run.
        extra: whatever else was recorded.
    """

    id: str
    value: int | float
    stderr: float | None = None
    n: int | None = None
    seeds: int | tuple[int, ...] | None = None
    unit: str | None = None
    protocol: str | None = None
    reference: float | None = None
    tolerance: float | None = None
    claims: tuple[str, ...] = ()
    digits: int | None = None
    run: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def profile(self) -> str:
        """Name of the profile it was recorded with."""
        return str(self.run.get("profile", "book"))

    @property
    def within(self) -> bool:
        """Whether it lies within its tolerance of its reference; True where none is stated."""
        if self.reference is None or self.tolerance is None:
            return True
        return abs(self.value - self.reference) <= self.tolerance

    def text(self, digits: int | None = None, *, unit: bool = True) -> str:
        """Value and error with the digits that the error allows, such as `3.12 ± 0.04`, with its unit.

        The error is rounded to one significant digit, two if the first is a 1; the value to the same decimals.
        Without an error: `digits` significant digits, else those it was recorded with, else 4; integers are exact.
        """
        text = pretty(self.value, self.stderr, digits or self.digits)
        return f"{text} {self.unit}" if unit and self.unit else text

    def __repr__(self) -> str:
        return f"{self.id} = {self.text()}"

    def entry(self) -> dict[str, Any]:
        """The form in which it is stored, without its run."""
        names = ("id", "value", "stderr", "n", "seeds", "unit", "protocol", "reference", "tolerance", "claims")
        entry: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.digits is not None:
            entry["digits"] = self.digits
        return entry | ({"extra": self.extra} if self.extra else {})


def pretty(value: float, stderr: float | None = None, digits: int | None = None) -> str:
    """Print a number with the digits that its error allows; see `Result.text`. An error of rounding size is none."""
    if not stderr or stderr < 1e-12 * abs(value):
        if isinstance(value, int) and digits is None:
            return f"{value:,}"
        return scaled(value, None, (digits or 4) - 1 - magnitude(value, digits or 4))
    count = 2 if "1" in (f"{stderr:.1e}"[0], f"{stderr:.0e}"[0]) else 1
    return scaled(value, stderr, count - 1 - magnitude(stderr, 1))


def magnitude(value: float, digits: int = 15) -> int:
    """Power of ten of the first significant digit after rounding to `digits` of them; 0 for 0."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def scaled(value: float, stderr: float | None, places: int) -> str:
    """Round to decimal places; powers of ten are pulled out of very small and very large numbers."""
    exponent = magnitude(round(max(abs(value), stderr or 0.0), places))
    if -3 <= exponent < 6:
        parts = [value, stderr] if stderr else [value]
        return " ± ".join(f"{round(part, places):,.{max(places, 0)}f}" for part in parts) if any(parts) else "0"
    power = f" {TIMES} 10{str(exponent).translate(SUPERSCRIPT)}"
    number, error = (f"{(part or 0.0) / 10.0**exponent:.{max(places + exponent, 0)}f}" for part in (value, stderr))
    return f"({number} ± {error}){power}" if stderr else f"{number}{power}"


def parse(entry: dict[str, Any], run: dict[str, Any]) -> Result:
    """A result from its stored form; an entry of profile `full` has a run of its own."""
    lists = {name: tuple(value) for name, value in entry.items() if isinstance(value, list)}
    return Result(**({"run": run} | entry | lists))


def load_chapter(path: Path) -> dict[str, Result]:
    """All results of one file of the record, by id.

    Raises: LedgerError that names file, line and field if it does not have the form of a record.
    """
    record = schema.read(path)
    return {entry["id"]: parse(entry, record["run"]) for entry in record["results"]}


def chapter_file(folder: Path, chapter: str, profile: str = "book") -> Path:
    """File of a chapter in a folder of results; records of profile `full` lie in its subfolder `full/`."""
    return (folder / "full" if profile == "full" else folder) / f"ch{chapter}.json"


def command(id: str, entry: Result | None = None, *, record: bool = False) -> str:
    """The command that makes a number anew, or, with `record`, that puts it on record anew.

    Args: id: `chNN.name` or `chNN.name@full`. entry: the number, where it is on record; it may name its own command.
    """
    chapter = id[2:4]
    if not id.endswith("@full"):
        return f"make {'record' if record else 'chapter'} CH={chapter}"
    if entry is None:
        return "hjbridge evaluate NAME"
    run = f"hjbridge run --chapter {chapter} --profile full" + (" --record" if record else "")
    return str(entry.extra.get("command", run))


def result(id: str, folder: Path | None = None) -> Result:
    """Read one number of the record.

    Args:
        id: `chNN.name`, in capitals or not; `chNN.name@full` reads the record of profile `full`.
        folder: folder of results; None: HJBRIDGE_RESULTS, or the committed record.
    Raises: UnknownId for a malformed id or a number that is not there, with the nearest ids and the command that makes
        it; LedgerError for a damaged file.
    """
    name, _, profile = id.lower().partition("@")
    match = ID.fullmatch(name)
    if not match or profile not in ("", "full"):
        raise UnknownId(f"result id must look like ch05.prior_kl or ch05.prior_kl@full, got {id!r}")
    folder = files.reading() if folder is None else Path(folder)
    path = chapter_file(folder, match[1], profile or "book")
    hint = f"`{command(id.lower())}` makes the full record" if profile else f"`{command(id.lower(), record=True)}`"
    if not path.is_file():
        raise UnknownId(f"result {id} is not recorded ({path} does not exist): {hint}")
    known = load_chapter(path)
    if name not in known:
        near = nearest(id.lower(), [f"{other}@full" if profile else other for other in known])
        raise UnknownId(f"result {id} is not recorded in {path}{near}: {hint}")
    return known[name]


def nearest(id: str, known: Iterable[str]) -> str:
    """Which of the known ids may have been meant, for the end of a message; nothing where none is near."""
    near = difflib.get_close_matches(id, list(known), 3, 0.6)
    return f"; the nearest: {', '.join(near)}" if near else ""


def all_results(folder: Path | None = None) -> dict[str, Result]:
    """Every number of the record by id; those of profile `full` end in `@full`."""
    folder = files.reading() if folder is None else Path(folder)
    found = {}
    for path in sorted(folder.glob("ch[0-9][0-9].json")):
        found.update(load_chapter(path))
    for path in sorted((folder / "full").glob("ch[0-9][0-9].json")):
        found.update({f"{name}@full": value for name, value in load_chapter(path).items()})
    return found
