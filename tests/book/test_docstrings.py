"""House docstrings become reStructuredText without losing the order of their lines."""

import importlib.util
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "book" / "_ext" / "docstrings.py"


@pytest.fixture(scope="module")
def readable():
    spec = importlib.util.spec_from_file_location("docstrings_of_the_book", SOURCE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # dataclasses look their module up
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module.readable


def words(lines):
    return [line.strip() for line in lines if line.strip()]


def test_formula_is_literal_and_labels_are_fields(readable):
    found = words(readable(["The `sum` of both.", "", "    a + b", "", "Args: a, b: numbers. Returns: their sum."]))
    assert found[:3] == ["The ``sum`` of both.", ".. code-block:: none", "a + b"]
    assert found[3:] == [":Arguments:", "a, b: numbers.", ":Returns:", "their sum."]


def test_a_line_below_an_indented_block_comes_after_it(readable):
    found = words(readable(["Raises: ValueError for one thing,", "    and another.", "Source: Bellman 1957."]))
    assert found == [":Raises:", "ValueError for one thing, and another.", ":Source:", "Bellman 1957."]
    found = words(readable(["Args:", "    a: one number.", "    b: another,", "        deeper.", "State: wealth."]))
    assert found == ["State: wealth.", ":Arguments:", "``a``: one number.", "``b``: another, deeper."]


def test_a_source_that_goes_on(readable):
    found = words(readable(["Raises: ValueError. Source: Bellman 1957;", "Howard 1960."]))
    assert found == [":Raises:", "ValueError.", ":Source:", "Bellman 1957; Howard 1960."]
