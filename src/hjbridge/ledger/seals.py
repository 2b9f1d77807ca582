"""Seals: the sha256 of each file of the record and of what it was made from, so that no edit goes unnoticed.

They stand in `.ci/seals`, in the form of sha256sum, so that `sha256sum -c .ci/seals` needs no tool of ours. The list
lies beside the scripts of CI because somebody who changes a number in `data/` does not think of looking there. It is a
seal against accidents and careless edits, not against a forger: whoever runs our tools again gets new seals.

Each file has a line of its own, below a comment that never changes: git merges two branches that renew neighbouring
lines, and where both add one, the merge driver `union` keeps both. Outputs of notebooks are held by digests in the
record, rules of claims by `.ci/verdicts` (`hjbridge.ledger.review`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hjbridge.ledger import files, stage
from hjbridge.ledger.files import LedgerError, Lock

LIST = ".ci/seals"
COVERED = (
    "data/results/ch[0-9][0-9].json", "data/results/full/ch[0-9][0-9].json", "data/checkpoints/*.safetensors",
    "data/*/*.npz", "data/*/provenance.json",
)  # fmt: skip
HEAD = "# sha256 of the record and of what it was made from: sha256sum -c .ci/seals\n"
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
RECORD = re.compile(r"data/results/(full/)?ch(\d\d)\.json")
#: stands for the hash of a file that two branches have sealed differently
TWICE = ""


def covered(root: Path) -> list[str]:
    """The files that are to be sealed, as far as they are there: paths in the repository, sorted."""
    return sorted({path.relative_to(root).as_posix() for pattern in COVERED for path in root.glob(pattern)})


def strays(root: Path) -> list[str]:
    """Files and links below the folder of results that belong to no record, as paths in the repository."""
    found = (path for path in sorted((root / "data" / "results").rglob("*")) if path.is_symlink() or path.is_file())
    names = {path.relative_to(root).as_posix(): path for path in found}
    return [
        name
        for name, path in names.items()
        if not name.endswith(".lock") and (path.is_symlink() or not RECORD.fullmatch(name))
    ]


def sealed(root: Path) -> dict[str, str]:
    """Path -> sha256, as the list has it; nothing where there is no list.

    Raises: LedgerError that names a line which is no seal.
    """
    path, found = root / LIST, dict[str, str]()
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for number, line in enumerate(text.splitlines(), 1):
        match = LINE.fullmatch(line)
        if match:
            sha256, name = match.groups()
            found[name] = sha256 if found.get(name, sha256) == sha256 else TWICE
        elif line and not line.startswith("#"):
            told = f"{path}, line {number}: must be `<sha256>  <path>`, got {line[:60]!r}"
            raise LedgerError(f"{told}; restore it with `git checkout -- {LIST}`")
    return found


def broken(root: Path) -> dict[str, str]:
    """Files that are not what was sealed: path -> what is wrong, in words."""
    found = {}
    for name, sha256 in sealed(root).items():
        now = stage.content_hash(root / name)
        if now is None:
            found[name] = "is gone"
        elif now != sha256:
            found[name] = "was sealed twice, by two branches" if sha256 == TWICE else "is not the file that was sealed"
    return found


def verify(root: Path, besides: Collection[str] = ()) -> None:
    """Demand that every sealed file, but those named, is as it was sealed.

    Raises: LedgerError that names each one that is not, with the command that restores it.
    """
    odd = {name: problem for name, problem in broken(root).items() if name not in besides}
    if odd:
        told = [f"{name} {problem}; restore it with `{restore(name)}`" for name, problem in odd.items()]
        raise LedgerError("\n".join([*told, "nothing was sealed, for these files would go unnoticed"]))


def restore(name: str) -> str:
    """The command that brings back the committed file."""
    return f"git checkout -- {name}"


def maker(name: str) -> str:
    """The command that seals a file anew: results are sealed by what makes them."""
    match = RECORD.fullmatch(name)
    if not match:
        return f"hjbridge seal {name}"
    return "hjbridge evaluate" if match[1] else f"make record CH={match[2]}"


def dump(seals: Mapping[str, str]) -> str:
    """Text of the list, sorted by path."""
    return HEAD + "".join(f"# {maker(name)}\n{seals[name]}  {name}\n" for name in sorted(seals))


def renewed(root: Path, hashes: Mapping[str, str | None]) -> str:
    """Text of the list with new lines for some files; None takes a line off."""
    return dump({name: sha256 for name, sha256 in {**sealed(root), **hashes}.items() if sha256})


def renew(path: Path, root: Path | None = None) -> None:
    """Seal one file as it is now, or take it off the list where it is gone; other lines stay as they are.

    Raises: ValueError for a file that is never sealed; LedgerError if the list cannot be written.
    """
    root = files.root() if root is None else root
    name = named(path, root)
    with guard(root):
        stage.finish_promotion(root)
        files.write_atomic(root / LIST, renewed(root, {name: stage.content_hash(root / name)}))


def named(path: Path, root: Path) -> str:
    """Path in the repository of a file that is sealed, or is to be. Raises: ValueError for any other."""
    place = path if path.exists() else root / path
    inside = place.resolve().is_relative_to(root.resolve())
    name = place.resolve().relative_to(root.resolve()).as_posix() if inside else ""
    if name not in covered(root) and name not in sealed(root):
        raise ValueError(f"path must be one of {', '.join(COVERED)} or data/claims.yml, got {path}")
    return name


@contextmanager
def guard(root: Path, patience: float = 10.0) -> Iterator[None]:
    """Hold the record while files and their seals change together; waits so many seconds for another holder.

    Raises: LedgerError that names the process which holds it.
    """
    lock, until = Lock(root / "_build" / "promotion.lock", "the record"), time.monotonic() + patience
    while True:
        try:
            lock.acquire()
            break
        except LedgerError as error:
            if not isinstance(error.__cause__, BlockingIOError) or time.monotonic() > until:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()
