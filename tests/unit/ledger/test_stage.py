"""The staging folder, and a promotion that is killed at every point."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from hjbridge.ledger import LedgerError, files, stage

KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from hjbridge.ledger import files, stage

    left = [int(sys.argv[1])]

    def dying(call):
        def inner(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)
        return inner

    for name in ("fsync", "replace", "chmod", "fdopen"):
        setattr(files.os, name, dying(getattr(os, name)))
    stage.Path.unlink = dying(stage.Path.unlink)
    stage.promote({"data/results/ch05.json": "new 1", "notebooks/05_x.ipynb": "new 2"})
    """
)


def test_a_promotion_writes_all_files(repository):
    (repository / "data" / "results" / "ch05.json").write_text("old")
    written = stage.promote({"data/results/ch05.json": "new 1", "notebooks/05_x.ipynb": "new 2"})
    assert [path.read_text() for path in written] == ["new 1", "new 2"]
    assert not stage.journal(repository).exists()
    assert stage.finish_promotion() == []


def test_killed_at_any_point_files_are_whole_and_the_next_run_finishes(repository):
    targets = [repository / "data" / "results" / "ch05.json", repository / "notebooks" / "05_x.ipynb"]
    outcomes, finished = set(), False
    for moment in range(40):
        for target in targets:
            target.write_text("old")
        stage.journal(repository).unlink(missing_ok=True)
        code = subprocess.run([sys.executable, "-c", KILLED, str(moment)], check=False).returncode
        texts = [target.read_text() for target in targets]
        assert texts[0] in ("old", "new 1") and texts[1] in ("old", "new 2")
        stage.finish_promotion()
        after = [target.read_text() for target in targets]
        assert after in (["old", "old"], ["new 1", "new 2"])
        assert [p.name for t in targets for p in t.parent.glob(".*.tmp")] == [] or after == ["old", "old"]
        outcomes.add((texts[0], texts[1], after[0]))
        if code == 0:
            finished = True
            break
        assert code == -signal.SIGKILL
    assert finished and moment > 9
    # killed before the plan was written, between the two files, and when all was done
    assert {("old", "old", "old"), ("new 1", "old", "new 1"), ("new 1", "new 2", "new 1")} <= outcomes


@pytest.mark.parametrize("successes", [0, 1, 2])
def test_a_disk_that_fails_in_the_middle_is_told_and_the_next_run_finishes(repository, monkeypatch, successes):
    targets = [repository / "data" / "results" / "ch05.json", repository / "notebooks" / "05_x.ipynb"]
    for target in targets:
        target.write_text("old")
    replace, left = os.replace, [successes]

    def failing(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", failing)
        with pytest.raises(
            LedgerError, match=r"cannot write .*: No space left on device. The earlier file is untouched"
        ):
            stage.promote({"data/results/ch05.json": "new 1", "notebooks/05_x.ipynb": "new 2"})
    assert [t.read_text() for t in targets] == (["new 1", "old"] if successes == 2 else ["old", "old"])
    assert [p.name for t in targets for p in t.parent.glob(".*.tmp")] == []
    stage.finish_promotion()
    assert [t.read_text() for t in targets] == (["new 1", "new 2"] if successes else ["old", "old"])


def test_a_stage_holds_what_the_site_is_made_from(repository, tmp_path):
    for name in (
        "_toc.yml",
        "book/a.md",
        "notebooks/05_x.ipynb",
        "notebooks/.ipynb_checkpoints/y",
        "data/results/ch05.json",
    ):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(name)
    (repository / "data" / "results" / ".ch05.json.lock").touch()
    folder = tmp_path / "stage"
    stage.prepare(folder)
    (folder / "book" / "left-over").touch()
    stage.prepare(folder)
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert found == [
        ".staged-by-hjbridge", "_toc.yml", "book/a.md", "data/claims.yml", "data/results/ch05.json",
        "notebooks/05_x.ipynb",
    ]  # fmt: skip


def test_a_folder_of_someone_else_is_not_overwritten(repository, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(LedgerError, match="stage must be a new or empty folder, or one of an earlier run, got"):
        stage.prepare(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("step", ["mkdir", "touch"])
def test_a_read_only_place_is_told(repository, tmp_path, monkeypatch, step):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    with (
        monkeypatch.context() as patch
    ):  # root may write into a folder without permission, so the system's answer is given
        patch.setattr(stage.Path, step, refuse)
        with pytest.raises(LedgerError, match="cannot fill the staging folder .*stage: .*Read-only file system"):
            stage.prepare(tmp_path / "stage")


def test_a_place_that_cannot_be_written_is_told(repository):
    (repository / "file").touch()
    with pytest.raises((LedgerError, NotADirectoryError)):
        stage.prepare(repository / "file" / "stage")
    with pytest.raises(LedgerError, match="cannot write"):
        files.write_atomic(repository / "file" / "a", "text")
