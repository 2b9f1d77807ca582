"""One thread, no display, and what nbval leaves aside: pictures, styled tables and the error stream."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import uuid
from pathlib import Path
from typing import Any

import nbval.kernel
import pytest
import torch
from jupyter_core.paths import jupyter_runtime_dir

torch.set_num_threads(1)


class OwnSockets(nbval.kernel.KernelManager):
    """Kernels whose sockets are files of their own: a port found free may be taken by the kernel of another process."""

    def __init__(self, **settings: Any) -> None:
        folder = Path(jupyter_runtime_dir())
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = str(folder / f"kernel-{uuid.uuid4()}.json")
        super().__init__(transport="ipc", connection_file=file, **settings)


if os.name == "posix":
    nbval.kernel.KernelManager = OwnSockets

SKIPPED = ("image/png", "image/svg+xml", "text/html", "stderr", "application/papermill.record/image/png")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Tell nbval's collector of a notebook what not to compare."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += SKIPPED
