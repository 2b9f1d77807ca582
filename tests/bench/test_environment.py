"""The peers come without touching PyTorch: torchvision beside a CPU build of torch breaks diffusers."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.bench


def test_peers_leave_torch_as_it_is():
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text()
    pinned = re.search(r"^torch==([\d.]+)$", constraints, re.M)
    assert pinned and torch.__version__.split("+")[0] == pinned[1]
    assert importlib.util.find_spec("torchvision") is None
