"""pyproject.toml, constraints.txt, environment.yml and postBuild tell the same story."""

import ast
import re
import sys
from importlib import metadata

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

# what is imported under another name than it is installed
INSTALLED_AS = {
    "PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "bs4": "beautifulsoup4", "IPython": "jupyter",
    "docutils": "jupyter-book", "sphinx": "jupyter-book", "packaging": "pytest", "nbformat": "nbformat",
}  # fmt: skip
# used as commands, as plugins, by notebooks or in a process of their own, so that no module imports them
TOOLS = {
    "jupyter", "jupyter-book", "sphinx-book-theme", "sphinx-design", "sphinx-exercise", "sphinx-proof", "nbformat",
    "nbval", "pytest-xdist", "codespell", "mypy", "pre-commit", "ruff", "types-pyyaml",
    "jaxtyping", "beartype",
}  # fmt: skip


def pins(root, python="3.11"):
    """Name -> version of constraints.txt for Linux and one version of Python."""
    machine = default_environment() | {"python_version": python, "python_full_version": f"{python}.5"}
    machine |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    found = {}
    for line in (root / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            item = Requirement(line)
            assert [s.operator for s in item.specifier] == ["=="], line
            if item.marker is None or item.marker.evaluate(machine):
                name = canonicalize_name(item.name)
                assert name not in found, f"{name} twice for Python {python}"
                found[name] = next(iter(item.specifier)).version
    return found


def requirements(project, *groups):
    """Requirements of the core and of extras, without those on the project itself."""
    lines = [*project["dependencies"]] + [line for g in groups for line in project["optional-dependencies"][g]]
    return [item for item in map(Requirement, lines) if item.name != "hjbridge"]


def imported(folders):
    """Top-level names that the modules of some folders import, ours and those of Python left out."""
    names = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    own = {path.stem for folder in folders for path in folder.rglob("*.py")} | {"hjbridge", "benchmarks"}
    return {canonicalize_name(INSTALLED_AS.get(name, name)) for name in names - own - set(sys.stdlib_module_names)}


def test_extras_are_those_that_the_commands_name(project):
    assert set(project["optional-dependencies"]) == {"book", "rl", "test", "bench", "workflow", "all"}
    assert project["optional-dependencies"]["all"] == ["hjbridge[book,rl,test]"]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_requirement_is_pinned_within_its_bounds(root, project, python):
    assert python in SpecifierSet(project["requires-python"])
    pinned = pins(root, python)
    for item in requirements(project, "book", "rl", "test", "bench", "workflow"):
        assert pinned[canonicalize_name(item.name)] in item.specifier, item


def test_python_versions_are_those_of_the_classifiers(project):
    told = {line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r"Python :: 3\.\d+$", line)}
    assert told == {f"3.{minor}" for minor in range(9, 16) if f"3.{minor}" in SpecifierSet(project["requires-python"])}


def test_constraints_hold_versions_and_no_addresses(root):
    words = (root / "constraints.txt").read_text()
    assert "://" not in words and "--" not in words and "/tmp" not in words and "@" not in words
    assert pins(root)["torch"] == "2.13.0"
    assert re.search(r"^nvidia-", words, re.M), "the universal file lists them, which is why it is used with -c only"


def test_constraints_are_never_installed(root):
    for name in ("Makefile", "environment.yml", "postBuild", ".ci/env", ".ci/lock", ".github/workflows/ci.yml"):
        assert not re.search(r"(-r|--requirement)[ =]*constraints", (root / name).read_text()), name


def test_torchvision_is_not_installed_and_not_asked_for(root, project):
    assert "torchvision" not in {canonicalize_name(d.metadata["Name"]) for d in metadata.distributions()}
    assert "torchvision" not in pins(root)
    assert "torchvision" not in {item.name for item in requirements(project, "book", "rl", "test", "bench", "workflow")}


def test_this_environment_has_the_pinned_versions(root, project):
    pinned = pins(root, f"{sys.version_info.major}.{sys.version_info.minor}")
    for item in requirements(project, "book", "test"):
        found = metadata.version(item.name).split("+")[0]
        assert found == pinned[canonicalize_name(item.name)], f"{item.name} {found}: run `make env`"


def test_imports_are_declared_and_declarations_imported(root, project):
    core = {canonicalize_name(item.name) for item in requirements(project)}
    book = core | {canonicalize_name(item.name) for item in requirements(project, "book")}
    test = book | {canonicalize_name(item.name) for item in requirements(project, "test")}
    bench = test | {canonicalize_name(item.name) for item in requirements(project, "bench")}
    source = imported([root / "src"])
    assert core <= source, "a core dependency that the library does not import"
    # the runner executes notebooks, for which it needs papermill and a kernel, and `to_gym` makes an environment of
    # gymnasium; all else works with the core alone
    assert source - core <= {"papermill", "jupyter", "nbformat", "gymnasium"}
    assert imported([root / "src", root / "book"]) <= book | {"gymnasium"}
    everywhere = imported([root / "src", root / "book", root / "tests", root / "benchmarks"])
    assert everywhere <= bench
    assert test - TOOLS <= everywhere, "declared, but used nowhere"


def test_environment_yml_makes_the_same_environment(root, project):
    conda = yaml.safe_load((root / "environment.yml").read_text())
    plain = [item for item in conda["dependencies"] if isinstance(item, str)]
    python = next(item for item in plain if item.startswith("python"))
    assert python.partition("=")[2] in SpecifierSet(project["requires-python"])
    assert "pip" in plain and conda["name"] == project["name"]
    (lines,) = [item["pip"] for item in conda["dependencies"] if isinstance(item, dict)]
    assert lines == ["-c constraints.txt", "-e .[all]"]
    assert "install+=" in (script := (root / ".ci" / "env").read_text()) and "-c constraints.txt" in script
    assert "-e '.[all]'" in script, "make env installs what environment.yml installs"


def test_post_build_installs_the_package_alone_and_makes_the_copies_that_the_rocket_opens(root):
    path = root / "postBuild"
    assert path.stat().st_mode & 0o111
    commands = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert commands == ["set -euo pipefail", "pip install --no-deps -e .", "hjbridge reading reading"]
    assert 'ON_BINDER = "reading/"' in (root / "book" / "_ext" / "readers_copies.py").read_text()
    assert not (root / "binder").exists(), "a folder binder/ would hide environment.yml and postBuild"


def test_every_dependency_has_its_reason(root, project):
    words = (root / "CONTRIBUTING.md").read_text().partition("## Dependencies")[2]
    told = {
        name
        for line in words.splitlines()
        if line.startswith("- ")
        for name in re.findall(r"`([\w-]+)`", line.partition(":")[0])
    }
    assert told == {item.name for item in requirements(project, "book", "rl", "test", "bench", "workflow")}
