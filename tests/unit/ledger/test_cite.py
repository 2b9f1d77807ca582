"""Citations of the book and of single numbers."""

import re
import shutil
import subprocess

import pytest

from hjbridge.ledger import LedgerError, cite, machine, record

CFF = """\
cff-version: 1.2.0
title: A book
version: 0.1.0
date-released: 2026-11-30
authors:
  - name: some contributors
  - family-names: Doe
    given-names: Jane
repository-code: https://example.org/book
"""

UNASKED = f"version {machine.package_version()} (commit not found out: "


@pytest.fixture
def book(repository, begin, monkeypatch):
    (repository / "CITATION.cff").write_text(CFF)
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(repository / "data" / "results"))
    begin()
    record("ch05.a", 3.1234, stderr=0.04, seeds=[0, 1, 2], n=100, unit="nats", protocol="mean of 3", claims="C31")
    return repository


def git(folder, *words):
    if not shutil.which("git"):
        pytest.skip("no git here")
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True)


def test_the_book(book):
    assert cite.plain() == "some contributors; Doe, Jane (2026). A book. Version 0.1.0. https://example.org/book"
    assert cite.bibtex() == (
        "@software{hjbridge,\n  author  = {{some contributors} and Doe, Jane},\n  title   = {{A book}},\n"
        "  version = {0.1.0},\n  year    = {2026},\n  url     = {https://example.org/book},\n}"
    )


def test_a_number_outside_git(book, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(book.parent))
    text, reason = cite.plain("ch05.a"), "this copy is not under git" if shutil.which("git") else "git is not installed"
    facts = [
        "Result: ch05.a = 3.12 ± 0.04 nats", "Value: 3.1234", "Samples: 100", "Seeds: 0, 1, 2", "Protocol: mean of 3",
        "Claims: C31", "Profile: book", f"Commit: {UNASKED}{reason})", "Run it: make chapter CH=05",
        "Address: https://example.org/book/blob/main/data/results/ch05.json#ch05.a",
    ]  # fmt: skip
    assert set(facts) <= set(text.splitlines())
    assert f"note    = {{Result ch05.a = 3.12 ± 0.04 nats, {UNASKED}{reason}" in cite.bibtex("CH05.A")
    assert cite.plain("CH05.A") == text


@pytest.mark.parametrize(
    ("extra", "command"),
    [({"command": "hjbridge evaluate digits"}, "hjbridge evaluate digits"),
     ({}, "hjbridge run --chapter 05 --profile full")],
)  # fmt: skip
def test_a_number_of_profile_full_names_the_command_that_makes_it(book, begin, extra, command):
    begin("full", modules=())
    record("ch05.a", 3.0, **extra)
    assert f"Run it: {command}" in cite.plain("ch05.a@full").splitlines()
    assert "Run it: make chapter CH=05" in cite.plain("ch05.a").splitlines()


def test_a_committed_number_names_its_commit(book):
    git(book, "init", "-q")
    git(book, "add", ".")
    git(book, "commit", "-q", "-m", "x")
    match = re.search(r"Commit: ([0-9a-f]{40})", cite.plain("ch05.a"))
    assert match and f"/blob/{match[1]}/data/results/ch05.json#ch05.a" in cite.bibtex("ch05.a")
    path = book / "data" / "results" / "ch05.json"
    path.write_text(path.read_text() + "\n")
    assert "Commit: uncommitted" in cite.plain("ch05.a")
    assert "nats, uncommitted}" in cite.bibtex("ch05.a")


def test_a_number_that_git_has_not_seen_is_uncommitted(book):
    git(book, "init", "-q")
    assert "Commit: uncommitted" in cite.plain("ch05.a")
    git(book, "add", "CITATION.cff")
    git(book, "commit", "-q", "-m", "x")
    assert "Commit: uncommitted" in cite.plain("ch05.a")


def test_a_copy_that_lies_in_the_repository_of_something_else_is_not_under_git(book):
    git(book.parent, "init", "-q")
    (book.parent / "notes").touch()
    git(book.parent, "add", "notes")
    git(book.parent, "commit", "-q", "-m", "x")
    assert f"Commit: {UNASKED}this copy is not under git)" in cite.plain("ch05.a")
    git(book.parent, "add", ".")  # and taken up there
    git(book.parent, "commit", "-q", "-m", "y")
    assert f"Commit: {UNASKED}this copy is not under git)" in cite.plain("ch05.a")


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (None, "git is not installed"),
        ("exit 0", None),
        ("echo 'fatal: not a git repository' >&2; exit 128", "this copy is not under git"),
        ("echo \"fatal: detected dubious ownership in repository at '/x'\" >&2; exit 128", cite.REFUSED),
        ("echo 'fatal: bad object' >&2; exit 128", "git says 'fatal: bad object'"),
    ],
)
def test_what_git_could_not_say_is_told(book, tmp_path, monkeypatch, program, told):
    """Without git on the path, or with one that refuses."""
    folder = tmp_path / "programs"
    folder.mkdir()
    if program is not None:
        (folder / "git").write_text(f"#!/bin/sh\n{program}\n")
        (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    expected = told or "this copy is not under git"
    assert f"Commit: {UNASKED}{expected})" in cite.plain("ch05.a").splitlines()
    assert "uncommitted" not in cite.bibtex("ch05.a")


def test_a_git_that_cannot_be_started_is_told(book, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert f"Commit: {UNASKED}git cannot be started, Permission denied)" in cite.plain("ch05.a")


def test_what_is_missing_is_told(repository):
    with pytest.raises(LedgerError, match=r"CITATION.cff cannot be read"):
        cite.plain()
    (repository / "CITATION.cff").write_text(CFF)
    with pytest.raises(LedgerError, match=r"ch05.a is not recorded"):
        cite.bibtex("ch05.a")
    (repository / "CITATION.cff").write_text(CFF.replace("date-released: 2026-11-30\n", ""))
    assert cite.plain().startswith("some contributors; Doe, Jane. A book.") and "year" not in cite.bibtex()
