"""Every command that the README names is there, explained, and does nothing twice."""

import os
import re
import stat
import subprocess
import sys

import pytest
import yaml

WANTED = {
    "book",
    "env",
    "html",
    "lab",
    "chapter",
    "record",
    "train",
    "bench",
    "lint",
    "test",
    "serve",
    "lock",
    "clean",
    "help",
}


def make(root, *words):
    """Run make without starting anything that takes time."""
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *words], cwd=root, capture_output=True, text=True, env=clean, check=False)


def targets(root):
    """Targets with an explanation."""
    return set(re.findall(r"^([a-z]+):.*## \S", (root / "Makefile").read_text(), re.M))


def recipes(root, target):
    """Commands of a target, as `make --dry-run` prints them."""
    run = make(root, "--dry-run", "--always-make", target, "CH=05", "NAME=digits")
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_every_command_is_there_and_explained(root):
    words = (root / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", words, re.M)
    assert phony and set(phony[1].split()) == targets(root) == WANTED


def test_help_is_the_default_and_lists_commands_and_variables(root):
    run = make(root, "--silent")
    assert run.returncode == 0 and run.stdout == make(root, "--silent", "help").stdout
    assert {line.split()[0] for line in run.stdout.splitlines()[:-1]} == WANTED
    assert {"PROFILE", "JOBS", "PYTHON", "TORCH_INDEX"} <= set(re.findall(r"([A-Z_]+)=", run.stdout.splitlines()[-1]))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "book/reproduce.md", "book/quickstart.md"])
def test_commands_on_a_page_exist(root, page):
    words = (root / page).read_text(encoding="utf-8")
    named = set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)", words, re.M))
    assert {a or b for a, b in named} <= WANTED
    variables = set(re.findall(r"make [a-z]+ ([A-Z_]+)=", words))
    assert variables <= {"PROFILE", "JOBS", "PYTHON", "TORCH_INDEX", "OUT", "SITE", "CH", "NAME"}


def test_readme_tells_both_commands_first_and_all_others_after(root):
    words = (root / "README.md").read_text(encoding="utf-8")
    first = re.search(r"```bash\n(.*?)```", words, re.S)
    assert first and re.findall(r"^make (\w+)", first[1], re.M) == ["book", "test"]
    assert {name for name in WANTED if f"`make {name}" in words} == WANTED - {"test", "book"} | {"book"}


def test_hjbridge_commands_on_pages_exist(root):
    from typer.main import get_command

    from hjbridge.cli import app

    known = set(getattr(get_command(app), "commands"))  # noqa: B009
    pages = [
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "Makefile",
        *root.glob("book/*.md"),
        root / "data/README.md",
    ]
    for page in pages:
        words = page.read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`|bin\)/)hjbridge ([a-z]+)", words, re.M))
        assert named <= known, page.name


@pytest.mark.parametrize("target", ["chapter", "record", "train"])
def test_a_missing_variable_is_named(root, target):
    run = make(root, "--dry-run", target)
    assert run.returncode != 0
    assert ("NAME must name a recipe" if target == "train" else "CH must name a chapter") in run.stderr


def test_book_renders_what_was_executed_and_html_what_is_committed(root):
    book, html = recipes(root, "book"), recipes(root, "html")
    assert book.index('hjbridge run --profile book --jobs 2 --stage "./_build/stage"') < book.index(
        "jupyter-book build"
    )
    assert re.search(r'jupyter-book build .* "\./_build/stage"$', book, re.M)
    assert re.search(r"jupyter-book build .* \.$", html, re.M) and "hjbridge run" not in html
    for words in (book, html):
        assert re.search(r"jupyter-book build -q -W -n --keep-going", words)
        assert words.index("rm -rf") < words.index("jupyter-book build"), "an incremental build hides errors"


def test_every_check_is_part_of_make_test(root):
    words = recipes(root, "test")
    order = ["ruff check .", "ruff format --check .", "mypy", "codespell", "normalise --check", "--dist loadfile tests",
             "--nbval-lax"]  # fmt: skip
    places = [words.index(word) for word in order]
    assert places == sorted(places)


def test_a_server_is_reached_from_this_machine_only(root):
    assert "--bind 127.0.0.1" in recipes(root, "serve")


def test_ci_calls_the_command_of_the_readme(root):
    path = root / ".ci" / "run"
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make env", "bash .ci/apart make test"]
    assert path.stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("name", [".ci/run", ".ci/apart", ".ci/env", ".ci/system", ".ci/lock", "postBuild"])
def test_scripts_are_valid_and_stop_at_the_first_error(root, name):
    assert "set -euo pipefail" in (root / name).read_text()
    assert subprocess.run(["bash", "-n", name], cwd=root, check=False).returncode == 0


def test_env_refuses_a_python_that_the_package_does_not_support(root, tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    run = subprocess.run(
        ["bash", ".ci/env"],
        cwd=root,
        env=os.environ | {"PYTHON": str(fake)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"PYTHON must be an interpreter of version 3.11, 3.12 or 3.13, got {fake}" in run.stderr


def test_workflows_run_the_commands_of_the_makefile(root, project):
    found = {path.stem: path.read_text() for path in (root / ".github" / "workflows").glob("*.yml")}
    assert set(found) == {"ci", "nightly", "release"}
    for words in found.values():
        jobs = yaml.safe_load(words)["jobs"].values()
        assert all({"runs-on", "steps"} <= job.keys() for job in jobs)
        for name in re.findall(r"\bmake ([a-z]+)$", words, re.M):
            assert name in WANTED
    matrix = yaml.safe_load(found["ci"])["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert [f"Programming Language :: Python :: {v}" for v in matrix] == [
        c for c in project["classifiers"] if ":: 3" in c
    ]
    assert "run: .ci/run" in found["ci"] and "run: .ci/run" in found["release"]


def test_ci_runs_apart_from_the_home_and_the_network_of_this_machine(root, apart):
    """Its script sets what conftest.py sets, and takes away what it has made."""
    show = "import os, pathlib; print(pathlib.Path.home(), os.environ['HJBRIDGE_CACHE'], 'HJBRIDGE_ROOT' in os.environ)"
    code = f"{show}; import sitecustomize, socket; socket.create_connection(('192.0.2.1', 80))"
    env = os.environ | {"HJBRIDGE_ROOT": "elsewhere", "PYTHONPATH": "", "TMPDIR": str(apart)}
    command = ["bash", ".ci/apart", sys.executable, "-c", code]
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    home, cache, elsewhere = run.stdout.split()
    assert home.startswith(str(apart)) and cache == f"{home}/c" and elsewhere == "False"
    assert run.returncode == 1 and "tests have no network" in run.stderr
    assert [path.name for path in apart.iterdir()] == ["run"], "its home is gone"
