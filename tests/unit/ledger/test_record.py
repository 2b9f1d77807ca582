"""What may be recorded, how it is stored, and what happens when it cannot be written."""

import json
import os
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import torch

from hjbridge import store
from hjbridge.ledger import LedgerError, record, record_all, result, results, session


def opened(id):
    """The entry as the open session holds it."""
    return session.current().results[id]


def stored(repository, name="ch05.json"):
    return json.loads((repository / "_build" / "results" / name).read_text())


def test_a_record_holds_the_run_and_its_results_sorted(repository, begin):
    begin()
    record("ch05.z", 2.5, stderr=0.1, n=100, seeds=[0, 1, 2], unit="nats", protocol="p", reference=2.4, tolerance=0.2)
    record("ch05.a", 7, claims="C31", note={"steps": 3})
    found = stored(repository)
    assert list(found) == ["schema", "chapter", "run", "digests", "results"]
    assert (found["schema"], found["chapter"]) == (2, "05")
    assert list(found["digests"]["results"]) == ["ch05.a", "ch05.z"] and found["digests"]["cells"] == {}
    assert [entry["id"] for entry in found["results"]] == ["ch05.a", "ch05.z"]
    assert found["results"][1] == {
        "id": "ch05.z", "value": 2.5, "stderr": 0.1, "n": 100, "seeds": [0, 1, 2], "unit": "nats", "protocol": "p",
        "reference": 2.4, "tolerance": 0.2, "claims": [],
    }  # fmt: skip
    assert found["results"][0]["extra"] == {"note": {"steps": 3}}
    assert set(found["run"]) == {"profile", "seed", "versions", "cpu", "seconds", "hashes"}
    assert found["run"]["profile"] == "book" and found["run"]["seed"] == 0
    assert "hjbridge.ledger.session" in found["run"]["hashes"]["modules"]
    text = (repository / "_build" / "results" / "ch05.json").read_text()
    assert text.startswith('{\n  "schema": 2') and text.endswith("}\n")


def test_a_reader_does_not_overwrite_the_committed_record(repository, begin):
    old = repository / "data" / "results" / "ch05.json"
    old.write_text("committed")
    begin()
    record("ch05.a", 1)
    assert old.read_text() == "committed"


def test_what_is_read_is_what_was_recorded(begin, monkeypatch, tmp_path):
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(tmp_path / "stage"))
    begin()
    record("ch05.a", 1.25, stderr=0.5, seeds=[1, 2, 3], claims=["C30", "R6"], digits=2, extra_word="x")
    assert result("ch05.a").entry() == opened("ch05.a").entry()
    assert result("ch05.a").profile == "book"
    assert result("ch05.a").extra == {"extra_word": "x"}


def test_what_is_recorded_is_printed_as_it_will_be_read(begin, capsys):
    begin()
    record("ch05.a", 1.25, stderr=0.5, seeds=3, unit="nats")
    record_all("ch05", {"b": {"c": 7}, "d": 1e-9}, digits=2)
    assert capsys.readouterr().out.splitlines() == [
        "ch05.a = 1.2 ± 0.5 nats", "ch05.b_c = 7.0", f"ch05.d = 1.0 {results.TIMES} 10⁻⁹",
    ]  # fmt: skip


def test_below_is_a_tolerance_around_zero(begin):
    begin()
    record("ch05.a", 1e-12, below=1e-11)
    record_all("ch05", {"b": 3e-3, "c": 1.0}, below={"b": 1e-3})
    assert [(one.reference, one.tolerance, one.within) for one in map(opened, ("ch05.a", "ch05.b", "ch05.c"))] == [
        (0, 1e-11, True), (0, 1e-3, False), (None, None, True),
    ]  # fmt: skip
    for other in ({"reference": 0}, {"tolerance": 1e-11}):
        with pytest.raises(ValueError, match="below of ch05.d must stand alone"):
            record("ch05.d", 0.0, below=1e-11, **other)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float32(0.5), 0.5),
        (torch.tensor(3), 3),
        (np.array([2.0]), 2.0),
        (torch.tensor(0.25, requires_grad=True), 0.25),
    ],
)
def test_scalars_of_numpy_and_torch_are_numbers(begin, value, kept):
    begin()
    record("ch05.a", value)
    entry = opened("ch05.a")
    assert entry.value == kept and type(entry.value) is type(kept)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.nan, torch.tensor(float("nan"))])
