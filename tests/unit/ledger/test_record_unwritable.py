"""What happens to a number where the folder of results takes no file."""

import errno
import os
import shutil

import pytest

from hjbridge.ledger import LedgerError, files, record, session, verdicts


@pytest.fixture
def wanted(repository, monkeypatch):
    """A folder of results that somebody asked for, as the runner does."""
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(repository / "_build" / "results"))


def test_a_full_disk_leaves_the_old_file(wanted, repository, begin, monkeypatch):
    begin()
    record("ch05.a", 1)
    path = repository / "_build" / "results" / "ch05.json"
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(LedgerError, match=r"cannot write .*ch05.json: No space left on device. What was there is"):
        record("ch05.b", 2)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir() if p.name.endswith(".tmp")] == []


def test_a_number_that_could_not_be_written_can_be_recorded_again(wanted, begin, monkeypatch):
    begin()
    with monkeypatch.context() as patch:
        patch.setattr(
            files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system"))
        )
        with pytest.raises(LedgerError, match="Read-only file system"):
            record("ch05.a", 1)
    record("ch05.a", 1)
    assert session.current().results["ch05.a"].value == 1


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_takes_no_file_is_told(wanted, repository, begin, monkeypatch, code):
    """The system refuses every new file, as it does to others than root in a read-only folder, or on a full disk."""
    begin()
    record("ch05.a", 1)
    opened, folder, text = os.open, str(files.writing()), os.strerror(code)

    def refuse(path, flags, *args, **options):
        if flags & os.O_CREAT and str(path).startswith(folder):
            raise OSError(code, text, str(path))
        return opened(path, flags, *args, **options)

    def held():
        return {path: path.read_bytes() for path in files.writing().rglob("*") if path.is_file()}

    before = held()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(LedgerError, match=text):
            record("ch05.b", 2)
        session.close_session()
        with pytest.raises(LedgerError, match=f"cannot write .*: {text}"):
            begin()
    assert held() == before


@pytest.mark.parametrize("late", [False, True])
def test_a_notebook_run_alone_goes_on_where_nothing_can_be_written(repository, begin, capsys, late):
    """Nobody asked for a folder: the scratch folder is a file, or becomes one on the way. The numbers are shown."""
    scratch = repository / "_build" / "results"
    if late:
        begin()
        record("ch05.early", 1)
        shutil.rmtree(scratch)
    scratch.parent.mkdir(exist_ok=True)
    scratch.write_text("a file where the folder should be")
    if not late:
        begin()
    for name in "ab":
        record(f"ch05.{name}", 2.5)
    assert verdicts.in_run("ch05.b").value == 2.5
    told = capsys.readouterr().out
    assert "ch05.a = 2.500\nch05.b = 2.500\n" in told
    assert told.count("the numbers of this run are shown and not kept: cannot write") == 1


def test_a_notebook_run_far_from_a_clone_goes_on(begin, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(files.store, "repository", lambda: None)
    begin()
    record("ch05.a", 1)
    told = capsys.readouterr().out
    assert "ch05.a = 1\n" in told and "not kept: " in told and "not in a copy of the repository" in told


def test_a_results_folder_that_is_a_file_is_told(repository, begin, monkeypatch):
    blocked = repository / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(blocked))
    with pytest.raises(LedgerError, match="cannot write"):
        begin()
