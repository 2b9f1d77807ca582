import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hjbridge.score import Denoiser, NoisePredictor, ResidualMLP, UNet, load
from hjbridge.score.checkpoint import KEY, build, digest, read, write
from hjbridge.sde.processes import DDPM, VP

MLP = {
    "network": "mlp", "settings": {"width": 16, "blocks": 2}, "prediction": "edm", "shape": [1, 4, 4], "classes": 3,
    "pixel_mean": 0.3, "pixel_std": 0.4,
}  # fmt: skip
TINY = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [2], "patch": 2, "groups": 4}
UNET = MLP | {"network": "unet", "settings": TINY, "shape": [3, 8, 8]}
NOISE = UNET | {"prediction": "noise", "classes": 0}
each_spec = pytest.mark.parametrize("spec", [MLP, UNET, NOISE], ids=["mlp", "unet", "noise"])


def filled(spec):
    """A denoiser of a specification with random numbers in place of the zeros it starts from."""
    denoiser = build(spec)
    generator = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():
        parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return denoiser


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "own.safetensors"
    write(filled(MLP).state_dict(), {"spec": MLP, "seed": 4}, path)
    return path


def test_build_makes_what_the_specification_says():
    denoiser = build(MLP)
    assert isinstance(denoiser, Denoiser) and isinstance(denoiser.network, ResidualMLP)
    assert (denoiser.network.width, len(denoiser.network.inner)) == (16, 2)
    assert (denoiser.shape, denoiser.classes, denoiser.pixel_mean, denoiser.pixel_std) == ((1, 4, 4), 3, 0.3, 0.4)
    assert denoiser.process == VP() and denoiser.sigma_data == 1.0
    denoiser = build(UNET)
    assert isinstance(denoiser.network, UNet) and denoiser.network.patch == 2
    assert denoiser.network.stem.weight.shape == (8, 3 * 4, 3, 3) and denoiser.network.label.num_embeddings == 4
    assert denoiser.network.head.weight.abs().max() == 0
    predictor = build(NOISE)
    assert isinstance(predictor, NoisePredictor) and predictor.steps == 1000 and predictor.network.label is None
    assert torch.equal(predictor.process.betas, DDPM.linear().betas)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "vit"}, "network must be 'unet', 'mlp' or 'ncsnpp', got 'vit'"),
        ({"prediction": "x0"}, "prediction must be one of edm, velocity, continuous or noise, got 'x0'"),
        ({"process": "ou"}, "process must be one of vp, subvp, ve, got 'ou'"),
    ],
)
def test_build_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        build(MLP | change)


@each_spec
def test_a_checkpoint_gives_back_the_same_denoiser(tmp_path, spec):
    # weights that want gradients may be convolved by other kernels, with other last digits
    denoiser, path = filled(spec).eval().requires_grad_(False), tmp_path / "own.safetensors"
    write(denoiser.state_dict(), {"spec": spec, "seed": 4}, path)
    again = load(path)
    assert type(again) is type(denoiser)
    told = {"spec": spec, "seed": 4}
    assert again.header == told | {"sha256": digest(denoiser.state_dict(), told)}
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    for (name, one), (other_name, other) in zip(denoiser.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(one, other)
    x = torch.randn(2, *spec["shape"], generator=torch.Generator().manual_seed(1))
    label = torch.tensor([0, 2]) if spec["classes"] else None
    y = again(x, 0.5, label)
    assert torch.equal(y, denoiser(x, 0.5, label)) and (y - again(x, 0.4, label)).abs().max() > 1e-3
    if spec["prediction"] == "edm":
        assert torch.equal(again.to_pixels(x), denoiser.to_pixels(x)) and again.shape == tuple(spec["shape"])


def test_half_precision_on_disk_is_float32_in_memory(tmp_path):
    denoiser, path = filled(MLP), tmp_path / "own.safetensors"
    write({k: v.half() for k, v in denoiser.state_dict().items()}, {"spec": MLP}, path)
    assert all(v.dtype == torch.float16 for v in read(path)[0].values())
    for name, value in load(path).state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, denoiser.state_dict()[name].half().float())


