"""What is here and unharmed, what is not here, and what is harmed; without a repository, too."""

import shutil

import pytest
import torch

from hjbridge import data
from hjbridge.cli import main
from hjbridge.score import release
from hjbridge.score.checkpoint import write
from hjbridge.training import overview, verify

DATA = data.root()


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A data folder with the MNIST subset alone, and an empty cache."""
    shutil.copytree(DATA / "mnist", tmp_path / "data" / "mnist")
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    monkeypatch.setenv("HJBRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data" / "mnist"


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No repository, and an empty cache."""
    monkeypatch.setenv("HJBRIDGE_CACHE", str(tmp_path / "cache"))
    for module in ("data.sets", "score.release", "training.inventory"):
        monkeypatch.setattr(f"hjbridge.{module}.repository", lambda: None)
    return tmp_path / "cache" / "checkpoints"


def test_overview_tells_what_is_here_and_what_is_not(alone):
    found = {(s.name, s.kind): s for s in overview()}
    assert list(found) == [
        ("digits", "full"), ("mnist", "embedded"), ("mnist", "full"), ("fashion-mnist", "embedded"),
        ("fashion-mnist", "full"), ("cifar10", "full"),
    ]  # fmt: skip
    assert (found["digits", "full"].holds, found["digits", "full"].state) == ("1,297 train, 500 test", "verified")
    assert found["mnist", "embedded"].holds == "5,000 train, 1,000 test" and not found["mnist", "embedded"].harmed
    absent = found["cifar10", "full"]
    assert (absent.state, absent.told) == ("not here", "`hjbridge data fetch cifar10` brings it") and not absent.harmed
    absent = found["fashion-mnist", "embedded"]
    assert (absent.state, absent.told) == ("not here", "`git checkout -- data/fashion-mnist` restores it")


def test_half_an_embedded_set_is_harmed(alone):
    (alone / "provenance.json").unlink()
    state = overview()[1]
    assert state.harmed and "provenance.json is missing; restore it with: git checkout" in state.told


def test_half_a_full_set_is_harmed_and_not_just_missing(alone, tmp_path):
    (tmp_path / "cache" / "cifar10").mkdir(parents=True)
    (tmp_path / "cache" / "cifar10" / "test_batch.bin").write_bytes(bytes(3073))
    state = overview()[-1]
    assert state.harmed and "data_batch_1.bin is missing; restore it with: hjbridge data fetch cifar10" in state.told


def test_verify_reads_the_checkpoints_too(alone):
    folder = alone.parent / "checkpoints"
    folder.mkdir()
    for name in ("classifier-digits-0", "classifier-digits-1"):
        shutil.copy(DATA / "checkpoints" / f"{name}.safetensors", folder)
    write({"a": torch.zeros(2)}, {"spec": {}}, folder / "odd.safetensors")
    harmed = bytearray((folder / "classifier-digits-1.safetensors").read_bytes())
    harmed[40_000] ^= 1
    (folder / "classifier-digits-1.safetensors").write_bytes(harmed)
    found = {s.name: s for s in verify() if s.kind == "checkpoint"}
    assert found.keys() == {*release.published(), "odd"}
    good, bad, odd = found["classifier-digits-0"], found["classifier-digits-1"], found["odd"]
    assert good.state == "verified" and good.holds == "classifier, test accuracy 0.9880"
    assert bad.harmed and "classifier-digits-1.safetensors is harmed" in bad.told
    assert odd.harmed and "odd.safetensors does not hold a denoiser" in odd.told
    gone = found["mnist"]
    assert gone.state == "not here" and "`git checkout -- data/checkpoints/mnist.safetensors`" in gone.told


def test_without_a_repository_nothing_is_called_harmed_for_not_being_there(nowhere, capsys):
    found = verify()
    assert {s.name for s in found if s.state == "verified"} == {"digits"} and not any(s.harmed for s in found)
    embedded = [s for s in found if s.kind == "embedded"]
    assert len(embedded) == 2 and all("it belongs to the repository: go into a clone" in s.told for s in embedded)
    nowhere.mkdir(parents=True)
    shutil.copy(DATA / "checkpoints" / "digits.safetensors", nowhere)
    (nowhere / "mnist.safetensors").write_bytes(b"cut")
    found = {s.name: s for s in verify() if s.kind == "checkpoint"}
    assert found["digits"].state == "verified" and "parameters" in found["digits"].holds
    assert found["mnist"].harmed and "mnist.safetensors is not the published file" in found["mnist"].told
    with pytest.raises(SystemExit) as end:
        main(["data", "verify"])
    assert end.value.code == 1 and "bring it again with `hjbridge data fetch checkpoints`" in capsys.readouterr().err
