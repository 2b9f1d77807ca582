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
    targets = interrupted(repository, monkeypatch, replaced=successes - 1)
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
        with pytest.raises(LedgerError, match="cannot fill the staging folder .*stage .*Read-only file system"):
            stage.prepare(tmp_path / "stage")


def test_a_place_that_cannot_be_written_is_told(repository):
    (repository / "file").touch()
    with pytest.raises((LedgerError, NotADirectoryError)):
        stage.prepare(repository / "file" / "stage")
    with pytest.raises(LedgerError, match="cannot write"):
        files.write_atomic(repository / "file" / "a", "text")


def interrupted(repository, monkeypatch, replaced=1):
    """A promotion of two files that fails after `replaced` of them (-1: before the journal); the paths of both."""
    targets = [repository / "data" / "results" / "ch05.json", repository / "notebooks" / "05_x.ipynb"]
    for target in targets:
        target.write_text("old")
    replace, left = os.replace, [1 + replaced]  # the journal is the first

    def failing(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(LedgerError, match=r"cannot write .*: No space left on device. What was there is untouched"):
            stage.promote({"data/results/ch05.json": "new 1", "notebooks/05_x.ipynb": "new 2"})
    return targets


@pytest.mark.parametrize(("replaced", "edited"), [(1, 1), (1, 0), (0, 1)])
def test_an_edit_after_an_interrupted_promotion_is_kept(repository, monkeypatch, replaced, edited):
    targets = interrupted(repository, monkeypatch, replaced)
    targets[edited].write_text("an author's edit")
    before = [target.read_text() for target in targets]
    plan = stage.journal(repository)
    told = f"{targets[edited]} was changed after its recording .*{plan} tells.*Nothing was written.*delete {plan}, then"
    for _ in range(2):
        with pytest.raises(LedgerError, match=told):
            stage.finish_promotion()
        assert [target.read_text() for target in targets] == before and plan.exists()
    plan.unlink()
    assert stage.finish_promotion() == [] and [target.read_text() for target in targets] == before


def test_a_file_that_was_taken_away_or_finished_by_hand_is_no_edit_of_anothers(repository, monkeypatch):
    targets = interrupted(repository, monkeypatch, 0)
    targets[1].write_text("new 2")
    assert stage.finish_promotion() == targets and [target.read_text() for target in targets] == ["new 1", "new 2"]
    targets = interrupted(repository, monkeypatch, 0)
    targets[1].unlink()
    with pytest.raises(LedgerError, match=rf"{targets[1]} was changed after"):
        stage.finish_promotion()
    assert targets[0].read_text() == "old" and not targets[1].exists()


@pytest.mark.parametrize("words", ["{", "[]", '{"notebooks/05_x.ipynb": "new"}', '{"notebooks/05_x.ipynb": {}}'])
def test_a_damaged_journal_is_told_and_nothing_is_written(repository, words):
    target, plan = repository / "notebooks" / "05_x.ipynb", stage.journal(repository)
    target.write_text("old")
    plan.parent.mkdir()
    plan.write_text(words)
    with pytest.raises(LedgerError, match=rf"{plan}, left by an interrupted recording, cannot be read .*delete {plan}"):
        stage.finish_promotion()
    assert target.read_text() == "old"


def test_temporary_files_of_other_writers_stay(repository):
    running = repository / "data" / "results" / ".ch06.json.abc.tmp"
    running.write_text("half")
    stage.promote({"data/results/ch05.json": "new"})
    assert running.exists()
