"""The time that a chapter says it takes is that of its recorded run."""

import json

import pytest
from bs4 import BeautifulSoup

from hjbridge.ledger import files


def said(seconds):
    """`13 s` or `1 min 22 s`."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


@pytest.mark.parametrize(("chapter", "path"), sorted(files.notebooks().items()))
def test_each_chapter_tells_its_recorded_time(site, chapter, path):
    page = BeautifulSoup((site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8"), "html.parser")
    time = said(json.loads((files.committed() / f"ch{chapter}.json").read_text(encoding="utf-8"))["run"]["seconds"])
    assert f"Runs in {time} on one core" in page.select_one(".admonition").get_text()
    assert f"Recorded in {time} on one core" in page.get_text()