def test_weights_go_to_the_device_asked_for(saved):
    assert {p.device.type for p in load(saved).parameters()} == {"cpu"}
    assert {p.device.type for p in load(str(saved), device="meta").parameters()} == {"meta"}


KNOWN = "digits, digits-1, digits-2, digits-subvp, .*, fashion-mnist, mnist, mnist-subvp, mnist-ve, mnist-vp"


def test_names_are_found_in_the_data_folder_and_unknown_ones_are_answered_with_the_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    with pytest.raises(ValueError, match=f"name must be one of {KNOWN} or a .safetensors file, got 'minst'"):
        load("minst")
    for name in ("zeros", "mnist", "classifier-mnist-0"):
        path = tmp_path / "data" / "checkpoints" / f"{name}.safetensors"
        write(filled(MLP).state_dict(), {"spec": MLP, "name": name}, path)
    assert load("mnist").header["name"] == "mnist" and load("zeros").header["name"] == "zeros"
    with pytest.raises(ValueError, match=f"name must be one of {KNOWN}, zeros or a .safetensors file, got 'minst'"):
        load("minst")


def test_a_missing_or_cut_committed_checkpoint_is_named_with_the_command_that_restores_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    path = tmp_path / "data" / "checkpoints" / "mnist.safetensors"
    remedy = "restore it with `git checkout -- data/checkpoints/mnist.safetensors`, or `hjbridge train mnist`"
    with pytest.raises(FileNotFoundError, match=f"checkpoint {path} is missing: {remedy}"):
        load("mnist")
    write(filled(MLP).state_dict(), {"spec": MLP}, path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=f"checkpoint {path} is not a whole safetensors file .*: {remedy}"):
        load("mnist")


def test_the_header_can_be_read_without_torch(saved):
    content = saved.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    told = json.loads(header["__metadata__"][KEY])
    written = {"spec": MLP, "seed": 4}
    assert told == read(saved)[1] == written | {"sha256": digest(filled(MLP).state_dict(), written)}


def test_the_digest_covers_header_names_types_shapes_and_values():
    tensors, header = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)}, {"seed": 1, "data": [0.5, "x"]}
    same = {"b": torch.zeros(2), "a": tensors["a"].T.contiguous().T}
    assert digest(same, {"data": (0.5, "x"), "sha256": "any", "seed": 1}) == digest(tensors, header)
    assert len({digest(tensors, other) for other in (header, {}, header | {"seed": 2}, header | {"more": 1})}) == 4
    expected = hashlib.sha256(b'{"data": [0.5, "x"], "seed": 1}')
    expected.update(b"a torch.float32 (2, 3)" + np.arange(6, dtype=np.float32).tobytes())
    expected.update(b"b torch.float32 (2,)" + np.zeros(2, dtype=np.float32).tobytes())
    assert digest(tensors, header) == expected.hexdigest()
    others = [
        {"a": tensors["a"], "c": tensors["b"]},
        {"a": tensors["a"].double(), "b": tensors["b"]},
        {"a": tensors["a"].reshape(3, 2), "b": tensors["b"]},
        {"a": tensors["a"], "b": torch.tensor([0.0, 1e-30])},
        {"a": tensors["a"]},
    ]
    assert len({digest(some, header) for some in (tensors, *others)}) == 6


@pytest.mark.parametrize("place", [-1, -5000])
def test_one_changed_bit_is_noticed(saved, place):
    content = bytearray(saved.read_bytes())
    content[place] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="harmed, its header and tensors do not have their sha256: make it again with"):
        load(saved)


def test_one_changed_bit_is_noticed_wherever_it_lies_in_the_header(saved):
    """Most make it unreadable; the others, as pixel_std .4 -> .5, are found by the digest."""
    content, harmed = bytearray(saved.read_bytes()), 0
    size = int.from_bytes(content[:8], "little")
    assert b"pixel_std" in content[8 : 8 + size]
    for place in range(8, 8 + len(bytes(content[8 : 8 + size]).rstrip())):
        content[place] ^= 1
        saved.write_bytes(content)
        with pytest.raises(ValueError, match=f"checkpoint {saved} is ") as caught:
            read(saved)
        harmed += "is harmed" in str(caught.value)
        content[place] ^= 1
    assert harmed > 300
    saved.write_bytes(content)
    assert read(saved)[1]["spec"] == MLP


