"""The roles `result` and `rerun`, the claims and the marks of stale numbers, on a book of three pages."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from hjbridge.ledger import Result, schema
from hjbridge.ledger.freshness import module_hashes, notebook_hash

EXTENSIONS = Path(__file__).resolve().parents[2] / "book" / "_ext"
NAMES = [
    "myst_parser", "sphinx.ext.mathjax", "results_role", "results_page", "result_uses", "claims_page",
    "notebook_figure", "rerun", "kept_together",
]  # fmt: skip
CONFIG = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
extensions = {NAMES!r}
exclude_patterns = ["_build"]
html_theme = "basic"
root_doc = "index"
myst_enable_extensions = ["dollarmath"]
"""
INDEX = """# Book

The distance is {result}`ch06.fd_ddpm`, exactly {result}`ch06.params`; see {claim}`C99`.

```{toctree}
book/claims
book/results
```
"""
CLAIM = """claims:
  - id: C99
    claim: The network has 12345 parameters
    kind: numerical
    chapter: "06"
    source: {authors: A. Nother, title: A Paper, venue: A Place, year: 2020}
    locus: null
    reported: null
    correct: It has that many.
    checked: not
    ours: We count {ch06.params}.
    rules: [{if: ch06.params == 12345, verdict: reproduced, because: The counts agree.}]
"""


