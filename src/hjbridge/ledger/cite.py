"""How to cite the book, and one of its numbers with everything needed to find it again."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from hjbridge.ledger import files, machine
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.results import Result, command, result

REFUSED = "git refuses a folder that belongs to another user"


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
    """The commit that last changed a file; `uncommitted` where git says that there is none, or of a later change.

    Where git was not asked or gave no answer: the version, and in parentheses why the commit is not known.
    """
    try:
        if Path(git(path.parent, "rev-parse", "--show-toplevel")).resolve() != files.root().resolve():
            raise LedgerError("this copy is not under git")  # but lies in a repository of something else
        logged = git(path.parent, "log", "-1", "--format=%H", "--", str(path))
        changed = git(path.parent, "status", "--porcelain", "--", str(path))
    except LedgerError as error:
        return f"version {machine.package_version()} (commit not found out: {error})"
    return "uncommitted" if changed or not logged else logged


def git(folder: Path, *words: str) -> str:
    """What git answers. Raises: LedgerError that says in a few words why it gives no answer."""
    environment = os.environ | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        run = subprocess.run(["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LedgerError("git is not installed") from error
    except OSError as error:
        raise LedgerError(f"git cannot be started, {error.strerror}") from error
    told = run.stderr.strip()
    if "does not have any commits yet" in told:
        return ""
    if run.returncode != 0:
        known = {"not a git repository": "this copy is not under git", "dubious ownership": REFUSED}
        raise LedgerError(next((say for words, say in known.items() if words in told), f"git says {told[:80]!r}"))
    return run.stdout.strip()


def bibtex(id: str | None = None) -> str:
    """BibTeX entry of the book, or of one of its numbers."""
    book = citation()
    fields = {
        "author": authors(book), "title": f"{{{book['title']}}}", "version": book.get("version"),
        "year": year(book), "url": address(book),
    }  # fmt: skip
    key = "hjbridge"
    if id is not None:
        found, id = result(id, files.committed()), id.lower()
        commit = commit_of(_file(id))
        key = "hjbridge:" + id
        fields["note"] = f"Result {id} = {found.text()}, {'commit ' if len(commit) == 40 else ''}{commit}"
        fields["url"] = link(book, id)
    body = "".join(f"  {name:<8}= {{{value}}},\n" for name, value in fields.items() if value)
    return f"@software{{{key},\n{body}}}"


def plain(id: str | None = None) -> str:
    """One paragraph that names the book, or one of its numbers: value, protocol, commit, address."""
    book = citation()
    people = re.sub("[{}]", "", authors(book)).replace(" and ", "; ")
    when = f" ({year(book)})" if year(book) else ""
    text = f"{people}{when}. {book['title']}. Version {book.get('version', 'unknown')}. {address(book)}"
    if id is None:
        return text
    id = id.lower()
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


def year(book: dict[str, Any]) -> str:
    """Year in which the book was released; empty where the citation file has none."""
    return str(book.get("date-released") or "")[:4]


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
