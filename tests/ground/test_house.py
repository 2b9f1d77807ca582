"""What the tracked files may hold, how long a module may be, and that names, versions and licence agree."""

import hashlib
import json
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml

import hjbridge

SCHEMA = "0b8d22140da702d766df318dcff3a91af2f39521298dcf36d76315fd99cc169b"
# written in two parts, so that this file does not hold what it forbids
FORBIDDEN = {
    "path of one machine": re.compile(
        r"(?<![\w.])/(home|root|Users|work|opt)" + r"/\w|[A-Z]:\\Users|(?<![\w])/tmp" + r"/\w"
    ),
    "host of a package index": re.compile(
        r"(pypi|pythonhosted|download\.pytorch|conda\.anaconda|npmjs)" + r"\.(org|com)"
    ),
    "address of this machine": re.compile(r"local" + r"host:\d"),
    "conflict": re.compile(r"^(<{7}|>{7}) ", re.M),
}
# invents such paths, to see that the normaliser takes them out of notebooks
EXEMPT = {"tests/unit/ledger/test_notebook.py"}


def readable(path):
    """Text of a file, or None if it is binary or the work of others."""
    if "vendor" in path.parts or "mathjax" in path.parts or path.name == "citation-1.2.0.json":
        return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def complaints(words):
    """Forbidden things in a text."""
    return [f"{kind}: {found[0]}" for kind, pattern in FORBIDDEN.items() if (found := pattern.search(words))]


def test_no_file_names_a_machine_or_an_index(files, root):
    faults = {
        str(path.relative_to(root)): found
        for path in files
        if (words := readable(path)) and (found := complaints(words))
    }
    assert faults.keys() <= EXEMPT, faults


@pytest.mark.parametrize(
    "words",
    [
        "see /ho" + "me/me/x",
        "in /tm" + "p/x",
        "https://py" + "pi.org/simple",
        "local" + "host:8000",
        "<<<<<" + "<< HEAD",
    ],
)
def test_forbidden_words_are_seen(words):
    assert complaints(words)


def test_allowed_words_are_not(root):
    assert complaints("https://pytorch.org/get-started/locally/ and _build/tmp/x and /usr/bin/env, 127.0.0.1") == []


def test_modules_are_short(files, root):
    long = {
        str(path.relative_to(root)): lines
        for path in files
        if path.suffix == ".py" and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long == {}


def test_large_files_are_data(files, root):
    assert {
        str(p.relative_to(root))
        for p in files
        if p.stat().st_size > 1_000_000 and p.suffix not in (".safetensors", ".npz", ".js")
    } == set()
    assert {str(p.relative_to(root)) for p in files if p.stat().st_size > 3_000_000} == set()


def test_products_are_ignored(root):
    if not (root / ".git").exists():
        pytest.skip("a release archive has no git")
    names = ["_build/html/index.html", ".venv/x", ".venv-bench/x", ".venv-lock/x", "dist/x", "src/hjbridge.egg-info/x",
             "src/hjbridge/__pycache__/x", ".mypy_cache/x", "notebooks/.ipynb_checkpoints/x",
             "data/checkpoints/a.state"]  # fmt: skip
    run = subprocess.run(
        ["git", "-c", f"safe.directory={root}", "check-ignore", *names], cwd=root, capture_output=True, text=True
    )
    assert run.stdout.split() == names


def test_one_version_everywhere(root, project):
    version = project["version"]
    assert hjbridge.__version__ == version
    assert yaml.safe_load((root / "CITATION.cff").read_text())["version"] == version
    changes = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", (root / "CHANGELOG.md").read_text(), re.M)
    assert changes[0] == ("Unreleased", "")
    assert changes[1][0] == version
    assert changes[1][1] == str(yaml.safe_load((root / "CITATION.cff").read_text())["date-released"])


def test_changelog_links_its_versions(root):
    words = (root / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\]", words, re.M)
    assert [name for name in headings if f"\n[{name}]: https://" not in words] == []


def test_citation_is_valid(root):
    data = (root / "tests" / "ground" / "schema" / "citation-1.2.0.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SCHEMA
    check = jsonschema.Draft7Validator(json.loads(data))
    # BaseLoader: the schema wants dates as text
    citation = yaml.load((root / "CITATION.cff").read_text(), Loader=yaml.BaseLoader)
    assert [error.message for error in check.iter_errors(citation)] == []
    assert citation["authors"] == [{"name": "hjbridge contributors"}]
    for damage in ({"authors": []}, {"license": "MITT"}, {"date-released": "24 Nov 2026"}, {"cff-version": "1.3"}):
        assert list(check.iter_errors(citation | damage)), damage
    assert list(check.iter_errors({k: v for k, v in citation.items() if k != "title"}))


def test_licence_is_mit_everywhere(root, project):
    words = (root / "LICENSE").read_text()
    assert words.startswith("MIT License\n\nCopyright (c) 2026 hjbridge contributors\n")
    assert project["license"] == yaml.safe_load((root / "CITATION.cff").read_text())["license"] == "MIT"
    assert project["authors"] == [{"name": "hjbridge contributors"}]


def test_types_are_shipped(root):
    assert (root / "src" / "hjbridge" / "py.typed").is_file()


def test_hooks_are_local_and_valid(root):
    path = root / ".pre-commit-config.yaml"
    assert {repo["repo"] for repo in yaml.safe_load(path.read_text())["repos"]} == {"local"}
    run = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", str(path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout


def test_the_example_of_the_readme_works(root, capsys):
    words = (root / "README.md").read_text(encoding="utf-8")
    code, _ = re.findall(r"```python\n(.*?)```", words, re.S)
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) <= 10
    space: dict = {}
    exec(code, space)
    x, exact = space["x"], space["mixture"]
    # 100,000 samples: the standard error is 0.005 for the mean and 0.008 for the variance
    assert abs(x.mean().item() - exact.mean.item()) < 0.03
    assert abs(x.var().item() - exact.covariance.item()) < 0.05
    assert capsys.readouterr().out.startswith("mean 0.4")
