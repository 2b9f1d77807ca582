"""Where the record lies, how a file is written whole or not at all, and how two writers are kept apart."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hjbridge import store


class LedgerError(RuntimeError):
    """Something in the record is missing, wrong, or cannot be written; the text says what and how to mend it."""


class NoRepository(LedgerError):
    """There is no clone of the repository, or HJBRIDGE_ROOT names none."""


class NotWritable(LedgerError):
    """A file or a lock cannot be written: a read-only checkout, a full disk."""


def root() -> Path:
    """The repository, found by `store.repository`.

    Raises: NoRepository if there is none, as with a package installed from a wheel, or if HJBRIDGE_ROOT names another
        folder.
    """
    folder = store.repository()
    if folder is None:
        raise NoRepository(f"{Path.cwd()} is not in a copy of the repository (no data/claims.yml): {store.CLONE}")
    if not (folder / store.CLAIMS).is_file():
        restore = "if it was deleted: `git checkout -- data/claims.yml`; else"
        raise NoRepository(f"{folder} is not a copy of the repository (no data/claims.yml): {restore} {store.CLONE}")
    return folder


def committed() -> Path:
    """The folder of the committed record."""
    return root() / "data" / "results"


def writing() -> Path:
    """The folder that `record` writes to: HJBRIDGE_RESULTS, or a scratch folder that git ignores."""
    override = os.environ.get("HJBRIDGE_RESULTS")
    return Path(override) if override else root() / "_build" / "results"


def reading() -> Path:
    """The folder that results are read from: HJBRIDGE_RESULTS, or the committed record."""
    override = os.environ.get("HJBRIDGE_RESULTS")
    return Path(override) if override else committed()


def chapter_name(chapter: str | int) -> str:
    """Two digits for a chapter given as 5, "5", "05" or "ch05".

    Raises: ValueError for anything else.
    """
    match = re.fullmatch(r"(?:ch)?0?(\d{1,2})", str(chapter))
    if not match:
        raise ValueError(f"chapter must be a number such as 5, '05' or 'ch05', got {chapter!r}")
    return f"{int(match[1]):02d}"


def notebooks(folder: Path | None = None) -> dict[str, Path]:
    """The chapters: two digits -> `NN_name.ipynb`, in order."""
    folder = root() / "notebooks" if folder is None else folder
    return {path.name[:2]: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}


def write_atomic(path: Path, text: str) -> None:
    """Write `text` so that `path` holds the old file or the complete new one, whatever happens on the way.

    Raises: NotWritable on a full disk or a folder that cannot be written; the old file is then untouched.
    """
    try:
        store.write_atomic(path, text.encode("utf-8"))
    except OSError as error:
        raise NotWritable(error.strerror) from error


class Lock:
    """A lock file held by one process; the system releases it when the process ends, however it ends.

    Args: path of the lock file; what is locked, in words, for the error of the second process.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self.handle: int | None = None

    def acquire(self) -> Lock:
        """Take the lock. Raises: LedgerError that names the process which holds it; NotWritable."""
        import fcntl

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise NotWritable(f"cannot write {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 32).decode().strip() or "unknown"
            os.close(handle)
            raise LedgerError(
                f"{self.what} is in use by process {holder}: wait until it ends, then run again"
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self.handle = handle
        return self

    def release(self) -> None:
        """Give the lock back; harmless if it is not held."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def __enter__(self) -> Lock:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()
