"""The directive `claim-list` and the role `claim`: claims with the verdicts that the record of this build gives."""

from __future__ import annotations

import html
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from record_nodes import RecordDirective, badge, facts, filter_form, raw
from results_role import failure, file_of, folder, label_link, link
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from hjbridge.ledger import ClaimError, LedgerError, Result, Verdict, all_results, result
from hjbridge.ledger.claims import SLOT, Claim, cited, load_claims
from hjbridge.ledger.verdicts import shown, status

PAGE = "book/claims"


def claims_of(env: BuildEnvironment) -> dict[str, Claim]:
    """The claims beside the sources of this build."""
    path = Path(env.srcdir) / "data" / "claims.yml"
    env.note_dependency(str(path))
    load_claims.cache_clear()
    return load_claims(path)


def page_link(env: BuildEnvironment, chapter: str) -> str:
    """Link to a chapter, or its number where it is not there yet."""
    found = sorted(name for name in env.found_docs if re.search(rf"(^|/){chapter}_[^/]*$", name))
    if not found:
        return chapter
    return f'<a href="{env.app.builder.get_relative_uri(env.docname, found[0])}">{chapter}</a>'


def with_links(text: str, known: dict[str, Result]) -> nodes.paragraph:
    """Our finding, every recorded number linked to its entry."""
    paragraph = nodes.paragraph()
    last = 0
    for match in SLOT.finditer(text):
        paragraph += nodes.Text(text[last : match.start()])
        number = shown(known[match[1]], int(match[2]) if match[2] else None)
        paragraph += link(match[1], number.replace("-", "\N{MINUS SIGN}"))
        last = match.end()
    paragraph += nodes.Text(text[last:])
    return paragraph


def source_of(claim: Claim) -> str:
    """Source of a claim with a link to arXiv where it is there."""
    source = claim.source
    if not source.get("authors"):
        return ""
    text = f"{source['authors']}, {source['title']}, {source.get('venue') or ''} {source['year']}"
    text = html.escape(text + (f", {claim.locus}" if claim.locus else ""))
    if arxiv := source.get("arxiv"):
        text += f' (<a href="https://arxiv.org/abs/{arxiv}">arXiv:{arxiv}</a>)'
    return text


class ClaimList(RecordDirective):
    """An entry for each claim: id, verdict, chapter, what is said, what was found; sources and reasons are folded."""

    def run(self) -> list[nodes.Node]:
        """Judge every claim on the record of this build."""
        known = all_results(folder(self.env))
        found: list[nodes.Node] = []
        count: Counter[str] = Counter()
        chapters: dict[str, str] = {}
        for claim in claims_of(self.env).values():
            try:
                verdict = status(claim, partial(result, folder=folder(self.env)))
            except ClaimError as error:
                found.append(self.failed(str(error)))
                verdict = Verdict(claim.id, claim.claim, "failed", "", str(error), cited(claim))
            count[verdict.verdict] += 1
            chapters[claim.chapter] = f"Chapter {claim.chapter}"
            found.append(self.detail(claim, verdict, known))
        verdicts = {word: f"{word} ({number})" for word, number in count.most_common()}
        menus = {"verdict": verdicts, "chapter": dict(sorted(chapters.items()))}
        return [filter_form(".book-entry", "claims", menus, search="in claim and finding"), *found]

    def detail(self, claim: Claim, verdict: Verdict, known: dict[str, Result]) -> nodes.container:
        """Everything about one claim."""
        box = self.entry(f"claim-{claim.id.lower()}")
        chapter = f"chapter {page_link(self.env, claim.chapter)}"
        marks = f'data-verdict="{html.escape(verdict.verdict)}" data-chapter="{claim.chapter}"'
        head = f'<strong>{claim.id}</strong> {badge(verdict.verdict)}<span class="book-where">{chapter}</span>'
        box += raw(f'<p class="book-head" {marks}>{head}</p><p><q>{html.escape(claim.claim)}</q></p>')
        reading = ""
        if not SLOT.search(claim.ours):
            box += nodes.paragraph("", claim.correct)  # only reading can settle it
        elif all(id in known for id in claim.results):
            box += with_links(claim.ours, known)
            reading = claim.correct
        pairs = [
            ("Why this verdict", html.escape(verdict.reason)),
            ("Correct reading", html.escape(reading)),
            ("Printed figure", html.escape(claim.reported or "")),
            ("Source", source_of(claim)),
            ("Source checked", html.escape(claim.checked)),
        ]
        box += raw(f"<details><summary>Verdict, reading and source of {claim.id}</summary>{facts(pairs)}</details>")
        return box


def claim_role(
    name: str,
    rawtext: str,
    text: str,
    lineno: int,
    inliner: Inliner,
    options: dict[str, Any] | None = None,
    content: list[str] | None = None,
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """`C27` becomes its id and its verdict on the record of this build, linked to its entry."""
    env: BuildEnvironment = inliner.document.settings.env
    try:
        claim = claims_of(env)[text]
        for id in claim.results:
            env.note_dependency(str(file_of(env, id)))
        verdict = status(claim, partial(result, folder=folder(env))).verdict
    except (KeyError, LedgerError, ClaimError) as error:
        return failure(inliner, rawtext, f"claim {text!r}: {error}", lineno)
    classes = ["claim", "book-badge", verdict.replace(" ", "-")]
    return [label_link(f"claim-{text.lower()}", f"{text} {verdict}", classes)], []


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """The page is read again in every build: files of the record come and go."""
    return [PAGE] if PAGE in env.found_docs else []


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives and the role."""
    app.add_directive("claim-list", ClaimList)
    app.add_role("claim", claim_role)
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
