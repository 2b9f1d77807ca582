"""The stored form of a record, and its strict reading: what does not belong there is told by file, line and field."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hjbridge.ledger import files
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.profile import PROFILES

SCHEMA = 2
ID = re.compile(r"ch(\d\d)\.[a-z][a-z0-9_]*")
CLAIM = re.compile(r"[CR]\d{1,2}")

#: what a field may hold: a test, and the same in words
Kind = tuple[Callable[[Any], bool], str]


class Damaged(LedgerError):
    """A file of the record that does not have its form. `problem` is told in words, `mend` is the command."""

    def __init__(self, path: Path, problem: str, mend: str) -> None:
        super().__init__(f"{path} is damaged, {problem}; restore it with `{mend}`")
        self.problem, self.mend = problem, mend


class Odd(Exception):
    """Something that does not belong where it stands: in the entry of that number, the nth field of that name."""

    def __init__(self, problem: str, entry: int | None = None, field: str = "", nth: int = 1) -> None:
        super().__init__(problem)
        self.problem, self.entry, self.field, self.nth = problem, entry, field, nth


class Twice(dict[str, Any]):
    """A JSON object in which the field `name` stands more than once."""

    name = ""


def read(path: Path) -> dict[str, Any]:
    """A file of the record, every field of it checked.

    Profile: `full` in a folder of that name, any other elsewhere.
    Raises: Damaged, which names file, line and field or id, and the command that restores it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text, object_pairs_hook=_unique)
        _check(record, path)
    except Odd as odd:
        told = f"line {line(text, odd.entry, odd.field, odd.nth)}: {odd.problem}"
        old = odd.field == "schema" and path.parent.name != "full"
        raise Damaged(path, told, f"make record CH={path.stem[2:]}" if old else restore(path)) from odd
    except json.JSONDecodeError as error:
        raise Damaged(path, f"line {error.lineno}: {error.msg}", restore(path)) from error
    except (OSError, ValueError) as error:
        raise Damaged(path, str(error), restore(path)) from error
    return dict(record)


def restore(path: Path) -> str:
    """The command that brings a file of the record back: from git if it is committed, else from a new run."""
    try:
        name = path.resolve().relative_to(files.root()).as_posix()
    except (ValueError, LedgerError):
        name = ""
    return f"git checkout -- {name}" if name.startswith("data/") else f"make chapter CH={path.stem[2:]}"


