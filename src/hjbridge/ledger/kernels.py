"""Chapters in fresh kernels, some at a time, each in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hjbridge.ledger import files, notebook
from hjbridge.ledger.progress import Progress
from hjbridge.ledger.results import chapter_file

EXECUTING = ".executing"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Run:
    """One chapter on its way through a kernel. `failed` holds the failing cell and its traceback."""

    chapter: str
    source: Path
    before: str
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    seconds: float = 0.0
    failed: str | None = None


def environment(folder: Path) -> dict[str, str]:
    """Environment of a kernel: one thread, results into the stage, no settings of the user's."""
    own = {"HJBRIDGE_RESULTS": str(folder / "data" / "results"), "IPYTHONDIR": str(folder / EXECUTING / "ipython")}
    own |= {"HJBRIDGE_ROOT": str(files.root()), "PYTHONHASHSEED": "0", "JUPYTER_PREFER_ENV_PATH": "1"}
    own |= {name: "1" for name in THREADS} | {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    return {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | own


@contextmanager
def ended(runs: list[Run]) -> Iterator[None]:
    """End the kernels that are still running when the block is left."""
    try:
        yield
    finally:
        for item in runs:
            if item.process is not None and item.process.poll() is None:
                item.process.terminate()
                item.process.wait()


def execute_all(
    runs: list[Run],
    folder: Path,
    parameters: dict[str, Any],
    jobs: int,
    progress: Progress,
    done: Callable[[Run], None],
) -> None:
    """Execute notebooks, `jobs` at a time, into the stage; failures are noted in each run, `done` gets the others."""
    waiting, running = list(runs), 0
    told: queue.Queue[tuple[Run, dict[str, Any] | None]] = queue.Queue()
    (folder / EXECUTING).mkdir()
    with ended(runs), progress:
        while waiting or running:
            while waiting and running < jobs:
                start(waiting.pop(0), folder, parameters, told, progress)
                running += 1
            item, message = told.get()
            if message is None:
                running -= 1
                item.seconds = time.perf_counter() - item.started
                if item.failed is None:
                    done(item)
                progress.finish(item.chapter, item.seconds, item.failed is None)
            elif "failed" in message:
                item.failed = message["failed"]
            else:
                progress.advance(item.chapter, message["done"], message["total"])


def start(item: Run, folder: Path, parameters: dict[str, Any], told: queue.Queue[Any], progress: Progress) -> None:
    """Start the process of one chapter and a thread that listens to it."""
    defaults = notebook.parameters_of(item.source)
    changed = {name: value for name, value in parameters.items() if defaults[name] != value}
    item.started = time.perf_counter()
    staged, target = folder / "notebooks" / item.source.name, folder / EXECUTING / item.source.name
    notebook.normalise_file(staged)
    if parameters["profile"] != "full":  # whose results join those of earlier runs
        chapter_file(folder / "data" / "results", item.chapter).unlink(missing_ok=True)
    command = [sys.executable, "-m", "hjbridge.ledger.execute", str(staged), str(target), str(staged.parent)]
    log = folder / EXECUTING / f"{item.source.stem}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, json.dumps(changed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            env=environment(folder),
        )  # fmt: skip
    item.process = process
    progress.start(item.chapter, item.source.stem)

    def listen() -> None:
        assert process.stdin is not None and process.stdout is not None
        explained = False
        for line in process.stdout:
            if line.startswith("{"):
                message = json.loads(line)
                explained |= "failed" in message
                told.put((item, message))
        process.wait()  # before its stdin closes, which would end it
        process.stdin.close()
        process.stdout.close()
        if process.returncode != 0 and not explained:
            words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            told.put((item, {"failed": f"its process ended with code {process.returncode}:\n{words}"}))
        told.put((item, None))

    threading.Thread(target=listen, daemon=True).start()
