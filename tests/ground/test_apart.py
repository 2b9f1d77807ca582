"""No test sees the user's home, caches or network, and neither does what a test starts."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sitecustomize import NetworkRefused, here

from hjbridge import store
from hjbridge.ledger import sockets

ELSEWHERE = "192.0.2.1"  # reserved for documentation, so that nobody has it
KEPT = {}


def child(code, **options):
    """A Python process that a test starts."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_another_machine_is_out_of_reach(kind):
    with socket.socket(socket.AF_INET, kind) as one:
        for reach in (one.connect, one.connect_ex, lambda address: one.sendto(b"", address)):
            with pytest.raises(NetworkRefused, match=f"no network, but something asked for '{ELSEWHERE}'"):
                reach((ELSEWHERE, 80))


def test_names_are_not_looked_up():
    with pytest.raises(NetworkRefused, match=r"asked for 'example\.org'"):
        socket.create_connection(("example.org", 80))


@pytest.mark.parametrize(
    "code",
    [f"import socket; socket.create_connection(('{ELSEWHERE}', 80), 2)",
     "import urllib.request; urllib.request.urlopen('http://example.org', timeout=2)",
     "import asyncio; asyncio.run(asyncio.open_connection('example.org', 80))"],
)  # fmt: skip
def test_child_processes_have_no_network_either(code):
    run = child(code, env=os.environ | {"http_proxy": "", "all_proxy": "", "ALL_PROXY": ""})
    assert run.returncode == 1 and "tests have no network" in run.stderr


def test_programs_that_are_no_python_find_no_proxy():
    if not (git := shutil.which("git")):
        pytest.skip("no git here")
    run = subprocess.run([git, "ls-remote", "http://example.org/x"], capture_output=True, text=True, check=False)
    assert run.returncode != 0 and "127.0.0.1" in run.stderr


def test_this_machine_is_within_reach(apart):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        code = f"import socket; socket.create_connection(('localhost', {server.getsockname()[1]}), 5)"
        assert child(code).returncode == 0
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(apart / "s"))
        server.listen()
        client.connect(str(apart / "s"))
    assert [here(h) for h in ("::1", b"localhost", "127.8.9.1", "", None, "10.0.0.1", "local", "fe80::1%lo")] == [
        True, True, True, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_has_an_empty_home_of_its_own(apart, turn):
    assert Path.home() == apart and store.cache() == apart / "c" and not store.cache().exists()
    run = child("import pathlib, pooch; print(pathlib.Path.home(), pooch.os_cache('hjbridge'))")
    assert run.stdout.split() == [str(apart), str(apart / ".cache" / "hjbridge")]
    assert sorted(path.name for path in apart.iterdir()) == ["run"]
    (apart / "left").touch()
    KEPT[turn] = apart
    assert turn == 1 or not KEPT.get(1, apart / "none").exists(), "the other's home is gone"


def test_sockets_lie_where_their_path_is_short(monkeypatch, apart):
    with sockets.socket_folder() as folder:
        assert folder is not None and len(str(folder)) + sockets.NAME <= sockets.LONGEST
    assert not folder.exists()
    long = apart / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert long not in sockets.short_folders()
    monkeypatch.setattr(sockets, "short_folders", list)
    with sockets.socket_folder() as folder:
        assert folder is None, "a kernel then takes ports"
