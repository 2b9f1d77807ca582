"""The digits, the embedded subsets, and images of one's own."""

import dataclasses
import hashlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hjbridge import data
from hjbridge.data.embed import SUBSETS, embed, stratified
from hjbridge.data.sources import SOURCES


def test_digits_are_all_there_and_split_once():
    train, test = data.load("digits"), data.load("digits", "test")
    assert train.images.shape == (1297, 1, 8, 8) and test.images.shape == (500, 1, 8, 8)
    values, labels = load_digits(return_X_y=True)
    ours = np.concatenate([train.images, test.images]).reshape(1797, 64)
    np.testing.assert_array_equal(np.unique(train.images), np.round(255 * np.arange(17) / 16))
    rows = np.column_stack([np.round(ours / 255 * 16), np.concatenate([train.labels, test.labels])])
    theirs = np.column_stack([values, labels])
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], theirs[np.lexsort(theirs.T)])
    assert train.labels[:8].tolist() == DIGITS_START


DIGITS_START = [2, 8, 2, 6, 6, 7, 1, 9]


def test_digits_from_another_scikit_learn_are_refused(monkeypatch):
    values, labels = load_digits(return_X_y=True)
    values = values.copy()
    values[0, 5] += 1
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda **_: (values, labels))
    with pytest.raises(ValueError, match="scikit-learn's digits must have sha256 .* restore them"):
        data.load("digits")


def test_pixels_lie_between_0_and_1():
    pixels = data.load("digits").pixels()
    assert pixels.dtype == torch.float32 and pixels.shape == (1297, 1, 8, 8)
    assert pixels.min() == 0 and pixels.max() == 1


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_embedded_subsets_are_stratified_and_documented(name):
    folder = data.root() / name
    provenance = json.loads((folder / "provenance.json").read_text())
    for split in ("train", "test"):
        images = data.load(name, split)
        assert images.images.shape == (provenance["images"][split], 1, 28, 28)
        assert np.bincount(images.labels).tolist() == [len(images) // 10] * 10
        assert len(np.unique(images.images.reshape(len(images), -1), axis=0)) >= len(images) - 5
    assert {"package", "version", "package_sha256", "members", "selection", "licence", "sha256"} <= set(provenance)
    assert (folder / "LICENSE").is_file()


def test_embedded_subsets_are_small():
    assert sum((data.root() / name / f"{name}.npz").stat().st_size for name in SUBSETS) < 3_000_000


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_embedded_subsets_come_from_the_published_files(name):
    members = json.loads((data.root() / name / "provenance.json").read_text())["members"]
    published = {Path(file.removesuffix(".gz")).name: digest for file, digest in members.items()}
    assert published == SOURCES[name].members


def test_a_subset_is_cut_from_the_full_set_and_loads_again(tmp_path, monkeypatch):
    """A full set of 40 and 20 images in published layout; 20 and 10 of them are embedded."""
    rows, files = {}, {}
    for split, part, n in (("train", "train", 40), ("test", "t10k", 20)):
        pixels = np.random.RandomState(n).randint(0, 256, (n, 28, 28)).astype(np.uint8)
        rows[split] = pixels, (np.arange(n) * 7 % 10).astype(np.uint8)
        for kind, array in zip(("images-idx3", "labels-idx1"), rows[split], strict=True):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            files[f"{part}-{kind}-ubyte"] = header + array.tobytes()
    members = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    monkeypatch.setitem(SOURCES, "mnist", dataclasses.replace(SOURCES["mnist"], members=members))
    monkeypatch.setitem(SUBSETS, "mnist", dataclasses.replace(SUBSETS["mnist"], train=20, test=10))
    monkeypatch.setenv("HJBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    for name, raw in files.items():
        data.write_atomic(tmp_path / "cache" / "mnist" / name, raw)
    path = embed("mnist")
    before = path.read_bytes()
    for split, (pixels, labels) in rows.items():
        part = data.load("mnist", split)
        chosen = stratified(labels, len(part))
        assert len(part) == len(labels) // 2
        np.testing.assert_array_equal(part.images[:, 0], pixels[chosen])
        np.testing.assert_array_equal(part.labels, labels[chosen])
    assert embed("mnist").read_bytes() == before
    with pytest.raises(ValueError, match="name must be one of mnist, fashion-mnist, got 'digits'"):
        embed("digits")


def test_stratified_takes_equally_many_and_keeps_the_order():
    labels = np.arange(1000) % 10
    chosen = stratified(labels, 200)
    assert len(set(chosen)) == 200 and (np.diff(chosen) > 0).all()
    assert np.bincount(labels[chosen]).tolist() == [20] * 10


@pytest.fixture
def copied(tmp_path, monkeypatch):
    shutil.copytree(data.root() / "mnist", tmp_path / "data" / "mnist")
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    return tmp_path / "data" / "mnist"


def test_a_harmed_embedded_file_is_named_with_the_remedy(copied):
    path = copied / "mnist.npz"
    whole = path.read_bytes()
    for harmed in (whole[:-100], whole[:9000] + bytes([whole[9000] ^ 4]) + whole[9001:], b""):
        path.write_bytes(harmed)
        with pytest.raises(ValueError, match=r"mnist.npz must have sha256 .* git checkout -- data/mnist"):
            data.load("mnist")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"mnist.npz is missing; restore it with: git checkout"):
        data.load("mnist")


def test_a_harmed_provenance_is_named_with_the_remedy(copied):
    (copied / "provenance.json").write_text("{")
    with pytest.raises(ValueError, match=r"provenance.json must be JSON .* git checkout"):
        data.load("mnist")
    (copied / "provenance.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"provenance.json is missing; restore it with: git checkout"):
        data.load("mnist")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="name must be one of digits, mnist, .* got 'minst'"):
        data.load("minst")
    with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
        data.load("digits", "val")
    with pytest.raises(ValueError, match="full must be True for cifar10"):
        data.load("cifar10")


def test_a_subset_without_a_repository_is_told_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("hjbridge.data.sets.repository", lambda: None)
    with pytest.raises(
        FileNotFoundError, match="the embedded part of mnist belongs to the repository: go into a clone"
    ):
        data.load("mnist")
    assert len(data.load("digits")) == 1297


def test_images_are_checked():
    good = np.zeros((2, 1, 3, 3), np.uint8)
    with pytest.raises(ValueError, match="images must be uint8"):
        data.Images(good.astype(float), np.zeros(2, np.int64), "x")
    with pytest.raises(ValueError, match=r"labels must be int64 \(2,\), got int64 \(3,\)"):
        data.Images(good, np.zeros(3, np.int64), "x")
    with pytest.raises(ValueError, match="labels must not be negative, got -1"):
        data.Images(good, np.array([0, -1]), "x")


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 1, 5, 6), (4, 3, 5, 6), (4, 5, 6, 3), (4, 5, 6, 1)])
def test_own_npz_in_every_accepted_shape(tmp_path, shape):
    values = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    np.savez(tmp_path / "own.npz", images=values, labels=np.array([2, 0, 1, 1], np.int32))
    images = data.from_files(tmp_path / "own.npz")
    planes = values if shape[-1] == 6 else values.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images.images, planes[:, None] if len(shape) == 3 else planes)
    assert images.labels.tolist() == [2, 0, 1, 1] and images.name == "own"
    np.savez(tmp_path / "float.npz", images=values / 255)
    again = data.from_npz(tmp_path / "float.npz")
    np.testing.assert_array_equal(again.images, images.images)
    assert again.labels.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 3, 3))}, "no array named 'images'"),
        ({"images": np.array([{}], dtype=object)}, "never a pickle"),
        ({"images": np.full((2, 3, 3), 1.5)}, r"must lie in \[0, 1\]"),
        ({"images": np.full((2, 3, 3), np.nan)}, r"must lie in \[0, 1\]"),
        ({"images": np.zeros((2, 5, 7, 9), np.uint8)}, r"c = 1 or 3, got \(2, 5, 7, 9\)"),
        ({"images": np.zeros((2, 3, 3)), "labels": np.zeros(2)}, "labels in .* must be integers"),
        ({"images": np.zeros((2, 3, 3)), "labels": np.zeros(3, int)}, r"labels must be int64 \(2,\)"),
    ],
)
def test_own_npz_is_checked(tmp_path, arrays, message):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        data.from_npz(tmp_path / "own.npz")


