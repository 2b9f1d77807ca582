"""The site is built once, from clean, for all tests of this folder, whatever the number of workers."""

import fcntl
import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(target: Path) -> None:
    """Render the committed record as `make html` does, into an empty folder."""
    start = "from jupyter_book.cli.main import main; main()"
    options = ["build", ".", "-W", "-n", "--keep-going", "--path-output", str(target)]
    command = [sys.executable, "-c", start, *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    (target / "log").write_text(f"{run.stdout}\n{run.stderr}", encoding="utf-8")
    (target / "code").write_text(str(run.returncode), encoding="utf-8")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built HTML."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    target = base / "site"
    target.mkdir(exist_ok=True)
    with (base / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "code").is_file():
            build(target)
    log = (target / "log").read_text(encoding="utf-8")
    complaints = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line]
    assert (target / "code").read_text() == "0", "\n".join(complaints) or log[-3000:]
    return target / "_build" / "html"


@pytest.fixture(scope="session")
def pages(site: Path) -> list[str]:
    """Every page with an article, as a path relative to the site."""
    found = sorted(
        path.relative_to(site).as_posix() for folder in ("book", "notebooks") for path in (site / folder).glob("*.html")
    )
    assert "book/intro.html" in found
    return found


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
