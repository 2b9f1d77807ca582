"""Programs on the pages of the book: what they print and draw is recorded beside the page, and compared with a new run.

A page that shows outputs has the directive `program-output` below its programs. All programs of the page run in one
process, in an empty folder; one that imports torch starts anew, another goes on with the names of the one before.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hjbridge import store
from hjbridge.ledger import files
from hjbridge.ledger.files import LedgerError

PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^```\{program-output\} (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Output:
    """What one program did.

    Attributes: program, digest of its text; printed, what it wrote to stdout; pictures, the bytes of the PNG that it
        saved, if it did, and of the drawing for dark pages, if it was a figure of matplotlib.
    """

    program: str
    printed: str
    pictures: tuple[bytes, ...] = ()


def pages(root: Path | None = None) -> dict[str, Path]:
    """The pages that show what their programs do: name, such as `quickstart`, to file."""
    found = sorted(((files.root() if root is None else root) / "book").glob("*.md"))
    return {path.stem: path for path in found if DIRECTIVE.search(path.read_text(encoding="utf-8"))}


def programs(page: Path) -> list[str]:
    """The programs of a page, in order."""
    return PROGRAM.findall(page.read_text(encoding="utf-8"))


def digest(program: str) -> str:
    """The first 16 hexadecimal digits of the sha256 of a program's text."""
    return hashlib.sha256(program.encode("utf-8")).hexdigest()[:16]


def place(page: Path) -> Path:
    """The file that holds the outputs of a page; its pictures lie beside it."""
    return page.parent / "outputs" / f"{page.stem}.json"


def pictures(page: Path, number: int) -> list[Path]:
    """The files of the light and the dark picture of program `number`, counted from 1."""
    return [place(page).with_name(f"{page.stem}-{number}{kind}.png") for kind in ("", "-dark")]


def run(page: Path) -> list[Output]:
    """Run the programs of a page, with one thread and without a display.

    Raises: LedgerError if one fails, or draws more than one picture.
    """
    source = programs(page)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "hjbridge.ledger.pages_run"],
            input=json.dumps(source), capture_output=True, text=True, encoding="utf-8", cwd=folder, env=environment,
        )  # fmt: skip
        if done.returncode:
            raise LedgerError(f"a program of {page.name} fails:\n{done.stderr.strip()[-2000:]}")
    outputs = []
    for number, (program, found) in enumerate(zip(source, json.loads(done.stdout), strict=True), 1):
        drawn = found["drawn"]
        if len(drawn) > 1:
            raise LedgerError(f"program {number} of {page.name} must draw one picture at most, got {', '.join(drawn)}")
        kinds = next(iter(drawn.values()), ())
        outputs.append(Output(digest(program), found["printed"], tuple(base64.b64decode(kind) for kind in kinds)))
    return outputs


def record(page: Path) -> list[Output]:
    """Run the programs of a page and write what they printed and drew beside it. Raises: as `run`; NotWritable."""
    outputs, entries = run(page), []
    wanted: set[Path] = set()
    for number, output in enumerate(outputs, 1):
        targets = pictures(page, number)[: len(output.pictures)]
        for target, content in zip(targets, output.pictures, strict=True):
            store.write_atomic(target, content)
        wanted.update(targets)
        shown = [target.name for target in targets]
        entries.append({"program": output.program, "printed": output.printed.splitlines(), "pictures": shown})
    files.write_atomic(place(page), json.dumps({"programs": entries}, indent=1, ensure_ascii=False) + "\n")
    for old in set(place(page).parent.glob(f"{page.stem}-[0-9]*.png")) - wanted:
        old.unlink()
    return outputs


def recorded(page: Path) -> list[Output]:
    """The outputs on record.

    Raises: LedgerError, with the command that mends it, if there are none, or a program has changed since.
    """
    command = f"run `hjbridge pages {page.stem}`"
    try:
        entries = json.loads(place(page).read_text(encoding="utf-8"))["programs"]
        outputs = [
            Output(
                entry["program"],
                "".join(f"{line}\n" for line in entry["printed"]),
                tuple((place(page).parent / name).read_bytes() for name in entry["pictures"]),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"no outputs of {page.name} are recorded ({error}): {command}") from error
    now = [digest(program) for program in programs(page)]
    if [output.program for output in outputs] != now:
        changed = [n for n, program in enumerate(now, 1) if [o.program for o in outputs[n - 1 : n]] != [program]]
        what = f"program {changed[0]} of {page.name} has changed" if changed else f"{page.name} has fewer programs"
        raise LedgerError(f"{what} since its output was recorded: {command}")
    return outputs
