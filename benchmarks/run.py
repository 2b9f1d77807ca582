"""Run the comparisons with peers in one process and one thread, and print their ratios; exit 1 if one fails."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import dataclasses
import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from paired import Outcome, Row
from rich.console import Console
from rich.table import Table

SCRIPTS = (
    "euler_loop", "probability_flow", "likelihood", "ddim_step", "unet_training", "pendulum_grid", "american_put",
    "riccati",
)  # fmt: skip
PEERS = ("torch", "torchsde", "torchdiffeq", "diffusers", "hj-reachability", "jax", "scipy")
RESULT = Path(__file__).parents[1] / "_build" / "bench.json"


def show(outcomes: dict[str, Outcome], console: Console) -> None:
    """Print protocols, remarks, and the table of ratios."""
    for name, outcome in outcomes.items():
        console.print(f"[bold]{name}[/]: {outcome.protocol}.")
        for remark in outcome.remarks:
            console.print(f"  {remark}")
    table = Table("ratio of CPU times or errors", "min", "median", "max", "threshold", "judged by", "verdict")
    for outcome in outcomes.values():
        for row in outcome.rows:
            *cells, verdict = row.cells()
            table.add_row(*cells, f"[{'green' if row.passed else 'bold red'}]{verdict}[/]")
    console.print(table)


def write(outcomes: dict[str, Outcome], quick: bool) -> None:
    """Write the ratios of this run, with versions, to `_build/bench.json`."""
    run = {"quick": quick, "versions": {name: version(name) for name in PEERS}}
    results = {name: dataclasses.asdict(o) | {"passed": [row.passed for row in o.rows]} for name, o in outcomes.items()}
    RESULT.parent.mkdir(exist_ok=True)
    words = json.dumps({"run": run, "results": results}, indent=1, ensure_ascii=False)
    RESULT.write_text(words + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", nargs="*", help=f"what to run, of {', '.join(SCRIPTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few repetitions: code runs, verdicts mean little")
    arguments = parser.parse_args()
    if unknown := set(arguments.script) - set(SCRIPTS):
        parser.error(f"script must be one of {', '.join(SCRIPTS)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    outcomes = {}
    for name in arguments.script or SCRIPTS:
        print(f"running {name}", file=sys.stderr)
        outcomes[name] = importlib.import_module(name).run(arguments.quick)
    show(outcomes, Console(width=None if sys.stdout.isatty() else 120, highlight=False))
    write(outcomes, arguments.quick)
    failed: list[Row] = [row for o in outcomes.values() for row in o.rows if not row.passed]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
