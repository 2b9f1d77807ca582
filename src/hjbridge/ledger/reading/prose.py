"""One Markdown cell, rewritten for a reader without the book's extensions."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TypeVar

from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.reading.bibliography import Source
from hjbridge.ledger.reading.book import Book
from hjbridge.ledger.reading.numbering import EQUATION, Numbers

T = TypeVar("T")
#: a role, or code between backticks, which is left alone; a block between fences is such code, too
TOKEN = re.compile(r"\{([\w:+.-]+)\}`([^`]+)`|(?<!`)(`+)(?!`).+?(?<!`)\3(?!`)", re.DOTALL)
MATH = re.compile(r"\$\$.+?\$\$|\$[^$]+\$", re.DOTALL)
TITLED = re.compile(r"(.*?)\s*<([^<>]+)>", re.DOTALL)
OPENING = re.compile(r"(:{3,})\{([\w:-]+)\}\s*(.*)")
LABEL = re.compile(r"\([\w-]+\)=")
BOXES = ("admonition", "note", "tip", "hint", "important", "warning", "caution", "attention", "seealso")
#: what only the book's renderer understands
RAW = re.compile(
    r"\{[\w:+.-]+\}`|^\W*:{3,}.*|^\s*`{3,}\{.*|^\([\w-]+\)=|\]\{[.#]\S*|\{\{.*?\}\}|\[\^[\w-]+\]", re.MULTILINE
)


@dataclass
class Prose:
    """Rewrites the cells of one page, and remembers what they cite."""

    page: str
    book: Book
    numbers: Numbers
    cited: dict[str, Source] = field(default_factory=dict)

    def rewrite(self, source: str) -> str:
        """Plain Markdown of one cell. Raises: LedgerError for what is unknown or not on record."""
        written = self.inline("\n".join(self.blocks(self.equations(source).split("\n")))).strip("\n")
        bare = TOKEN.sub(lambda found: found[0] if found[1] or found[0].startswith("```{") else "", written)
        if left := RAW.search(MATH.sub("", bare)):
            raise LedgerError(f"only the book's site can show {left[0]!r}")
        return re.sub(r"\n{3,}", "\n\n", MATH.sub(lambda found: self.book.expanded(found[0]), written))

    def equations(self, source: str) -> str:
        """Labels of displayed equations become their numbers."""

        def numbered(found: re.Match[str]) -> str:
            body, label = found[1], found[2]
            if not label:
                return f"$${body}$$"
            number = self.numbers.equations[label][1]
            return f"$${body.rstrip()} \\tag{{{number}}}{body[len(body.rstrip()) :] or ' '}$$"

        return EQUATION.sub(numbered, source)

    def blocks(self, lines: list[str]) -> list[str]:
        """Directives become block quotes and bold titles; labels go."""
        done: list[str] = []
        k = 0
        while k < len(lines):
            if not (opening := OPENING.fullmatch(lines[k].rstrip())):
                done += [] if LABEL.fullmatch(lines[k].rstrip()) else [lines[k]]
                k += 1
                continue
            fence, name, argument = opening.groups()
            end = next((i for i in range(k + 1, len(lines)) if lines[i].rstrip() == fence), None)
            if end is None:
                raise LedgerError(f"the directive {name} is not closed by {fence}")
            options = dict(line[1:].partition(": ")[::2] for line in lines[k + 1 : end] if re.match(r":\w+:", line))
            content = [line for line in lines[k + 1 : end] if not re.match(r":\w+:", line)]
            done += self.block(name, argument, options.get("label", ""), content)
            k = end + 1
        return done

    def block(self, name: str, argument: str, label: str, content: list[str]) -> list[str]:
        """Markdown of one directive."""
        if name in ("exercise-end", "solution-end"):
            return []
        if name in ("exercise-start", "exercise"):
            return [f"**{self.named(label)}{f' ({argument})' if argument else ''}.**", "", *self.blocks(content)]
        if name in ("solution-start", "solution"):
            return [f"**Solution of {self.named(argument).lower()}.**", "", *self.blocks(content)]
        if name.startswith("prf:"):
            return quoted(f"{self.named(label)}{f' ({argument})' if argument else ''}.", self.blocks(content))
        if name in BOXES:
            return quoted(argument or name.capitalize(), self.blocks(content))
        raise LedgerError(f"the directive {name} has no form in a readers' copy")

    def inline(self, source: str) -> str:
        """Roles become what they print."""
        return TOKEN.sub(lambda found: self.role(found[1], found[2].strip()) if found[1] else found[0], source)

    def role(self, name: str, text: str) -> str:
        """Markdown of one role."""
        titled = TITLED.fullmatch(text)
        title, target = (titled[1], titled[2]) if titled else ("", text)
        match name:
            case "result":
                return self.book.result(text.replace("\\|", "|"))
            case "claim":
                return self.book.claim(text)
            case "rerun":
                return self.book.rerun(text)
            case "runtime":
                return self.book.runtime(text)
            case "cite:t" | "cite":
                return ", ".join(f"{one.names} ({one.year})" for one in self.sources(text))
            case "cite:p":
                return f"({'; '.join(f'{one.names}, {one.year}' for one in self.sources(text))})"
            case "eq":
                page, number = self.known(self.numbers.equations, target, "equation")
                return f"({number})" if page == self.page else f"({number}) of [{page}]({page}.ipynb)"
            case "numref" | "prf:ref":
                return title or self.named(target)
            case "ref":
                if target in self.numbers.named:
                    return title or self.named(target)
                page, heading = self.known(self.numbers.headings, target, "heading")
                fragment = "#" + heading.replace(" ", "-")  # as Jupyter names headings
                return f"[{title or heading}]({'' if page == self.page else page + '.ipynb'}{fragment})"
            case "doc":
                found, link = self.book.document(posixpath.normpath(f"notebooks/{target}"))
                return f"[{title or found}]({link})"
        raise LedgerError(f"the role {name} has no form in a readers' copy")

    def named(self, label: str) -> str:
        """`Figure 2` and the like."""
        return self.known(self.numbers.named, label, "figure, exercise or theorem")

    def sources(self, keys: str) -> list[Source]:
        """The entries that a citation names."""
        found = {key: self.known(self.book.sources, key, "reference") for key in map(str.strip, keys.split(","))}
        self.cited.update(found)
        return list(found.values())

    def known(self, where: dict[str, T], label: str, kind: str) -> T:
        """What a label stands for. Raises: LedgerError."""
        if label not in where:
            raise LedgerError(f"no {kind} of the book is called {label!r}")
        return where[label]


def quoted(title: str, content: list[str]) -> list[str]:
    """A block quote with a bold title. A formula in it takes one line: marks of the quote would become part of it."""
    flat = MATH.sub(lambda found: " ".join(found[0].split()), "\n".join(content))
    return [f"> {line}".rstrip() for line in (f"**{title}**", "", *flat.strip("\n").split("\n"))]
