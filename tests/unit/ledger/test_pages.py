"""Programs of a page, run and recorded in a repository of one page; and what counts as the same output."""

import io

import numpy as np
import pytest
from PIL import Image

from hjbridge.cli import main
from hjbridge.ledger import LedgerError, pages
from hjbridge.ledger.pages import Output
from hjbridge.ledger.pages_again import differences, text_difference

DRAW = "from PIL import Image\nImage.new('L', (8, 8), 200).save('a.png')\nshown = 1.25"
PAGE = """# A page

```python
{}
```

```{{program-output}} 1
```

```python
print(f"shown {{shown}}")
```

```{{program-output}} 2
```
"""


@pytest.fixture
def page(repository):
    (repository / "book").mkdir()
    path = repository / "book" / "short.md"
    path.write_text(PAGE.format(DRAW))
    (repository / "book" / "other.md").write_text("```python\nraise ValueError\n```\n")
    return path


def test_programs_share_names_and_their_outputs_are_kept(page):
    assert pages.pages() == {"short": page}
    drawn, printed = pages.record(page)
    assert (drawn.printed, printed.printed, printed.pictures) == ("", "shown 1.25\n", ())
    (picture,) = drawn.pictures
    assert Image.open(io.BytesIO(picture)).size == (8, 8)
    assert pages.recorded(page) == [drawn, printed]
    assert sorted(path.name for path in (page.parent / "outputs").iterdir()) == ["short-1.png", "short.json"]
    assert differences("short", pages.recorded(page), pages.run(page)) == []


def test_a_figure_of_matplotlib_is_drawn_for_dark_pages_too(page):
    figure = "import matplotlib.pyplot as plt\nplt.plot([0, 1], color='black')\nplt.savefig('a.png')\nshown = 1"
    page.write_text(PAGE.format(figure))
    drawn = pages.record(page)[0].pictures
    light, dark = (np.asarray(Image.open(io.BytesIO(kind)).convert("RGBA")) for kind in drawn)
    assert light.shape == dark.shape
    assert light[0, 0].tolist() == [255, 255, 255, 255] and dark[0, 0, 3] == 0
    assert light.min() < 60 and dark[dark[..., 3] == 255].max() > 180
    assert sorted(path.name for path in (page.parent / "outputs").glob("*.png")) == ["short-1-dark.png", "short-1.png"]


def test_a_program_that_imports_torch_starts_anew(page):
    page.write_text(page.read_text().replace("print(f", "import torch\nprint(f"))
    with pytest.raises(LedgerError, match=r"a program of short.md fails:(.|\n)*NameError: name 'shown'"):
        pages.run(page)


def test_one_picture_for_a_program(page):
    page.write_text(page.read_text().replace(".save('a.png')", ".save('a.png')\nopen('b.png', 'w').close()"))
    with pytest.raises(LedgerError, match="program 1 of short.md must draw one picture at most, got a.png, b.png"):
        pages.run(page)


def test_a_picture_that_is_no_longer_drawn_goes(page):
    pages.record(page)
    page.write_text(page.read_text().replace(".save('a.png')", ""))
    pages.record(page)
    assert [path.name for path in (page.parent / "outputs").iterdir()] == ["short.json"]


def test_what_is_missing_or_stale_is_named_with_the_command(page):
    with pytest.raises(LedgerError, match="no outputs of short.md are recorded .*: run `hjbridge pages short`"):
        pages.recorded(page)
    pages.record(page)
    text = page.read_text()
    page.write_text(text.replace('"shown', '"now'))
    with pytest.raises(LedgerError, match="program 2 of short.md has changed .*: run `hjbridge pages short`"):
        pages.recorded(page)
    page.write_text(text[: text.index("```python\nprint")])
    with pytest.raises(LedgerError, match="short.md has fewer programs since"):
        pages.recorded(page)
    page.write_text(text + "```python\npass\n```\n")
    with pytest.raises(LedgerError, match="program 3 of short.md has changed since"):
        pages.recorded(page)
    page.write_text(text)
    (page.parent / "outputs" / "short-1.png").unlink()
    with pytest.raises(LedgerError, match="no outputs of short.md are recorded"):
        pages.recorded(page)


def test_the_command_records_one_page_or_all(page, capsys):
    for arguments in (["pages"], ["pages", "short"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert not end.value.code
        assert capsys.readouterr().out == "book/outputs/short.json: 2 programs, pictures: 1\n"
    with pytest.raises(SystemExit) as end:
        main(["pages", "other"])
    assert end.value.code == 2 and "page must be one of short, got 'other'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mean 0.79, exact 0.80", "mean 0.80, exact 0.79"),
        ("cost   123.957 ± 0.008", "cost 123.951 ± 0.008"),
        ("residual 1.5e-06", "residual 1.6e-06"),
        ("change -3.40e+00", "change -3.41e+00"),
    ],
)
def test_a_unit_in_the_last_place_is_left_to_the_processor(old, new):
    assert text_difference(f"first\n{old}\n", f"first\n{new}\n") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mean 0.79", "mean 0.81"),
        ("mean 0.79", "mean -0.79"),
        ("2048 paths", "2049 paths"),
        ("optimal", "not shown to be optimal"),
        ("cost 123.957", "cost 124.957"),
        ("residual 1.5e-06", "residual 1.5e-05"),
        ("one 1.0", "one 1.0\ntwo 2.0"),
        ("1.0 2.0", "1.0"),
    ],
)
def test_any_other_text_is_told(old, new):
    told = text_difference(f"{old}\n", f"{new}\n")
    assert told and (repr(new.splitlines()[0]) in told or "2 lines in place of 1" in told)


def png(level: int, size=(20, 20), changed: int = 0) -> bytes:
    image = Image.new("L", size, level)
    for k in range(changed):
        image.putpixel((k, 0), 255 - level)
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("new", "told"),
    [(png(210), None), (png(200, changed=2), None), (png(230), "100.0% of its pixels differ"),
     (png(200, changed=3), "0.8% of its pixels differ"), (png(200, (20, 21)), "its size is (20, 21)"),
     (None, "0 pictures in place of 1")],
)  # fmt: skip
def test_pictures_are_compared_by_size_and_pixels(new, told):
    found = differences("short", [Output("a", "", (png(200),))], [Output("a", "", (new,) if new else ())])
    assert not found if told is None else told in found[0] and found[0].endswith("run `hjbridge pages short`")
