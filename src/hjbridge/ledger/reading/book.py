"""The book that a copy is made from: its record, its references, its addresses, its macros."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from hjbridge.ledger import results
from hjbridge.ledger.checks import is_stale
from hjbridge.ledger.claims import load_claims
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.reading import bibliography
from hjbridge.ledger.verdicts import ClaimError, status


@dataclass
class Book:
    """Reads what lies below `root`, a repository or a staging folder.

    Attributes: site, address of the rendered book, empty where none is known; commit, what `rerun` names.
    """

    root: Path
    site: str = ""
    commit: str = ""

    @cached_property
    def sources(self) -> dict[str, bibliography.Source]:
        """References by key."""
        return bibliography.load(self.root / "book" / "references.bib")

    @cached_property
    def repository(self) -> str:
        """Address of the code."""
        return str(self.settings("CITATION.cff")["repository-code"]).rstrip("/")

    @cached_property
    def macros(self) -> dict[str, str]:
        """TeX macros of the site by name."""
        config = self.settings("_config.yml").get("sphinx", {}).get("config", {})
        found: dict[str, str] = config.get("mathjax3_config", {}).get("tex", {}).get("macros", {})
        return found

    @property
    def record(self) -> Path:
        """Folder of the recorded numbers."""
        return self.root / "data" / "results"

    def settings(self, name: str) -> dict[str, Any]:
        """A YAML file. Raises: LedgerError."""
        try:
            return dict(yaml.safe_load((self.root / name).read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError, TypeError) as error:
            raise LedgerError(f"{self.root / name} cannot be read: {error}") from error

    def pages(self) -> list[Path]:
        """Markdown pages and notebooks in the order of the table of contents."""

        def below(entry: dict[str, Any]) -> list[str]:
            parts = [part for kind in ("parts", "chapters", "sections") for part in entry.get(kind, [])]
            own = [str(entry[kind]) for kind in ("root", "file") if kind in entry]
            return own + [name for part in parts for name in below(part)]

        names = [self.root / name for name in below(self.settings("_toc.yml"))]
        found = [name.with_name(name.name + end) for name in names for end in (".md", ".ipynb")]
        return [path for path in found if path.is_file()]

    def result(self, text: str) -> str:
        """A number as the page prints it, from `id`, `id@full` or `id | digits`; linked where the site is known."""
        key, _, digits = (part.strip() for part in text.partition("|"))
        if digits and not digits.isdecimal():
            raise LedgerError(f"digits of {key} must be a number, got {digits!r}")
        printed = results.result(key, self.record).text(int(digits) if digits else None)
        printed = printed.replace("-", "\N{MINUS SIGN}")
        if self.site:
            printed = f"[{printed}]({self.site}/book/results.html#{anchor(key)})"
        return printed + (" (stale)" if key.endswith("@full") and is_stale(key, self.root) else "")

    def claim(self, id: str) -> str:
        """`C05 (reproduced)`: a claim with the verdict of this record."""
        claims = load_claims(self.root / "data" / "claims.yml")
        if id not in claims:
            raise LedgerError(f"claim {id} is unknown{results.nearest(id, claims)}")
        try:
            told = f"{id} ({status(claims[id], partial(results.result, folder=self.record)).verdict})"
        except ClaimError as error:
            raise LedgerError(str(error)) from error
        return f"[{told}]({self.site}/book/claims.html#claim-{id.lower()})" if self.site else told

    def run(self, chapter: str) -> dict[str, Any]:
        """What the record says about the run of a chapter. Raises: LedgerError."""
        path = results.chapter_file(self.record, chapter)
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["run"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"chapter {chapter} has no record of its run ({error})") from error

    def runtime(self, chapter: str) -> str:
        """Recorded wall time of a chapter, such as `13 s`."""
        return f"{self.run(chapter)['seconds']:.0f} s"

    def rerun(self, chapter: str) -> str:
        """What the record of a chapter was made with."""
        run = self.run(chapter)
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        environment = hashlib.sha256((self.root / "constraints.txt").read_bytes()).hexdigest()[:12]
        commit = f", commit `{self.commit}`" if self.commit else ""
        return (
            f"Recorded in {self.runtime(chapter)} on one core of a processor {run['cpu']}, with {versions}. "
            f"Environment `{environment}` (constraints.txt){commit}."
        )

    def document(self, name: str) -> tuple[str, str]:
        """Title and link of a page of the book: a neighbouring copy, the site, or the source. Raises: LedgerError."""
        page, chapter = self.root / f"{name}.md", self.root / f"{name}.ipynb"
        if chapter.is_file():
            return chapter.stem, f"{chapter.stem}.ipynb"
        if not page.is_file():
            raise LedgerError(f"no page of the book is called {name!r}")
        heading = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        link = f"{self.site}/{name}.html" if self.site else f"{self.repository}/blob/main/{name}.md"
        return heading[1] if heading else name, link

    def expanded(self, formula: str) -> str:
        """A formula without the site's macros."""
        for name, meaning in self.macros.items():
            formula = meaning.join(re.split(rf"\\{name}(?![A-Za-z])", formula))
        return formula


def anchor(key: str) -> str:
    """Anchor of a number on the page of results."""
    return "result-" + re.sub(r"[._@]", "-", key)
