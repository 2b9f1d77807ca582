"""The open record of a running notebook: `record` adds a number and writes the whole file anew, atomically."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hjbridge import store
from hjbridge.ledger import files, freshness, machine, schema
from hjbridge.ledger.files import LedgerError, Lock
from hjbridge.ledger.profile import Profile
from hjbridge.ledger.results import Result, chapter_file, load_chapter
from hjbridge.ledger.schema import CLAIM, ID


@dataclass
class Session:
    """What a notebook has recorded since its call of `setup`."""

    profile: Profile
    seed: int
    chapter: str | None
    modules: tuple[str, ...] | None
    started: float = field(default_factory=time.perf_counter)
    results: dict[str, Result] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    lock: Lock | None = None
    kept: bool = True

    def begin(self, chapter: str) -> None:
        """Take the lock of the chapter's file."""
        with self.excused():
            self.take(chapter, files.writing())
        self.chapter = chapter

    @contextmanager
    def excused(self) -> Iterator[None]:
        """Say once that numbers are not kept, and go on, where the scratch folder cannot be written.

        A notebook that is run alone, in a read-only checkout or far from one, still shows what it finds; only its claim
        check needs the claims of a clone. A folder that
        HJBRIDGE_RESULTS names was asked for, and is missed: the error passes.
        """
        try:
            yield
        except (files.NotWritable, files.NoRepository) as error:
            if "HJBRIDGE_RESULTS" in os.environ:
                raise
            self.kept = False
            print(f"the numbers of this run are shown and not kept: {error}")

    def take(self, chapter: str, folder: Path) -> None:
        """Take the lock of the chapter's file in a folder."""
        if self.profile.name not in ("book", "full") and folder.resolve() == files.committed().resolve():
            raise LedgerError(f"the committed record holds profiles book and full, got profile {self.profile.name!r}")
        name = chapter_file(Path(), chapter, self.profile.name).as_posix().replace("/", "-")
        self.lock = Lock(folder / f".{name}.lock", f"the record of chapter {chapter} in {folder}").acquire()

    def remember_modules(self) -> None:
        """Hash each imported module once, as early as possible: it may be edited while the notebook runs."""
        names = freshness.imported_modules() if self.modules is None else self.modules
        self.hashes.update(freshness.module_hashes(name for name in names if name not in self.hashes))

    def remember_checkpoints(self) -> None:
        """Note the committed checkpoints that the process has loaded, also before the record was opened.

        Those below the folder that HJBRIDGE_ROOT names count: other weights than the committed ones are then found out.
        """
        folder = (store.root() / "checkpoints").resolve()
        for path, fingerprint in store.loaded.items():
            if path.parent == folder and path.suffix == ".safetensors":
                self.checkpoints.setdefault(path.stem, fingerprint)

    def run(self) -> dict[str, Any]:
        """What has to be known about a run to repeat it."""
        hashes = {"modules": dict(sorted(self.hashes.items())), "checkpoints": dict(sorted(self.checkpoints.items()))}
        return {
            "profile": self.profile.name,
            "seed": self.seed,
            "versions": machine.versions(),
            "cpu": machine.cpu(),
            "seconds": round(time.perf_counter() - self.started, 1),
            "hashes": {"notebook": None, **hashes},
        }

    def write(self) -> None:
        """Write the chapter's file, unless it cannot be kept.

        Records of profile `full` join those of earlier runs, each with its own run.

        The outputs of the notebook are not known yet; the runner adds their digests.
        """
        self.remember_modules()
        if not self.kept:
            return
        assert self.chapter is not None
        path = chapter_file(files.writing(), self.chapter, self.profile.name)
        self.remember_checkpoints()
        run = self.run()
        entries = {id: r.entry() for id, r in self.results.items()}
        if self.profile.name == "full":
            entries = {id: entry | {"run": run} for id, entry in entries.items()}
            if path.is_file():
                earlier = {id: r.entry() | {"run": r.run} for id, r in load_chapter(path).items()}
                entries = earlier | entries
            run = {"profile": "full"}
        with self.excused():
            files.write_atomic(path, schema.dump(self.chapter, run, entries, {}))


_session: Session | None = None


def open_session(profile: Profile, seed: int, chapter: str | int | None, modules: tuple[str, ...] | None) -> Session:
    """Start the record of a run; one that the same process had open is closed."""
    global _session
    close_session()
    session = Session(profile, seed, None, modules)
    session.remember_modules()
    if chapter is not None:
        session.begin(files.chapter_name(chapter))
    _session = session
    return session


def close_session() -> None:
    """Forget the open record, if any, and release its lock."""
    global _session
    if _session is not None and _session.lock is not None:
        _session.lock.release()
    _session = None


def current() -> Session | None:
    """The open record of this process."""
    return _session


