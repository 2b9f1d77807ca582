"""A small chapter in a real kernel: into the stage, into the record, and what keeps the record as it was."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from hjbridge.ledger import LedgerError, Profile, checks, files, record, review, runner, seals, session, stage
from hjbridge.ledger.freshness import notebook_hash
from hjbridge.ledger.kernels import EXECUTING
from hjbridge.ledger.notebook import output_digests
from hjbridge.ledger.progress import Progress

# opens the record as `setup` does, but without torch
OPEN = """from hjbridge.ledger import Profile, record, session
_ = session.open_session(Profile(profile), seed, 5, ("hjbridge.ledger.files",))"""
RECORD = 'record("ch05.a", 7 + seed, protocol=profile)'
RULE = {"if": "abs(ch05.a - 7) < 1", "verdict": "reproduced", "because": "It is seven."}
OWN_SOCKETS = """from ipykernel.connect import get_connection_info
assert get_connection_info(unpack=True)["transport"] == "ipc", "a port may be taken by another kernel"
None"""
COMMAND = [sys.executable, "-c", "from hjbridge.cli import main; main()", "run", "--record", "--chapter", "05"]


@pytest.fixture
def chapter(repository):
    """Write the chapter: chapter(cell, ..., parameters=text) -> path of its notebook."""

    def write(*cells, parameters='profile = "book"\nseed = 0'):
        book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
        for k, source in enumerate([parameters, OPEN, *cells]):
            tags = {"tags": ["parameters"]} if k == 0 else {}
            book["cells"].append(
                {"cell_type": "code", "id": f"c{k}", "metadata": tags, "source": source, "execution_count": None,
                 "outputs": []}
            )  # fmt: skip
        path = repository / "notebooks" / "05_small.ipynb"
        path.write_text(json.dumps(book))
        return path

    return write


@pytest.fixture(autouse=True)
def claims(repository, form):
    """One claim, about the number of the chapter."""
    form.claims(repository, {"id": "C31", "rules": [RULE]})


def stored(folder):
    """The chapter's record without what may differ from run to run."""
    record = json.loads((folder / "data" / "results" / "ch05.json").read_text())
    for name in ("seconds", "versions", "cpu"):
        del record["run"][name]
    return record


def sealed(root):
    """Names in the list of seals, and the verdicts."""
    return list(seals.sealed(root)), {id: entry.verdict for id, entry in review.sealed(root).items()}


def tree(root):
    """Content of every file of a repository but its build folder."""
    places = (path for path in root.rglob("*") if path.is_file() and "_build" not in path.relative_to(root).parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in places if not path.name.endswith(".lock")}


def test_a_run_fills_the_stage_and_a_recording_the_record(repository, chapter):
    path = chapter(RECORD, OWN_SOCKETS)
    before = tree(repository)
    folder = runner.run([5], profile="smoke", seed=3)
    assert folder == repository / "_build" / "stage" and tree(repository) == before
    assert stored(folder)["results"][0]["value"] == 10 and stored(folder)["results"][0]["protocol"] == "smoke"

    runner.run(["05"], record=True)
    record = stored(repository)
    assert (record["run"]["profile"], record["run"]["seed"], record["results"][0]["value"]) == ("book", 0, 7)
    assert set(tree(repository)) == {*before, "data/results/ch05.json", ".ci/seals"}
    cells = json.loads(path.read_text())["cells"]
    assert "injected-parameters" not in path.read_text(), "what papermill adds is not committed"
    assert "".join(cells[2]["outputs"][0]["text"]) == "ch05.a = 7\n"
    assert record["run"]["hashes"]["notebook"] == notebook_hash(cells)
    assert record["digests"]["cells"] == output_digests(cells) != {}
    assert checks.check_all(repository) == []


def test_the_time_of_a_chapter_is_told(repository, chapter):
    class Told(Progress):
        def finish(self, chapter, seconds, good):
            told.append((chapter, seconds, good))

    told, start = [], time.perf_counter()
    chapter(RECORD)
    runner.run(["05"], profile="smoke", progress=Told())
    ((name, seconds, good),) = told
    assert (name, good) == ("05", True) and 0 < seconds < time.perf_counter() - start


