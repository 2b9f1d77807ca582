"""Hashes of code that change when the code does something else, and not when it only looks different."""

from __future__ import annotations

import ast
import hashlib
import json
import struct
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]

#: fields of syntax nodes that carry layout or a hint for type checkers, never behaviour
IGNORED = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def canonical(node: Any) -> str:
    """Text form of a syntax tree without positions, docstrings, bare constants, `pass` and empty fields.

    `ast.dump` will not do: it prints other fields in every Python version. Here an empty list and None are left out
    wherever they stand, and neighbouring string parts of an f-string are joined.
    """
    parts: list[str] = []
    _write(node, parts.append)
    return "".join(parts)


def _write(node: Any, out: Callable[[str], None]) -> None:
    if isinstance(node, ast.Constant):
        out(f"{type(node.value).__name__}:{node.value!r}")
    elif isinstance(node, ast.AST):
        out(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != [] and name not in IGNORED:
                out(f" {name}=")
                _write(value, out)
        out(")")
    elif isinstance(node, list):
        out("[")
        for item in joined(node):
            if not idle(item):
                _write(item, out)
                out(",")
        out("]")
    else:
        out(repr(node))


def idle(node: Any) -> bool:
    """Whether a statement does nothing: a docstring, a bare constant, `pass`."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def joined(nodes: list[Any]) -> list[Any]:
    """Join neighbouring string constants, which only f-strings have and which versions of Python split differently."""
    if not any(isinstance(node, ast.FormattedValue) for node in nodes):
        return nodes
    parts: list[Any] = []
    for node in nodes:
        if isinstance(node, ast.Constant) and parts and isinstance(parts[-1], ast.Constant):
            parts[-1] = ast.Constant(str(parts[-1].value) + str(node.value))
        elif not (isinstance(node, ast.Constant) and node.value == ""):
            parts.append(node)
    return parts


def code_hash(source: str) -> str:
    """Hash of Python source: 64 hexadecimal digits, the same for sources that differ in looks only.

    Raises: SyntaxError if the source cannot be parsed.
    """
    return hashlib.sha256(canonical(ast.parse(source)).encode()).hexdigest()


def notebook_hash(cells: Iterable[dict[str, Any]]) -> str:
    """Hash of a notebook's code cells in their order, cell borders included, outputs and prose excluded.

    Cells that papermill has injected are skipped. In a cell that is no Python as it stands, the lines `%magic` and
    `!command` count as text and the rest as code.
    """
    empty, parts = code_hash(""), []
    for cell in cells:
        tags = cell.get("metadata", {}).get("tags", [])
        if cell["cell_type"] != "code" or "injected-parameters" in tags:
            continue
        source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        lines = source.splitlines()
        magic = [line.strip() for line in lines if line.lstrip().startswith(("%", "!"))]
        python = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
        for kept, code in (([], source), (magic, python)):
            try:
                parts.append("\n".join([*kept, code_hash(code)]))
                break
            except SyntaxError:
                continue
        else:
            parts.append(source.strip())
    return hashlib.sha256("\n\n".join(part for part in parts if part != empty).encode()).hexdigest()


def module_file(name: str) -> Path:
    """File of a module of this package, found without importing it.

    Raises: ValueError for a name outside `hjbridge`, FileNotFoundError if there is no such module.
    """
    root, *rest = name.split(".")
    if root != "hjbridge" or not all(part.isidentifier() for part in rest):
        raise ValueError(f"name must be a module of hjbridge, got {name!r}")
    base = PACKAGE.joinpath(*rest)
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    raise FileNotFoundError(f"module {name} does not exist (any more)")


@cache
def _hash_of_bytes(content: bytes) -> str:
    return code_hash(content.decode("utf-8"))


def module_hashes(names: Iterable[str]) -> dict[str, str]:
    """Hashes of modules by their names, sorted; nothing is imported.

    Raises: ValueError or FileNotFoundError for a name that is no module of this package.
    """
    return {name: _hash_of_bytes(module_file(name).read_bytes()) for name in sorted(set(names))}


def modules_hash(names: Iterable[str]) -> str:
    """One hash of several modules, for the header of a checkpoint."""
    return hashlib.sha256(json.dumps(module_hashes(names)).encode()).hexdigest()


def imported_modules() -> list[str]:
    """Names of the modules of this package that the running process has imported."""
    return sorted(
        name
        for name, module in list(sys.modules.items())
        if name.split(".")[0] == "hjbridge" and getattr(module, "__file__", None)
    )


def stale_modules(recorded: dict[str, str]) -> list[str]:
    """Names whose code differs from what was recorded, and names that no longer exist."""
    stale = []
    for name, value in sorted(recorded.items()):
        try:
            if module_hashes([name])[name] != value:
                stale.append(name)
        except FileNotFoundError:
            stale.append(f"{name} (gone)")
    return stale


def safetensors_metadata(path: Path) -> dict[str, Any]:
    """Header entry `hjbridge` of a safetensors file, read without torch: 8 bytes of length, then JSON.

    Raises: ValueError that names the file if it is damaged, or has no such entry.
    """
    with Path(path).open("rb") as file:
        head = file.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        text = file.read(size) if 0 < size < 100_000_000 else b""
    try:
        entry = json.loads(json.loads(text)["__metadata__"]["hjbridge"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a safetensors file with an entry 'hjbridge' in its header") from error
    return dict(entry)


def stale_checkpoint(path: Path) -> list[str]:
    """What has changed in the code since a checkpoint was made: module names, or nothing if it is fresh.

    The header holds `modules`, either {name: hash}, or a list of names with their common `hash`.
    """
    header = safetensors_metadata(path)
    modules = header.get("modules")
    if isinstance(modules, dict):
        return stale_modules(modules)
    if not isinstance(modules, list):
        return ["no modules in its header"]
    try:
        return [] if modules_hash(modules) == header.get("hash") else ["one of " + ", ".join(modules)]
    except FileNotFoundError as error:
        return [str(error)]
