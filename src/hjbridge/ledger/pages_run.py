"""Run the programs of one page: `python -m hjbridge.ledger.pages_run` in an empty folder, programs as JSON on stdin."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the programs and tell as JSON, for each, what it printed and drew: name -> PNG, and its dark drawing."""
    told: list[dict[str, Any]] = []
    names: dict[str, Any] = {"__name__": "__main__"}
    dark: dict[str, bytes] = {}
    draw_dark_too(dark)
    for number, program in enumerate(json.load(sys.stdin), 1):
        if re.search(r"^import torch$", program, re.MULTILINE):
            names = {"__name__": "__main__"}
        before, printed = drawings(), io.StringIO()
        dark.clear()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, f"program {number}", "exec"), names)
        drawn = {name: [bytes] for name, bytes in drawings().items() if before.get(name) != bytes}
        for name in drawn:
            drawn[name] += [dark[name]] if name in dark else []
        encoded = {name: [base64.b64encode(kind).decode() for kind in kinds] for name, kinds in drawn.items()}
        told.append({"printed": printed.getvalue(), "drawn": encoded})
    print(json.dumps(told))


def drawings() -> dict[str, bytes]:
    """The pictures in the working folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(Path().glob("*.png"))}


def draw_dark_too(kept: dict[str, bytes]) -> None:
    """Let matplotlib draw each PNG that it saves in the colours of a dark page, too, at the same size, into `kept`."""
    from matplotlib.figure import Figure

    from hjbridge.plotting.dark import dark

    save = Figure.savefig

    def savefig(figure: Figure, target: Any, **options: Any) -> None:
        save(figure, target, **options)
        if str(target).endswith(".png"):
            picture = io.BytesIO()
            with dark(figure):
                save(figure, picture, **options | {"format": "png", "facecolor": "none", "edgecolor": "none"})
            kept[Path(target).name] = picture.getvalue()

    Figure.savefig = savefig  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    main()
