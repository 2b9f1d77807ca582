"""Verified bytes: where files lie, how they are written whole or not at all, and read only if they are unharmed."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

#: checkpoints that this process has read: resolved path -> fingerprint of the file as it was then
loaded: dict[Path, str] = {}

CLAIMS = Path("data", "claims.yml")
#: what to do where there is no repository
CLONE = "go into a clone of https://github.com/hjbridge/hjbridge, or set HJBRIDGE_ROOT to one"


def repository() -> Path | None:
    """The repository: the one that the environment variable HJBRIDGE_ROOT names; else the source tree that this package
    lies in; else the nearest clone above the working directory, so that a wheel serves a clone's notebooks; else None.

    Raises: FileNotFoundError if HJBRIDGE_ROOT names no folder.
    """
    if override := os.environ.get("HJBRIDGE_ROOT"):
        if not Path(override).is_dir():
            raise FileNotFoundError(f"HJBRIDGE_ROOT must name a clone of the repository, got {override}")
        return Path(override).resolve()
    source, here = Path(__file__).resolve().parents[2], Path.cwd()
    if (source / CLAIMS).is_file():
        return source
    clones = (folder for folder in (here, *here.parents) if (folder / CLAIMS).is_file())
    return next((folder for folder in clones if (folder / "pyproject.toml").is_file()), None)


def root() -> Path:
    """The repository's `data/` folder. Raises: FileNotFoundError if there is no repository."""
    folder = repository()
    if folder is None:
        raise FileNotFoundError(f"this needs the repository of the book: {CLONE}")
    return folder / "data"


def cache() -> Path:
    """The folder of what is fetched; the environment variable HJBRIDGE_CACHE overrides the user's cache folder."""
    override = os.environ.get("HJBRIDGE_CACHE")
    if override:
        return Path(override)
    import pooch

    return Path(pooch.os_cache("hjbridge"))


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    What a killed process left of an earlier attempt is cleared away after an hour.
    Raises: OSError that names the file, on a full disk or in a folder that cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            with suppress(FileNotFoundError):  # another writer of the same file has just finished with it
                if time.time() - leftover.stat().st_mtime > 3600:
                    leftover.unlink()
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        remedy = "free some space or make the folder writable, then run again"
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror}. What was there is untouched; {remedy}"
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def fingerprint(path: Path) -> str:
    """The first 16 hexadecimal digits of the sha256 of a file. Raises: OSError if it cannot be read."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def note_checkpoint(path: Path) -> None:
    """Remember that this process has read a checkpoint, so that the numbers it records are tied to the weights.

    Raises: OSError if the file cannot be read.
    """
    loaded[path.resolve()] = fingerprint(path)


def verified(path: Path, sha256: str, restore: str) -> bytes:
    """Read a file and return its bytes only if they have the given hash.

    Args:
        path: the file.
        sha256: hexadecimal digest of its bytes.
        restore: what the reader has to do if the file is missing or harmed.

    Raises:
        FileNotFoundError, ValueError: the file is missing, or its bytes are not the expected ones; names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; restore it with: {restore}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ValueError(
            f"{path} must have sha256 {sha256}, got {digest} ({len(content)} bytes): restore it with: {restore}"
        )
    return content
