"""Pieces of the pages of the record: badges, lists of facts, boxes with an anchor."""

from __future__ import annotations

import html

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.environment import BuildEnvironment


def badge(verdict: str) -> str:
    """A verdict as a coloured label that also says it in words."""
    return f'<span class="book-badge {verdict.replace(" ", "-")}">{html.escape(verdict)}</span>'


def raw(text: str) -> nodes.raw:
    """A piece of HTML."""
    return nodes.raw("", text, format="html")


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]], kind: str = "") -> nodes.raw:
    """A table of HTML cells that scrolls inside itself."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    inner = f'<table class="table {kind}"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>'
    return raw(f'<div class="pst-scrollable-table-container">{inner}</div>')


def facts(pairs: list[tuple[str, str]]) -> str:
    """A definition list of (name, HTML) without the empty ones."""
    rows = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in pairs if text)
    return f'<dl class="book-facts">{rows}</dl>'


def filter_form(items: str, what: str, menus: dict[str, dict[str, str]], search: str) -> nodes.raw:
    """A form that filter.js brings to life; without scripts it stays hidden and everything is shown.

    Args: items, selector of what is filtered; what, their name in the plural; menus, name -> value -> words, matched
        with the attribute data-<name> of an item; search, what the box for words looks through.
    """

    def option(value: str, text: str) -> str:
        return f'<option value="{html.escape(value)}">{html.escape(text)}</option>'

    parts = []
    for name, words in menus.items():
        options = option("", "all") + "".join(option(*pair) for pair in words.items())
        parts.append(f'<label>{name.capitalize()} <select name="{name}">{options}</select></label>')
    box = f'<input type="search" name="words" placeholder="{html.escape(search)}" size="22">'
    parts.append(f"<label>Words {box}</label>")
    parts.append(f'<output aria-live="polite" data-what="{html.escape(what)}"></output>')
    named = f'data-items="{html.escape(items)}" role="search" aria-label="Filter the {html.escape(what)}"'
    return raw(f'<form class="book-filter" {named} hidden>{"".join(parts)}</form>')


class RecordDirective(Directive):
    """A directive that reads the record of the build."""

    @property
    def env(self) -> BuildEnvironment:
        """Environment of the build."""
        environment: BuildEnvironment = self.state.document.settings.env
        return environment

    def entry(self, name: str) -> nodes.container:
        """A box with an anchor that others can refer to."""
        box = nodes.container(ids=[name], names=[name], classes=["book-entry"])
        self.state.document.note_explicit_target(box)
        return box

    def failed(self, text: str) -> nodes.system_message:
        """An error that fails a build with -W."""
        return self.state.document.reporter.error(text, line=self.lineno)
