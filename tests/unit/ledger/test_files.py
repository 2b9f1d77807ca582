"""Places, atomic writing and locks."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from hjbridge.ledger import LedgerError, files
from hjbridge.ledger.files import Lock, chapter_name, write_atomic


def test_the_repository_is_found_and_can_be_overridden(repository, monkeypatch):
    assert files.root() == repository
    monkeypatch.delenv("HJBRIDGE_ROOT")
    assert (files.root() / "src" / "hjbridge" / "ledger" / "files.py").is_file()


def test_a_folder_that_is_no_repository_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    with pytest.raises(LedgerError, match=r"is not a copy of the repository .*set HJBRIDGE_ROOT"):
        files.root()


def test_reading_and_writing_have_their_own_defaults(repository, monkeypatch):
    assert files.writing() == repository / "_build" / "results"
    assert files.reading() == repository / "data" / "results"
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(repository / "x"))
    assert files.writing() == files.reading() == repository / "x"


@pytest.mark.parametrize(
    ("given", "name"), [(5, "05"), ("5", "05"), ("05", "05"), ("ch05", "05"), (12, "12"), ("ch12", "12")]
)
def test_chapters_have_two_digits(given, name):
    assert chapter_name(given) == name


@pytest.mark.parametrize("given", ["", "x", "123", "5a", None, -1, "../05"])
def test_other_chapters_are_refused(given):
    with pytest.raises(ValueError, match="chapter must be a number such as"):
        chapter_name(given)


def test_notebooks_are_listed_in_order(repository):
    for name in ("06_b.ipynb", "05_a.ipynb", "draft.ipynb", "5_c.ipynb"):
        (repository / "notebooks" / name).touch()
    assert {k: v.name for k, v in files.notebooks().items()} == {"05": "05_a.ipynb", "06": "06_b.ipynb"}


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_rest(tmp_path, monkeypatch, step):
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    assert oct(path.stat().st_mode)[-3:] == "644"

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(LedgerError, match=r"cannot write .*a.json: No space left on device"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_text_is_written_as_it_stands_in_utf_8(tmp_path):
    write_atomic(tmp_path / "new" / "a.json", "± 1\r\nζ\n")
    assert (tmp_path / "new" / "a.json").read_bytes() == "± 1\r\nζ\n".encode()


def test_a_lock_is_held_by_one_and_released_at_the_end(tmp_path):
    lock = Lock(tmp_path / "a.lock", "the thing")
    with lock:
        with pytest.raises(LedgerError, match=rf"the thing is in use by process {os.getpid()}: wait"):
            Lock(tmp_path / "a.lock", "the thing").acquire()
    with Lock(tmp_path / "a.lock", "the thing"):
        pass
    lock.release()


def test_a_lock_dies_with_its_process(tmp_path):
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from hjbridge.ledger.files import Lock
        Lock(Path(sys.argv[1]), "it").acquire()
        print("held", flush=True)
        time.sleep(60)
        """
    )
    path = tmp_path / "a.lock"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(LedgerError, match=f"in use by process {holder.pid}"):
            Lock(path, "it").acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    Lock(path, "it").acquire().release()
