"""The command line: exit codes, names that are meant, JSON, Ctrl-C, completion, and terminals that lack some signs."""

import io
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import typer
from typer.main import get_command

from hjbridge import data, store
from hjbridge.cli import EXIT_CODES, app, main, names
from hjbridge.cli.terminal import spell_out
from hjbridge.data.sources import SOURCES
from hjbridge.ledger import record, runner, session
from hjbridge.ledger.claims import load_claims
from hjbridge.ledger.profile import Profile
from hjbridge.metrics.classifiers import CLASSIFIERS
from hjbridge.metrics.features import SEEDS
from hjbridge.score import release
from hjbridge.training import RECIPES, evaluate

SOURCE = store.root().parent


def call(*words):
    """Exit code of a command."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def process(*words, **variables):
    """A command in a process of its own: exit code, and bytes of its output and of its errors."""
    command = [sys.executable, "-c", "from hjbridge.cli import main; main()", *words]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with the claims and a record of chapter 05."""
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "06_x.ipynb").write_text(json.dumps({"nbformat": 4, "cells": []}))
    shutil.copy(SOURCE / "data" / "claims.yml", tmp_path / "data")
    shutil.copy(SOURCE / "CITATION.cff", tmp_path)
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(tmp_path / "data" / "results"))
    load_claims.cache_clear()
    session.open_session(Profile("book"), 0, "05", None)
    record("ch05.small_number", 3.0e-7, stderr=2e-8, n=5, seeds=3, protocol="Fréchet … ± −1")
    record("ch05.other", 3, unit="m")
    session.close_session()
    yield tmp_path
    load_claims.cache_clear()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("results 99", "chapter must be one of 05, 06, got '99'"),
        ("results x", "chapter must be a number such as 5, '05' or 'ch05', got 'x'"),
        ("claims C99", "claim C99 is unknown; the nearest: "),
        ("cite ch05.smal_number", "; the nearest: ch05.small_number"),
        ("cite --format word", "format must be bibtex or plain, got 'word'"),
        ("run --chapter 77", "chapter must be one of 06, got '77'"),
        ("run --profile boook", "profile must be one of smoke, book, full, paper, got 'boook'; the nearest: book"),
        ("run --seed -1", "seed must lie in 0 to 2**32 - 1, got -1"),
        ("run --jobs 0", "jobs must be at least 1, got 0"),
        ("run --jobs two", "Invalid value for '--jobs': "),
        ("train none", "name must be one of digits, digits-1, "),
        ("train fashionmnist", "got 'fashionmnist'; the nearest: fashion-mnist"),
        ("train digits --device gpu", "device must be cpu, cuda or cuda:N, got 'gpu'"),
        ("train digits --seed -1 --out x.safetensors", "seed must lie in 0 to 2**32 - 1, got -1"),
        ("train digits --steps 3", "out must name a file with --images, --steps, --seed or --verify"),
        ("train", "Missing argument"),
        ("evaluate minst", "fashion-mnist, score-sde, got 'minst'; the nearest: mnist"),
        ("data fetch imagenet", "name must be one of mnist, fashion-mnist, cifar10, checkpoints, got 'imagenet'"),
        ("nothing", "No such command 'nothing'"),
        ("results --jsn", "No such option: --jsn"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_in_one_line_with_what_is_accepted(repository, capsys, words, message):
    assert call(*words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1


def test_names_count_in_capitals_or_not(repository, capsys):
    assert call("claims", "c31") == call("results", "CH05") == call("cite", "CH05.Other") == 0
    printed = capsys.readouterr().out
    assert (
        "Correct: Only nearly" in printed and "ch05.small_number" in printed and "Result: ch05.other = 3 m" in printed
    )
    assert [names.meant("name", given, ["Ab", "c"]) for given in ("aB", "C")] == ["Ab", "c"]


def test_results_of_a_chapter_that_has_none_are_no_error(repository, capsys):
    assert call("results", "6") == 0
    assert "nothing is recorded; make a record with" in capsys.readouterr().out


def test_json_tells_what_the_tables_tell(repository, capsys):
    assert call("results", "--json") == 0
    (other, small) = json.loads(capsys.readouterr().out)
    assert (other["id"], other["value"], other["text"], other["profile"]) == ("ch05.other", 3, "3 m", "book")
    assert small["stderr"] == 2e-8 and small["protocol"] == "Fréchet … ± −1" and small["seeds"] == 3
    assert call("claims", "--json") == 0
    found = {entry["id"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found.keys() == load_claims().keys() and found["C31"]["verdict"] == "open"
    assert call("claims", "c31", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [found["C31"]]
    assert found["C31"].keys() == {
        "id",
        "chapter",
        "claim",
        "source",
        "correct",
        "checked",
        "verdict",
        "ours",
        "reason",
    }
    assert call("check", "--json") == 1
    findings = json.loads(capsys.readouterr().out)
    assert {"level", "subject", "problem", "mend"} <= findings[0].keys()
    assert call("data", "list", "--json") == 0
    states = json.loads(capsys.readouterr().out)
    assert {(s["name"], s["kind"], s["state"]) for s in states} >= {
        ("digits", "full", "verified"), ("mnist", "embedded", "not here"), ("cifar10", "full", "not here")
    }  # fmt: skip


def test_json_of_a_failing_claim_is_whole_and_fails(repository, capsys, monkeypatch):
    session.open_session(Profile("book"), 0, "05", None)
    record("ch05.coefficient_deviation", 1.0)
    session.close_session()
    capsys.readouterr()
    assert call("claims", "C32", "--json") == 1
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["verdict"] == "FAILS" and "expected <= 1e-10, got 1" in entry["reason"]


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def test_ctrl_c_during_a_run_says_that_the_record_is_unchanged(repository, capsys, monkeypatch):
    monkeypatch.setattr(runner, "run", interrupted)
    assert call("run", "--record") == 130
    assert "interrupted: the record is unchanged; the same command begins again" in capsys.readouterr().err
    (repository / "_build").mkdir(exist_ok=True)
    (repository / "_build" / "promotion.json").write_text("{}")
    assert call("run", "--record") == 130
    assert "interrupted: the outcome was on its way into the record; the next" in capsys.readouterr().err


def test_ctrl_c_during_an_evaluation_or_a_download_says_what_is_left(repository, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "record_plans", interrupted)
    assert call("evaluate", "digits") == 130
    assert "interrupted: what is measured is kept in _build/evaluate" in capsys.readouterr().err
    monkeypatch.setattr(data, "fetch", interrupted)
    monkeypatch.setattr(release, "fetch", interrupted)
    for name in ("mnist", "checkpoints"):
        assert call("data", "fetch", name) == 130
        told = f"interrupted: no file of {name} is left half written; the same command begins again"
        assert told in capsys.readouterr().err


def test_ctrl_c_anywhere_else_ends_with_130(repository, monkeypatch):
    monkeypatch.setattr("hjbridge.ledger.results.all_results", interrupted)
    assert call("results") == 130


def test_help_tells_the_exit_codes_and_every_option(capsys):
    assert call("--help") == 0
    assert " ".join(capsys.readouterr().out.split()).endswith(EXIT_CODES)
    group = get_command(app)
    commands = [*group.commands.values(), *group.commands["data"].commands.values()]
    assert len(commands) > 10 and all(command.help for command in commands)
    assert [(c.name, p.name) for c in commands for p in c.params if not getattr(p, "help", None)] == []


def test_without_a_command_the_help_is_shown(capsys):
    assert call() == call("data") == 2
    told = capsys.readouterr()
    assert "Usage: " in told.out + told.err


def completed(words):
    """What a shell is offered for the last word, and the heavy modules that were loaded for it."""
    program = """
    import sys
    from hjbridge.cli import main
    sys.argv = ["hjbridge"]
    try:
        main()
    except SystemExit:
        print({"torch", "numpy", "scipy", "sklearn", "papermill"} & set(sys.modules), file=sys.stderr)
    """
    shell = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), "_HJBRIDGE_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=os.environ | shell, capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("hjbridge cl", ["claims"]),
        ("hjbridge claims C31", ["C31"]),
        ("hjbridge results 0", ["06"]),
        ("hjbridge run --chapter 0", ["06"]),
        ("hjbridge run --profile p", ["paper"]),
        ("hjbridge cite ch05.o", ["ch05.other"]),
        ("hjbridge train mnist-v", ["mnist-ve", "mnist-vp"]),
        ("hjbridge data fetch c", ["cifar10", "checkpoints"]),
        ("hjbridge evaluate f", ["fashion-mnist"]),
    ],
)
def test_a_shell_completes_names_without_loading_anything_heavy(repository, words, offered):
    assert completed(words) == offered


def test_completion_is_silent_where_there_is_no_repository(monkeypatch):
    monkeypatch.setattr(store, "repository", lambda: None)
    assert names.completing(names.chapters)("") == names.completing(names.results)("") == []


def test_the_light_lists_are_those_of_the_library():
    assert names.FETCHED == (*SOURCES, "checkpoints")
    assert set(names.EVALUATED) == {plan.data for plan in evaluate.PLANS} | {"score-sde"}
    made = {*RECIPES, *(f"classifier-{name}-{seed}" for name in CLASSIFIERS for seed in SEEDS)}
    unmade = {name for name in RECIPES if name.startswith("paper")}
    assert {"list", *made} - set(names.recipes()) == unmade and set(names.recipes()) <= {"list", *made}


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437"])
def test_a_terminal_that_lacks_signs_gets_those_it_has_and_letters_for_the_rest(encoding):
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, write_through=True)
    spell_out(stream)
    stream.write("(3.0 ± 0.2) × 10⁻⁷, 10¹², Fréchet … Kılıç −1 “α” 10¹⁰ ✓\n")
    has = {"cp1252": ("±", "×", "é", "…", "ç", "“", "”"), "latin-1": ("±", "×", "é", "...", "ç", '"', '"')}
    has["ascii"], has["cp437"] = ("+-", "x", "e", "...", "c", '"', '"'), ("±", "x", "é", "...", "ç", '"', '"')
    pm, times, e, dots, c, left, right = has[encoding]
    alpha = "α" if encoding == "cp437" else "?"
    expected = f"(3.0 {pm} 0.2) {times} 10^-7, 10^12, Fr{e}chet {dots} Kili{c} -1 {left}{alpha}{right} 10^10 ?\n"
    assert buffer.getvalue().decode(encoding) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_terminal_that_has_all_signs_is_left_alone(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    spell_out(stream)
    spell_out(io.StringIO())
    assert (stream.encoding, stream.errors) == (encoding, "strict")


@pytest.mark.parametrize("words", ["results", "claims", "cite ch05.small_number", "check", "claims C99", "--help"])
def test_no_command_dies_of_an_encoding(repository, words):
    # under LC_ALL=C no Python starts whose own path has letters beyond ASCII
    plain = {"LANG": "C", "LC_ALL": "C" if str(SOURCE).isascii() else ""}
    for variables in ({"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii"}, plain):
        code, printed, errors = process(*words.split(), **variables)
        assert code == {"check": 1, "claims C99": 2}.get(words, 0) and b"Traceback" not in errors and printed + errors
        encoding = variables.get("PYTHONIOENCODING", "utf-8")
        text = (printed + errors).decode(encoding)
        if encoding != "utf-8" and words in ("results", "cite ch05.small_number"):
            assert {"cp1252": "(3.0 ± 0.2) × 10^-7", "ascii": "(3.0 +- 0.2) x 10^-7"}[encoding] in text
        if words == "results" and encoding == "cp1252":
            assert "Fréchet … ± -1" in text


def test_errors_of_usage_are_those_of_typer():
    from hjbridge.cli.terminal import Usage

    assert issubclass(typer.BadParameter, Usage) and Usage("told").format_message() == "told"
    assert Usage("told").exit_code == 2


@pytest.mark.parametrize("words", ["train digits", "train classifier-digits-0", "check", "results"])
def test_a_root_that_is_no_repository_is_refused_before_anything_is_made(tmp_path, monkeypatch, capsys, words):
    for root, told in ((tmp_path / "none", "HJBRIDGE_ROOT must name a clone"), (tmp_path, "is not a copy of the")):
        monkeypatch.setenv("HJBRIDGE_ROOT", str(root))
        assert call(*words.split()) == 1 and told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["run --chapter 05", "train digits --out x.safetensors"])
def test_a_seed_that_no_generator_takes_is_refused_in_one_line(words, capsys):
    for seed in ("-1", "4294967296"):
        assert call(*words.split(), "--seed", seed) == 2
        assert f"error: seed must lie in 0 to 2**32 - 1, got {seed}\n" in capsys.readouterr().err
