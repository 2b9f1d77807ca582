"""What the site numbers: equations page by page; figures, exercises and theorems through the whole book."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.notebook import has_picture, text

EQUATION = re.compile(r"^\$\$(.+?)\$\$[ \t]*(?:\(([\w-]+)\))?[ \t]*$", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"^\(([\w-]+)\)=\n+#+ (.+)$", re.MULTILINE)
#: figures of pages that are no notebooks: they have no label here, but they count
DRAWN = re.compile(r"^[:`]{3,}\{(?:figure|program-output)\}.*\n:alt:", re.MULTILINE)
NUMBERED = re.compile(r"^:{3,}\{(exercise|exercise-start|prf:\w+)\}.*\n:label: ([\w-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Numbers:
    """Labels of the whole book.

    Attributes: equations, label to page and number; named, label to `Figure 2`, `Exercise 1` or `Theorem 1`;
        headings, label to page and heading.
    """

    equations: dict[str, tuple[str, int]] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    headings: dict[str, tuple[str, str]] = field(default_factory=dict)


def count(pages: Mapping[str, Mapping[str, Any] | str]) -> Numbers:
    """Number what has a label.

    Args: name of a page to the parsed notebook, or to the text of a page that is none, in the order of the book.
    Raises: LedgerError for a label that stands there twice.
    """
    numbers, counts, seen = Numbers(), Counter[str](), set[str]()

    def name(label: str, kind: str) -> None:
        counts[kind] += 1
        numbers.named[label] = f"{kind} {counts[kind]}"

    for page, book in pages.items():
        if isinstance(book, str):
            counts["Figure"] += len(DRAWN.findall(book))
            continue
        equations = 0
        for cell in book["cells"]:
            source = text(cell["source"])
            if cell["cell_type"] != "markdown":
                figure = cell.get("metadata", {}).get("mystnb", {}).get("figure", {})
                labels = [figure["name"]] if "name" in figure and has_picture(cell) else []
                for label in labels:
                    name(label, "Figure")
            else:
                labels = [label for _, label in EQUATION.findall(source) if label]
                numbers.equations.update({label: (page, equations + k) for k, label in enumerate(labels, 1)})
                equations += len(labels)
                for kind, label in NUMBERED.findall(source):
                    name(label, kind.removeprefix("prf:").removesuffix("-start").capitalize())
                    labels.append(label)
                found = TARGET.findall(source)
                numbers.headings.update({label: (page, heading) for label, heading in found})
                labels += [label for label, _ in found]
            for label in labels:
                if label in seen:
                    raise LedgerError(f"{page}: the label {label} stands in the book twice")
                seen.add(label)
    return numbers
