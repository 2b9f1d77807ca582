"""The directive `claim-list` and the role `claim`: claims with the verdicts that the record of this build gives."""

from __future__ import annotations

import html
import re
from functools import partial
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from record_nodes import RecordDirective, badge, facts, raw, table
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


def numbers(claim: Claim, known: dict[str, Result]) -> str:
    """The recorded numbers that our finding names, for the table."""
    slots = {match[1]: int(match[2]) if match[2] else None for match in SLOT.finditer(claim.ours)}
    texts = [html.escape(known[id].text(digits)) for id, digits in slots.items() if id in known]
    return "<br>".join(text.replace(" ", "\N{NO-BREAK SPACE}") for text in texts)


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
    """A table of all claims, then one entry each."""

    def run(self) -> list[nodes.Node]:
        """Judge every claim on the record of this build."""
        known = all_results(folder(self.env))
        found: list[nodes.Node] = []
        rows: list[tuple[str, ...]] = []
        for claim in claims_of(self.env).values():
            try:
                verdict = status(claim, partial(result, folder=folder(self.env)))
            except ClaimError as error:
                found.append(self.failed(str(error)))
                verdict = Verdict(claim.id, claim.claim, "failed", "", str(error), cited(claim))
            chapter = page_link(self.env, claim.chapter)
            link_to = f'<a href="#claim-{claim.id.lower()}">{claim.id}</a>'
            words, source = html.escape(claim.claim), html.escape(cited(claim))
            rows.append((link_to, words, badge(verdict.verdict), numbers(claim, known), source, chapter))
            found.append(self.detail(claim, verdict, known, chapter))
        return [table(("Id", "Claim", "Verdict", "Our number", "Source", "Chapter"), rows, "book-claims"), *found]

    def detail(self, claim: Claim, verdict: Verdict, known: dict[str, Result], chapter: str) -> nodes.container:
        """Everything about one claim."""
        box = self.entry(f"claim-{claim.id.lower()}")
        name = f"<strong>{claim.id}</strong>"
        box += raw(f'<p class="book-head">{name} {badge(verdict.verdict)}</p><p><q>{html.escape(claim.claim)}</q></p>')
        if all(id in known for id in claim.results):
            box += with_links(claim.ours, known)
        box += raw(
            facts(
                [
                    ("Why this verdict", html.escape(verdict.reason)),
                    ("Correct reading", html.escape(claim.correct)),
                    ("Printed figure", html.escape(claim.reported or "")),
                    ("Source", source_of(claim)),
                    ("Source checked", html.escape(claim.checked)),
                    ("Chapter", chapter),
                ]
            )
        )
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