def record(
    id: str,
    value: Any,
    *,
    stderr: Any = None,
    n: int | None = None,
    seeds: int | Sequence[int] | None = None,
    unit: str | None = None,
    protocol: str | None = None,
    reference: Any = None,
    tolerance: Any = None,
    below: Any = None,
    claims: str | Sequence[str] = (),
    digits: int | None = None,
    **extra: Any,
) -> None:
    """Put a number on record, and print it as `id = value`.

    Args: see `Result`; numbers may be 0-d tensors or numpy scalars; a list of numbers, one per seed, is recorded as
        their mean and its standard error; `below` is short for `reference=0` with this tolerance; `extra` holds
        further JSON values.
    Raises: LedgerError before `setup`, for a duplicate id, another chapter's id, a file that cannot be written;
        ValueError for a malformed id, a value that is not finite, fewer than 3 seeds behind a stochastic number.
    """
    session = _session
    if session is None:
        raise LedgerError(f"record({id!r}) was called before setup(seed, profile): run the set-up cell first")
    match = ID.fullmatch(id) if isinstance(id, str) else None
    if not match:
        raise ValueError(f"id must look like ch05.prior_kl (lower case, digits, underscores), got {id!r}")
    if session.chapter is None:
        session.begin(match[1])
    if match[1] != session.chapter:
        raise LedgerError(f"id must begin with ch{session.chapter}, the chapter of this notebook, got {id!r}")
    if id in session.results:
        raise LedgerError(f"{id} is recorded already ({session.results[id].text()}); run the set-up cell to start anew")
    if below is not None:
        if reference is not None or tolerance is not None:
            raise ValueError(f"below of {id} must stand alone, got a reference or a tolerance beside it")
        reference, tolerance = 0, below
    if isinstance(value, (list, tuple)):
        seeds = len(value) if seeds is None else seeds
        value, stderr = mean_and_error(value, 3 if session.profile.judged else 1)
    entry = Result(
        id=id,
        value=number("value", value),
        stderr=None if stderr is None else float(number("stderr", stderr, at_least=0.0)),
        n=None if n is None else whole("n", n),
        seeds=None if seeds is None else whole("seeds", seeds) if isinstance(seeds, int) else tuple(map(int, seeds)),
        unit=unit,
        protocol=protocol,
        reference=None if reference is None else float(number("reference", reference)),
        tolerance=None if tolerance is None else float(number("tolerance", tolerance, at_least=0.0)),
        claims=tuple([claims] if isinstance(claims, str) else claims),
        digits=None if digits is None else whole("digits", digits),
        extra=extra,
    )
    check(entry, session.profile)
    session.results[id] = entry
    try:
        session.write()
    except BaseException:
        del session.results[id]
        raise
    print(entry)


def record_all(
    prefix: str, values: Mapping[Any, Any], references: Any = None, *, rtol: float | None = None, **common: Any
) -> None:
    """Put several numbers on record of which the same is to be said.

    record_all("ch05.gap", {"ode": 0.1, "sde": {100: 0.3, 400: 0.2}}) records ch05.gap_ode, ch05.gap_sde_100 and
    ch05.gap_sde_400; with the prefix "ch05" they are ch05.ode and so on.

    Args: prefix: where the ids begin. values: name to what `record` takes as a value, or to a further mapping.
        references: name to reference, where there is one, or one for all. rtol: tolerance relative to the references.
        common: further arguments of `record`; one that is a mapping, such as unit={"time": "s"}, is looked up by name.
    Raises: as `record`.
    """
    shared = common | {"reference": references}
    for name, value in values.items():
        id = f"{prefix}_{name}" if "." in prefix else f"{prefix}.{name}"
        own: dict[str, Any] = {
            key: given.get(name) if isinstance(given, Mapping) else given for key, given in shared.items()
        }
        own = {key: given for key, given in own.items() if given is not None}
        if isinstance(value, Mapping):
            record_all(id, value, own.pop("reference", None), rtol=rtol, **own)
            continue
        if rtol is not None and "reference" in own:
            own["tolerance"] = rtol * abs(own["reference"])
        record(id, value, **own)


def mean_and_error(values: Sequence[Any], least: int) -> tuple[float, float | None]:
    """Mean of the values of several seeds and its standard error, std / sqrt(n) with n - 1 in the variance.

    Returns: mean and error; no error for a single value. Raises: ValueError for fewer than `least` values.
    """
    if len(values) < least:
        raise ValueError(f"value must hold the numbers of at least {least} seeds, got {len(values)}")
    plain = [float(number("value", v)) for v in values]
    error = statistics.stdev(plain) / math.sqrt(len(plain)) if len(plain) > 1 else None
    return statistics.fmean(plain), error


def check(entry: Result, profile: Profile) -> None:
    """Raise ValueError for what a single number can be checked for."""
    bad = [claim for claim in entry.claims if not CLAIM.fullmatch(claim)]
    if bad:
        raise ValueError(f"claims must be ids such as C31 or R6, got {bad[0]!r}")
    if entry.stderr is not None and profile.judged:
        count = entry.seeds if isinstance(entry.seeds, int) else len(set(entry.seeds or ()))
        if count < 3:
            raise ValueError(f"seeds of {entry.id} must be 3 or more, for it has a stderr, got {count}")
    try:
        json.dumps(entry.extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra values of {entry.id} must be finite JSON values: {error}") from error


def number(name: str, value: Any, at_least: float = -math.inf) -> int | float:
    """A finite Python number from a number, a 0-d array or a 0-d tensor."""
    plain = value
    if hasattr(value, "item"):
        try:
            plain = value.item()
        except (ValueError, RuntimeError, TypeError) as error:
            raise ValueError(f"{name} must be one number, got shape {tuple(value.shape)}") from error
    if isinstance(plain, bool) or not isinstance(plain, (int, float)):
        raise ValueError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    if not math.isfinite(plain) or plain < at_least:
        wanted = "a finite number" if at_least == -math.inf else f"a finite number >= {at_least:g}"
        raise ValueError(f"{name} must be {wanted}, got {plain!r}")
    return plain


def whole(name: str, value: Any) -> int:
    """A positive integer."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)