def test_a_header_with_tuples_and_numbers_for_keys_is_read_back(tmp_path):
    write({"a": torch.zeros(2)}, {"betas": (0.9, 0.99), "rates": {10: 1, 9: 2}, "name": "ä"}, tmp_path / "own")
    header = read(tmp_path / "own")[1]
    assert header.pop("sha256") and header == {"betas": [0.9, 0.99], "rates": {"10": 1, "9": 2}, "name": "ä"}


def test_the_store_is_told_what_was_read(saved):
    from hjbridge.store import loaded

    loaded.pop(saved.resolve(), None)
    read(saved)
    assert loaded[saved.resolve()] == hashlib.sha256(saved.read_bytes()).hexdigest()[:16]


def test_writing_replaces_a_file_or_leaves_it(saved, monkeypatch):
    import hjbridge.store as store

    before = saved.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "fsync", full)
        with pytest.raises(
            OSError, match=f"cannot write {saved}: No space left on device. What was there is untouched"
        ):
            write({"a": torch.zeros(3)}, {}, saved)
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == [saved.name]
    write({"a": torch.zeros(4, 3)[:, 0]}, {"seed": 5}, saved)
    tensors, header = read(saved)
    assert tensors["a"].tolist() == [0.0] * 4 and header == {"seed": 5, "sha256": digest(tensors, {"seed": 5})}


def damage(path, how):
    if how == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif how == "torch.save":
        torch.save({"a": torch.zeros(3)}, path)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "cut in its header":
        path.write_bytes(path.read_bytes()[:50])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "of another program":
        save_file({"a": torch.zeros(3)}, path)
    else:
        save_file({"a": torch.zeros(3)}, path, {KEY: {"not json": "{not json", "a list": "[1]"}[how]})


WAYS = ["pickle", "torch.save", "truncated", "cut in its header", "empty", "of another program", "not json", "a list"]


@pytest.mark.parametrize("how", WAYS)
def test_a_damaged_file_is_named_with_what_restores_it(saved, how):
    damage(saved, how)
    with pytest.raises(ValueError) as caught:
        load(saved)
    expected = f"checkpoint {saved} is not a whole safetensors file of hjbridge (pickles are never read): "
    assert str(caught.value) == expected + f"make it again with `hjbridge train NAME --out {saved}`"
    with pytest.raises(ValueError, match="pickles are never read\\): make it again with `hjbridge train`"):
        read(saved)


def test_a_pickle_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = tmp_path / "trap.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="pickles are never read"):
        load(path)
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_is_named_with_what_restores_it(tmp_path):
    path = tmp_path / "gone.safetensors"
    with pytest.raises(FileNotFoundError) as caught:
        load(path)
    assert str(caught.value) == f"checkpoint {path} is missing: make it again with `hjbridge train NAME --out {path}`"


@pytest.mark.parametrize(
    ("header", "change"),
    [
        ({}, {}),
        ({"spec": {}}, {}),
        ({"spec": MLP | {"settings": {"depth": 3}}}, {}),
        ({"spec": MLP | {"settings": {"width": 32, "blocks": 2}}}, {}),
        ({"spec": MLP}, {"network.head.weight": None}),
        ({"spec": MLP}, {"extra": torch.zeros(2)}),
        ({"spec": MLP}, {"network.head.bias": torch.zeros(2)}),
    ],
    ids=["no spec", "empty spec", "unknown setting", "other width", "missing", "unexpected", "wrong shape"],
)
def test_tensors_that_do_not_fit_the_specification_are_refused(tmp_path, header, change):
    path = tmp_path / "own.safetensors"
    tensors = {k: v for k, v in (filled(MLP).state_dict() | change).items() if v is not None}
    write(tensors, header, path)
    with pytest.raises(ValueError, match="does not hold a denoiser that fits its specification") as caught:
        load(path)
    assert str(path) in str(caught.value)