def test_own_npz_that_is_no_npz_is_named(tmp_path):
    np.savez(tmp_path / "whole.npz", images=np.zeros((2, 3, 3)))
    for content in (b"\x80\x04pickle", b"", (tmp_path / "whole.npz").read_bytes()[:-30]):
        (tmp_path / "own.npz").write_bytes(content)
        with pytest.raises(
            ValueError, match="own.npz must be a whole npz file .* never a pickle: it is no zip archive"
        ):
            data.from_npz(tmp_path / "own.npz")
    with pytest.raises(FileNotFoundError, match="existing npz file, got .*none.npz"):
        data.from_npz(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match="existing folder or npz file, got .*none"):
        data.from_files(tmp_path / "none")
    with pytest.raises(ValueError, match="size must be None for an npz file, got 8"):
        data.from_files(tmp_path / "own.npz", 8)


def test_own_folder_with_one_sub_folder_a_label(tmp_path):
    for name, value in (("cats", 10), ("dogs", 200)):
        (tmp_path / name).mkdir()
        for k in range(2):
            Image.new("L", (20 + k, 12), value + k).save(tmp_path / name / f"{k}.png")
        (tmp_path / name / "notes.txt").write_text("no picture")
    images = data.from_files(tmp_path, size=6)
    assert images.images.shape == (4, 1, 6, 6) and images.labels.tolist() == [0, 0, 1, 1]
    assert images.images[:, 0, 3, 3].tolist() == [10, 11, 200, 201]
    with pytest.raises(ValueError, match="size must be given, because .* different sizes"):
        data.from_folder(tmp_path)


def test_own_folder_is_cut_to_the_central_square_and_keeps_colour(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6, 1] = 255  # the central square is green, the sides are black
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.new("L", (4, 4), 7).save(tmp_path / "b.png")
    images = data.from_folder(tmp_path, 4)
    assert images.images.shape == (2, 3, 4, 4) and images.labels.tolist() == [0, 0]
    assert (images.images[0, 1] == 255).all() and (images.images[0, [0, 2]] == 0).all()
    assert (images.images[1] == 7).all()


def test_own_folder_is_checked(tmp_path):
    with pytest.raises(FileNotFoundError, match="existing folder, got .*none"):
        data.from_folder(tmp_path / "none", 8)
    with pytest.raises(ValueError, match="must hold pictures"):
        data.from_folder(tmp_path, 8)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        data.from_folder(tmp_path, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="a.png must be a readable picture"):
        data.from_folder(tmp_path, 8)
