"""A small repository in a temporary folder, and a record opened without importing torch."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hjbridge import store
from hjbridge.ledger import session
from hjbridge.ledger.claims import load_claims
from hjbridge.ledger.profile import Profile

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with claims and nothing else, used by the ledger until the test ends."""
    root = tmp_path / "repository"
    (root / "data" / "results").mkdir(parents=True)
    (root / "notebooks").mkdir()
    shutil.copyfile(REPOSITORY / "data" / "claims.yml", root / "data" / "claims.yml")
    monkeypatch.setenv("HJBRIDGE_ROOT", str(root))
    monkeypatch.delenv("HJBRIDGE_RESULTS", raising=False)
    monkeypatch.setattr(store, "loaded", {})  # other tests of this process have read checkpoints
    load_claims.cache_clear()
    yield root
    session.close_session()
    load_claims.cache_clear()


@pytest.fixture
def begin(repository: Path) -> Callable[..., session.Session]:
    """Open a record: begin(profile="book", chapter="05", modules=None)."""

    def open_record(profile: str = "book", chapter: str | None = "05", modules: tuple[str, ...] | None = None):
        return session.open_session(Profile(profile), 0, chapter, modules)

    return open_record