def dump(chapter: str, run: Mapping[str, Any], entries: Mapping[str, Any], cells: Mapping[str, str]) -> str:
    """Text of a file of the record: indented, sorted, without NaN, with the digest of each entry.

    Args: two digits; what has to be known about the run; the entries by id; digests of the outputs by code cell.
    """
    results = json.loads(json.dumps([entries[id] for id in sorted(entries)], allow_nan=False))
    digests = {"results": {entry["id"]: digest(entry) for entry in results}, "cells": dict(cells)}
    record = {"schema": SCHEMA, "chapter": chapter, "run": run, "digests": digests, "results": results}
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def digest(value: Any) -> str:
    """The first 16 hexadecimal digits of the sha256 of a JSON value, whatever the order of its fields."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def edited(record: dict[str, Any]) -> dict[str, str]:
    """Ids whose entry is not the one that was written, and what happened to each."""
    kept, now = record["digests"]["results"], {entry["id"]: entry for entry in record["results"]}
    found = {id: "was edited by hand" for id in kept if id in now and digest(now[id]) != kept[id]}
    added = [id for id in now if id not in kept]
    for id in kept:
        if id not in now:
            renamed = [new for new in added if digest(now[new] | {"id": id}) == kept[id]]
            found[id] = f"was renamed to {renamed[0]} by hand" if renamed else "was deleted by hand"
            added = [new for new in added if new not in renamed]
    return found | dict.fromkeys(added, "was added by hand")


def line(text: str, entry: int | None, field: str, nth: int) -> int:
    """Line of the nth field of a name, from the entry of that number on; of the entry where there is no such field."""
    start = 0
    if entry is not None:
        decoder = json.JSONDecoder()
        head = re.search(r'"results"\s*:\s*\[', text)
        start = head.end() if head else 0
        for left in range(entry, -1, -1):
            start += len(text[start:]) - len(text[start:].lstrip(", \t\r\n"))
            if left:
                start = decoder.raw_decode(text, start)[1]
    places = [match.start() for match in re.finditer(rf'"{re.escape(field)}"\s*:', text[start:])] if field else []
    at = start + (places[nth - 1] if len(places) >= nth else 0)
    return text.count("\n", 0, at) + 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(names) == len(set(names)):
        return dict(pairs)
    twice = Twice(pairs)
    twice.name = next(name for name in names if names.count(name) > 1)
    return twice


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _object(value: Any, inside: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and not isinstance(value, Twice) and all(map(inside, value.values()))


def _json(value: Any) -> bool:
    """Whether a value of the reader is finite and has every field once."""
    if isinstance(value, list):
        return all(map(_json, value))
    return _object(value, _json) if isinstance(value, dict) else not isinstance(value, float) or math.isfinite(value)


def _seeds(value: Any) -> bool:
    return value >= 1 if _whole(value) else isinstance(value, list) and bool(value) and all(map(_whole, value))


def _or_null(good: Callable[[Any], bool], words: str) -> Kind:
    return lambda value: value is None or good(value), f"null or {words}"


COUNT: Kind = (lambda value: _whole(value) and value >= 1, "a positive integer")
SIZE: Kind = (lambda value: _finite(value) and value >= 0, "a finite number >= 0")
OF_TEXT: Kind = (lambda value: _object(value, _text), "an object of strings, each name once")
ENTRY: dict[str, Kind] = {
    "id": (lambda value: _text(value) and bool(ID.fullmatch(value)), "like ch05.prior_kl"),
    "value": (_finite, "a finite number"),
    "stderr": _or_null(*SIZE),
    "n": _or_null(*COUNT),
    "seeds": _or_null(_seeds, "a positive integer or a list of integers"),
    "unit": _or_null(_text, "a string"),
    "protocol": _or_null(_text, "a string"),
    "reference": _or_null(_finite, "a finite number"),
    "tolerance": _or_null(*SIZE),
    "claims": (
        lambda value: isinstance(value, list) and all(_text(id) and CLAIM.fullmatch(id) for id in value),
        "a list of claims such as C31",
    ),
}
OPTIONAL: dict[str, Kind] = {
    "digits": COUNT,
    "extra": (lambda value: bool(value) and _object(value, _json), "an object of finite values, each name once"),
}
RUN: dict[str, Kind] = {
    "profile": (lambda value: value in PROFILES, "one of " + ", ".join(PROFILES)),
    "seed": (lambda value: _whole(value) and value >= 0, "an integer >= 0"),
    "versions": OF_TEXT,
    "cpu": (_text, "a string"),
    "seconds": SIZE,
    "hashes": (lambda value: isinstance(value, dict), "an object"),
}
HASHES: dict[str, Kind] = {"notebook": _or_null(_text, "a string"), "modules": OF_TEXT, "checkpoints": OF_TEXT}
ANY: Kind = (lambda value: True, "anything")
TOP: dict[str, Kind] = {"schema": ANY, "chapter": (_text, "a string"), "run": ANY, "digests": ANY, "results": ANY}


def _fields(
    tree: Any, kinds: dict[str, Kind], where: str, entry: int | None = None, optional: dict[str, Kind] | None = None
) -> None:
    """Demand that an object has the fields of `kinds`, perhaps those of `optional`, no others, and each once."""
    if not isinstance(tree, dict):
        raise Odd(f"{where} must be an object", entry)
    if isinstance(tree, Twice):
        raise Odd(f"{where}: {tree.name} stands there twice", entry, tree.name, 2)
    known = kinds | (optional or {})
    for name, value in tree.items():
        if name not in known:
            raise Odd(f"{where}: {name} is not a known field", entry, name)
        good, words = known[name]
        if not good(value):
            raise Odd(f"{where}: {name} must be {words}, got {json.dumps(value)[:60]}", entry, name)
    if missing := [name for name in kinds if name not in tree]:
        raise Odd(f"{where}: {missing[0]} is missing", entry)


def _check(record: Any, path: Path) -> None:
    if isinstance(record, dict) and record.get("schema") != SCHEMA:
        raise Odd(f"schema must be {SCHEMA}, got {record.get('schema')!r}", None, "schema")
    _fields(record, TOP, "the record")
    chapter, full = path.stem[2:], path.parent.name == "full"
    if record["chapter"] != chapter:
        raise Odd(f"chapter must be {chapter!r}, as the file is named, got {record['chapter']!r}", None, "chapter")
    if full:
        _fields(record["run"], {"profile": RUN["profile"]}, "run")
        _profile(record["run"]["profile"], full)
    else:
        _run(record["run"], full)
    _fields(record["digests"], {"results": OF_TEXT, "cells": OF_TEXT}, "digests")
    if not isinstance(record["results"], list):
        raise Odd("results must be a list", None, "results", 2)  # the first of that name are digests
    seen: set[str] = set()
    for k, entry in enumerate(record["results"]):
        where = entry.get("id", "an entry") if isinstance(entry, dict) else "an entry"
        _fields(entry, ENTRY | ({"run": ANY} if full else {}), str(where), k, OPTIONAL)
        if where[2:4] != chapter:
            raise Odd(f"{where} is an id of another chapter", k, "id")
        if where in seen:
            raise Odd(f"{where} stands there twice", k, "id")
        seen.add(where)
        run = entry.get("run", record["run"])
        if full:
            _run(run, full, f"{where}: run", k)
        count = entry["seeds"] if _whole(entry["seeds"]) else len(set(entry["seeds"] or ()))
        if entry["stderr"] is not None and run["profile"] != "smoke" and count < 3:
            raise Odd(f"{where}: seeds must be 3 or more where there is a stderr, got {count}", k, "seeds")


def _run(run: Any, full: bool, where: str = "run", entry: int | None = None) -> None:
    _fields(run, RUN, where, entry)
    _fields(run["hashes"], HASHES, f"{where}: hashes", entry)
    _profile(run["profile"], full, where, entry)


def _profile(name: str, full: bool, where: str = "run", entry: int | None = None) -> None:
    if full != (name == "full"):
        wanted = "full in this folder" if full else "book, or smoke or paper in a staging folder"
        raise Odd(f"{where}: profile must be {wanted}, got {name}", entry, "profile")
