"""Is the record still true? Compares stored hashes with the code of today, in milliseconds and without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hjbridge import store
from hjbridge.ledger import files, freshness
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.notebook import read_notebook
from hjbridge.ledger.results import all_results, command, load_chapter


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `level` is "error" or "warning"; `mend` is the command that mends it."""

    level: str
    subject: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}; mend it with `{self.mend}`"


def changed(hashes: dict[str, Any], root: Path, fingerprint: Callable[[Path], str] = store.fingerprint) -> list[str]:
    """What differs from the hashes of a run, or is gone: modules, and checkpoints that the run has loaded.

    Records of runs that did not note their checkpoints are held against their modules alone.
    """
    found = freshness.stale_modules(hashes.get("modules", {}))
    for name, recorded in hashes.get("checkpoints", {}).items():
        path = root / "data" / "checkpoints" / f"{name}.safetensors"
        if not path.is_file():
            found.append(f"checkpoint {name} (gone)")
        elif fingerprint(path) != recorded:
            found.append(f"checkpoint {name}")
    return found


def check_chapters(root: Path | None = None) -> list[Finding]:
    """Chapters whose record is missing or stale, and records without a chapter."""
    root = files.root() if root is None else root
    results, found = root / "data" / "results", []
    chapters = files.notebooks(root / "notebooks")
    for chapter, notebook in chapters.items():
        mend = f"make record CH={chapter}"
        path = results / f"ch{chapter}.json"
        if not path.is_file():
            found.append(Finding("error", f"chapter {chapter}", "has no record", mend))
            continue
        load_chapter(path)  # a damaged file is told by name
        run = json.loads(path.read_text(encoding="utf-8"))["run"]
        hashes, problems = run.get("hashes", {}), []
        if run.get("profile") != "book":
            problems.append(f"was recorded with profile {run.get('profile')}, not book")
        if hashes.get("notebook") != freshness.notebook_hash(read_notebook(notebook)["cells"]):
            problems.append("the code of its notebook has changed")
        if stale := changed(hashes, root):
            problems.append("changed since it was recorded: " + ", ".join(stale))
        found += [Finding("error", f"chapter {chapter}", problem, mend) for problem in problems]
    for path in sorted(results.glob("ch[0-9][0-9].json")):
        if path.stem[2:] not in chapters:
            found.append(Finding("error", path.name, "belongs to no notebook", f"git rm data/results/{path.name}"))
    return found


def check_full(root: Path | None = None) -> list[Finding]:
    """Numbers of profile `full` whose recipe or weights have changed since; they only warn, for they cost hours."""
    root = files.root() if root is None else root
    found, fingerprint = [], cache(store.fingerprint)  # many numbers stand on one checkpoint
    for path in sorted((root / "data" / "results" / "full").glob("ch[0-9][0-9].json")):
        for id, result in load_chapter(path).items():
            if stale := changed(result.run.get("hashes", {}), root, fingerprint):
                problem = "changed since it was recorded: " + ", ".join(stale)
                mend = command(f"{id}@full", result, record=True)
                found.append(Finding("warning", f"{id}@full", problem, mend))
    return found


def check_checkpoints(root: Path | None = None) -> list[Finding]:
    """Checkpoints made by code that has changed since (a warning), or damaged (an error)."""
    root = files.root() if root is None else root
    found = []
    for path in sorted((root / "data" / "checkpoints").glob("*.safetensors")):
        subject, train = f"checkpoint {path.stem}", f"make train NAME={path.stem}"
        try:
            stale = freshness.stale_checkpoint(path)
        except ValueError:
            restore = f"git checkout -- data/checkpoints/{path.name}"
            found.append(Finding("error", subject, "is damaged or not one of ours", restore))
            continue
        if stale:
            found.append(Finding("warning", subject, "changed since it was made: " + ", ".join(stale), train))
    return found


def check_references(root: Path | None = None) -> list[Finding]:
    """Recorded numbers that lie farther from their reference than their tolerance."""
    root = files.root() if root is None else root
    found = []
    for id, result in all_results(root / "data" / "results").items():
        if not result.within:
            problem = f"is {result.value:.10g}, expected {result.reference:.10g} ± {result.tolerance:.3g}"
            found.append(Finding("error", id, problem, command(id, result, record=True)))
    return found


def check_repeated(folder: Path, root: Path | None = None) -> list[Finding]:
    """Recorded numbers that a later run of the same chapters, in `folder`, does not repeat.

    A number repeats if it agrees within 0.1 %, within its own tolerance, or within three standard errors; on one
    machine it is the same to the last digit.
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
            allowed = max(1e-3 * abs(result.value), result.tolerance or 0.0, 3 * (result.stderr or 0.0))
            if id not in again:
                found.append(Finding("error", id, "was not recorded when the chapter was run again", mend))
            elif not abs(again[id].value - result.value) <= allowed:
                problem = f"is on record as {result.value:.8g}, a new run gave {again[id].value:.8g}"
                found.append(Finding("error", id, problem, mend))
    return found


def is_stale(id: str, root: Path | None = None) -> bool:
    """Whether one number of profile `full`, given as `chNN.name@full`, is older than its recipe or weights."""
    return any(finding.subject == id for finding in check_full(root))


def check_all(root: Path | None = None) -> list[Finding]:
    """Everything that can be checked without running anything.

    Raises: LedgerError for a file of the record that is damaged.
    """
    return [*check_chapters(root), *check_references(root), *check_full(root), *check_checkpoints(root)]


def demand(findings: list[Finding]) -> None:
    """Raise LedgerError that lists the errors among findings, if there are any."""
    errors = [str(finding) for finding in findings if finding.level == "error"]
    if errors:
        raise LedgerError("\n".join(errors))
