"""Run chapters afresh in a staging folder, judge their claims, and, if asked to, make them the record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from hjbridge.ledger import files, freshness, notebook, review, schema, seals, session, stage
from hjbridge.ledger.claims import load_claims
from hjbridge.ledger.files import LedgerError, Lock
from hjbridge.ledger.kernels import EXECUTING, Run, execute_all
from hjbridge.ledger.profile import Profile
from hjbridge.ledger.progress import Progress
from hjbridge.ledger.results import chapter_file, command, load_chapter, result
from hjbridge.ledger.setup import setup
from hjbridge.ledger.verdicts import Verdict, status, verdicts


def run(
    chapters: Iterable[str | int] = (),
    *,
    profile: str = "book",
    seed: int = 0,
    jobs: int = 2,
    folder: Path | None = None,
    record: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Execute chapters in fresh kernels.

    Args:
        chapters: numbers; none means all.
        profile: papermill parameter of each chapter.
        seed: papermill parameter of each chapter.
        jobs: chapters at a time.
        folder: staging folder; None: one below `_build/`.
        record: put notebooks and results into the repository when every chapter has succeeded.
        progress: where to tell how far it is.
    Returns: the staging folder, from which the site can be rendered.
    Raises: ValueError for an unknown profile or chapter; LedgerError if a chapter fails (with cell and traceback), if a
        notebook does not know the parameters or has no sizes for the profile, if another sealed file is not as it was
        (with `record`), if the stage or a chapter's record is in use, if it cannot be written.
    """
    Profile(profile)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if record and (profile, seed) != ("book", 0) and profile != "full":
        raise ValueError(f"the record holds profile book with seed 0, and profile full; got {profile} with seed {seed}")
    root = files.root()
    books = chosen(chapters)
    for path in books.values():
        notebook.parameters_known(path, ("profile", "seed"))
    sized(books, profile)
    label = "-".join(books)
    # absolute, since each chapter's process works in a folder of its own
    folder = (folder or root / "_build" / (f"record-{label}" if record else "stage")).resolve()
    progress = progress or Progress()
    with ExitStack() as stack:
        try:
            stack.enter_context(stage.claim(folder))
        except files.NotWritable as error:
            raise LedgerError(f"{error}; name another folder with --stage") from error
        for chapter in books if record else ():
            stack.enter_context(Lock(root / "_build" / f"chapter-{chapter}.lock", f"the record of chapter {chapter}"))
        if record:
            with seals.guard(root):
                stage.finish_promotion(root)
                own = [f"data/results/ch{chapter}.json" for chapter in books if profile == "book"]
                seals.verify(root, own)
        # read after an interrupted recording was finished, for that may have written them
        runs = [Run(chapter, path, path.read_text(encoding="utf-8")) for chapter, path in books.items()]
        stage.prepare(folder, root)
        parameters = {"profile": profile, "seed": seed}
        execute_all(runs, folder, parameters, jobs, progress, lambda item: finish(item, folder, profile))
        if failed := [item for item in runs if item.failed]:
            told = "\n\n".join(f"chapter {item.chapter} failed in {item.source.name}, {item.failed}" for item in failed)
            raise LedgerError(f"{told}\n\nThe record is unchanged; what was executed lies in {folder / EXECUTING}")
        staged_claims(folder, {item.chapter for item in runs})
        if record:
            promote(runs, folder, root, profile)
    return folder


def chosen(chapters: Iterable[str | int]) -> dict[str, Path]:
    """The notebooks of the chapters asked for, all if none are. Raises: ValueError for an unknown one."""
    known = files.notebooks()
    wanted = [files.chapter_name(chapter) for chapter in chapters] or list(known)
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"chapter must be one of {', '.join(known) or 'none yet'}, got {unknown[0]!r}")
    return {name: known[name] for name in dict.fromkeys(wanted)}


def sized(books: dict[str, Path], profile: str) -> None:
    """Demand that chapters have sizes of their own for a profile, lest numbers of `book` go by another name.

    Raises: LedgerError that names each one which has none, and what to do.
    """
    told = []
    for chapter, path in books.items():
        if notebook.profile_known(path, profile):
            continue
        say = f"{path.name} has no sizes for profile {profile}: give `{profile}=` in a call of `pick`, or run book"
        full = chapter_file(files.committed(), chapter, "full")
        known = load_chapter(full).items() if profile == "full" and full.is_file() else ()
        commands = sorted({command(f"{id}@full", entry) for id, entry in known if "command" in entry.extra})
        told.append(say + (f"; its full numbers come from `{'`, `'.join(commands)}`" if commands else ""))
    if told:
        raise LedgerError("\n".join(told))


