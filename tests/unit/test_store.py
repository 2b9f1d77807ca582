"""Where the repository is: one variable, else the source tree, else a clone above the working directory."""

from pathlib import Path

import pytest

from hjbridge import store
from hjbridge.ledger import files
from hjbridge.ledger.files import LedgerError

SOURCE = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package as if it lay in site-packages, and a clone elsewhere."""
    clone = tmp_path / "clone"
    (clone / "data").mkdir(parents=True)
    (clone / "notebooks").mkdir()
    (clone / "data" / "claims.yml").touch()
    (clone / "pyproject.toml").touch()
    monkeypatch.setattr(store, "__file__", str(tmp_path / "site-packages" / "hjbridge" / "store.py"))
    monkeypatch.chdir(tmp_path)
    return clone


def test_the_source_tree_is_the_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert store.repository() == files.root() == SOURCE and store.root() == SOURCE / "data"


def test_the_variable_comes_first(monkeypatch, tmp_path):
    """It serves for data even where it names no clone; the ledger wants one."""
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    assert store.repository() == tmp_path and store.root() == tmp_path / "data"
    with pytest.raises(LedgerError, match=f"{tmp_path} is not a copy of the repository .*set HJBRIDGE_ROOT to one"):
        files.root()
    monkeypatch.setenv("HJBRIDGE_ROOT", "")
    assert store.repository() == SOURCE


def test_an_installed_package_serves_the_clone_that_it_is_used_in(installed, monkeypatch):
    for folder in (installed, installed / "notebooks"):
        monkeypatch.chdir(folder)
        assert store.repository() == files.root() == installed
    (installed / "pyproject.toml").unlink()  # claims alone make no clone
    assert store.repository() is None


def test_where_there_is_no_repository_both_say_what_to_do(installed, tmp_path):
    assert store.repository() is None
    with pytest.raises(FileNotFoundError, match="this needs the repository of the book: go into a clone of https"):
        store.root()
    with pytest.raises(LedgerError, match=f"{tmp_path} is not in a copy of the repository .*set HJBRIDGE_ROOT to one"):
        files.root()
