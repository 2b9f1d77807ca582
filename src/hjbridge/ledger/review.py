"""What was looked at: the rules, the text and the verdict of each claim, as they were when somebody sealed them.

`.ci/verdicts` holds two lines a claim, its id and below it two digests and a word, so that an edited rule shows as a
changed claim, and a changed verdict as such. A line a claim instead of one seal for data/claims.yml: two branches that
each add a claim can be merged, and the one that was changed is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hjbridge.ledger import files, schema, seals, stage
from hjbridge.ledger.claims import Claim, load_claims
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.results import Result, result
from hjbridge.ledger.verdicts import status, verdicts

LIST = ".ci/verdicts"
CLAIMS = "data/claims.yml"
HEAD = "# rules, text and verdict of each claim, as they were sealed: hjbridge seal data/claims.yml\n"
ENTRY = re.compile(r"([CR]\d+)\n  rules ([0-9a-f]{16})  text ([0-9a-f]{16})  (\S.*)\n")
DECIDING = ("chapter", "ours", "rules", "default")


class Sealed(NamedTuple):
    """Digests of what decides a claim and of the rest of its entry, and its verdict."""

    rules: str
    text: str
    verdict: str


def of(claim: Claim, verdict: str) -> Sealed:
    """What is sealed of a claim."""
    parts = asdict(claim)
    rules = {name: parts.pop(name) for name in DECIDING}
    return Sealed(schema.digest(rules), schema.digest(parts), verdict)


def judged(claims: Iterable[Claim], lookup: Callable[[str], Result]) -> dict[str, Sealed]:
    """What is to be sealed of claims, by id, judged on the numbers that `lookup` gives.

    Raises: ClaimError that tells every claim of which no rule holds.
    """
    known = {claim.id: claim for claim in claims}
    return {one.id: of(known[one.id], one.verdict) for one in verdicts(known.values(), lookup, status)}


def sealed(root: Path) -> dict[str, Sealed]:
    """The list of verdicts; nothing where there is none. Raises: LedgerError that names what is no entry."""
    path = root / LIST
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    found = ENTRY.findall(lines)
    if rest := ENTRY.sub("", lines).strip():
        told = f"{path}: must hold an id and, below it, digests and verdict, got {rest.splitlines()[0][:60]!r}"
        raise LedgerError(f"{told}; `hjbridge seal {CLAIMS}` writes it anew")
    return {id: Sealed(*parts) for id, *parts in found}


def dump(entries: Mapping[str, Sealed]) -> str:
    """Text of the list, sorted by id."""
    form = "{}\n  rules {}  text {}  {}\n"
    return HEAD + "".join(form.format(id, *entries[id]) for id in sorted(entries))


def renewed(root: Path, folder: Path, chapters: Iterable[str]) -> str:
    """Text of the list with the claims of some chapters judged on the numbers and rules below a folder.

    Raises: ClaimError for a claim of which no rule holds.
    """
    wanted = set(chapters)
    claims = [claim for claim in load_claims(folder / CLAIMS).values() if claim.chapter in wanted]
    return dump(sealed(root) | judged(claims, partial(result, folder=folder / "data" / "results")))


def change(old: Sealed | None, new: Sealed | None) -> str:
    """What has become of a claim, in words; empty if nothing has."""
    if old == new:
        return ""
    if old is None or new is None:
        return "is gone from data/claims.yml" if new is None else "is not sealed"
    verdict = f"{old.verdict} -> {new.verdict}" if old.verdict != new.verdict else f"still {new.verdict}"
    if old.rules != new.rules:
        return f"its rule was changed ({verdict})"
    return "its text was changed" if old.text != new.text else f"its verdict was changed ({verdict})"


def seal(paths: Sequence[Path], root: Path | None = None) -> list[str]:
    """Seal inputs that are made or edited by hand: checkpoints, data sets, data/claims.yml. Others are checked first.

    Returns: what has changed, one line each. Raises: ValueError for results, which are sealed by the run that makes
        them, and for what is never sealed; LedgerError, and nothing is sealed, if another sealed file is not as it was;
        ClaimError for a claim of which no rule holds.
    """
    root = files.root() if root is None else root
    places = [path if path.exists() else root / path for path in paths]
    claims = [place for place in places if place.resolve() == (root / CLAIMS).resolve()]
    names = [seals.named(place, root) for place in places if place not in claims]
    for name in names:
        if seals.RECORD.fullmatch(name) and (root / name).is_file():
            raise ValueError(f"path must be an input, for `{seals.maker(name)}` makes and seals {name}")
    with seals.guard(root):
        stage.finish_promotion(root)
        seals.verify(root, names)
        before, now = seals.sealed(root), {name: stage.content_hash(root / name) for name in names}
        changed = {seals.LIST: seals.renewed(root, now)} if names else {}
        pairs = [(name, before.get(name), now[name]) for name in names]
        told = [f"{name}: {_short(old)} -> {_short(new)}" for name, old, new in pairs if old != new]
        if claims:
            entries, old = _all(root), _old(root)
            changed[LIST] = dump(entries)
            told += _told(old, entries)
        stage.promote(changed, root)
    return told


def _all(root: Path) -> dict[str, Sealed]:
    load_claims.cache_clear()
    return judged(load_claims(root / CLAIMS).values(), partial(result, folder=root / "data" / "results"))


def _old(root: Path) -> dict[str, Sealed]:
    try:
        return sealed(root)
    except LedgerError:  # left by a merge; it is about to be written anew
        return {}


def _told(old: dict[str, Sealed], new: dict[str, Sealed]) -> list[str]:
    words = {id: f"new, {entry.verdict}" if id not in old else change(old[id], entry) for id, entry in new.items()}
    words |= {id: "taken off the list" for id in old if id not in new}
    return [f"claim {id}: {words[id]}" for id in sorted(words) if words[id]]


def _short(sha256: str | None) -> str:
    return sha256[:12] if sha256 else "none"
