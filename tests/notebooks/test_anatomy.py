"""Every chapter follows the house's order of blocks and stays within its measures."""

import ast
import re
from itertools import pairwise

MARKS = ("In this chapter", "## Claim check", "## What does not hold", "## Exercises", "Reproduce this chapter")


def text(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


def shown(cells):
    """Code that a reader of the page sees: all but set-up, parameters, recorded cells and the claim check."""
    return [cell for cell in cells if cell["cell_type"] == "code" and not tags(cell)]


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
    lines = sum(len(text(cell).splitlines()) for cell in shown(cells))
    assert words >= 10 * lines
    assert not any(re.search(r"^\s*[!%]|pip install|subprocess|os\.system", cell, re.M) for cell in code)


def test_a_shown_cell_is_what_a_reader_would_type(cells):
    """Fifteen lines of eighty columns, without what only the ledger needs."""
    exercises = next(k for k, cell in enumerate(cells) if "## Exercises" in text(cell))
    assert 10 <= len(shown(cells[:exercises])) <= 16
    for cell in shown(cells):
        lines = text(cell).splitlines()
        assert len(lines) <= 15 and max(map(len, lines)) <= 80, f"{cell['id']}: {len(lines)} lines"
        for node in ast.walk(ast.parse(text(cell))):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert name not in ("record", "record_all", "verdict_table", "setup"), cell["id"]
            unpacked = isinstance(node, ast.keyword) and node.arg in (None, "protocol")
            assert not unpacked, f"{cell['id']} unpacks a mapping or states a protocol: a cell tagged record may"


def test_a_recorded_cell_follows_what_it_records(cells):
    """It is folded on the page, under the ids that it prints."""
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for before, cell in pairwise(code):
        calls = re.findall(r"\brecord(?:_all)?\(", text(cell))
        assert bool(calls) == ("record" in tags(cell)), cell["id"]
        if calls:
            lines = text(cell).splitlines()
            assert len(lines) <= 15 and max(map(len, lines)) <= 80, f"{cell['id']}: {len(lines)} lines"
            assert not tags(before) or "record" in tags(before), f"{cell['id']} follows no shown cell"
            printed = "".join("".join(output.get("text", "")) for output in cell["outputs"])
            assert re.search(r"^ch\d\d\.\w+ = ", printed, re.M), f"{cell['id']} names no number"


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
