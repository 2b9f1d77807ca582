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
import warnings
from typing import Any

from hjbridge.ledger.sockets import socket_folder

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def say(**message: Any) -> None:
    """Tell the runner something."""
    print(json.dumps(message), file=sys.__stdout__, flush=True)


def end_with_runner() -> None:
    """End this process when the runner's end of the pipe closes."""
    sys.stdin.read()
    os._exit(1)


def main(source: str, target: str, folder: str, parameters: dict[str, Any]) -> int:
    """Execute a notebook.

    Args: path of the notebook; path of the executed copy; working folder of its kernel; papermill parameters.
    Returns: 0, or 1 if a cell failed (its source and traceback have been told).
    """
    warnings.filterwarnings("ignore")
    from papermill import engines
    from papermill.engines import NBClientEngine, PapermillNotebookClient, papermill_engines
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
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("telling", Telling)
    try:
        with socket_folder() as sockets:

            class OwnSockets(PapermillNotebookClient):
                """Papermill's client with files for sockets: a free port may go to the kernel of another process."""

                def create_kernel_manager(self) -> Any:
                    manager = super().create_kernel_manager()
                    manager.transport, manager.connection_file = "ipc", os.path.join(str(sockets), "kernel.json")
                    return manager

            if sockets is not None:
                engines.PapermillNotebookClient = OwnSockets
            execute_notebook(
                source, target, parameters, engine_name="telling", kernel_name="python3", cwd=folder,
                progress_bar=False, autosave_cell_every=0,
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
