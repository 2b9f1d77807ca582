"""Does a later run of the same chapters give the numbers of the record?"""

from __future__ import annotations

import math
from pathlib import Path

from hjbridge.ledger import files
from hjbridge.ledger.checks import Finding
from hjbridge.ledger.results import Result, load_chapter

SAME = ("unit", "n", "seeds", "protocol")


def check_repeated(folder: Path, root: Path | None = None) -> list[Finding]:
    """Recorded numbers that a later run of the same chapters, in `folder`, does not repeat.

    A value repeats within 0.1 %, its own tolerance, or three standard errors, an error as in `same_error`; unit, n,
    seeds and protocol are the same. On one machine all are, to the last digit.
    """
    root = files.root() if root is None else root
    found = []
    for chapter in files.notebooks(root / "notebooks"):
        mend = f"make record CH={chapter}"
        if not (folder / f"ch{chapter}.json").is_file():
            found.append(Finding("error", f"chapter {chapter}", f"has not been run again ({folder})", "make test"))
            continue
        again = load_chapter(folder / f"ch{chapter}.json")
        for id, result in load_chapter(root / "data" / "results" / f"ch{chapter}.json").items():
            if id not in again:
                found.append(Finding("error", id, "was not recorded when the chapter was run again", mend))
            elif differences := unlike(result, again[id]):
                found.append(Finding("error", id, "; ".join(differences), mend))
    return found


def unlike(old: Result, new: Result) -> list[str]:
    """What a later run did not repeat, in words."""
    told = []
    allowed = max(1e-3 * abs(old.value), old.tolerance or 0.0, 3 * (old.stderr or 0.0))
    if not abs(new.value - old.value) <= allowed:
        told.append(f"is on record as {old.value:.8g}, a new run gave {new.value:.8g}")
    if not same_error(old, new):
        told.append(f"has the error {old.stderr} on record, a new run gave {new.stderr}")
    for name in SAME:
        if getattr(old, name) != getattr(new, name):
            told.append(f"has {name} {getattr(old, name)} on record, a new run gave {getattr(new, name)}")
    return told


def same_error(old: Result, new: Result) -> bool:
    """Whether a standard error is repeated: both are null, both of rounding size, or their ratio is near one.

    An error from k seeds has itself the relative error 1/sqrt(2(k-1)), the logarithm of the ratio of two of them
    1/sqrt(k-1). Three times that is allowed: a factor of 8.3 for three seeds, so that a slip by ten is always seen, and
    e for ten. Without a number of seeds, three are taken. An error of rounding size is below 1e-9 of the value.
    """
    if old.stderr is None or new.stderr is None:
        return old.stderr is new.stderr
    if max(old.stderr, new.stderr) <= 1e-9 * abs(old.value):
        return True
    seeds = old.seeds if isinstance(old.seeds, int) else len(old.seeds or ())
    spread = 3 / math.sqrt(max(seeds, 3) - 1)
    return min(old.stderr, new.stderr) * math.exp(spread) >= max(old.stderr, new.stderr)
