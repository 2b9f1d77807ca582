"""One fixed form for committed notebooks, so that a second run of the same code gives the same bytes."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hjbridge.ledger import files
from hjbridge.ledger.files import LedgerError

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}
CELL_METADATA = frozenset({"tags", "mystnb", "slideshow", "jp-MarkdownHeadingCollapsed"})
#: what a cell may be tagged: other tags of the site hide an output, others of nbval skip a comparison
TAGS = frozenset({"parameters", "record", "hide-input", "nbval-ignore-output", "nbval-check-output"})
WIDGET = "application/vnd.jupyter.widget-view+json"
#: forms of a picture in base64; the last is the dark drawing of a figure
PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "application/vnd.hjbridge.dark+png"})
#: absolute paths below the usual top folders, as they stand in tracebacks and messages
ABSOLUTE = re.compile(r"(?<![\w./:>-])/(?:home|root|Users|tmp|usr|var|opt|mnt|srv|private)(?:/[\w.@+-]+)+/?")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")


def read_notebook(path: Path) -> dict[str, Any]:
    """Parse a notebook of format 4.

    Raises: LedgerError that names the file.
    """
    try:
        book = json.loads(Path(path).read_text(encoding="utf-8"))
        if book["nbformat"] != 4:
            raise LedgerError(f"{path}: nbformat must be 4, got {book['nbformat']!r}")
        for k, cell in enumerate(book["cells"], 1):
            if fault := malformed(cell):
                raise LedgerError(f"{path} is not a notebook: {fault} of cell {k} is missing or of another form")
        return dict(book)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"{path} is not a notebook, {type(error).__name__}: {error}") from error


def malformed(cell: dict[str, Any]) -> str:
    """Name of a part of a cell that is missing, or has another form than notebooks have; empty if all is well."""
    own, outputs = cell.get("metadata", {}), cell.get("outputs", [])
    mystnb = own.get("mystnb", {}) if isinstance(own, dict) else {}
    objects = [("metadata", own), ("mystnb", mystnb)]
    objects += [(name, mystnb.get(name, {})) for name in ("image", "figure") if isinstance(mystnb, dict)]
    objects += [("data of an output", output.get("data", {})) for output in outputs]
    words = [("source", cell.get("source"))] + [("text of an output", output.get("text", "")) for output in outputs]
    faults = [name for name, value in words if not isinstance(value, str) and not _texts(value)]
    faults += [name for name, value in objects if not isinstance(value, dict)]
    faults += [] if cell.get("cell_type") in ("code", "markdown", "raw") else ["cell_type"]
    return faults[0] if faults else ""


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def write_notebook(path: Path, book: dict[str, Any]) -> None:
    """Write a notebook atomically: sorted keys, indented by one, a newline at the end."""
    files.write_atomic(path, dump(book))


def dump(book: dict[str, Any]) -> str:
    """Text of a notebook as it is committed."""
    return json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def normalise(book: dict[str, Any]) -> dict[str, Any]:
    """Bring a notebook to its fixed form; doing it twice changes nothing.

    Cells get the ids cell-01, cell-02, ... and are counted from 1; execution times, papermill's metadata and its
    injected parameters, widget states, kernel names, version numbers, messages on stderr, memory addresses and
    absolute paths go; neighbouring pieces of one output stream are joined.

    Args: the parsed notebook. Returns: a new one; the argument is left alone.
    """
    cells, count = [], 0
    kept = [cell for cell in book["cells"] if "injected-parameters" not in cell.get("metadata", {}).get("tags", [])]
    width = max(2, len(str(len(kept))))
    for i, cell in enumerate(kept, 1):
        kept_metadata = {k: v for k, v in cell.get("metadata", {}).items() if k in CELL_METADATA and v not in ([], {})}
        clean = {"cell_type": cell["cell_type"], "id": f"cell-{i:0{width}d}", "metadata": kept_metadata}
        source = text(cell["source"])
        clean["source"] = lines(source.rstrip() if cell["cell_type"] == "code" else source.strip("\n"))
        if cell.get("attachments"):
            clean["attachments"] = cell["attachments"]
        if cell["cell_type"] == "code":
            count += 1
            number = None if cell.get("execution_count") is None else count
            clean["execution_count"] = number
            clean["outputs"] = outputs(cell.get("outputs", []), number)
        cells.append(clean)
    metadata = {"kernelspec": KERNEL, "language_info": LANGUAGE}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def outputs(raw: list[dict[str, Any]], number: int | None) -> list[dict[str, Any]]:
    """Outputs of one cell in their fixed form."""
    clean: list[dict[str, Any]] = []
    for output in raw:
        kind = output["output_type"]
        if kind == "stream":
            if output["name"] == "stderr":
                continue
            if clean and clean[-1]["output_type"] == "stream":
                clean[-1]["text"].append(text(output["text"]))
            else:
                clean.append({"name": "stdout", "output_type": "stream", "text": [text(output["text"])]})
        elif kind == "error":
            words = {"evalue": plain(output["evalue"]), "traceback": [plain(line) for line in output["traceback"]]}
            clean.append({"ename": output["ename"], "output_type": kind} | words)
        else:
            data = {mime: payload(mime, value) for mime, value in output["data"].items() if mime != WIDGET}
            if WIDGET in output["data"]:  # a progress bar or the like: it cannot live in a static page
                continue
            clean.append({"data": data, "metadata": output.get("metadata", {}), "output_type": kind})
            if kind == "execute_result":
                clean[-1]["execution_count"] = number
    for output in clean:
        if output["output_type"] == "stream":
            output["text"] = lines(plain(rewound("".join(output["text"]))))
    return [output for output in clean if output.get("text") != []]


def payload(mime: str, value: Any) -> Any:
    """One representation of an output; words are cleaned, pictures keep their bytes."""
    if not isinstance(value, (str, list)) or (isinstance(value, list) and not all(isinstance(v, str) for v in value)):
        return value
    joined = text(value)
    if mime.startswith("text/"):
        return lines(plain(joined))
    return joined.rstrip("\n") if mime in PICTURES else lines(joined)


def plain(words: str) -> str:
    """Words without absolute paths and memory addresses."""
    places = {str(Path(p)): name for p, name in ((sys.prefix, "<environment>"), (tempfile.gettempdir(), "<temporary>"))}
    try:
        places[str(files.root())] = "."
    except LedgerError:
        pass
    for place in sorted(places, key=len, reverse=True):
        words = re.sub(rf"(?<![\w.]){re.escape(place)}(?=[/\s'\":,)]|$)", places[place], words)
    words = ABSOLUTE.sub(lambda match: "…/" + match[0].rstrip("/").rsplit("/", 1)[1], words)
    return ADDRESS.sub("0x…", words)


def rewound(words: str) -> str:
    """What a terminal shows of text with carriage returns: the last state of each line."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in words.split("\n"))