def test_a_value_that_is_not_finite_is_refused(begin, value):
    begin()
    with pytest.raises(ValueError, match=r"value must be a finite number, got -?(nan|inf)"):
        record("ch05.a", value)


@pytest.mark.parametrize("value", ["3", None, True, 1j, {1.0}])
def test_a_value_that_is_no_number_is_refused(begin, value):
    begin()
    with pytest.raises(ValueError, match="value must be a number, got"):
        record("ch05.a", value)


def test_the_numbers_of_several_seeds_become_mean_and_error(begin):
    begin()
    record("ch05.a", [1.0, torch.tensor(2.0), 6.0])
    entry = opened("ch05.a")
    assert (entry.value, entry.seeds) == (3.0, 3)
    assert entry.stderr == pytest.approx((14 / 2 / 3) ** 0.5, rel=1e-12)  # sum of squares 14, n - 1 = 2, n = 3
    record("ch05.b", [1.0, 1.0, 1.0], seeds=[4, 5, 6])
    assert opened("ch05.b").seeds == (4, 5, 6)
    with pytest.raises(ValueError, match="value must hold the numbers of at least 3 seeds, got 2"):
        record("ch05.c", [1.0, 2.0])
    begin("smoke")
    record("ch05.c", [1.5])
    assert opened("ch05.c").entry()["stderr"] is None
    with pytest.raises(ValueError, match="value must hold the numbers of at least 1 seeds, got 0"):
        record("ch05.d", [])


def test_an_array_is_refused(begin):
    begin()
    with pytest.raises(ValueError, match=r"value must be one number, got shape \(2,\)"):
        record("ch05.a", torch.ones(2))


@pytest.mark.parametrize("id", ["a", "ch5.a", "ch05", "ch05.A", "ch05.1", "ch05.a-b", "ch05.a@full", 5, "ch05.a b"])
def test_a_malformed_id_is_refused(begin, id):
    begin()
    with pytest.raises(ValueError, match=r"id must look like ch05.prior_kl"):
        record(id, 1)


def test_a_duplicate_id_is_refused_and_a_new_set_up_starts_anew(begin):
    begin()
    record("ch05.a", 1)
    with pytest.raises(LedgerError, match=r"ch05.a is recorded already \(1\)"):
        record("ch05.a", 2)
    begin()
    record("ch05.a", 3)


def test_another_chapters_id_is_refused(begin):
    begin()
    with pytest.raises(LedgerError, match=r"id must begin with ch05, the chapter of this notebook, got 'ch06.a'"):
        record("ch06.a", 1)


def test_without_a_chapter_the_first_id_decides(begin):
    begin(chapter=None)
    record("ch06.a", 1)
    assert session.current().chapter == "06"


def test_record_before_setup_is_refused(repository):
    with pytest.raises(LedgerError, match="was called before setup"):
        record("ch05.a", 1)


