"""Every test on a machine that has never seen the project: empty home and caches, no network, no display, one thread.

What stands here before the fixtures holds for whatever pytest starts, the kernels of nbval included.
"""

import atexit
import itertools
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
GUARD = str(ROOT / "tests" / "guard")
sys.path.insert(0, GUARD)
import sitecustomize  # noqa: E402, F401 (it is the guard: from here on this process has no network)

from hjbridge.ledger.sockets import short_folders  # noqa: E402

#: where every test gets its folder; the path is short, since sockets lie below it
APART = Path(tempfile.mkdtemp(prefix="hj", dir=next(iter(short_folders()), None)))
atexit.register(shutil.rmtree, APART, ignore_errors=True)
NOWHERE = "http://127.0.0.1:9"


def settings(home: Path) -> dict[str, str]:
    """Environment of a process whose user has just been made: nothing of this machine's user is seen."""
    folders = {"HOME": "", "XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config", "XDG_DATA_HOME": ".local/share",
               "XDG_STATE_HOME": ".local/state", "XDG_RUNTIME_DIR": "run", "HJBRIDGE_CACHE": "c"}  # fmt: skip
    (home / "run").mkdir(parents=True, mode=0o700)
    return {name: str(home / folder) for name, folder in folders.items()}


for name in (
    "HJBRIDGE_ROOT",
    "HJBRIDGE_RESULTS",
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "IPYTHONDIR",
):
    os.environ.pop(name, None)
os.environ |= settings(APART / "0") | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
os.environ |= {name: NOWHERE for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY")}
os.environ |= {name: "127.0.0.1,localhost" for name in ("no_proxy", "NO_PROXY")}
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [GUARD, os.environ.get("PYTHONPATH")]))
if "PYTEST_XDIST_WORKER" not in os.environ:  # the list of fonts takes seconds to make: once for all workers
    os.environ["MPLCONFIGDIR"] = str(APART / "matplotlib")

import nbval.kernel  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


class OwnSockets(nbval.kernel.KernelManager):
    """Kernels whose sockets are files of their own: a port found free may be taken by the kernel of another process."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(transport="ipc", connection_file=str(APART / f"{uuid.uuid4()}.json"), **settings)


if os.name == "posix" and short_folders():
    nbval.kernel.KernelManager = OwnSockets

SKIPPED = ("image/png", "image/svg+xml", "text/html", "stderr", "application/papermill.record/image/png")
numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own for each test, which is gone afterwards."""
    home = APART / str(next(numbers))
    for name, value in settings(home).items():
        monkeypatch.setenv(name, value)
    yield home
    shutil.rmtree(home, ignore_errors=True)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Tell nbval's collector of a notebook what not to compare."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += SKIPPED