def test_a_failing_cell_is_shown_and_the_record_stays(repository, chapter):
    chapter(RECORD, "ratio = 1 / (seed - seed)")
    before = tree(repository)
    with pytest.raises(LedgerError) as error:
        runner.run(["05"], record=True)
    told = str(error.value)
    assert "chapter 05 failed in 05_small.ipynb, cell" in told and "ratio = 1 / (seed - seed)" in told
    assert "ZeroDivisionError" in told and "The record is unchanged" in told
    assert tree(repository) == before


def test_a_kernel_that_dies_and_a_chapter_that_records_nothing_are_told(repository, chapter):
    chapter("import os; os._exit(3)")
    with pytest.raises(LedgerError, match=r"chapter 05 failed in 05_small.ipynb, .*[Kk]ernel died"):
        runner.run(["05"])
    chapter("1 + 1")
    with pytest.raises(LedgerError, match="it recorded nothing: every chapter calls setup"):
        runner.run(["05"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ('profil = "book"\nseed = 0', "05_small.ipynb has no parameter profile; it has profil, seed"),
        ('profile = "book"\nsead = 0', "05_small.ipynb has no parameter seed; it has profile, sead"),
        ('profile = "book"\nseed = int(0)', "may hold `name = literal` lines only"),
    ],
)
def test_a_misspelt_parameter_is_told_before_anything_runs(repository, chapter, parameters, message):
    chapter(RECORD, parameters=parameters)
    before = tree(repository)
    with pytest.raises(LedgerError, match=message):
        runner.run(["05"], record=True)
    assert tree(repository) == before and not (repository / "_build").exists()


def test_of_two_recordings_at_once_the_second_is_refused(repository, chapter):
    chapter(
        RECORD, f"import pathlib, time\nwhile not pathlib.Path({str(repository / 'go')!r}).exists(): time.sleep(0.02)"
    )
    started = repository / "_build" / "record-05" / EXECUTING
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        while not started.exists():
            assert first.poll() is None
            time.sleep(0.02)
        second = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
        elsewhere = subprocess.run(
            [*COMMAND, "--stage", str(repository / "_build" / "other")], capture_output=True, text=True, check=False
        )
        (repository / "go").touch()
        _, errors = first.communicate(timeout=120)
    assert (second.returncode, elsewhere.returncode, first.returncode) == (1, 1, 0), errors
    assert f"record-05 is in use by process {first.pid}: wait until it ends, then run again" in second.stderr
    assert f"the record of chapter 05 is in use by process {first.pid}: wait until it ends" in elsewhere.stderr
    assert stored(repository)["results"][0]["value"] == 7


def test_killed_at_ten_random_moments_the_old_record_stays_and_the_next_run_completes(repository, chapter):
    chapter(RECORD)
    start = time.perf_counter()
    runner.run(["05"], record=True)
    whole, expected = time.perf_counter() - start, stored(repository)
    old = {"notebook": chapter(RECORD).read_bytes(), "record": b'{"schema": 1, "run": {}, "results": []}\n'}
    shutil.rmtree(repository / ".ci")  # a record of old, without seals: the first recording replaces it
    target = repository / "data" / "results" / "ch05.json"
    moments = random.Random(0)
    for _ in range(10):
        path = chapter(RECORD)
        target.write_bytes(old["record"])
        with subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            try:
                run.wait(moments.uniform(0, whole))
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
        unfinished = files.root() / "_build" / "promotion.json"
        if not unfinished.exists():  # then all files are old, or all are new
            fresh = target.read_bytes() != old["record"]
            assert fresh == (path.read_bytes() != old["notebook"])
            assert not fresh or stored(repository) == expected
    chapter(RECORD)
    runner.run(["05"], record=True)
    assert stored(repository) == expected


def test_a_recording_finishes_an_interrupted_one_first_and_does_not_take_it_for_an_edit(repository, chapter):
    path = chapter(RECORD)
    runner.run(["05"], record=True)
    executed, target = path.read_text(), repository / "data" / "results" / "ch05.json"
    chapter(RECORD)  # without outputs: the notebook as it was when the promotion began
    steps = {"notebooks/05_small.ipynb": {"text": executed, "replaces": stage.content_hash(path)}}
    stage.journal(repository).write_text(json.dumps(steps))
    target.unlink()
    runner.run(["05"], record=True)
    assert stored(repository)["results"][0]["value"] == 7 and path.read_text() == executed
    assert not stage.journal(repository).exists()


