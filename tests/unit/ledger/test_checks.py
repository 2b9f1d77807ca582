"""Stale records are found by name, with the command that mends them."""

import json
import shutil
import struct
import subprocess
import sys

import pytest

from hjbridge import store
from hjbridge.ledger import LedgerError, checks, record, seals
from hjbridge.ledger.freshness import module_hashes, notebook_hash

MODULES = ["hjbridge.ledger.files", "hjbridge.ledger.rules"]


def cell(source):
    return {"cell_type": "code", "id": "cell-01", "source": source, "metadata": {}}


CELLS = [cell("a = 1"), cell("print(a)")]


@pytest.fixture
def fresh(repository, form):
    """A repository with one chapter and its fresh record."""
    (repository / "notebooks" / "05_x.ipynb").write_text(json.dumps({"nbformat": 4, "cells": CELLS}))
    run = form.run(notebook=notebook_hash(CELLS), modules=module_hashes(MODULES))
    seals.renew(form.write(repository, form.entry("ch05.a", 1.0, reference=1.1, tolerance=0.2), run_=run))
    form.claims(repository, {"id": "C31"})
    return repository


@pytest.fixture
def again(fresh, form):
    """Write the record anew as its tool would: again(change of the run, **change of the number)."""

    def write(change=lambda run: None, **given):
        run = form.run(notebook=notebook_hash(CELLS), modules=module_hashes(MODULES))
        change(run)
        seals.renew(form.write(fresh, form.entry("ch05.a", **({"value": 1.0} | given)), run_=run))

    return write


def test_a_fresh_record_has_no_findings(fresh):
    assert checks.check_all() == []
    checks.demand(checks.check_all())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r.update(profile="smoke"), "was recorded with profile smoke, not book"),
        (lambda r: r["hashes"].update(notebook=None), "the code of its notebook has changed"),
        (lambda r: r["hashes"]["modules"].update({MODULES[1]: "0"}), f"changed since it was recorded: {MODULES[1]}"),
        (lambda r: r["hashes"]["modules"].update({"hjbridge.old": "0"}), "hjbridge.old (gone)"),
    ],
)
def test_a_stale_record_is_named_with_its_command(again, change, problem):
    again(change)
    (finding,) = checks.check_all()
    assert finding.level == "error" and problem in finding.problem
    assert str(finding).startswith("chapter 05: ") and str(finding).endswith("mend it with `make record CH=05`")
    with pytest.raises(LedgerError, match=r"chapter 05: .*`make record CH=05`"):
        checks.demand([finding])