def record(
    folder: Path,
    distance: float | None = 0.5551,
    parameters: int = 12345,
    module: str | None = None,
    notebook: str | None = None,
    profile: str = "book",
) -> None:
    """Write a record of chapter 06; `module` and `notebook` are recorded hashes."""
    results = [Result("ch06.params", parameters, claims=("C99",))]
    if distance is not None:
        results.append(Result("ch06.fd_ddpm", distance, stderr=0.0123, n=500, seeds=(0, 1, 2)))
    modules = {"hjbridge.sde.process": module} if module else {}
    run = {"profile": profile, "seed": 0, "versions": {"python": "3.11"}, "cpu": "a processor", "seconds": 1.0}
    run["hashes"] = {"notebook": notebook, "modules": modules, "checkpoints": {}}
    entries = {one.id: one.entry() | ({"run": run} if profile == "full" else {}) for one in results}
    path = folder / "data" / "results" / ("full" if profile == "full" else "") / "ch06.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(schema.dump("06", {"profile": "full"} if profile == "full" else run, entries, {}))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A small book with one recorded chapter."""
    (tmp_path / "book").mkdir()
    (tmp_path / "conf.py").write_text(CONFIG)
    (tmp_path / "index.md").write_text(INDEX)
    (tmp_path / "book" / "claims.md").write_text("# Claims\n\n```{claim-list}\n```\n")
    (tmp_path / "book" / "results.md").write_text("# Results\n\n```{result-list}\n```\n\n```{checkpoint-list}\n```\n")
    record(tmp_path)
    (tmp_path / "data" / "claims.yml").write_text(CLAIM)
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def build(folder: Path) -> tuple[int, str]:
    """Exit code and messages of an incremental build."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", "-b", "html", ".", "_build"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return run.returncode, run.stderr


def page(folder: Path, name: str) -> BeautifulSoup:
    return BeautifulSoup((folder / "_build" / name).read_text(encoding="utf-8"), "html.parser")


def shown(folder: Path) -> list[str]:
    return [link.text for link in page(folder, "index.html").select("a.result")]


def test_a_number_is_read_again_whenever_the_record_changes_and_its_loss_fails_the_build(book):
    code, messages = build(book)
    assert code == 0, messages
    assert shown(book) == ["0.555 ± 0.012", "12,345"]
    record(book, distance=0.4442)
    assert build(book)[0] == 0
    assert shown(book) == ["0.444 ± 0.012", "12,345"]
    record(book, distance=None)
    code, messages = build(book)
    assert code != 0 and "ch06.fd_ddpm" in messages and "not recorded" in messages
    # a build that failed is not forgiven by the next one
    assert build(book)[0] != 0
    record(book, distance=0.4442)
    code, messages = build(book)
    assert code == 0, messages
    assert shown(book) == ["0.444 ± 0.012", "12,345"]


def test_a_missing_file_and_a_malformed_id_fail_the_build(book):
    (book / "index.md").write_text("# Book\n\n{result}`ch07.nothing` and {result}`Chapter 6`\n", encoding="utf-8")
    code, messages = build(book)
    assert code != 0
    assert "ch07.json" in messages and "make record CH=07" in messages
    assert "'Chapter 6'" in messages


def test_links_lead_to_the_entry_of_the_number(book):
    assert build(book)[0] == 0
    for link in page(book, "index.html").select("a.result"):
        name, _, anchor = link["href"].partition("#")
        entry = page(book, name).find(id=anchor)
        assert entry.select_one(".book-value").text == link.text
    entry = page(book, "book/results.html").find(id="result-ch06-fd-ddpm")
    assert "500" in entry.text and "0, 1, 2" in entry.text and "make chapter CH=06" in entry.text


def test_the_entry_of_a_number_leads_back_to_the_sections_that_print_it(book):
    def used(id: str) -> list[tuple[str, str]]:
        links = page(book, "book/results.html").find(id=id).select(".book-used a")
        return [(link["href"], link.text) for link in links]

    assert build(book)[0] == 0
    assert used("result-ch06-fd-ddpm") == [("../index.html#book", "Book")]
    assert used("result-ch06-params") == [("claims.html#claim-c99", "Claims, C99"), ("../index.html#book", "Book")]
    (book / "index.md").write_text(INDEX + "\n## Later\n\n{result}`ch06.fd_ddpm`, {result}`ch06.fd_ddpm`\n")
    assert build(book)[0] == 0
    assert used("result-ch06-fd-ddpm") == [("../index.html#book", "Book"), ("../index.html#later", "Book, Later")]
    (book / "index.md").write_text(INDEX.replace("The distance is {result}`ch06.fd_ddpm`, exactly", "Exactly"))
    assert build(book)[0] == 0
    assert used("result-ch06-fd-ddpm") == []
    assert "No page prints it." in page(book, "book/results.html").find(id="result-ch06-fd-ddpm").text


def test_punctuation_stays_with_what_it_follows_and_nothing_is_lost(book):
    text = "Start at $x$, $y$, $z$; (in $w$), see {result}`ch06.params`. Then $v$ alone, and {claim}`C99`, so."
    (book / "index.md").write_text(INDEX + f"\n## Marks\n\n{text}\n", encoding="utf-8")
    assert build(book)[0] == 0
    paragraph = page(book, "index.html").find(id="marks").p
    plain = re.sub(r"\\\(|\\\)", "", " ".join(paragraph.get_text().split()))
    assert plain == "Start at x, y, z; (in w), see 12,345. Then v alone, and C99 reproduced, so."
    boxes = [re.sub(r"\\\(|\\\)", "", box.get_text()) for box in paragraph.select(".book-together")]
    assert boxes == ["x,", "y,", "z;", "w),", "12,345.", "C99 reproduced,"]


def test_digits_can_be_asked_for(book):
    (book / "index.md").write_text(INDEX.replace("`ch06.params`", "`ch06.params | 2`"), encoding="utf-8")
    assert build(book)[0] == 0
    assert shown(book)[1] == "12,000"


def test_a_verdict_follows_the_record(book):
    def badges() -> list[str]:
        found = [page(book, "index.html").select_one("a.claim.book-badge").text]
        return found + [page(book, "book/claims.html").select_one("#claim-c99 .book-badge").text]

    assert build(book)[0] == 0
    assert badges() == ["C99 reproduced", "reproduced"]
    assert "12,345" in page(book, "book/claims.html").select_one("#claim-c99 a.result").text
    record(book, parameters=12346)
    code, messages = build(book)
    assert code != 0 and "C99" in messages and "12346" in messages
    (book / "data" / "results" / "ch06.json").unlink()
    (book / "index.md").write_text(
        "# Book\n\n{claim}`C99`\n\n```{toctree}\nbook/claims\nbook/results\n```\n", encoding="utf-8"
    )
    code, messages = build(book)
    assert code == 0, messages
    assert badges() == ["C99 open", "open"]


def test_an_unknown_claim_fails_the_build(book):
    (book / "index.md").write_text(INDEX.replace("C99", "C98"), encoding="utf-8")
    code, messages = build(book)
    assert code != 0 and "C98" in messages


def with_chapter(book: Path) -> None:
    """An empty notebook of chapter 06, which is not a page of this book."""
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (book / "notebooks" / "06_ddpm.ipynb").write_text(json.dumps(notebook))
    config = book / "conf.py"
    config.write_text(config.read_text().replace('["_build"]', '["_build", "notebooks"]'))


def test_a_stale_record_is_marked_with_the_module_that_changed(book):
    def marks() -> tuple[str, str]:
        section = page(book, "book/results.html").find(id="chapter-06")
        entry = section.find(id="result-ch06-fd-ddpm")
        return " ".join(badge.text for badge in entry.select(".book-badge")), section.text

    with_chapter(book)
    fresh = module_hashes(["hjbridge.sde.process"])["hjbridge.sde.process"]
    record(book, module=fresh, notebook=notebook_hash([]))
    assert build(book)[0] == 0
    assert marks()[0] == "" and "stale" not in marks()[1]
    record(book, module="0" * 64, notebook=notebook_hash([]))
    assert build(book)[0] == 0
    assert marks()[0] == "stale" and "changed since it was recorded: hjbridge.sde.process" in marks()[1]
    record(book, module=fresh, notebook="0" * 64)
    assert build(book)[0] == 0
    assert marks()[0] == "stale" and "the code of its notebook has changed" in marks()[1]


def test_a_stale_number_of_profile_full_is_marked_where_it_is_printed(book):
    with_chapter(book)
    fresh = module_hashes(["hjbridge.sde.process"])["hjbridge.sde.process"]
    (book / "index.md").write_text(INDEX.replace("ch06.fd_ddpm", "ch06.fd_ddpm@full"), encoding="utf-8")
    for module, expected in ((fresh, []), ("0" * 64, ["stale"])):
        record(book, module=fresh, notebook=notebook_hash([]))
        record(book, distance=0.321, module=module, profile="full")
        (book / "_build" / "index.html").unlink(missing_ok=True)
        code, messages = build(book)
        assert code == 0, messages
        assert shown(book)[0] == "0.321 ± 0.012"
        assert [badge.text for badge in page(book, "index.html").select(".book-badge.stale")] == expected
        entry = page(book, "book/results.html").find(id="result-ch06-fd-ddpm-full")
        assert ("hjbridge.sde.process" in entry.text) == bool(expected)
        assert "--profile full" in entry.text
        assert not page(book, "book/results.html").find(id="result-ch06-fd-ddpm").select(".book-badge")


def test_how_a_chapter_was_run_is_printed_with_the_environment(book, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_COMMIT", "abc1234")
    path = book / "data" / "results" / "ch06.json"

    def ran(seconds: float, versions: dict[str, str]) -> None:
        tree = json.loads(path.read_text())
        tree["run"] |= {"seconds": seconds, "cpu": "AMD EPYC", "versions": versions}
        path.write_text(json.dumps(tree))

    ran(403.6, {"python": "3.11.7", "torch": "2.13.0"})
    (book / "constraints.txt").write_bytes(b"torch==2.13.0\n")
    (book / "index.md").write_text(INDEX + "\n{rerun}`06`\n", encoding="utf-8")
    code, messages = build(book)
    assert code == 0, messages
    environment = hashlib.sha256(b"torch==2.13.0\n").hexdigest()[:12]
    told = " ".join(page(book, "index.html").text.split())
    assert "Recorded in 6 min 44 s" in told and "AMD EPYC" in told and "python 3.11.7, torch 2.13.0" in told
    assert f"Environment {environment} (constraints.txt), commit abc1234." in told
    assert [word.text for word in page(book, "index.html").select("code")][-2:] == [environment, "abc1234"]
    ran(7.2, {"torch": "3.0"})
    assert build(book)[0] == 0
    told = page(book, "index.html").text
    assert "Recorded in 7 s" in told and "torch 3.0" in told and "44 s" not in told, "a new record is read again"


@pytest.mark.parametrize("role", ["rerun", "runtime"])
def test_the_run_of_a_chapter_without_record_fails_the_build(book, role):
    (book / "constraints.txt").touch()
    (book / "index.md").write_text(INDEX + f"\n{{{role}}}`07`\n", encoding="utf-8")
    for _ in range(2):  # a build that failed is not forgiven by the next one
        code, messages = build(book)
        assert code != 0 and f"{role} '07'" in messages and "ch07.json" in messages


@pytest.mark.parametrize(("figure", "word"), [("fig-none", "fig-none"), ("fig-empty", "fig-empty")])
def test_a_figure_that_the_notebook_does_not_have_fails_the_build(book, figure, word):
    with_chapter(book)
    path = book / "notebooks" / "06_ddpm.ipynb"
    cell = {"cell_type": "code", "metadata": {"mystnb": {"figure": {"name": "fig-empty"}}}, "outputs": [], "source": []}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (book / "index.md").write_text(
        f"# Book\n\n```{{notebook-figure}} notebooks/06_ddpm {figure}\nA caption.\n```\n", encoding="utf-8"
    )
    code, messages = build(book)
    assert code != 0 and word in messages and "06_ddpm.ipynb" in messages
