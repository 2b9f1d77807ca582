"""Where committed checkpoints are found: in the repository, in the cache, at the release; each verified."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

import hjbridge
from hjbridge import store
from hjbridge.cli import main
from hjbridge.metrics import classifier
from hjbridge.score import load, release

COMMITTED = store.root() / "checkpoints"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The checkpoints' folder in an empty cache; no repository."""
    monkeypatch.setenv("HJBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(release, "repository", lambda: None)
    return tmp_path / "cache" / "checkpoints"


@pytest.fixture
def asked(monkeypatch):
    """Files that pooch was asked for; it finds them in the repository and compares their hashes."""
    found = []

    def retrieve(url, known_hash, fname, path):
        found.append(url)
        content = (COMMITTED / fname).read_bytes()
        if known_hash != f"sha256:{hashlib.sha256(content).hexdigest()}":
            raise ValueError("another hash")
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(content)
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    return found


def test_the_list_holds_the_committed_files_and_their_hashes():
    """A checkpoint that was not made by `hjbridge train` needs its line: `release.enter(path, root)`."""
    committed = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in COMMITTED.glob("*.safetensors")}
    assert release.published() == committed


def test_a_checkpoint_is_fetched_once_and_then_taken_from_the_cache(cache, asked):
    address = f"https://github.com/hjbridge/hjbridge/releases/download/v{hjbridge.__version__}/digits.safetensors"
    assert load("digits").header["recipe"]["seed"] == 0 and asked == [address]
    assert [path.name for path in cache.iterdir()] == ["digits.safetensors"]
    assert load("digits").header["recipe"]["seed"] == 0 and len(asked) == 1
    assert classifier("digits", 2).header["seed"] == 2 and asked[1].endswith("/classifier-digits-2.safetensors")


def test_a_harmed_file_in_the_cache_is_fetched_again(cache, asked):
    cache.mkdir(parents=True)
    (cache / "digits.safetensors").write_bytes((COMMITTED / "digits.safetensors").read_bytes()[:-1])
    assert load("digits").header["recipe"]["seed"] == 0 and len(asked) == 1


@pytest.mark.parametrize("failure", [ConnectionError("no route\nto host"), ValueError("hash of downloaded file")])
def test_what_cannot_be_fetched_is_told_in_one_sentence(cache, monkeypatch, failure):
    def retrieve(*arguments):
        raise failure

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(OSError) as caught:
        load("mnist")
    told = f"checkpoint mnist could not be had from {release.ADDRESS}mnist.safetensors ({type(failure).__name__}): try"
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)
    assert not cache.exists() or not list(cache.iterdir())


def test_an_unknown_name_is_answered_and_nothing_is_fetched(cache, asked):
    cache.mkdir(parents=True)
    (cache / "own.safetensors").write_bytes(b"")  # not one of ours: only a repository may hold others
    with pytest.raises(ValueError, match="name must be one of digits, .*, mnist-vp or a .safetensors file, got 'own'"):
        load("own")
    assert asked == []


def test_in_a_repository_nothing_is_fetched(tmp_path, monkeypatch, asked):
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="`git checkout -- data/checkpoints/digits.safetensors`"):
        load("digits")
    with pytest.raises(FileNotFoundError, match="`git checkout -- data/checkpoints/classifier-mnist-1.safetensors`"):
        classifier("mnist", 1)
    assert asked == []


def test_all_are_fetched_by_one_command(cache, asked, capsys):
    with pytest.raises(SystemExit) as end:
        main(["data", "fetch", "checkpoints"])
    assert not end.value.code and len(asked) == len(release.published()) == len(list(cache.iterdir()))
    assert "verified: classifier-digits-0, " in capsys.readouterr().out


def test_a_folder_may_hold_some_of_them_anywhere(cache, tmp_path):
    (tmp_path / "some" / "below").mkdir(parents=True)
    for name in ("digits", "classifier-mnist-0"):
        shutil.copy(COMMITTED / f"{name}.safetensors", tmp_path / "some" / "below")
    (tmp_path / "some" / "own.safetensors").write_bytes(b"mine")
    assert release.fetch(tmp_path / "some") == ["classifier-mnist-0", "digits"]
    assert sorted(path.stem for path in cache.iterdir()) == ["classifier-mnist-0", "digits"]
    assert load("digits").header["recipe"]["seed"] == 0


def test_a_folder_with_a_harmed_file_or_none_is_refused_and_nothing_is_written(cache, tmp_path):
    folder = tmp_path / "some"
    for source in (folder, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"source must be a folder with checkpoints .*, got {source}"):
            release.fetch(source)
    folder.mkdir()
    shutil.copy(COMMITTED / "digits.safetensors", folder)
    (folder / "mnist.safetensors").write_bytes(b"cut")
    with pytest.raises(
        ValueError, match=r"mnist.safetensors must have sha256 [0-9a-f]{64}: it is harmed, or not of version"
    ):
        release.fetch(folder)
    assert not cache.exists()


def test_a_new_checkpoint_gets_its_line_in_the_order_of_names(tmp_path):
    listing = tmp_path / "src" / "hjbridge" / "score" / "checkpoints.sha256"
    for name in ("digits", "b", "digits-1", "b"):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(name.encode() + bytes(listing.is_file()))
        release.enter(path, tmp_path)
    told, lines = listing.read_text().splitlines()[::2], listing.read_text().splitlines()[1::2]
    assert told == [f"# hjbridge train {name}" for name in ("b", "digits", "digits-1")]
    assert [line[66:] for line in lines] == ["b.safetensors", "digits.safetensors", "digits-1.safetensors"]
    assert lines[0][:64] == hashlib.sha256(b"b\0").hexdigest()
    assert all(re.match("[0-9a-f]{64}  ", line) for line in lines)


def test_the_release_workflow_uploads_what_is_fetched():
    words = Path(store.root().parent / ".github" / "workflows" / "release.yml").read_text()
    assert "cp data/checkpoints/*.safetensors dist/" in words and 'gh release create "$GITHUB_REF_NAME" dist/*' in words
    assert release.ADDRESS.endswith(f"/releases/download/v{hjbridge.__version__}/")
