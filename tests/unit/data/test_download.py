"""Full sets from folders, archives and a pretended network, verified byte by byte; nothing is downloaded here."""

import gzip
import hashlib
import io
import os
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pooch
import pytest

from hjbridge import data
from hjbridge.cli import main
from hjbridge.data import download
from hjbridge.data.sources import SOURCES, Source


def idx(array: np.ndarray) -> bytes:
    """The idx layout of an array of bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(5 * 28 * 28, dtype=np.int64).reshape(5, 28, 28).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
FILES = {
    "train-images-idx3-ubyte": idx(IMAGES),
    "train-labels-idx1-ubyte": idx(LABELS),
    "t10k-images-idx3-ubyte": idx(IMAGES[:2]),
    "t10k-labels-idx1-ubyte": idx(LABELS[:2]),
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def small_world(tmp_path, monkeypatch):
    """A cache of our own, and a registry that knows a tiny MNIST and a tiny CIFAR-10."""
    monkeypatch.setenv("HJBRIDGE_CACHE", str(tmp_path / "cache"))
    published = {f"{name}.gz": sha256(gzip.compress(raw, mtime=0)) for name, raw in FILES.items()}
    members = {name: sha256(raw) for name, raw in FILES.items()}
    urls = ("https://first.invalid/", "https://second.invalid/")
    monkeypatch.setitem(SOURCES, "mnist", Source(urls, published, members, "another copy"))
    batches = {name: bytes([k]) + bytes(3072) for k, name in enumerate(SOURCES["cifar10"].members)}
    archive = tarred({f"cifar-10-batches-bin/{name}": raw for name, raw in batches.items()}, "gz")
    members = {name: sha256(raw) for name, raw in batches.items()}
    monkeypatch.setitem(SOURCES, "cifar10", Source(urls, {"c.tar.gz": sha256(archive)}, members, "another copy"))
    return {"c.tar.gz": archive} | {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in FILES.items()}


def tarred(files: dict[str, bytes], mode: str = "gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}") as archive:
        for name, raw in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    return buffer.getvalue()


def debian(payload: bytes) -> bytes:
    def entry(name: str, raw: bytes) -> bytes:
        return f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(raw):<10}`\n".encode() + raw + b"\n" * (len(raw) % 2)

    return (
        b"!<arch>\n"
        + entry("debian-binary", b"2.0\n")
        + entry("control.tar.xz", b"odd")
        + entry("data.tar.xz", payload)
    )


def offer(kind: str, folder: Path) -> Path:
    """The tiny MNIST in one of the forms in which it may be at hand."""
    packed = {f"some/where/{name}.gz": gzip.compress(raw) for name, raw in FILES.items()}
    raw = {f"package/data/{name}": content for name, content in FILES.items()}
    path = folder / f"offer.{kind}"
    if kind == "folder":
        for name, content in raw.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in packed.items():
                archive.writestr(name, content)
    elif kind == "deb":
        path.write_bytes(debian(tarred(packed, "xz")))
    else:
        path.write_bytes(tarred(raw if kind == "tgz" else packed))
    return path


@pytest.mark.parametrize("kind", ["folder", "tgz", "tar.gz", "zip", "deb"])
def test_fetch_from_what_is_at_hand(tmp_path, kind):
    assert data.fetch("mnist", offer(kind, tmp_path)) == tmp_path / "cache" / "mnist"
    train, test = data.load("mnist", "train", full=True), data.load("mnist", "test", full=True)
    np.testing.assert_array_equal(train.images, IMAGES[:, None])
    np.testing.assert_array_equal(train.labels, LABELS)
    assert len(test) == 2 and test.split == "test" and train.name == "mnist"


def test_fetch_downloads_through_pooch_and_tries_the_next_address(tmp_path, monkeypatch, small_world):
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append(url)
        if url.startswith("https://first.invalid/t10k"):
            raise OSError("no route")
        target = Path(path) / fname
        target.write_bytes(small_world[fname])
        assert pooch.hashes.hash_matches(str(target), known_hash)
        return str(target)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    data.fetch("mnist")
    assert len(data.load("mnist", full=True)) == 5
    assert sum(url.startswith("https://second.invalid/t10k") for url in asked) == 2 and len(asked) == 6
    data.fetch("cifar10")
    whole = data.load("cifar10", full=True)
    assert whole.images.shape == (5, 3, 32, 32) and whole.labels.tolist() == [0, 1, 2, 3, 4]
    assert data.load("cifar10", "test", full=True).labels.tolist() == [5]


def test_no_network_says_how_to_go_on(monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte.gz could not .* no route; offline: --from FILE"):
        data.fetch("mnist")


def test_one_wrong_bit_is_refused_and_nothing_is_written(tmp_path):
    path = offer("folder", tmp_path)
    harmed = path / "package/data/t10k-labels-idx1-ubyte"
    harmed.write_bytes(bytes([*harmed.read_bytes()[:-1], 9]))
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte must have sha256 .* once uncompressed, got"):
        data.fetch("mnist", path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["tgz", "tar.gz", "zip", "deb"])
def test_a_truncated_archive_is_named_and_nothing_is_written(tmp_path, kind):
    path = offer(kind, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"offer.{kind}"):
        data.fetch("mnist", path)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_debian_package_is_named(tmp_path):
    path = tmp_path / "offer.deb"
    for content in (b"!<arch>\n" + b"x" * 200, b"no package"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="offer.deb must be a whole Debian package that holds a data.tar archive"):
            data.fetch("mnist", path)


def test_a_truncated_gzip_inside_a_folder_is_named(tmp_path):
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(FILES["t10k-labels-idx1-ubyte"])[:-6])
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte.gz must be a complete gzip file"):
        data.fetch("mnist", tmp_path)


def test_missing_members_are_listed(tmp_path):
    path = offer("folder", tmp_path)
    (path / "package/data/train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="lacks train-labels-idx1-ubyte of mnist; try another copy"):
        data.fetch("mnist", path)
    with pytest.raises(FileNotFoundError, match="existing folder or archive, got .*nowhere"):
        data.fetch("mnist", tmp_path / "nowhere")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ValueError, match="must be a folder or a .tar, .* got .*x.txt"):
        data.fetch("mnist", tmp_path / "x.txt")
    with pytest.raises(ValueError, match="name must be one of mnist, fashion-mnist, cifar10, got 'cifar'"):
        data.fetch("cifar")


def test_the_cache_is_verified_at_every_load(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="train-images.* is missing; restore it with: hjbridge data fetch mnist"
    ):
        data.load("mnist", full=True)
    folder = data.fetch("mnist", offer("tgz", tmp_path))
    path = folder / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for harmed in (whole[:-1], whole[:500] + bytes([whole[500] ^ 1]) + whole[501:], b""):
        path.write_bytes(harmed)
        with pytest.raises(ValueError, match="train-images-idx3-ubyte must have sha256 .* hjbridge data fetch mnist"):
            data.load("mnist", full=True)
    data.fetch("mnist", tmp_path / "offer.tgz")
    assert len(data.load("mnist", full=True)) == 5


def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    data.write_atomic(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hjbridge.store.os.fsync", full)
    told = f"cannot write {path}: No space left on device. What was there is untouched; free some space"
    with pytest.raises(OSError, match=told) as failure:
        data.write_atomic(path, b"new")
    assert failure.value.errno == 28
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_writers_of_one_file_do_not_trip_over_each_others_temporary_files(tmp_path, monkeypatch):
    path, asked = tmp_path / "file", []
    stat, unlink = Path.stat, Path.unlink
    for name in (".file.fresh.tmp", ".file.old.tmp", ".file.left.tmp"):
        (tmp_path / name).touch()
    for name in (".file.old.tmp", ".file.left.tmp"):
        os.utime(tmp_path / name, (0, 0))

    def gone_before_stat(self, **options):
        if self.name == ".file.fresh.tmp" and self.name not in asked:  # its writer has just renamed it
            asked.append(self.name)
            os.unlink(self)
        return stat(self, **options)

    def gone_before_unlink(self, missing_ok=False):
        if self.name == ".file.old.tmp" and self.name not in asked:  # another writer has cleared it away
            asked.append(self.name)
            os.unlink(self)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "stat", gone_before_stat)
    monkeypatch.setattr(Path, "unlink", gone_before_unlink)
    data.write_atomic(path, b"new")
    monkeypatch.undo()
    assert sorted(asked) == [".file.fresh.tmp", ".file.old.tmp"]
    assert path.read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_many_threads_may_write_one_file(tmp_path):
    path, contents = tmp_path / "file", [bytes([k]) * 10_000 for k in range(8)]

    def write(content):
        for _ in range(20):
            data.write_atomic(path, content)

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))  # raises what a thread has raised
    assert path.read_bytes() in contents and [p.name for p in tmp_path.iterdir()] == ["file"]


def call(*words: str) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def test_the_command_fetches_lists_and_verifies(tmp_path, capsys):
    assert call("data", "fetch", "mnist", "--from", str(offer("tgz", tmp_path))) == 0
    assert f"verified: {tmp_path / 'cache' / 'mnist'}" in capsys.readouterr().out
    assert call("data", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "kind", "holds", "state"]
    (row,) = [line for line in lines if line.startswith("mnist") and " full " in line]
    assert "5 train, 2 test" in row and row.rstrip().endswith("verified")
    (row,) = [line for line in lines if line.startswith("cifar10")]
    assert "not here; `hjbridge data fetch cifar10` brings it" in row
    path = tmp_path / "cache" / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert call("data", "verify") == 1
    told = capsys.readouterr()
    assert told.out.count("HARMED, see below") == 1
    assert told.err.startswith(f"error: mnist (full): {path} must have sha256")
    assert "restore it with: hjbridge data fetch mnist" in told.err and len(told.err.splitlines()) == 1


@pytest.mark.parametrize("source", ["nowhere", "empty"])
def test_the_command_tells_what_it_could_not_take(tmp_path, capsys, source):
    (tmp_path / "empty").mkdir()
    assert call("data", "fetch", "mnist", "--from", str(tmp_path / source)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and source in error and len(error.splitlines()) == 1
    assert not (tmp_path / "cache").exists()


def test_the_published_hashes_are_whole():
    for source in SOURCES.values():
        for digest in [*source.downloads.values(), *source.members.values()]:
            assert len(digest) == 64 and int(digest, 16) >= 0
    assert download.SOURCES is SOURCES
