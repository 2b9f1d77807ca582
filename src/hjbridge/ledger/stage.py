"""The staging folder, a copy of all that the site is made from, and the way from there into the record."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from hjbridge.ledger import files
from hjbridge.ledger.files import LedgerError, Lock

#: what the site is made from
SOURCES = (
    "_config.yml", "_toc.yml", "CITATION.cff", "CHANGELOG.md", "pyproject.toml", "constraints.txt", "book", "notebooks",
    "data/results", "data/checkpoints", "data/claims.yml",
)  # fmt: skip
IGNORED = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".*.tmp", ".*.lock", "*.state")
MARK = ".staged-by-hjbridge"


def claim(stage: Path) -> Lock:
    """The lock of a staging folder, which is the mark inside it: nothing is written to the repository.

    Raises: LedgerError, when taken, if another process holds it, if the folder cannot be written, or if it holds
        something that no earlier run has put there.
    """
    if stage.exists() and (not stage.is_dir() or (any(stage.iterdir()) and not (stage / MARK).is_file())):
        raise LedgerError(f"stage must be a new or empty folder, or one of an earlier run, got {stage}")
    return Lock(stage / MARK, f"staging folder {stage}")


def prepare(stage: Path, root: Path | None = None) -> None:
    """Fill a staging folder anew; the mark of its run stays.

    Raises: LedgerError if the folder holds something that this function has not put there, or cannot be written.
    """
    root = files.root() if root is None else root
    mark = claim(stage).path
    try:
        stage.mkdir(parents=True, exist_ok=True)
        mark.touch()
        for old in stage.iterdir():
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            elif old != mark:
                old.unlink()
        for name in SOURCES:
            source, target = root / name, stage / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=IGNORED, copy_function=shutil.copyfile)
            elif source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        for folder in stage.rglob("*/"):  # a read-only repository would make them read-only, too
            folder.chmod(0o755)
        (stage / "data" / "results").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"cannot fill the staging folder {stage} ({error}): name another with --stage") from error


def journal(root: Path) -> Path:
    """File that tells which staged files are on their way into the record, and what each is to replace."""
    return root / "_build" / "promotion.json"


def promote(staged: dict[str, str], root: Path | None = None) -> list[Path]:
    """Put files into the repository, each atomically, and all or none: a killed promotion is finished by the next.

    Args: path in the repository -> its new text. Returns: the paths written.
    Raises: LedgerError if the disk is full or a folder is read-only; unwritten files keep their old content.
    """
    root = files.root() if root is None else root
    steps = {name: {"text": text, "replaces": content_hash(root / name)} for name, text in staged.items()}
    files.write_atomic(journal(root), json.dumps(steps))
    return finish_promotion(root)


def content_hash(path: Path) -> str | None:
    """sha256 of a file, None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def finish_promotion(root: Path | None = None) -> list[Path]:
    """Finish a promotion that was interrupted; does nothing if there is none.

    Raises: LedgerError, and writes nothing, if a file holds neither its old nor its new text, or if the journal is
        damaged; says what to do.
    """
    root = files.root() if root is None else root
    plan = journal(root)
    if not plan.is_file():
        return []
    keep = f"To keep what is there, delete {plan}, then record the chapter again with `make record`"
    try:
        steps = {
            root / name: (step["text"].encode("utf-8"), step["replaces"])
            for name, step in json.loads(plan.read_text(encoding="utf-8")).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"{plan}, left by an interrupted recording, cannot be read ({error}). {keep}") from error
    for path, (text, replaces) in steps.items():
        if content_hash(path) not in (replaces, hashlib.sha256(text).hexdigest()):
            raise LedgerError(
                f"{path} was changed after its recording was interrupted; finishing that, as {plan} tells, would "
                f"overwrite the change. Nothing was written. {keep}"
            )
    for path, (text, _) in steps.items():
        files.write_atomic(path, text.decode("utf-8"))
    plan.unlink()
    for path in steps:
        for rest in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed while writing
            rest.unlink(missing_ok=True)
    return list(steps)
