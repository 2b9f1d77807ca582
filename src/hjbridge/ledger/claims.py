"""Claims under test: what is said, where, and the rules that turn recorded numbers into a verdict."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hjbridge.ledger import files, rules
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.results import UnknownId, nearest

VERDICTS = (
    "reproduced", "corrected", "refuted", "unsourced", "ill-posed", "opinion", "mechanism reproduced", "open",
)  # fmt: skip
KINDS = ("mathematical", "numerical", "empirical", "historical", "opinion", "reproduction")
FIELDS = {
    "id", "claim", "kind", "chapter", "source", "locus", "reported", "correct", "checked", "ours", "rules", "default",
}  # fmt: skip
SLOT = re.compile(r"\{(ch\d\d\.[a-z][a-z0-9_]*(?:@full)?)(?::(\d+))?\}")


@dataclass(frozen=True)
class Claim:
    """One entry of data/claims.yml; `rules` are tried in their order, the first that holds gives the verdict.

    A rule is {if: expression, verdict, because} or, for what only reading can settle, {source: what was read, verdict,
    because}. `ours` is a text with `{id}` or `{id:digits}` where recorded numbers go.
    """

    id: str
    claim: str
    kind: str
    chapter: str
    source: dict[str, Any]
    locus: str | None
    reported: str | None
    correct: str
    checked: str
    ours: str
    rules: tuple[dict[str, str], ...]
    default: str = "open"

    @property
    def results(self) -> list[str]:
        """Ids of the results that its rules and its text need."""
        texts = [rule.get("if", "") for rule in self.rules] + [match[1] for match in SLOT.finditer(self.ours)]
        return rules.names(" ".join(texts))


@cache
def load_claims(path: Path | None = None) -> dict[str, Claim]:
    """All claims by id.

    Raises: LedgerError that names the entry and what is wrong with it.
    """
    import yaml

    path = files.root() / "data" / "claims.yml" if path is None else path
    try:
        # the parser in C reads the list in a tenth of the time
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)["claims"]
        claims = [_claim(entry, path) for entry in entries]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"{path} cannot be read ({error}): git checkout -- data/claims.yml") from error
    known = {claim.id: claim for claim in claims}
    if twice := [id for id in known if sum(claim.id == id for claim in claims) > 1]:
        raise LedgerError(f"{path}: claim {twice[0]} stands there twice")
    return known


def _claim(entry: dict[str, Any], path: Path) -> Claim:
    where = f"{path}: claim {entry.get('id')!r}"
    if set(entry) - FIELDS or FIELDS - {"default"} - set(entry):
        odd = sorted(set(entry) ^ FIELDS)
        raise LedgerError(f"{where}: fields are {', '.join(sorted(FIELDS))}; unknown or missing: {', '.join(odd)}")
    texts = {name: entry[name] for name in ("claim", "correct", "checked", "ours")}
    texts |= {name: entry[name] for name in ("locus", "reported") if entry[name] is not None}
    texts |= {f"{k} of a rule": part for rule in entry["rules"] for k, part in rule.items()}
    if odd := [name for name, value in texts.items() if not isinstance(value, str)]:
        raise LedgerError(f"{where}: {odd[0]} must be a text (in quotes), got {texts[odd[0]]!r}")
    if entry["source"].get("authors") and not {"year", "title"} <= entry["source"].keys():
        raise LedgerError(f"{where}: source must have year and title beside its authors, got {entry['source']!r}")
    if entry.get("default", "open") not in VERDICTS:
        raise LedgerError(f"{where}: default must be one of {', '.join(VERDICTS)}, got {entry['default']!r}")
    if entry["kind"] not in KINDS:
        raise LedgerError(f"{where}: kind must be one of {', '.join(KINDS)}, got {entry['kind']!r}")
    for rule in entry["rules"]:
        if not {"verdict", "because"} < set(rule) <= {"if", "source", "verdict", "because"}:
            raise LedgerError(f"{where}: a rule has `if` or `source`, `verdict` and `because`, got {sorted(rule)}")
        if rule["verdict"] not in VERDICTS:
            raise LedgerError(f"{where}: verdict must be one of {', '.join(VERDICTS)}, got {rule['verdict']!r}")
    fixed = {"rules": tuple(entry["rules"]), "chapter": files.chapter_name(entry["chapter"])}
    return Claim(**(entry | fixed))


def find_claim(id: str) -> Claim:
    """One claim; `c31` is C31. Raises: UnknownId, which suggests the nearest."""
    claims = load_claims()
    if id.upper() not in claims:
        raise UnknownId(f"claim {id} is unknown{nearest(id.upper(), claims)}; `hjbridge claims` lists all")
    return claims[id.upper()]


def cited(claim: Claim) -> str:
    """Short form of where a claim's correction comes from: first author, year, locus."""
    source = claim.source
    if not source.get("authors"):
        return ""
    names = [name.split() for name in source["authors"].split(",")]
    # all but the initials
    first, *others = [" ".join(part for part in name if not part.endswith(".")) for name in names]
    et_al = " et al." if len(others) > 1 else f" and {others[0]}" if others else ""
    locus = f", {claim.locus}" if claim.locus else ""
    return f"{first}{et_al} {source['year']}{locus}"
