"""What the buttons of a chapter lead to: its readers' copy, numbered as the page is."""

import json
import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from hjbridge.ledger import files, result
from hjbridge.ledger.notebook import text
from hjbridge.ledger.reading.book import anchor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
CHAPTERS = [path.stem for path in files.notebooks(ROOT / "notebooks").values()]


@pytest.fixture(params=CHAPTERS)
def chapter(request):
    return request.param


@pytest.fixture
def page(site, chapter):
    return BeautifulSoup((site / "notebooks" / f"{chapter}.html").read_text(encoding="utf-8"), "html.parser")


@pytest.fixture
def copy(site, page, chapter):
    """The notebook behind the page's download button."""
    (link,) = {tag["href"] for tag in page.select("a.btn-download-source-button")}
    found = json.loads((site / "notebooks" / link).resolve().read_text(encoding="utf-8"))
    assert found["metadata"]["hjbridge"]["copy_of"] == chapter
    return found


def words(notebook):
    return "\n\n".join(text(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def test_the_rocket_opens_the_copy_that_binder_has(page, chapter):
    (link,) = {tag["href"] for tag in page.select("a[href*='mybinder.org']")}
    assert link.endswith(f"?urlpath=lab/tree/reading/{chapter}.ipynb")


def test_equations_figures_and_exercises_are_numbered_as_on_the_page(page, copy):
    article, source = page.select_one("article"), words(copy)
    equations = [re.search(r"\d+", tag.text)[0] for tag in article.select(".eqno")]
    assert equations and re.findall(r"\\tag\{(\d+)\}", source) == equations
    figures = [re.search(r"\d+", tag.text)[0] for tag in article.select("figcaption .caption-number")]
    assert figures and re.findall(r"^\*\*Figure (\d+)\.\*\*", source, re.MULTILINE) == figures
    boxes = [tag.text.strip() for tag in article.select(".admonition-title .caption-number")]
    assert boxes and re.findall(r"^(?:> )?\*\*((?:Exercise|Theorem) \d+)", source, re.MULTILINE) == boxes


def test_the_copy_prints_the_numbers_and_verdicts_of_the_page(page, copy):
    article, source = page.select_one("article"), words(copy)
    shown = [" ".join(tag.text.split()) for tag in article.select("a.result")]
    assert len(shown) > 10
    assert [number for number in shown if number not in " ".join(source.split())] == []
    for tag in article.select("a.claim"):
        id, verdict = tag.text.split(maxsplit=1)
        assert f"{id} ({verdict})" in source


def test_a_link_to_a_number_has_the_anchor_of_the_site():
    import results_role

    for id in ("ch01.gap_policy", "ch06.fd_mnist_10@full"):
        assert result(id, ROOT / "data" / "results") and anchor(id) == results_role.anchor(id)
