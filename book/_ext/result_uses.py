"""Where the text shows a recorded number: entries of the page of results lead back to the sections that print them."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from recorded_cells import PRINTED
from results_role import anchor
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

RESULTS = "book/results"

#: page -> "used" or "recorded" -> anchor of a number on the page of results -> places, each an anchor and a title
Places = dict[str, list[tuple[str, str]]]
Uses = dict[str, dict[str, Places]]


class used_in(nodes.Element):
    """Stands on the page of results where the links to the uses of `target` will be."""


def uses(env: BuildEnvironment) -> Uses:
    """What has been seen so far; kept from build to build."""
    if not hasattr(env, "hjbridge_uses"):
        env.hjbridge_uses = {}  # type: ignore[attr-defined]
    found: Uses = env.hjbridge_uses  # type: ignore[attr-defined]
    return found


def place(node: nodes.Node) -> tuple[str, str]:
    """Anchor and title of the innermost section, or of the entry of a claim, around a node."""
    while (node := node.parent) is not None:
        if isinstance(node, nodes.section):
            title = node.next_node(nodes.title)
            return node["ids"][0] if node["ids"] else "", title.astext() if title else ""
        if isinstance(node, nodes.container) and "book-entry" in node["classes"]:
            return node["ids"][0], node["ids"][0].removeprefix("claim-").upper()
    return "", ""


def note(places: Places, target: str, node: nodes.Node) -> None:
    """Add the place of a node, once."""
    here = place(node)
    if here not in places.setdefault(target, []):
        places[target].append(here)


def note_uses(app: Sphinx, doctree: nodes.document) -> None:
    """Collect the numbers that a page prints, and those that its cells record."""
    used: Places = {}
    recorded: Places = {}
    for reference in doctree.findall(addnodes.pending_xref):
        if "result" in reference["classes"]:
            note(used, reference["reftarget"], reference)
    for cell in doctree.findall(nodes.container):
        if "tag_record" in cell["classes"]:
            for output in cell.findall(nodes.literal_block):
                for id in PRINTED.findall(output.astext()):
                    note(recorded, anchor(id), cell)
    uses(app.env)[app.env.docname] = {"used": used, "recorded": recorded}


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """A page is read again, or gone."""
    uses(env).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: list[str], other: BuildEnvironment) -> None:
    """Pages that another process has read."""
    uses(env).update({name: found for name, found in uses(other).items() if name in docnames})


def write_again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """The page of results is written anew whenever any page is."""
    return [RESULTS] if RESULTS in env.found_docs else []


def links(app: Sphinx, docname: str, kind: str, target: str) -> list[nodes.Node]:
    """Links to the places of one kind, separated by semicolons."""
    found: list[nodes.Node] = []
    for page, kinds in sorted(uses(app.env).items()):
        for id, title in kinds[kind].get(target, []):
            uri = app.builder.get_relative_uri(docname, page) + (f"#{id}" if id else "")
            name = app.env.titles[page].astext()
            words = name if title in ("", name) or name.endswith(title) else f"{name}, {title}"
            found += [nodes.Text("; ")] if found else []
            found += [nodes.reference("", words, refuri=uri, internal=True)]
    return found


def fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the links where they belong."""
    for mark in list(doctree.findall(used_in)):
        line = nodes.paragraph(classes=["book-used"])
        for kind in ("recorded", "used"):
            if found := links(app, docname, kind, mark["target"]):
                line += [nodes.Text(f"{kind.capitalize()} in "), *found, nodes.Text(". ")]
        mark.replace_self(line if len(line) else nodes.paragraph("", "No page prints it.", classes=["book-used"]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the collecting and the filling."""
    app.add_node(used_in)
    app.connect("doctree-read", note_uses)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", write_again)
    app.connect("doctree-resolved", fill)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
