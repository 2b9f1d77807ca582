"""Every chapter follows the house's order of blocks and stays within its measures."""

import re

MARKS = ("In this chapter", "## Claim check", "## What does not hold", "## Exercises", "Reproduce this chapter")


def text(cell):
    return "".join(cell["source"])


def test_the_blocks_stand_in_their_order(cells, chapter):
    prose = "\n".join(text(cell) for cell in cells if cell["cell_type"] == "markdown")
    places = [prose.index(mark) for mark in MARKS]
    assert places == sorted(places)
    assert prose.startswith(f"(chapter-{chapter})=")
    assert prose.count(":::{exercise-start}") == prose.count(":::{solution-start}") >= 3


def test_the_parameters_are_two_literals(cells):
    (parameters,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert text(parameters) == 'profile = "book"\nseed = 0'


def test_code_is_short_and_explained(cells):
    code = [text(cell) for cell in cells if cell["cell_type"] == "code"]
    words = sum(len(text(cell).split()) for cell in cells if cell["cell_type"] == "markdown")
    lines = [len(cell.splitlines()) for cell in code]
    assert max(lines) <= 25
    assert words >= 10 * sum(lines)
    assert not any(re.search(r"^\s*[!%]|pip install|subprocess|os\.system", cell, re.M) for cell in code)


def test_the_claim_check_is_shown_and_compared(cells):
    """nbval compares tagged cells alone, and comments of its own can tell it not to."""
    (check,) = [cell for cell in cells if cell["cell_type"] == "code" and "verdict_table(" in text(cell)]
    assert check["metadata"]["tags"] == ["nbval-check-output"]
    assert not any(re.search(r"NBVAL_|PYTEST_", text(cell)) for cell in cells)


def test_outputs_are_there_whole_and_described(cells):
    outputs = [(cell, output) for cell in cells for output in cell.get("outputs", [])]
    assert outputs and not any(output["output_type"] == "error" for _, output in outputs)
    for cell, output in outputs:
        if "image/png" in output.get("data", {}):
            mystnb = cell["metadata"].get("mystnb", {})
            assert len(mystnb["image"]["alt"]) > 40 and mystnb["figure"]["caption"] and mystnb["figure"]["name"]
        if "<img" in (html := "".join(output.get("data", {}).get("text/html", ""))):
            assert re.search(r'alt="[^"]{40,}"', html)