def text(value: str | list[str]) -> str:
    """Multi-line text of a notebook as one string."""
    return value if isinstance(value, str) else "".join(value)


def lines(value: str) -> list[str]:
    """Multi-line text of a notebook as a list of lines."""
    return value.splitlines(keepends=True)


def normalise_file(path: Path, *, check: bool = False) -> bool:
    """Normalise a notebook file.

    Args: the file; `check` leaves it alone.
    Returns: whether it was (or would be) changed.
    Raises: LedgerError if it is no notebook or cannot be written.
    """
    before = Path(path).read_text(encoding="utf-8") if Path(path).is_file() else ""
    after = dump(normalise(read_notebook(path)))
    if after != before and not check:
        files.write_atomic(Path(path), after)
    return after != before


def parameters_of(path: Path) -> dict[str, Any]:
    """What the cell tagged `parameters` of a notebook sets.

    Raises: LedgerError if there is not exactly one such cell, or if it holds more than `name = literal` lines.
    """
    cells = read_notebook(path)["cells"]
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise LedgerError(f"{path.name} must have one cell tagged `parameters`, got {len(tagged)}")
    found = {}
    try:
        for line in ast.parse(text(tagged[0]["source"])).body:
            if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
                raise ValueError(ast.unparse(line))
            found[line.targets[0].id] = ast.literal_eval(line.value)
    except (SyntaxError, ValueError) as error:
        rule = "the cell tagged `parameters` may hold `name = literal` lines only"
        raise LedgerError(f"{path.name}: {rule}, got {error}") from error
    return found


def parameters_known(path: Path, wanted: Iterable[str]) -> None:
    """Raise LedgerError if a notebook does not set one of `wanted`; papermill would only warn."""
    known = parameters_of(path)
    if missing := [name for name in wanted if name not in known]:
        raise LedgerError(f"{path.name} has no parameter {', '.join(missing)}; it has {', '.join(known)}")


def profile_known(path: Path, profile: str) -> bool:
    """Whether a chapter has sizes for a profile: `smoke` and `book` always, others if a call of `pick` names them."""
    if profile in ("smoke", "book"):
        return True
    for cell in read_notebook(path)["cells"]:
        code = text(cell["source"]).splitlines() if cell["cell_type"] == "code" else []
        try:
            tree = ast.parse("\n".join(line for line in code if not line.lstrip().startswith(("%", "!"))))
        except SyntaxError:
            continue
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        picks = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "pick"]
        if any(given.arg == profile for call in picks for given in call.keywords):
            return True
    return False


def output_digests(cells: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Digests of what the code cells show: words, HTML and pictures, by the number of the code cell ("1", "2", ...).

    Cells are counted as a reader sees them in brackets, so that new prose between them changes nothing; captions and
    alternative texts are prose too.
    """
    code = (cell for cell in cells if cell["cell_type"] == "code")
    shown = {str(k): [_shown(output) for output in cell.get("outputs", [])] for k, cell in enumerate(code, 1)}
    return {k: hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16] for k, parts in shown.items() if parts}


def _shown(output: dict[str, Any]) -> list[Any]:
    """What one output shows; how its text is split into lines does not count."""
    told = [output.get(name) for name in ("output_type", "name", "ename", "evalue", "traceback")]
    words = text(output.get("text", []))
    data = output.get("data", {})
    whole = {mime: data[mime] if isinstance(data[mime], dict) else text(data[mime]).rstrip("\n") for mime in data}
    # metadata may scale a picture away
    return [*told, words, sorted(whole.items()), output.get("metadata") or {}]


def has_picture(cell: dict[str, Any]) -> bool:
    """Whether a cell shows a picture."""
    return any(mime.startswith("image/") for output in cell.get("outputs", []) for mime in output.get("data", {}))


def concealed(cells: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Cells with a tag, and the tag, that would take their output off the page or out of the tests."""
    found = ((str(cell.get("id")), cell.get("metadata", {}).get("tags", [])) for cell in cells)
    return [(cell, tag) for cell, tags in found for tag in tags if tag not in TAGS]


def unworded(cells: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Cells with a picture that lacks its alternative text or its caption: id of the cell -> what is missing."""
    found = {}
    for cell in cells:
        own = cell.get("metadata", {}).get("mystnb", {})
        words = {"alternative text (mystnb: image: alt)": own.get("image", {}).get("alt")}
        words["caption (mystnb: figure: caption)"] = own.get("figure", {}).get("caption")
        missing = [name for name, given in words.items() if not str(given or "").strip()]
        if has_picture(cell) and missing:
            found[str(cell.get("id"))] = " and no ".join(missing)
    return found