def finish(item: Run, folder: Path, profile: str) -> None:
    """Normalise an executed notebook into the stage; add hashes of its code and its outputs to its results."""
    book = notebook.normalise(notebook.read_notebook(folder / EXECUTING / item.source.name))
    notebook.write_notebook(folder / "notebooks" / item.source.name, book)
    path = chapter_file(folder / "data" / "results", item.chapter, profile)
    words = path.read_bytes() if path.is_file() else b""
    earlier = chapter_file(files.committed(), item.chapter, profile)
    if not words or (profile == "full" and earlier.is_file() and words == earlier.read_bytes()):
        item.failed = "it recorded nothing: every chapter calls setup(seed, profile) and record(...)"
        return
    if profile == "full":  # whose numbers come and go one by one, each with a run of its own
        return
    stored = schema.read(path)
    stored["run"]["hashes"]["notebook"] = freshness.notebook_hash(json.loads(item.before)["cells"])
    entries = {entry["id"]: entry for entry in stored["results"]}
    shown = notebook.output_digests(book["cells"])
    files.write_atomic(path, schema.dump(stored["chapter"], stored["run"], entries, shown))


def promote(runs: list[Run], folder: Path, root: Path, profile: str) -> None:
    """Make the staged chapters the record, in one step: results, verdicts, seals, and for `book` the notebooks."""
    staged, hashes = {}, {}
    for item in runs:
        if item.source.read_text(encoding="utf-8") != item.before:
            raise LedgerError(f"{item.source.name} was edited while it ran; the record is unchanged: run it again")
        path = chapter_file(folder / "data" / "results", item.chapter, profile)
        name = path.relative_to(folder).as_posix()
        staged[name], hashes[name] = path.read_text(encoding="utf-8"), stage.content_hash(path)
        load_chapter(path)
        if profile == "book":
            name = f"notebooks/{item.source.name}"
            staged[name] = (folder / name).read_text(encoding="utf-8")
    with seals.guard(root):
        stage.finish_promotion(root)
        staged[seals.LIST] = seals.renewed(root, hashes)
        staged[review.LIST] = review.renewed(root, folder, [item.chapter for item in runs])
        stage.promote(staged, root)


def staged_claims(folder: Path, chapters: Iterable[str] = ()) -> list[Verdict]:
    """Verdicts on the numbers of a staging folder, of the given chapters or of all.

    Raises: ClaimError if a number bears out no rule of its claim; tells every failure.
    """
    load_claims.cache_clear()
    wanted = set(chapters)
    claims = [c for c in load_claims(folder / "data" / "claims.yml").values() if not wanted or c.chapter in wanted]
    return list(verdicts(claims, partial(result, folder=folder / "data" / "results"), status))


@contextmanager
def full_record(chapter: str | int, modules: tuple[str, ...]) -> Iterator[Profile]:
    """Let `record` put numbers of profile `full`, made outside of a notebook, into the committed record, and seal them.

    Args: chapter: its number. modules: those that decide the numbers; only they can make them stale.
    Raises: LedgerError if another process records this chapter, or if a sealed file is not as it was.
    """
    name, root, before = files.chapter_name(chapter), files.root(), os.environ.get("HJBRIDGE_RESULTS")
    with Lock(root / "_build" / f"chapter-{name}.lock", f"the record of chapter {name}"):
        seals.verify(root)
        os.environ["HJBRIDGE_RESULTS"] = str(files.committed())
        try:
            yield setup(0, "full", chapter=name, modules=modules)
        finally:
            session.close_session()
            os.environ.pop("HJBRIDGE_RESULTS")
            if before is not None:
                os.environ["HJBRIDGE_RESULTS"] = before
            if (path := chapter_file(files.committed(), name, "full")).is_file():
                seals.renew(path, root)
        with seals.guard(root):
            files.write_atomic(root / review.LIST, review.renewed(root, root, [name]))