@pytest.mark.parametrize("seeds", [None, 2, [0, 1], [0, 0, 0]])
def test_a_stochastic_number_needs_three_seeds(begin, seeds):
    begin()
    with pytest.raises(ValueError, match=r"seeds of ch05.a must be 3 or more"):
        record("ch05.a", 1.0, stderr=0.1, seeds=seeds)
    begin("smoke")
    record("ch05.a", 1.0, stderr=0.1, seeds=seeds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stderr": -0.1, "seeds": 3}, "stderr must be a finite number >= 0, got -0.1"),
        ({"stderr": float("nan"), "seeds": 3}, "stderr must be a finite number >= 0, got nan"),
        ({"n": 0}, "n must be a positive integer, got 0"),
        ({"n": 2.5}, "n must be a positive integer, got 2.5"),
        ({"reference": float("inf")}, "reference must be a finite number"),
        ({"tolerance": -1.0}, "tolerance must be a finite number >= 0"),
        ({"claims": ["31"]}, "claims must be ids such as C31 or R6, got '31'"),
        ({"extra": float("nan")}, "extra values of ch05.a must be finite JSON values"),
        ({"extra": object()}, "extra values of ch05.a must be finite JSON values"),
    ],
)
def test_bad_settings_are_refused_and_nothing_is_written(repository, begin, settings, message):
    begin()
    with pytest.raises(ValueError, match=message):
        record("ch05.a", 1.0, **settings)
    assert not (repository / "_build" / "results" / "ch05.json").exists()


def test_the_committed_record_takes_no_smoke(repository, begin, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(repository / "data" / "results"))
    with pytest.raises(LedgerError, match="the committed record holds profiles book and full, got profile 'smoke'"):
        begin("smoke")


def test_a_second_recorder_of_a_chapter_is_refused(repository, begin):
    begin()
    program = (
        "from hjbridge.ledger import session; from hjbridge.ledger.profile import Profile\n"
        "session.open_session(Profile('book'), 0, '05', ())"
    )
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"is in use by process {os.getpid()}: wait until it ends, then run again" in second.stderr
    session.close_session()
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_results_of_profile_full_join_earlier_ones_with_their_own_run(repository, begin):
    begin("full", modules=("hjbridge.ledger.files",))
    record("ch05.a", 1)
    begin("full", modules=("hjbridge.ledger.rules",))
    record("ch05.b", 2)
    found = stored(repository, "full/ch05.json")
    assert found["run"] == {"profile": "full"}
    modules = {entry["id"]: list(entry["run"]["hashes"]["modules"]) for entry in found["results"]}
    assert modules == {"ch05.a": ["hjbridge.ledger.files"], "ch05.b": ["hjbridge.ledger.rules"]}


def test_a_module_is_hashed_when_it_is_first_seen(begin, monkeypatch):
    begun = begin(modules=("hjbridge.ledger.files",))
    first = dict(begun.hashes)
    monkeypatch.setattr(session.freshness, "module_hashes", lambda names: dict.fromkeys(names, "later"))
    record("ch05.a", 1)
    assert begun.hashes == first and first["hjbridge.ledger.files"] != "later"


def test_a_run_names_the_committed_checkpoints_that_it_has_loaded(repository, begin, monkeypatch):
    monkeypatch.setattr(store, "loaded", {})
    folder = repository / "data" / "checkpoints"
    folder.mkdir()
    for name in ("b.safetensors", "a.safetensors", "c.safetensors", "b.safetensors.state"):
        (folder / name).write_bytes(name.encode())
    (repository / "own.safetensors").write_bytes(b"own")
    store.note_checkpoint(folder / "b.safetensors")  # before the record is opened, as a cached network is
    begin()
    record("ch05.a", 1)
    assert stored(repository)["run"]["hashes"]["checkpoints"] == {"b": sha256(b"b.safetensors").hexdigest()[:16]}
    for path in (folder / ".." / "checkpoints" / "a.safetensors", folder / "b.safetensors.state"):
        store.note_checkpoint(path)
    store.note_checkpoint(repository / "own.safetensors")
    (folder / "b.safetensors").write_bytes(b"trained anew while the notebook runs")
    store.note_checkpoint(folder / "b.safetensors")
    record("ch05.b", 1)
    found = stored(repository)["run"]["hashes"]
    assert found["checkpoints"] == {k: sha256(f"{k}.safetensors".encode()).hexdigest()[:16] for k in "ab"}
    assert list(found) == ["notebook", "modules", "checkpoints"]
