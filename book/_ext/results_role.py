"""The role `result`: a number in prose comes from the record and links to its entry; a missing one fails the build."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from hjbridge.ledger import LedgerError, result
from hjbridge.ledger.checks import is_stale

RESULTS = Path("data") / "results"
#: ids of the record: chapter, name, and the profile if it is not `book`
ID = re.compile(r"ch\d\d\.[a-z][a-z0-9_]*(@full)?")


def folder(env: BuildEnvironment) -> Path:
    """The record beside the sources of this build, so that a staged copy of the book shows its own numbers."""
    return Path(env.srcdir) / RESULTS


def file_of(env: BuildEnvironment, key: str) -> Path:
    """The file in which a key is or would be stored: `ch05.name` or `ch05.name@full`."""
    name, _, profile = key.partition("@")
    return folder(env) / (profile or "") / f"{name.partition('.')[0]}.json"


def anchor(key: str) -> str:
    """Anchor of a result on the page of results."""
    return "result-" + key.replace(".", "-").replace("_", "-").replace("@", "-")


def label_link(label: str, text: str, classes: list[str]) -> addnodes.pending_xref:
    """A reference to a label of the book; a missing one is reported when the page is written."""
    reference = addnodes.pending_xref(
        "", refdomain="std", reftype="ref", reftarget=label, refexplicit=True, refwarn=True, classes=classes
    )
    reference += nodes.inline(text, text)
    return reference


def link(key: str, text: str) -> addnodes.pending_xref:
    """A reference to the entry of a result."""
    return label_link(anchor(key), text, ["result"])


def failure(
    inliner: Inliner, rawtext: str, text: str, lineno: int
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """An error that fails a build with -W, this one and each later one until it is mended."""
    env: BuildEnvironment = inliner.document.settings.env
    failed_pages(env).add(env.docname)
    message = inliner.reporter.error(text, line=lineno)
    return [inliner.problematic(rawtext, rawtext, message)], [message]


def failed_pages(env: BuildEnvironment) -> set[str]:
    """Pages with a role that failed; kept from build to build."""
    if not hasattr(env, "hjbridge_failed"):
        env.hjbridge_failed = set()  # type: ignore[attr-defined]
    found: set[str] = env.hjbridge_failed  # type: ignore[attr-defined]
    return found


def role(
    name: str,
    rawtext: str,
    text: str,
    lineno: int,
    inliner: Inliner,
    options: dict[str, Any] | None = None,
    content: list[str] | None = None,
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Print a recorded number as `value ± error` with the digits its error allows.

    The text is an id such as `ch06.fd_ddpm` or `ch06.fd_ddpm@full`; `id | 3` asks for three significant digits where
    no error is recorded. The dependency is noted before anything can fail: a page that failed is read again.
    """
    env: BuildEnvironment = inliner.document.settings.env
    key, _, digits = (part.strip() for part in text.partition("|"))
    if ID.fullmatch(key):
        env.note_dependency(str(file_of(env, key)))
    try:
        printed = result(key, folder=folder(env)).text(int(digits) if digits else None)
        printed = printed.replace("-", "\N{MINUS SIGN}")
        stale = key.endswith("@full") and is_stale(key, Path(env.srcdir))
    except (LedgerError, ValueError) as error:
        return failure(inliner, rawtext, f"result {key!r}: {error}", lineno)
    found: list[nodes.Node] = [link(key, printed)]
    if stale:
        # a stale number of profile `book` fails the tests instead
        found += [nodes.Text(" "), nodes.inline("", "stale", classes=["book-badge", "stale"])]
    return found, []


def read_again(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages that failed in the last build; without this an incremental build would skip them and end well."""
    pages = [name for name in failed_pages(env) if name in env.found_docs]
    failed_pages(env).clear()
    return pages


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the role."""
    app.add_role("result", role)
    app.connect("env-get-outdated", read_again)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
