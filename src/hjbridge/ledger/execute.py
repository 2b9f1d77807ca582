"""Run one chapter in a fresh kernel: `python -m hjbridge.ledger.execute IN OUT FOLDER PARAMETERS`.

A process of its own per chapter: it tells its progress as JSON lines on stdout, and ends, kernel included, as soon as
its stdin closes, which happens when the runner dies, however it dies.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import uuid
import warnings
from pathlib import Path
from typing import Any

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def say(**message: Any) -> None:
    """Tell the runner something."""
    print(json.dumps(message), file=sys.__stdout__, flush=True)


def end_with_runner() -> None:
    """End this process when the runner's end of the pipe closes."""
    sys.stdin.read()
    os._exit(1)


def local_sockets(manager: Any) -> Any:
    """The class of kernel managers `manager` with sockets that are files named after the kernel, where there are such.

    Ports are found free by one process and bound by another later: two kernels that start at once may get the same.
    """
    if os.name != "posix":
        return manager
    from jupyter_core.paths import jupyter_runtime_dir
    from traitlets import default

    def own_file(self: Any) -> str:
        """A file of its own, after which the sockets are named."""
        folder = Path(jupyter_runtime_dir())
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return str(folder / f"kernel-{uuid.uuid4()}.json")

    defaults = {"_ipc": default("transport")(lambda self: "ipc"), "_own_file": default("connection_file")(own_file)}
    return type(manager.__name__, (manager,), defaults)


def main(source: str, target: str, folder: str, parameters: dict[str, Any]) -> int:
    """Execute a notebook.

    Args: path of the notebook; path of the executed copy; working folder of its kernel; papermill parameters.
    Returns: 0, or 1 if a cell failed (its source and traceback have been told).
    """
    warnings.filterwarnings("ignore")
    from jupyter_client.manager import AsyncKernelManager
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import execute_notebook

    logging.getLogger("papermill").setLevel(logging.ERROR)

    class Telling(NBClientEngine):
        """Papermill's engine, telling how far it is."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            complete, total, done = nb_man.cell_complete, len(nb_man.nb.cells), [0]

            def cell_complete(*args: Any, **kwargs: Any) -> None:
                complete(*args, **kwargs)
                done[0] += 1
                say(done=min(done[0], total), total=total)

            nb_man.cell_complete = cell_complete
            kernels = local_sockets(AsyncKernelManager)
            return super().execute_managed_notebook(nb_man, kernel_name, kernel_manager_class=kernels, **options)

    papermill_engines.register("telling", Telling)
    try:
        execute_notebook(
            source, target, parameters, engine_name="telling", kernel_name="python3", cwd=folder, progress_bar=False,
            autosave_cell_every=0,
        )  # fmt: skip
    except PapermillExecutionError as error:
        say(failed=f"cell {error.cell_index}:\n{error.source}\n\n" + ANSI.sub("", "\n".join(error.traceback)))
        return 1
    except Exception as error:  # the kernel died, or the notebook is damaged
        say(failed=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    threading.Thread(target=end_with_runner, daemon=True).start()
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
