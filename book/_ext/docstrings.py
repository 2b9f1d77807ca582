"""House docstrings as reStructuredText: plain-text formulas are shown as they stand, sections become fields."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field

SECTIONS = {"Args": "Arguments"} | {name: name for name in ("Attributes", "Returns", "Yields", "Raises", "Source")}
LABEL = re.compile(rf"(?:^|(?<=[.;)]\s))({'|'.join(SECTIONS)}):(?=\s|$)\s*")
ENTRY = re.compile(r"((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*): (.*)", re.DOTALL)


@dataclass
class Segment:
    """A piece of a paragraph: plain text, or a section with what stands on its line and below it."""

    label: str | None
    text: str
    block: list[str] = field(default_factory=list)


def inline(text: str) -> str:
    """Escape what reStructuredText would read as markup; `name` becomes code."""
    parts = re.split(r"(`+[^`]+`+)", text)
    for i, part in enumerate(parts):
        if i % 2:
            follower = parts[i + 1][:1]
            # code that touches a word needs an escaped space
            parts[i] = f"``{part.strip('`')}``" + ("\\ " if follower.isalnum() else "")
        else:
            part = re.sub(r"([\\*|])", r"\\\1", part)
            parts[i] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", part)
    return "".join(parts)


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Split lines at blank ones."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line.rstrip())
        elif found[-1]:
            found.append([])
    return [part for part in found if part]


def segments(lines: list[str]) -> list[Segment]:
    """Split a paragraph at its labels: `Args: ... Returns: ...` in running text, or a label above an indented block.

    A line without label below such a block is text again.
    """
    found: list[Segment] = []
    for line in lines:
        if line.startswith(" ") and found:
            found[-1].block.append(line)
            continue
        before, *rest = LABEL.split(line.strip())
        if found and before and not found[-1].block:
            found[-1].text += f" {before}"
        elif before:
            found.append(Segment(None, before))
        found += [Segment(label, text.strip()) for label, text in zip(rest[::2], rest[1::2], strict=True)]
    return found


def entries(lines: list[str]) -> list[str]:
    """The items of a section: a line of the least indentation begins one, deeper lines continue it."""
    items: list[str] = []
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    return items


def as_field(segment: Segment) -> list[str]:
    """A field of the list below a signature."""
    found = [f":{SECTIONS[segment.label or '']}:"]
    if segment.text:
        items = [" ".join([segment.text, *(line.strip() for line in segment.block)])]
    else:
        items = entries(segment.block)
    for item in items:
        match = ENTRY.fullmatch(item) if segment.label in ("Args", "Attributes") and not segment.text else None
        found += ["", f"    ``{match[1]}``: {inline(match[2])}" if match else f"    {inline(item)}"]
    return [*found, ""]


def readable(lines: list[str]) -> list[str]:
    """reStructuredText of a docstring.

    A paragraph that is indented as a whole is a formula and is shown literally; sections become a field list at the
    end; all else is text, in which `name` is code and nothing else is markup.
    """
    text: list[str] = []
    fields: list[str] = []
    for part in paragraphs(lines):
        if all(line.startswith("  ") for line in part):
            formula = textwrap.indent(textwrap.dedent("\n".join(part)), "    ")
            text += [".. code-block:: none", "", *formula.splitlines(), ""]
            continue
        for segment in segments(part):
            if segment.label:
                fields += as_field(segment)
            else:
                text += [inline(" ".join([segment.text, *(line.strip() for line in segment.block)])), ""]
    return [*text, *fields]
