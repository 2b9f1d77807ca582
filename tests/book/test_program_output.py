"""The directive `program-output` on a book of one page."""

import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from hjbridge.ledger import pages

EXTENSIONS = Path(__file__).resolve().parents[2] / "book" / "_ext"
CONFIG = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
extensions = ["myst_parser", "results_role", "program_output"]
html_theme = "basic"
root_doc = "page"
"""
PAGE = """# Page

```python
from PIL import Image
Image.new("L", (8, 8)).save("a.png")
print("a < b")
```

```{program-output} 1
:alt: A black square.

The *caption* of it.
```

```python
print("again")
```

```{program-output} 2
```
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A page with its outputs."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "conf.py").write_text(CONFIG)
    (folder / "page.md").write_text(PAGE)
    pages.record(folder / "page.md")
    return folder


def build(folder: Path, text: str = PAGE) -> tuple[int, str]:
    """Exit code and messages of an incremental build."""
    (folder / "page.md").write_text(text)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", "-b", "html", ".", "_build"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return run.returncode, run.stderr


def test_text_and_picture_are_shown_below_the_program(recorded):
    code, messages = build(recorded)
    assert code == 0, messages
    page = BeautifulSoup((recorded / "_build" / "page.html").read_text(encoding="utf-8"), "html.parser")
    first, second = page.select(".program-output")
    assert (first.pre.get_text(), second.pre.get_text()) == ("a < b\n", "again\n")
    assert first.img["alt"] == "A black square." and first.figcaption.em.get_text() == "caption"
    shown = (recorded / "_build" / first.img["src"]).read_bytes()
    assert shown == (recorded / "outputs" / "page-1.png").read_bytes()
    assert second.find("img") is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("again", "anew", "program 2 of page.md has changed since its output was recorded: run `hjbridge pages page`"),
        ("output} 2", "output} 3", "program must lie in 1 to 2 on page.md, got 3"),
        (":alt: A black square.\n", "", "program 1 of page.md draws a picture: needs `:alt:` and a caption"),
        ("output} 2\n", "output} 2\nWords.\n", "program 2 of page.md draws no picture: takes neither"),
        ("The *caption*", "- The *caption*", "caption must be one paragraph"),
    ],
)
def test_what_does_not_fit_fails_the_build_until_it_is_mended(recorded, old, new, told):
    assert old in PAGE
    for _ in range(2):
        code, messages = build(recorded, PAGE.replace(old, new))
        assert code != 0 and told in messages
    code, messages = build(recorded)
    assert code == 0, messages


def test_a_lost_record_fails_the_build(recorded):
    file = recorded / "outputs" / "page.json"
    text = file.read_text()
    file.unlink()
    code, messages = build(recorded)
    assert code != 0 and "no outputs of page.md are recorded" in messages and "hjbridge pages page" in messages
    file.write_text(text)
    code, messages = build(recorded)
    assert code == 0, messages
