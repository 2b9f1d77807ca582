"""A training run ends with identical weights, however often and however hard it is interrupted."""

import dataclasses
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from tiny import MLP, NOISE, UNET, identical, run, weights

import hjbridge.training.loop
from hjbridge.ledger.freshness import modules_hash
from hjbridge.score.checkpoint import read
from hjbridge.training.loop import train


@pytest.mark.parametrize("recipe", [MLP, UNET, NOISE], ids=["mlp", "unet with dropout", "noise"])
def test_the_same_seed_gives_identical_weights_and_leaves_the_random_numbers_alone(tmp_path, data, recipe):
    before = torch.get_rng_state()
    one = weights(run(recipe, data, tmp_path / "one.safetensors"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert identical(one, weights(run(recipe, data, tmp_path / "two.safetensors")))
    other = weights(run(dataclasses.replace(recipe, seed=1), data, tmp_path / "three.safetensors"))
    assert not any(torch.equal(one[name], other[name]) for name in one if one[name].ndim > 1)


@pytest.mark.parametrize("recipe", [MLP, UNET, NOISE], ids=["mlp", "unet with dropout", "noise"])
def test_a_stopped_run_goes_on_to_identical_weights(tmp_path, data, recipe):
    whole = run(recipe, data, tmp_path / "whole.safetensors")
    out = tmp_path / "own.safetensors"
    for stop in (1, 5, 7):
        state = run(recipe, data, out, stop_after=stop)
        assert state == tmp_path / "own.safetensors.state" and not out.exists()
        assert read(state)[1]["step"] == stop and len(weights(state)["losses"]) == stop
    assert run(recipe, data, out) == out and not state.exists()
    assert identical(weights(out), weights(whole))
    # the digest covers the seconds
    one, other = ({k: v for k, v in read(path)[1].items() if k not in ("seconds", "sha256")} for path in (out, whole))
    assert one == other


def test_states_are_saved_as_often_as_asked(tmp_path, data, monkeypatch):
    steps = []
    monkeypatch.setattr(hjbridge.training.loop, "save", lambda *arguments: steps.append(arguments[5]))
    run(MLP, data, tmp_path / "own.safetensors", save_every=5)
    assert steps == [5, 10]


def test_seconds_add_up_over_interruptions(tmp_path, data, monkeypatch):
    clock = iter([100.0, *(110.0 + k for k in range(4)), 500.0, *(501.0 + k for k in range(8))])
    monkeypatch.setattr(hjbridge.training.loop.time, "process_time", lambda: next(clock))
    state = run(MLP, data, tmp_path / "own.safetensors", stop_after=4)
    assert read(state)[1]["seconds"] == 13.0
    assert read(run(MLP, data, tmp_path / "own.safetensors"))[1]["seconds"] == 13.0 + 8.0


def test_a_failure_while_the_checkpoint_is_written_costs_nothing(tmp_path, data, monkeypatch):
    whole, out = run(MLP, data, tmp_path / "whole.safetensors"), tmp_path / "own.safetensors"
    out.write_bytes(b"old")
    write = hjbridge.training.loop.write

    def fail(tensors, header, path):
        if path == out:
            raise OSError(28, "No space left on device")
        write(tensors, header, path)

    with monkeypatch.context() as patch:
        patch.setattr(hjbridge.training.loop, "write", fail)
        with pytest.raises(OSError, match="No space left on device"):
            run(MLP, data, out, save_every=4)
    assert out.read_bytes() == b"old" and read(tmp_path / "own.safetensors.state")[1]["step"] == 12
    run(MLP, data, out)
    assert identical(weights(out), weights(whole))


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.is_alive() and time.monotonic() < end, f"no progress, exit code {process.exitcode}"
        time.sleep(0.0005)


def test_a_run_killed_at_ten_random_moments_ends_with_identical_weights(tmp_path, data):
    recipe = dataclasses.replace(MLP, steps=200)
    old = run(dataclasses.replace(MLP, seed=5), data, tmp_path / "own.safetensors")
    whole, before = run(recipe, data, tmp_path / "whole.safetensors"), old.read_bytes()
    state, moments, steps = tmp_path / "own.safetensors.state", random.Random(0), [0]
    # children are forked from a process of one thread that has imported the loop, and what its first step imports
    context = multiprocessing.get_context("forkserver")
    loop = ["hjbridge.training.loop", "hjbridge.data", "hjbridge.ledger.freshness", "hjbridge.store", "torch._dynamo"]
    context.set_forkserver_preload(["pytest", *loop])
    for _ in range(10):
        stamp = state.stat().st_mtime_ns if state.exists() else 0
        options = {"out": old, "save_every": 1, "progress": False}
        process = context.Process(target=train, args=(recipe, data), kwargs=options)
        process.start()
        wait_for(lambda stamp=stamp: state.exists() and state.stat().st_mtime_ns != stamp, process)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert old.read_bytes() == before
        tensors, header = read(state)
        steps.append(header["step"])
        assert len(tensors["losses"]) == steps[-1] > steps[-2]
    assert steps[-1] < 200
    run(recipe, data, old)
    assert identical(weights(old), weights(whole)) and old.read_bytes() != before and not state.exists()
    # what the killed processes were writing lies beside them under names that nobody reads
    left = {p.name for p in tmp_path.iterdir()} - {"own.safetensors", "whole.safetensors"}
    assert all(name.startswith(".own.safetensors.state.") and name.endswith(".tmp") for name in left)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"rate": 1e-3}, {"settings": {"width": 16, "blocks": 2}}, {"steps": 13}]
)
def test_the_state_of_another_recipe_is_refused(tmp_path, data, change):
    out = tmp_path / "own.safetensors"
    state = run(MLP, data, out, stop_after=3)
    before = state.read_bytes()
    with pytest.raises(ValueError, match="belongs to another recipe: delete it to start again, or restore that recipe"):
        run(dataclasses.replace(MLP, **change), data, out)
    assert state.read_bytes() == before and not out.exists()


def test_the_state_of_other_code_is_refused(tmp_path, data, monkeypatch):
    out = tmp_path / "own.safetensors"
    state = run(MLP, data, out, stop_after=3)
    before, source = state.read_bytes(), modules_hash(hjbridge.training.loop.modules(MLP))
    assert read(state)[1]["hash"] == source
    with monkeypatch.context() as patch:
        patch.setattr(hjbridge.training.loop, "modules_hash", lambda names: "0" * 64)
        with pytest.raises(ValueError, match=f"of hash {source[:8]} where now it is 00000000: delete it .* or restore"):
            run(MLP, data, out)
    assert state.read_bytes() == before and not out.exists()
    run(MLP, data, out)


def test_the_state_of_other_images_is_refused(tmp_path, data):
    run(MLP, data, tmp_path / "own.safetensors", stop_after=3)
    other = dataclasses.replace(data, images=255 - data.images[:10], labels=data.labels[:10])
    with pytest.raises(ValueError, match="belongs to another recipe"):
        run(MLP, other, tmp_path / "own.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", None], ids=["empty", "pickle", "truncated"])
def test_a_damaged_state_is_named_with_what_to_do(tmp_path, data, content):
    state = run(MLP, data, tmp_path / "own.safetensors", stop_after=3)
    state.write_bytes(state.read_bytes()[:-1] if content is None else content)
    with pytest.raises(ValueError, match=r"own.safetensors.state is not a whole safetensors file .* delete own.safet"):
        run(MLP, data, tmp_path / "own.safetensors")
