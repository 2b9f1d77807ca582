"""Do the recorded numbers still say what was sealed about each claim, and lie where they should?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hjbridge.ledger import files, review, schema, seals
from hjbridge.ledger.claims import Claim, load_claims
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.findings import Finding
from hjbridge.ledger.results import Result, UnknownId, command, nearest, parse
from hjbridge.ledger.review import CLAIMS, Sealed
from hjbridge.ledger.verdicts import ClaimError, status

KEEP = f"hjbridge seal {CLAIMS}"
RESTORE = seals.restore(CLAIMS)


@dataclass(frozen=True)
class Numbers:
    """Every number of the record that can be read, by id, and what was edited: ids, and files as ch05 or ch05@full."""

    results: dict[str, Result]
    edited: set[str]

    def __call__(self, id: str) -> Result:
        """One number. Raises: UnknownId."""
        if id not in self.results:
            raise UnknownId(f"result {id} is not recorded")
        return self.results[id]

    def sound(self, id: str) -> bool:
        """Whether an id, on record or not, is as it was written; else that is told elsewhere."""
        return not {id, id[:4] + ("@full" if id.endswith("@full") else "")} & self.edited


def numbers(root: Path) -> Numbers:
    """The record of a repository, as far as it can be read."""
    known = Numbers({}, set())
    for match in map(seals.RECORD.fullmatch, seals.broken(root)):
        if match:
            known.edited.add(f"ch{match[2]}" + ("@full" if match[1] else ""))
    folder = root / "data" / "results"
    for path in sorted([*folder.glob("ch[0-9][0-9].json"), *(folder / "full").glob("ch[0-9][0-9].json")]):
        end = "@full" if path.parent.name == "full" else ""
        try:
            record = schema.read(path)
        except schema.Damaged:
            known.edited.add(path.stem + end)
            continue
        known.results.update({entry["id"] + end: parse(entry, record["run"]) for entry in record["results"]})
        known.edited.update(id + end for id in schema.edited(record))
        if record["run"]["profile"] not in ("book", "full"):
            known.edited.add(path.stem)
    return known


def check_references(root: Path | None = None) -> list[Finding]:
    """Recorded numbers that lie farther from their reference than their tolerance."""
    known = numbers(files.root() if root is None else root)
    found = []
    for id, result in known.results.items():
        if known.sound(id) and not result.within:
            problem = f"is {result.value:.10g}, expected {result.reference:.10g} ± {result.tolerance:.3g}"
            found.append(Finding("error", id, problem, command(id, result, record=True)))
    return found


def check_claims(root: Path | None = None) -> list[Finding]:
    """Claims that are not as they were sealed, or name numbers that are not there; numbers for unknown claims."""
    root = files.root() if root is None else root
    try:
        load_claims.cache_clear()
        claims, sealed = load_claims(root / CLAIMS), review.sealed(root)
    except LedgerError as error:
        return [Finding("error", "claims", str(error), RESTORE, KEEP)]
    if claims and not sealed:
        problem = f"is gone, no claim is sealed (`{KEEP}` seals all)"
        return [Finding("error", review.LIST, problem, seals.restore(review.LIST))]
    known = numbers(root)
    found = [
        replace(finding, subject=f"claim {id}")
        for id in sorted(claims.keys() | sealed.keys())
        for finding in check_claim(claims.get(id), sealed.get(id), known)
    ]
    return [*found, *check_targets(known, claims, claims.keys() | sealed.keys())]


def check_claim(claim: Claim | None, old: Sealed | None, known: Numbers) -> Iterator[Finding]:
    """What is wrong with one claim, if anything is; where a number of it was edited, its verdict is left alone."""
    if claim is None:
        yield Finding("error", "", "is gone from " + CLAIMS, RESTORE, KEEP)
        return
    chapters = {id[2:4] for id in known.results}
    for id in claim.results:
        if id not in known.results and id[2:4] in chapters and known.sound(id):
            problem = f"names {id}, which chapter {id[2:4]} does not record{nearest(id, known.results)}"
            yield Finding("error", "", problem, RESTORE)
            return
    kept = old.verdict if old and not all(map(known.sound, claim.results)) else None
    try:
        new = review.of(claim, kept or status(claim, known).verdict)
    except (ClaimError, ValueError) as error:
        edited = old is not None and review.of(claim, "").rules != old.rules
        problem = f"its rule was changed: {error}" if edited else str(error)
        yield Finding("error", "", problem, RESTORE if edited else f"make record CH={claim.chapter}")
        return
    if problem := review.change(old, new):
        yield Finding("error", "", problem, RESTORE if old else KEEP, KEEP if old else "")


def check_targets(known: Numbers, claims: dict[str, Claim], told: set[str]) -> Iterator[Finding]:
    """Numbers that speak to a claim which is not there, and is not told to be gone."""
    for id, result in known.results.items():
        for name in result.claims:
            if name in told:
                continue
            problem = f"speaks to claim {name}, which {CLAIMS} does not hold{nearest(name, claims)}"
            finding = Finding("error", id, problem, command(id, result, record=True))
            file = f"data/results/{'full/' if '@' in id else ''}{id[:4]}.json"
            yield finding if known.sound(id) else replace(finding, mend=seals.restore(file), file=file)
