"""The command line: what it prints, what it refuses, and that it starts fast."""

import json
import re
import resource
import subprocess
import sys
import textwrap

import pytest

from hjbridge.cli import main
from hjbridge.ledger import record


def call(*words):
    """Exit code of a command."""
    try:
        main(list(words))
    except SystemExit as end:
        return end.code or 0
    return 0


def test_help_loads_nothing_heavy_and_is_quick():
    program = textwrap.dedent(
        """
        import sys
        sys.argv = ["hjbridge", "--help"]
        from hjbridge.cli import main
        try:
            main()
        except SystemExit:
            pass
        heavy = {"torch", "numpy", "matplotlib", "papermill", "nbformat", "sklearn", "yaml"} & set(sys.modules)
        assert not heavy, heavy
        """
    )
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        times.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    for command in ("run", "check", "claims", "results", "cite", "data", "train", "normalise", "version"):
        assert command in done.stdout
    assert min(times) < 1.0  # CPU seconds, which other processes do not lengthen; about 0.3 of them


def test_the_ledger_imports_neither_science_nor_torch():
    program = textwrap.dedent(
        """
        import sys
        import hjbridge.ledger, hjbridge.ledger.checks, hjbridge.ledger.cite, hjbridge.ledger.runner
        ours = {n.split(".")[1] for n in sys.modules if n.startswith("hjbridge.")}
        assert ours == {"ledger", "store"}, ours
        assert not {"torch", "numpy", "papermill"} & set(sys.modules)
        """
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_check_fails_on_a_stale_record(repository, capsys):
    (repository / "notebooks" / "05_x.ipynb").write_text(json.dumps({"nbformat": 4, "cells": []}))
    assert call("check") == 1
    assert "error: chapter 05: has no record; mend it with `make record CH=05`" in capsys.readouterr().out
    (repository / "notebooks" / "05_x.ipynb").unlink()
    assert call("check") == 0
    assert "the record is fresh" in capsys.readouterr().out


def test_claims_are_listed_with_verdicts(repository, capsys):
    assert call("claims") == 0
    printed = capsys.readouterr().out
    assert "C26" in printed and "reproduced" in printed and "open" in printed
    assert call("claims", "C31") == 0
    assert "Correct: Only nearly" in capsys.readouterr().out
    assert call("claims", "C99") == 2
    assert re.search(r"error: claim C99 is unknown; .*`hjbridge claims` lists all", capsys.readouterr().err)


def test_a_failing_claim_fails_the_command(repository, begin, monkeypatch, capsys):
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(repository / "data" / "results"))
    begin()
    record("ch05.coefficient_deviation", 1.0)
    assert call("claims", "C32") == 1
    captured = capsys.readouterr()
    assert "FAILS" in captured.out
    assert "C32 (General forward SDE" in captured.err and "expected <= 1e-10, got 1" in captured.err


def test_results_are_listed(repository, begin, monkeypatch, capsys):
    assert call("results") == 0
    assert "nothing is recorded" in capsys.readouterr().out
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(repository / "data" / "results"))
    begin()
    record("ch05.a", 3.14159, digits=3, unit="m", protocol="by hand")
    assert call("results", "5") == 0
    printed = capsys.readouterr().out
    assert "ch05.a" in printed and "3.14 m" in printed and "by hand" in printed
    assert call("results", "6") == 2
    assert "error: chapter must be one of 05, got '06'" in capsys.readouterr().err


def test_normalise_checks_and_rewrites(tmp_path, capsys):
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "cells": []}))
    assert call("normalise", "--check", str(path)) == 1
    assert "is not in its fixed form" in capsys.readouterr().out
    assert call("normalise", str(path)) == 0
    assert call("normalise", "--check", str(path)) == 0


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, ("run", "--record", "--profile", "smoke"), "the record holds profile book with seed 0"),
        (2, ("run", "--record", "--seed", "1"), "the record holds profile book with seed 0"),
        (2, ("seal", "nothing"), "path must be one of data/results/"),
        (1, ("cite",), "CITATION.cff cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(repository, capsys, code, words, message):
    assert call(*words) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_the_version_is_printed(capsys):
    assert call("version") == 0
    assert capsys.readouterr().out.strip().count(".") == 2


def test_recipes_are_listed(capsys):
    assert call("train", "list") == 0
    assert "digits" in capsys.readouterr().out


def test_training_one_s_own_steps_writes_the_named_file(tmp_path, capsys, monkeypatch):
    out = tmp_path / "a.safetensors"
    assert call("train", "digits", "--steps", "2", "--out", str(out)) == 0
    assert out.is_file() and f"wrote {out}" in capsys.readouterr().out
