"""How to cite the book, and one of its numbers with everything needed to find it again."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from hjbridge.ledger import files
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.results import Result, command, result


def citation() -> dict[str, Any]:
    """Title, authors, version, date and address of the book, from CITATION.cff.

    Raises: LedgerError if the file is missing or damaged.
    """
    import yaml

    path = files.root() / "CITATION.cff"
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise LedgerError(f"{path} cannot be read: {error}; restore it with `git checkout -- CITATION.cff`") from error


def authors(book: dict[str, Any]) -> str:
    """Authors in BibTeX's form; an entity keeps its braces."""
    people = []
    for author in book["authors"]:
        family, given = author.get("family-names"), author.get("given-names")
        people.append(f"{family}, {given}" if family else f"{{{author['name']}}}")
    return " and ".join(people)


def commit_of(path: Path) -> str:
    """The commit that last changed a file; `uncommitted` where there is none, or where the file has changed since."""

    def git(*words: str) -> str:
        run = subprocess.run(
            ["git", *words, "--", str(path)], cwd=path.parent, capture_output=True, text=True, check=False
        )
        return run.stdout.strip() if run.returncode == 0 else "?"

    try:
        commit = git("log", "-1", "--format=%H")
        return commit if commit not in ("", "?") and not git("status", "--porcelain") else "uncommitted"
    except OSError:  # no git
        return "unknown"


def bibtex(id: str | None = None) -> str:
    """BibTeX entry of the book, or of one of its numbers."""
    book = citation()
    fields = {
        "author": authors(book), "title": f"{{{book['title']}}}", "version": book.get("version"),
        "year": str(book.get("date-released", ""))[:4], "url": address(book),
    }  # fmt: skip
    key = "hjbridge"
    if id is not None:
        found = result(id, files.committed())
        key = "hjbridge:" + id
        fields["note"] = f"Result {id} = {found.text()}, commit {commit_of(_file(id))}"
        fields["url"] = link(book, id)
    body = "".join(f"  {name:<8}= {{{value}}},\n" for name, value in fields.items() if value)
    return f"@software{{{key},\n{body}}}"


def plain(id: str | None = None) -> str:
    """One paragraph that names the book, or one of its numbers: value, protocol, commit, address."""
    book = citation()
    people = re.sub("[{}]", "", authors(book)).replace(" and ", "; ")
    text = f"{people}. {book['title']}. Version {book.get('version', 'unknown')}. {address(book)}"
    if id is None:
        return text
    return f"{describe(result(id, files.committed()), id)}\nAddress: {link(book, id)}\nIn: {text}"


def describe(found: Result, id: str) -> str:
    """A number with its protocol, one fact a line."""
    facts = {
        "Result": f"{id} = {found.text()}", "Value": repr(found.value), "Standard error": found.stderr,
        "Samples": found.n,
        "Seeds": found.seeds if isinstance(found.seeds, int) else ", ".join(map(str, found.seeds or ())),
        "Protocol": found.protocol, "Reference": found.reference, "Tolerance": found.tolerance,
        "Claims": ", ".join(found.claims), "Profile": found.profile, "Seed": found.run.get("seed"),
        "Versions": ", ".join(f"{k} {v}" for k, v in found.run.get("versions", {}).items()),
        "CPU": found.run.get("cpu"),
        "Commit": commit_of(_file(id)), "Run it": command(id, found),
    }  # fmt: skip
    return "\n".join(f"{name}: {value}" for name, value in facts.items() if value not in (None, ""))


def address(book: dict[str, Any]) -> str:
    """Address of the book."""
    return str(book.get("url") or book.get("repository-code") or "").rstrip("/")


def link(book: dict[str, Any], id: str) -> str:
    """Address of the file of the record at the commit that holds it."""
    path, code = _file(id), str(book.get("repository-code", "")).rstrip("/")
    commit = commit_of(path)
    where = commit if len(commit) == 40 else "main"
    return f"{code}/blob/{where}/{path.relative_to(files.root()).as_posix()}#{id}" if code else address(book)


def _file(id: str) -> Path:
    folder = files.committed()
    return (folder / "full" if id.endswith("@full") else folder) / f"ch{id[2:4]}.json"
