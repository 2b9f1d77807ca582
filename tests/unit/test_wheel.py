"""The package as it is installed elsewhere: built into a wheel, unpacked, and used in a folder without a repository."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile

import pytest

import hjbridge
from hjbridge import store

SOURCE = store.root().parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, folder)
    shutil.copytree(SOURCE / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    run = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with zipfile.ZipFile(folder / run.stdout.split()[-1]) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.fixture
def alone(wheel, tmp_path, apart):
    """Run a program, or `hjbridge` with some words, in an empty folder: exit code, output, errors."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*words, program="from hjbridge.cli import main; main()", cwd=empty, **variables):
        start = f"import sys; sys.path.insert(0, {str(wheel)!r}); sys.argv[0] = 'hjbridge'\n"
        start += "import hjbridge; assert hjbridge.__file__.startswith(sys.path[0])\n"
        command = [sys.executable, "-c", start + textwrap.dedent(program), *map(str, words)]
        done = subprocess.run(command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


LOAD = """
from hjbridge.metrics import classifier
from hjbridge.score import load
print(load("digits").shape, load("mnist").shape, classifier("fashion-mnist", 2).header["seed"])
"""


def test_without_network_one_sentence_tells_what_to_do(alone):
    program = """
    from hjbridge.score import load
    try:
        load("digits")
    except OSError as error:
        print(error)
    """
    code, printed, _ = alone(program=program)
    assert code == 0 and len(printed.splitlines()) == 1
    address = f"https://github.com/hjbridge/hjbridge/releases/download/v{hjbridge.__version__}/digits.safetensors"
    assert f"checkpoint digits could not be had from {address} (" in printed
    assert "by `hjbridge data fetch checkpoints --from FOLDER`" in printed and "set HJBRIDGE_ROOT" in printed


def test_checkpoints_come_from_a_folder_and_are_loaded(alone, apart):
    code, printed, errors = alone("data", "fetch", "checkpoints", "--from", SOURCE / "data")
    assert (code, errors) == (0, "") and printed.startswith("verified: classifier-digits-0, ")
    assert len(list((apart / "c" / "checkpoints").iterdir())) == len(printed.split(",")) == 26
    assert alone(program=LOAD) == (0, "(1, 8, 8) (1, 28, 28) 2\n", "")


def test_a_clone_s_own_files_come_first(alone):
    """In a folder of a clone, or with the variable, the repository is used and nothing is fetched."""
    assert alone(program=LOAD, cwd=SOURCE / "notebooks")[0] == 0
    assert alone(program=LOAD, HJBRIDGE_ROOT=str(SOURCE))[0] == 0
    assert "embedded  5,000 train" in alone("data", "list", HJBRIDGE_ROOT=str(SOURCE))[1]


def test_what_is_not_here_is_not_called_harmed(alone):
    code, printed, errors = alone("data", "list")
    assert (code, errors) == (0, "") and "HARMED" not in printed
    assert printed.count("not here; it belongs to the repository: go into a clone of") == 2
    code, printed, _ = alone("data", "list", "--json")
    states = [entry["state"] for entry in json.loads(printed)]
    assert code == 0 and states == ["verified"] + 5 * ["not here"]
    assert alone("data", "verify")[0] == 0


@pytest.mark.parametrize(
    "words", ["cite", "cite ch05.x", "results", "claims", "check", "run", "results 5", "evaluate digits"]
)
def test_commands_on_the_record_say_that_there_is_none(alone, words):
    code, printed, errors = alone(*words.split())
    assert (code, printed) == (1, "") and errors.startswith("error: ") and len(errors.splitlines()) == 1
    assert "is not in a copy of the repository (no data/claims.yml): go into a clone of" in errors


def test_other_commands_need_no_repository(alone, tmp_path):
    assert alone("version")[0] == alone("--help")[0] == alone("train", "list")[0] == 0
    program = "from hjbridge.data import load; load('mnist')"
    code, _, errors = alone(program=f"try:\n    {program}\nexcept OSError as error:\n    sys.exit(str(error))")
    assert code == 1 and errors.startswith("the embedded part of mnist belongs to the repository")
    assert alone("train", "digits", "--steps", 1, "--out", tmp_path / "own.safetensors")[0] == 0
    code, _, errors = alone("train", "digits")
    assert code == 2 and "out must name a file where there is no repository" in errors


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    assert {path.name for path in wheel.iterdir() if path.suffix != ".dist-info"} == {"hjbridge"}
    endings = {path.suffix or path.name for path in (wheel / "hjbridge").rglob("*") if path.is_file()} - {".pyc"}
    assert endings == {".py", ".sha256", ".typed"}