def test_editing_the_notebooks_code_makes_it_stale_and_its_prose_does_not(fresh):
    path = fresh / "notebooks" / "05_x.ipynb"
    book = json.loads(path.read_text())
    book["cells"].insert(0, {"cell_type": "markdown", "source": "words", "metadata": {}})
    path.write_text(json.dumps(book))
    assert checks.check_all() == []
    book["cells"][1]["source"] = "a = 2"
    book["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "the same cause"}]
    path.write_text(json.dumps(book))
    assert [f.problem for f in checks.check_all()] == ["the code of its notebook has changed"]


def test_a_chapter_without_record_and_a_record_without_chapter(fresh):
    shutil.move(fresh / "notebooks" / "05_x.ipynb", fresh / "notebooks" / "06_x.ipynb")
    missing, orphan = checks.check_all()
    assert str(missing) == "chapter 06: has no record; mend it with `make record CH=06`"
    assert str(orphan) == (
        "ch05.json: has lost its notebook; mend it with `git checkout -- notebooks`, or take it off the record with "
        "`rm data/results/ch05.json`"
    )


def test_a_number_away_from_its_reference_is_an_error(again):
    again(value=1.31, reference=1.1, tolerance=0.2)
    (finding,) = checks.check_all()
    assert str(finding) == "ch05.a: is 1.31, expected 1.1 ± 0.2; mend it with `make record CH=05`"


def test_a_damaged_record_and_a_damaged_notebook_are_named_and_the_rest_is_checked(fresh):
    (fresh / "data" / "results" / "ch05.json").write_text("{")
    (fresh / "notebooks" / "06_x.ipynb").write_text("{")
    record, notebook = checks.check_all()
    assert record.subject == "data/results/ch05.json" and "line 1: Expecting property name" in record.problem
    assert record.mend == "git checkout -- data/results/ch05.json"
    assert notebook.subject == "chapter 06" and notebook.mend == "git checkout -- notebooks/06_x.ipynb"


def test_results_of_profile_full_follow_their_own_modules_and_only_warn(fresh, form):
    stale = {MODULES[1]: "0"}
    one = form.entry("ch05.a") | {"run": form.run("full", modules=module_hashes(MODULES))}
    two = form.entry("ch05.b") | {"run": form.run("full", modules=stale)}
    path = form.write(fresh, run_=form.run("full"))
    path.write_text(checks.schema.dump("05", {"profile": "full"}, {"ch05.a": one, "ch05.b": two}, {}))
    seals.renew(path)
    (finding,) = checks.check_all()
    assert (finding.level, finding.subject) == ("warning", "ch05.b@full")
    assert finding.mend == "hjbridge run --chapter 05 --profile full --record"
    assert checks.is_stale("ch05.b@full") and not checks.is_stale("ch05.a@full")
    checks.demand([finding])


@pytest.fixture
def weights(fresh, monkeypatch):
    """The file of a checkpoint, which the process has loaded."""
    path = fresh / "data" / "checkpoints" / "mnist.safetensors"
    path.parent.mkdir()
    header = json.dumps({"__metadata__": {"hjbridge": json.dumps({"modules": module_hashes(MODULES)})}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"weights")
    monkeypatch.setattr(store, "loaded", {})
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(fresh / "data" / "results"))
    store.note_checkpoint(path)
    return path


@pytest.mark.parametrize("profile", ["book", "full"])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_record_of_other_weights_is_stale_by_name(fresh, begin, form, weights, profile, sealed):
    begin(profile, modules=(MODULES[0],))
    record("ch05.a", 1.0)
    path = fresh / "data" / "results" / ("full" if profile == "full" else "") / "ch05.json"
    if profile == "book":
        form.edit(path, lambda tree: tree["run"]["hashes"].update(notebook=notebook_hash(CELLS)))
    seals.renew(path)
    if sealed:
        seals.renew(weights)

    def found():
        return [finding for finding in checks.check_all() if finding.problem != "is not sealed"]

    assert found() == []
    whole = weights.read_bytes()
    weights.write_bytes(whole.replace(b"weights", bytes(7)))  # zeros below a header that stays valid
    if sealed:  # one cause, one finding; weights that were trained anew are sealed by the training
        (finding,) = found()
        assert (finding.subject, finding.problem) == ("checkpoint mnist", "is not the file that was sealed")
        assert finding.mend == "git checkout -- data/checkpoints/mnist.safetensors"
        assert finding.otherwise == "hjbridge seal data/checkpoints/mnist.safetensors"
        seals.renew(weights)
    (finding,) = found()
    subject = {"book": ("error", "chapter 05"), "full": ("warning", "ch05.a@full")}[profile]
    assert (finding.level, finding.subject) == subject
    assert finding.problem == "changed since it was recorded: checkpoint mnist"
    assert checks.is_stale("ch05.a@full") == (profile == "full")
    weights.unlink()
    if sealed:
        seals.renew(weights)
    assert found()[0].problem == "changed since it was recorded: checkpoint mnist (gone)"
    weights.write_bytes(whole)
    if sealed:
        seals.renew(weights)
    assert found() == []


def test_a_record_without_checkpoints_is_not_held_against_them(fresh, weights):
    weights.write_bytes(weights.read_bytes().replace(b"weights", bytes(7)))
    seals.renew(weights)
    assert checks.check_all() == []


def test_a_number_of_profile_full_away_from_its_reference_names_its_own_command(fresh, begin, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(fresh / "data" / "results"))
    begin("full", modules=())
    record("ch05.a", 2.0, reference=1.0, tolerance=0.1, command="hjbridge evaluate digits")
    (finding,) = checks.check_references()
    assert (finding.subject, finding.mend) == ("ch05.a@full", "hjbridge evaluate digits")


def test_stale_checkpoints_warn_and_damaged_ones_fail(fresh):
    import numpy as np
    import safetensors.numpy as safetensors

    folder = fresh / "data" / "checkpoints"
    folder.mkdir()
    for name, modules in (("good", module_hashes(MODULES)), ("old", {MODULES[0]: "0"})):
        metadata = {"hjbridge": json.dumps({"modules": modules})}
        safetensors.save_file({"w": np.ones(2)}, folder / f"{name}.safetensors", metadata=metadata)
    (folder / "broken.safetensors").write_bytes(b"\x80\x04")
    broken, old = checks.check_checkpoints()
    assert (broken.level, old.level) == ("error", "warning")
    assert str(broken).endswith("`git checkout -- data/checkpoints/broken.safetensors`")
    assert str(old) == f"checkpoint old: changed since it was made: {MODULES[0]}; mend it with `make train NAME=old`"


def test_a_folder_without_seals_can_be_checked_as_the_pages_do(fresh):
    """A staging folder holds no `.ci`: its numbers are new, and held by their digests alone."""
    shutil.rmtree(fresh / ".ci")
    assert checks.check_chapters() == checks.check_full() == checks.check_checkpoints() == []
    lists = [(finding.subject, finding.mend) for finding in checks.check_all()]
    assert lists == [(name, f"git checkout -- {name}") for name in (".ci/verdicts", ".ci/seals")]


def test_checking_the_repository_is_quick_and_loads_no_science():
    program = """import resource, sys
from hjbridge.ledger import checks
checks.check_all()
assert not {"torch", "numpy", "papermill", "nbformat"} & set(sys.modules)
print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.0  # CPU seconds; about 0.3 of them
