"""Is the record still true, and is it the one that was written? Told in a second, without torch and without a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hjbridge import store
from hjbridge.ledger import files, freshness, notebook, schema, seals
from hjbridge.ledger.check_claims import check_claims, check_references
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.findings import Finding, harmed
from hjbridge.ledger.results import command, parse


def fingerprints(root: Path) -> Callable[[str], str | None]:
    """A function that gives the fingerprint of a committed checkpoint, None where there is none.

    That of its seal, where it has one: numbers are then held against the weights that should be there, and harmed
    weights are told once, not by every number that stands on them.
    """
    known = seals.sealed(root)

    def of(name: str) -> str | None:
        path = f"data/checkpoints/{name}.safetensors"
        if path not in known:
            known[path] = store.fingerprint(root / path) if (root / path).is_file() else ""
        return known[path][:16] or None

    return of


def changed(hashes: dict[str, Any], fingerprint: Callable[[str], str | None]) -> list[str]:
    """What differs from the hashes of a run, or is gone: modules, and checkpoints that the run has loaded."""
    found = freshness.stale_modules(hashes["modules"])
    for name, recorded in hashes["checkpoints"].items():
        now = fingerprint(name)
        if now != recorded:
            found.append(f"checkpoint {name}" + ("" if now else " (gone)"))
    return found


def check_chapters(root: Path | None = None) -> list[Finding]:
    """Chapters whose record is missing, edited by hand or stale, or whose outputs were; records without a chapter."""
    root = files.root() if root is None else root
    found, broken, fingerprint = list[Finding](), seals.broken(root), fingerprints(root)
    chapters = files.notebooks(root / "notebooks")
    for chapter, path in chapters.items():
        subject, mend, name = f"chapter {chapter}", f"make record CH={chapter}", f"data/results/ch{chapter}.json"
        try:
            book = notebook.read_notebook(path)["cells"]
        except LedgerError as error:
            found.append(Finding("error", subject, str(error), seals.restore(f"notebooks/{path.name}")))
            continue
        faults = [f"the picture of {cell} has no {missing}" for cell, missing in notebook.unworded(book).items()]
        faults += [f"{cell} has the tag {tag}, which hides or skips" for cell, tag in notebook.concealed(book)]
        for problem in faults:
            found.append(Finding("error", subject, problem, seals.restore(f"notebooks/{path.name}")))
        if not (root / name).is_file():
            gone = harmed(name, subject, "has lost its record")
            found.append(gone if name in broken else Finding("error", subject, "has no record", mend))
            continue
        if edits := check_edits(root, name, broken):
            found += edits
            continue
        record = schema.read(root / name)
        run, problems = record["run"], []
        if run["profile"] != "book":
            problem = f"was recorded with profile {run['profile']}, not book"
            found.append(harmed(name, subject, problem) if name in broken else Finding("error", subject, problem, mend))
            continue
        if run["hashes"]["notebook"] != freshness.notebook_hash(book):
            problems.append("the code of its notebook has changed")
        elif shown := differing(book, record["digests"]["cells"]):
            problem = f"the output of {', '.join(shown)} is not that of the recorded run"
            found.append(Finding("error", subject, problem, seals.restore(f"notebooks/{path.name}"), mend))
        if stale := changed(run["hashes"], fingerprint):
            problems.append("changed since it was recorded: " + ", ".join(stale))
        found += [Finding("error", subject, problem, mend) for problem in problems]
    for path in sorted((root / "data" / "results").glob("ch[0-9][0-9].json")):
        if path.stem[2:] not in chapters:
            name = f"data/results/{path.name}"
            lost = Finding("error", path.name, "has lost its notebook", "git checkout -- notebooks", f"rm {name}", name)
            found.append(lost)
    return found


def check_edits(root: Path, name: str, broken: dict[str, str]) -> list[Finding]:
    """What was done by hand to one file of the record: to its form, to entries by their ids, or to the rest of it."""
    try:
        record = schema.read(root / name)
    except schema.Damaged as damage:
        return [Finding("error", name, damage.problem, damage.mend, file=name)]
    end = "@full" if "/full/" in name else ""
    results = {entry["id"]: parse(entry, record["run"]) for entry in record["results"]}
    edits = schema.edited(record)
    found = [
        harmed(name, id + end, problem, command(id + end, results.get(id), record=True))
        for id, problem in edits.items()
    ]
    own = record["run"]["profile"] == ("full" if end else "book")  # else that is told
    if not found and own and name in broken:
        found.append(harmed(name, name, f"{broken[name]}, and no single entry shows why"))
    return found


def differing(cells: list[dict[str, Any]], recorded: dict[str, str]) -> list[str]:
    """Code cells whose outputs are not the recorded ones, as a reader finds them."""
    now = notebook.output_digests(cells)
    found, code = [], [cell for cell in cells if cell["cell_type"] == "code"]
    for k, cell in enumerate(code, 1):
        if now.get(str(k)) != recorded.get(str(k)):
            kind = "a picture" if notebook.has_picture(cell) else "text"
            found.append(f"{cell.get('id')} ({kind}, code cell {k})")
    return found


def check_full(root: Path | None = None) -> list[Finding]:
    """Numbers of profile `full` that were edited by hand; those whose recipe or weights have changed only warn.

    For they cost hours.
    """
    root = files.root() if root is None else root
    found, broken, fingerprint = list[Finding](), seals.broken(root), fingerprints(root)
    for path in sorted((root / "data" / "results" / "full").glob("ch[0-9][0-9].json")):
        if edits := check_edits(root, f"data/results/full/{path.name}", broken):
            found += edits
            continue
        for entry in schema.read(path)["results"]:
            if stale := changed(entry["run"]["hashes"], fingerprint):
                id, problem = f"{entry['id']}@full", "changed since it was recorded: " + ", ".join(stale)
                mend = command(id, parse(entry, {}), record=True)
                found.append(Finding("warning", id, problem, mend))
    return found


def check_checkpoints(root: Path | None = None) -> list[Finding]:
    """Checkpoints that are harmed (an error), or made by code that has changed since (a warning)."""
    root = files.root() if root is None else root
    found, broken = [], seals.broken(root)
    for path in sorted((root / "data" / "checkpoints").glob("*.safetensors")):
        subject, name = f"checkpoint {path.stem}", f"data/checkpoints/{path.name}"
        if name in broken:
            found.append(harmed(name, subject, broken[name]))
            continue
        try:
            stale = freshness.stale_checkpoint(path)
        except ValueError:
            found.append(Finding("error", subject, "is damaged or not one of ours", seals.restore(name), file=name))
            continue
        if stale:
            train = f"make train NAME={path.stem}"
            found.append(Finding("warning", subject, "changed since it was made: " + ", ".join(stale), train))
    return found


def check_seals(root: Path, told: set[str]) -> list[Finding]:
    """Sealed files that are not as they were, and files without a seal; but those whose harm has been told."""
    covered, sealed, broken = seals.covered(root), seals.sealed(root), seals.broken(root)
    if covered and not sealed:
        return [Finding("error", seals.LIST, "is gone, nothing is sealed", seals.restore(seals.LIST))]
    found = [harmed(name, name, problem) for name, problem in broken.items() if name not in told]
    found += [Finding("error", name, "is no file of the record", f"rm {name}") for name in seals.strays(root)]
    bare = [name for name in covered if name not in sealed and name not in told]
    return found + [Finding("error", name, "is not sealed", seals.maker(name)) for name in bare]


def is_stale(id: str, root: Path | None = None) -> bool:
    """Whether one number of profile `full`, given as `chNN.name@full`, is older than its recipe or weights."""
    return any(finding.subject == id for finding in check_full(root))


def check_all(root: Path | None = None) -> list[Finding]:
    """Everything that can be checked without running anything; each cause is told once, with what mends it."""
    root = files.root() if root is None else root
    try:
        seals.sealed(root)
    except LedgerError as error:
        return [Finding("error", seals.LIST, str(error), seals.restore(seals.LIST))]
    claims = told(check_claims, root)
    subjects = {finding.subject for finding in claims}
    record = [one for check in (check_chapters, check_full, check_checkpoints) for one in told(check, root)]
    found = [one for one in record if not (one.file and one.subject in subjects)]  # edited, and the claims say how
    found = [*grouped(found), *told(check_references, root), *claims]
    return found + check_seals(root, {finding.file for finding in found if finding.level == "error"})


def told(check: Callable[[Path], list[Finding]], root: Path) -> list[Finding]:
    """The findings of one check. One that cannot be finished, on a file of a form nobody thought of, is a finding."""
    try:
        return check(root)
    except (LedgerError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        part = check.__name__.removeprefix("check_")
        return [
            Finding(
                "error", part, f"cannot be checked, {type(error).__name__}: {error}", "git checkout -- data notebooks"
            )
        ]


def grouped(findings: list[Finding]) -> list[Finding]:
    """Warnings of one cause and one remedy as one, named after the first."""
    causes: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        if one.level == "warning":
            causes.setdefault((one.problem, one.mend), []).append(one)
    more = {id(group[0]): f" and {len(group) - 1} more" for group in causes.values() if len(group) > 1}
    left = [one for one in findings if one.level != "warning" or one is causes[one.problem, one.mend][0]]
    return [replace(one, subject=one.subject + more.get(id(one), "")) for one in left]


def demand(findings: list[Finding]) -> None:
    """Raise LedgerError that lists the errors among findings, if there are any."""
    errors = [str(finding) for finding in findings if finding.level == "error"]
    if errors:
        raise LedgerError("\n".join(errors))
