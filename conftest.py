"""One thread, no display, kernels that share no ports, and what nbval leaves aside: pictures, tables and errors."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nbval.kernel
import pytest
import torch

from hjbridge.ledger.execute import local_sockets

torch.set_num_threads(1)
nbval.kernel.KernelManager = local_sockets(nbval.kernel.KernelManager)

SKIPPED = ("image/png", "image/svg+xml", "text/html", "stderr", "application/papermill.record/image/png")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Tell nbval's collector of a notebook what not to compare."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += SKIPPED