def test_a_recording_stops_before_it_runs_where_an_edit_would_be_lost(repository, chapter):
    path = chapter(RECORD)
    steps = {"notebooks/05_small.ipynb": {"text": "executed", "replaces": "0" * 64}}
    stage.journal(repository).parent.mkdir()
    stage.journal(repository).write_text(json.dumps(steps))
    before = tree(repository)
    with pytest.raises(LedgerError, match=f"{path} was changed after its recording was interrupted"):
        runner.run(["05"], record=True)
    assert tree(repository) == before and not (repository / "_build" / "record-05" / "notebooks").exists()


SIZED = 'record("ch05.b", run.pick(smoke=1, book=2, full=3 + seed))'


def test_numbers_of_full_are_recorded_by_chapters_that_have_such_sizes(repository, chapter, form):
    form.claims(repository, {"id": "C31", "rules": [RULE]}, {"id": "C32", "rules": [RULE | {"if": "ch05.b@full > 2"}]})
    chapter(RECORD, SIZED.replace("run", "Profile(profile)"))
    with pytest.raises(LedgerError, match=r"05_small.ipynb has no sizes for profile paper: give `paper=` in a call"):
        runner.run(["05"], profile="paper")
    runner.run(["05"], record=True)
    names, verdicts = sealed(repository)
    assert names == ["data/results/ch05.json"] and verdicts == {"C31": "reproduced", "C32": "open"}
    runner.run(["05"], profile="full", record=True)
    names, verdicts = sealed(repository)
    assert names == ["data/results/ch05.json", "data/results/full/ch05.json"]
    assert verdicts == {"C31": "reproduced", "C32": "reproduced"} and checks.check_all() == []
    form.edit(repository / names[1], lambda tree: tree["results"][0].update(value=4))
    with pytest.raises(LedgerError, match=r"full/ch05.json is not the file that was sealed; restore it with `git"):
        runner.run(["05"], profile="full", record=True)


@pytest.mark.parametrize("record", [True, False])
def test_a_chapter_without_sizes_for_a_profile_refuses_it_before_it_runs(repository, chapter, form, record):
    chapter(RECORD)
    entry = form.entry("ch05.a", extra={"command": "hjbridge evaluate digits"})
    form.write(repository, entry, run_=form.run("full"))
    before = tree(repository)
    told = (
        "05_small.ipynb has no sizes for profile full: give `full=` in a call of `pick`, or run book; its full numbers "
        "come from `hjbridge evaluate digits`"
    )
    with pytest.raises(LedgerError) as error:
        runner.run(["05"], profile="full", record=record)
    assert str(error.value) == told and tree(repository) == before and not (repository / "_build").exists()


def test_a_recording_checks_all_sealed_files_but_its_own_before_it_runs(repository, chapter):
    chapter(RECORD)
    runner.run(["05"], record=True)
    own, other = repository / "data" / "results" / "ch05.json", repository / "data" / "results" / "ch06.json"
    other.write_text("{}")
    seals.renew(other)
    own.write_text(own.read_text().replace('"value": 7', '"value": 8'))
    runner.run(["05"], record=True)
    assert checks.check_chapters()[0].subject == "ch06.json" and "ch05" not in str(checks.check_all())
    other.write_text("[]")
    before = tree(repository)
    with pytest.raises(LedgerError, match=r"ch06.json is not the file that was sealed; restore it with `git checkout"):
        runner.run(["05"], record=True)
    assert tree(repository) == before


def test_numbers_made_outside_of_a_notebook_are_sealed_also_where_it_stops_half_way(repository, monkeypatch, form):
    def opened(seed, profile, chapter, modules):
        session.open_session(Profile(profile), seed, chapter, modules)

    monkeypatch.setattr(runner, "setup", opened)
    form.claims(repository, {"id": "C31", "ours": "It is.", "rules": [RULE | {"if": "ch05.a@full > 2"}]})
    with runner.full_record(5, ()):
        record("ch05.a", 3.0, command="hjbridge evaluate digits")
    name = "data/results/full/ch05.json"
    assert sealed(repository) == ([name], {"C31": "reproduced"})
    with pytest.raises(KeyboardInterrupt), runner.full_record("05", ()):
        record("ch05.b", 4.0)
        raise KeyboardInterrupt
    assert seals.broken(repository) == {} and "HJBRIDGE_RESULTS" not in os.environ
    (repository / name).write_text((repository / name).read_text().replace("3.0", "5.0"))
    with pytest.raises(LedgerError, match=rf"{name} is not the file that was sealed"), runner.full_record(5, ()):
        pass
