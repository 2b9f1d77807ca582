"""A cell tagged `record` is one line on the page, which names its numbers; its pictures are not folded away."""

import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from hjbridge.ledger import files

CHAPTERS = sorted(files.notebooks().items())


def recorded(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if "record" in cell["metadata"].get("tags", [])]


@pytest.mark.parametrize(("chapter", "path"), CHAPTERS)
def test_the_fold_names_the_numbers_and_holds_the_code(site: Path, chapter, path):
    page = BeautifulSoup((site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8"), "html.parser")
    folds, cells = page.select("details.book-recorded"), recorded(path)
    assert len(folds) == len(cells) > 0 and not any(fold.has_attr("open") for fold in folds)
    for fold, cell in zip(folds, cells, strict=True):
        printed = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        ids = re.findall(r"^(ch\d\d\.\w+) = ", printed, re.M)
        assert [code.get_text() for code in fold.summary.find_all("code")] == ids
        assert fold.summary.get_text().startswith(f"Recorded, {len(ids)} number")
        lines = [line.strip() for line in "".join(cell["source"]).splitlines() if "record" in line]
        code = fold.select_one(".cell_input").get_text()
        assert lines and all(line in code for line in lines)
        assert printed.splitlines()[0] in fold.select_one(".cell_output").get_text()


@pytest.mark.parametrize(("chapter", "path"), CHAPTERS)
def test_no_code_that_records_stands_outside_a_fold(site: Path, chapter, path):
    page = BeautifulSoup((site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8"), "html.parser")
    for fold in page.select("details.book-recorded"):
        assert not fold.find(["figure", "img"]), "a picture must stay in sight"
        fold.decompose()
    assert not re.search(r"\brecord(_all)?\(", " ".join(cell.get_text() for cell in page.select(".cell_input")))
    alive = {figure.get("id") for figure in page.find_all("figure")}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names = {cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells} - {None}
    assert names <= alive
