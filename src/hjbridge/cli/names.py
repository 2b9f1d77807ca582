"""The names that commands accept: what was meant, and what a shell completes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import hjbridge
from hjbridge.cli.terminal import Usage

#: what `hjbridge data fetch` and `hjbridge evaluate` accept; tests hold them equal to what the library knows
FETCHED = ("mnist", "fashion-mnist", "cifar10", "checkpoints")
EVALUATED = ("digits", "mnist", "fashion-mnist", "score-sde")


def meant(what: str, given: str, known: Iterable[str]) -> str:
    """The known name that is meant, in capitals or not.

    Raises: Usage that names what is accepted, and the nearest.
    """
    from hjbridge.ledger.results import nearest

    names = {name.casefold(): name for name in known}
    if given.casefold() not in names:
        accepted = ", ".join(names.values()) or "none yet"
        raise Usage(f"{what} must be one of {accepted}, got {given!r}{nearest(given.casefold(), names)}")
    return names[given.casefold()]


def seed(given: int | None) -> None:
    """Refuse a seed that numpy and torch would not take. Raises: Usage."""
    if given is not None and not 0 <= given < 2**32:
        raise Usage(f"seed must lie in 0 to 2**32 - 1, got {given}")


def at_least(least: int, **given: int | None) -> None:
    """Refuse numbers that are too small, by their names. Raises: Usage."""
    for name, value in given.items():
        if value is not None and value < least:
            raise Usage(f"{name} must be at least {least}, got {value}")


def chapter(given: str, known: Iterable[str]) -> str:
    """Two digits of a known chapter, given as 5, 05 or ch05. Raises: Usage for any other."""
    from hjbridge.ledger.files import chapter_name

    try:
        return meant("chapter", chapter_name(given.lower()), known)
    except ValueError as error:
        raise Usage(str(error)) from error


def completing(known: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A function by which a shell completes names; where there is no repository, it completes none."""

    def complete(incomplete: str) -> list[str]:
        with suppress(OSError, RuntimeError, ValueError):
            return [name for name in known() if name.startswith(incomplete)]
        return []

    return complete


def recipes() -> list[str]:
    """The committed checkpoints, and `list`: the names to train that need no look into the recipes."""
    listing = Path(hjbridge.__file__).parent / "score" / "checkpoints.sha256"
    lines = [line for line in listing.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return ["list", *(line.split()[1].removesuffix(".safetensors") for line in lines)]


def chapters() -> Iterable[str]:
    """The chapters of the book."""
    from hjbridge.ledger import files

    return files.notebooks()


def pages() -> Iterable[str]:
    """The pages that show what their programs do."""
    from hjbridge.ledger.pages import pages

    return pages()


def claims() -> Iterable[str]:
    """Ids of the claims."""
    from hjbridge.ledger.claims import load_claims

    return load_claims()


def results() -> Iterable[str]:
    """Ids of the recorded numbers."""
    from hjbridge.ledger import files
    from hjbridge.ledger.results import all_results

    return all_results(files.committed())


def profiles() -> Iterable[str]:
    """Names of the profiles."""
    from hjbridge.ledger.profile import PROFILES

    return PROFILES
