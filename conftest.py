"""One thread, no display, and what nbval leaves aside: pictures, styled tables and the error stream."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)

SKIPPED = ("image/png", "image/svg+xml", "text/html", "stderr", "application/papermill.record/image/png")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Tell nbval's collector of a notebook what not to compare."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += SKIPPED
