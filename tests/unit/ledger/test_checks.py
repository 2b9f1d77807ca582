"""Stale records are found by name, with the command that mends them."""

import json
import shutil
import struct

import pytest

from hjbridge import store
from hjbridge.ledger import LedgerError, checks, record
from hjbridge.ledger.freshness import module_hashes, notebook_hash

MODULES = ["hjbridge.ledger.files", "hjbridge.ledger.rules"]


def cell(source):
    return {"cell_type": "code", "source": source, "metadata": {}}


@pytest.fixture
def fresh(repository):
    """A repository with one chapter and its fresh record."""
    cells = [cell("a = 1"), cell("print(a)")]
    (repository / "notebooks" / "05_x.ipynb").write_text(json.dumps({"nbformat": 4, "cells": cells}))
    run = {
        "profile": "book",
        "seed": 0,
        "hashes": {"notebook": notebook_hash(cells), "modules": module_hashes(MODULES)},
    }
    results = [{"id": "ch05.a", "value": 1.0, "reference": 1.1, "tolerance": 0.2}]
    write(repository, {"schema": 1, "chapter": "05", "run": run, "results": results})
    return repository


def write(root, tree, name="ch05.json"):
    path = root / "data" / "results" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(tree))


def read(root, name="ch05.json"):
    return json.loads((root / "data" / "results" / name).read_text())


def test_a_fresh_record_has_no_findings(fresh):
    assert checks.check_all() == []
    checks.demand(checks.check_all())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t["run"].update(profile="smoke"), "was recorded with profile smoke, not book"),
        (lambda t: t["run"]["hashes"].update(notebook=None), "the code of its notebook has changed"),
        (lambda t: t["run"]["hashes"].pop("notebook"), "the code of its notebook has changed"),
        (
            lambda t: t["run"]["hashes"]["modules"].update({MODULES[1]: "0"}),
            f"changed since it was recorded: {MODULES[1]}",
        ),
        (lambda t: t["run"]["hashes"]["modules"].update({"hjbridge.old": "0"}), "hjbridge.old (gone)"),
    ],
)
def test_a_stale_record_is_named_with_its_command(fresh, change, problem):
    tree = read(fresh)
    change(tree)
    write(fresh, tree)
    (finding,) = checks.check_all()
    assert finding.level == "error" and problem in finding.problem
    assert str(finding).startswith("chapter 05: ") and str(finding).endswith("mend it with `make record CH=05`")
    with pytest.raises(LedgerError, match=r"chapter 05: .*`make record CH=05`"):
        checks.demand([finding])


def test_editing_the_notebooks_code_makes_it_stale_and_its_prose_does_not(fresh):
    path = fresh / "notebooks" / "05_x.ipynb"
    book = json.loads(path.read_text())
    book["cells"].append({"cell_type": "markdown", "source": "words", "metadata": {}})
    path.write_text(json.dumps(book))
    assert checks.check_all() == []
    book["cells"][0]["source"] = "a = 2"
    path.write_text(json.dumps(book))
    assert [f.problem for f in checks.check_all()] == ["the code of its notebook has changed"]


def test_a_chapter_without_record_and_a_record_without_chapter(fresh):
    shutil.move(fresh / "notebooks" / "05_x.ipynb", fresh / "notebooks" / "06_x.ipynb")
    missing, orphan = checks.check_chapters()
    assert str(missing) == "chapter 06: has no record; mend it with `make record CH=06`"
    assert str(orphan) == "ch05.json: belongs to no notebook; mend it with `git rm data/results/ch05.json`"


def test_a_number_away_from_its_reference_is_an_error(fresh):
    tree = read(fresh)
    tree["results"][0]["value"] = 1.31
    write(fresh, tree)
    (finding,) = checks.check_all()
    assert str(finding) == "ch05.a: is 1.31, expected 1.1 ± 0.2; mend it with `make record CH=05`"


def test_a_damaged_record_is_named(fresh):
    (fresh / "data" / "results" / "ch05.json").write_text("{")
    with pytest.raises(LedgerError, match=r"ch05.json is damaged"):
        checks.check_all()


def test_results_of_profile_full_follow_their_own_modules_and_only_warn(fresh, begin, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(fresh / "data" / "results"))
    begin("full", modules=(MODULES[0],))
    record("ch05.a", 1.0)
    begin("full", modules=(MODULES[1],))
    record("ch05.b", 1.0)
    assert checks.check_all() == []
    tree = read(fresh, "full/ch05.json")
    tree["results"][1]["run"]["hashes"]["modules"][MODULES[1]] = "0"
    write(fresh, tree, "full/ch05.json")
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
    monkeypatch.setenv("HJBRIDGE_DATA", str(fresh / "data"))
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(fresh / "data" / "results"))
    store.note_checkpoint(path)
    return path


@pytest.mark.parametrize("profile", ["book", "full"])
def test_a_record_of_other_weights_is_stale_by_name(fresh, begin, weights, profile):
    begin(profile, modules=(MODULES[0],))
    record("ch05.a", 1.0)
    if profile == "book":
        tree = read(fresh)
        tree["run"]["hashes"]["notebook"] = notebook_hash([cell("a = 1"), cell("print(a)")])
        write(fresh, tree)
    assert checks.check_all() == []
    whole = weights.read_bytes()
    weights.write_bytes(whole.replace(b"weights", bytes(7)))  # zeros below a header that stays valid
    (finding,) = checks.check_all()
    subject = {"book": ("error", "chapter 05"), "full": ("warning", "ch05.a@full")}[profile]
    assert (finding.level, finding.subject) == subject
    assert finding.problem == "changed since it was recorded: checkpoint mnist"
    assert checks.is_stale("ch05.a@full") == (profile == "full")
    weights.unlink()
    assert checks.check_all()[0].problem == "changed since it was recorded: checkpoint mnist (gone)"
    weights.write_bytes(whole)
    assert checks.check_all() == []


def test_a_record_without_notes_of_its_checkpoints_is_not_held_against_them(fresh, weights):
    weights.write_bytes(weights.read_bytes().replace(b"weights", bytes(7)))
    assert "checkpoints" not in read(fresh)["run"]["hashes"] and checks.check_all() == []


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


@pytest.mark.parametrize(
    ("entry", "again", "repeats"),
    [
        ({"value": 1.0}, 1.0009, True),
        ({"value": 1.0}, 1.0011, False),
        ({"value": -2.0, "stderr": 0.1}, -2.29, True),
        ({"value": -2.0, "stderr": 0.1}, -2.31, False),
        ({"value": 1e-15, "tolerance": 1e-10}, 9e-15, True),
        ({"value": 1e-15}, 9e-15, False),
        ({"value": 0.0}, 0.0, True),
    ],
)
def test_a_number_must_be_repeated_by_a_later_run(fresh, tmp_path, entry, again, repeats):
    tree = read(fresh)
    write(fresh, tree | {"results": [{"id": "ch05.a"} | entry]})
    assert checks.check_repeated(tmp_path)[0].problem.startswith("has not been run again")
    (tmp_path / "ch05.json").write_text(json.dumps(tree | {"results": [{"id": "ch05.a", "value": again}]}))
    found = checks.check_repeated(tmp_path)
    assert [finding.subject for finding in found] == ([] if repeats else ["ch05.a"])
    (tmp_path / "ch05.json").write_text(json.dumps(tree | {"results": []}))
    assert checks.check_repeated(tmp_path)[0].problem.startswith("was not recorded")
