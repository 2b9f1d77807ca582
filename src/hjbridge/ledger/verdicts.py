"""What the record says about a claim: evaluated from its rules, never typed."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from hjbridge.ledger import files, rules, session
from hjbridge.ledger.claims import SLOT, Claim, cited, find_claim, load_claims
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.profile import Profile
from hjbridge.ledger.results import Result, UnknownId, pretty, result


class ClaimError(AssertionError):
    """The recorded numbers do not bear out any verdict on a claim."""


@dataclass(frozen=True)
class Verdict:
    """What our numbers say about a claim. Plain text holds the verdict alone, so that it can be compared exactly."""

    id: str
    claim: str
    verdict: str
    ours: str
    reason: str
    source: str = ""
    reported: str = ""
    tolerance: str = ""

    def __repr__(self) -> str:
        return f"{self.id} {self.verdict}"

    def _repr_markdown_(self) -> str:
        return f"**{self.id}** “{self.claim}”: **{self.verdict}**. {self.ours} {self.reason}".strip()


class VerdictTable(tuple[Verdict, ...]):
    """The verdicts of a chapter: an HTML table in a notebook, one line each as plain text."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))

    def _repr_html_(self) -> str:
        heads = ("id", "claim", "source", "reported", "ours", "tolerance", "verdict")
        rows = [(v.id, v.claim, v.source, v.reported, v.ours, v.tolerance, v.verdict) for v in self]
        head = "".join(f'<th scope="col">{name}</th>' for name in heads)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
        table = f'<table class="claims">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>'
        return f'<div class="pst-scrollable-table-container">{table}</div>'


def judge(claim: Claim, lookup: Callable[[str], Result]) -> Verdict:
    """Evaluate the rules of a claim.

    Args: the claim; a function that gives the result of an id.
    Raises: ClaimError if a number is missing, or if no rule holds; names claim, expected interval, value got, command.
    """
    again = f"Run it again: make chapter CH={claim.chapter}. The rules stand in data/claims.yml"
    try:
        found = {id: lookup(id) for id in claim.results}
    except LedgerError as error:
        raise ClaimError(f"{claim.id} cannot be judged: {error}. {again}") from error
    if any(not Profile(r.profile).judged for r in found.values()):
        return _verdict(claim, "open", "Profile smoke is too small to judge.", found)
    misses = []
    for i, rule in enumerate(claim.rules, 1):
        outcome = rules.evaluate(rule["if"], found.__getitem__) if "if" in rule else rules.Outcome(True)
        if outcome.holds:
            return _verdict(claim, rule["verdict"], rule["because"], found)
        misses.append(f"  rule {i} ({rule['verdict']}): " + "; ".join(outcome.misses or [f"{rule['if']} is false"]))
    raise ClaimError(f"{claim.id} ({claim.claim}): no rule holds\n" + "\n".join(misses) + f"\n{again}")


def _verdict(claim: Claim, word: str, reason: str, found: dict[str, Result] | None = None) -> Verdict:
    ours = "" if found is None else fill(claim.ours, found)
    allowed = sorted({r.tolerance for r in (found or {}).values() if r.tolerance is not None})
    ends = dict.fromkeys(pretty(end, None, 1) for end in (*allowed[:1], *allowed[-1:]))
    return Verdict(claim.id, claim.claim, word, ours, reason, cited(claim), claim.reported or "", " to ".join(ends))


def shown(number: Result, digits: int | None = None) -> str:
    """A number as a finding prints it: with its error and unit, or with so many digits and neither."""
    return pretty(float(number.value), None, digits) if digits else number.text()


def fill(text: str, found: dict[str, Result]) -> str:
    """Put numbers where a text has `{id}`; `{id:3}` prints three significant digits, without error."""

    def number(match: re.Match[str]) -> str:
        return shown(found[match[1]], int(match[2]) if match[2] else None)

    return SLOT.sub(number, text)


def in_run(id: str) -> Result:
    """A result of the open record of this process if it belongs to its chapter, else of the files."""
    open_record = session.current()
    if open_record is not None and id[2:4] == open_record.chapter and "@" not in id:
        if id not in open_record.results:
            known = ", ".join(open_record.results) or "nothing"
            raise LedgerError(f"{id} has not been recorded in this run, which has recorded {known}")
        return replace(open_record.results[id], run={"profile": open_record.profile.name})
    return result(id)


def verdict(id: str) -> Verdict:
    """What the recorded numbers say about a claim, by the rules of data/claims.yml.

    Raises: LedgerError for an unknown claim; ClaimError if its evidence is missing or fails.
    """
    return judge(find_claim(id), in_run)


def status(claim: Claim, lookup: Callable[[str], Result]) -> Verdict:
    """Verdict of a claim, or its default where its numbers have not been recorded yet.

    Args: as in `judge`; the function raises UnknownId for a number that is not there.
    Raises: ClaimError if they have been recorded and no rule holds; LedgerError for a damaged record.
    """
    try:
        for id in claim.results:
            lookup(id)
    except UnknownId:
        return _verdict(claim, claim.default, "Its numbers have not been recorded yet.")
    return judge(claim, lookup)


def verdicts(
    claims: Iterable[Claim],
    lookup: Callable[[str], Result],
    one: Callable[[Claim, Callable[[str], Result]], Verdict] = judge,
) -> VerdictTable:
    """Judge several claims, each by `one` (`judge` or `status`); raises one ClaimError that tells all failures."""
    done, failed = [], []
    for claim in claims:
        try:
            done.append(one(claim, lookup))
        except ClaimError as error:
            failed.append(str(error))
    if failed:
        raise ClaimError("\n".join(failed))
    return VerdictTable(done)


def verdict_table(chapter: str | int) -> VerdictTable:
    """The claim check of a chapter: every claim that data/claims.yml gives to it.

    Raises: LedgerError for a chapter without claims; ClaimError if the evidence of any claim is missing or fails.
    """
    name = files.chapter_name(chapter)
    claims = [claim for claim in load_claims().values() if claim.chapter == name]
    if not claims:
        raise LedgerError(f"chapter must be one that data/claims.yml knows, got {chapter!r}")
    return verdicts(claims, in_run)
