"""The fixed form of a notebook."""

import copy
import json
import sys
import tempfile

import pytest

from hjbridge.ledger import LedgerError, files
from hjbridge.ledger.notebook import (
    normalise,
    normalise_file,
    output_digests,
    parameters_known,
    parameters_of,
    plain,
    profile_known,
    unworded,
)

WIDGET = "application/vnd.jupyter.widget-view+json"
OUTPUTS = [
    {"output_type": "stream", "name": "stdout", "text": ["one\n", "0%\r50%\r100%"]},
    {"output_type": "stream", "name": "stderr", "text": "warning"},
    {"output_type": "stream", "name": "stdout", "text": "\nend <object at 0x7f0123456789>\n"},
    {
        "output_type": "display_data", "metadata": {"image/png": {"width": 3}}, "transient": {"x": 1},
        "data": {"image/png": "iVBOR0xabcdef0\n", "text/plain": "<Figure>"},
    },
    {"output_type": "display_data", "metadata": {}, "data": {WIDGET: {"model_id": "1"}, "text/plain": "bar"}},
    {"output_type": "execute_result", "execution_count": 9, "metadata": {}, "data": {"text/plain": ["3\n", "4"]}},
]  # fmt: skip
FAILED = {"output_type": "error", "ename": "E", "evalue": "in /home/a/b.py", "traceback": ["/home/a/b.py:3"]}
RUN = {"papermill": {"duration": 1}, "tags": [], "mystnb": {"image": {"alt": "a"}}}
SET = {"tags": ["parameters"], "execution": {"iopub.execute_input": "9"}}
RAW = {
    "cells": [
        {"cell_type": "markdown", "id": "b", "metadata": {"a": True}, "source": "\n# Title\n", "attachments": {}},
        {
            "cell_type": "code", "id": "q", "metadata": SET, "execution_count": 7, "outputs": [],
            "source": ["profile = 'book'\n", "seed = 0\n"],
        },
        {
            "cell_type": "code", "id": "r", "metadata": {"tags": ["injected-parameters"]}, "execution_count": 8,
            "outputs": [], "source": "seed = 1",
        },
        {"cell_type": "code", "id": "s", "metadata": RUN, "execution_count": 9, "source": "f()", "outputs": OUTPUTS},
        {"cell_type": "code", "id": "t", "metadata": {}, "execution_count": None, "source": "1/0", "outputs": [FAILED]},
    ],
    "metadata": {
        "kernelspec": {"display_name": "mine", "language": "python", "name": "py38"}, "widgets": {"state": {}},
        "language_info": {"name": "python", "version": "3.11.7"}, "papermill": {"duration": 3},
    },
    "nbformat": 4, "nbformat_minor": 4,
}  # fmt: skip


def test_the_fixed_form():
    before = copy.deepcopy(RAW)
    book = normalise(RAW)
    assert before == RAW
    assert [cell["id"] for cell in book["cells"]] == ["cell-01", "cell-02", "cell-03", "cell-04"]
    assert book["metadata"]["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert "version" not in book["metadata"]["language_info"] and set(book["metadata"]) == {
        "kernelspec",
        "language_info",
    }
    title, parameters, run, failed = book["cells"]
    assert title == {"cell_type": "markdown", "id": "cell-01", "metadata": {}, "source": ["# Title"]}
    assert parameters["metadata"] == {"tags": ["parameters"]} and parameters["source"] == [
        "profile = 'book'\n",
        "seed = 0",
    ]
    assert run["metadata"] == {"mystnb": {"image": {"alt": "a"}}}
    assert [parameters["execution_count"], run["execution_count"], failed["execution_count"]] == [1, 2, None]
    stream, picture, shown = run["outputs"]
    assert stream == {"name": "stdout", "output_type": "stream", "text": ["one\n", "100%\n", "end <object at 0x…>\n"]}
    assert picture == {
        "data": {"image/png": "iVBOR0xabcdef0", "text/plain": ["<Figure>"]}, "metadata": {"image/png": {"width": 3}},
        "output_type": "display_data",
    }  # fmt: skip
    assert shown["execution_count"] == 2 and shown["data"] == {"text/plain": ["3\n", "4"]}
    assert failed["outputs"][0]["traceback"] == ["…/b.py:3"] and failed["outputs"][0]["evalue"] == "in …/b.py"


def test_twice_is_once(tmp_path):
    once = normalise(RAW)
    assert normalise(once) == once
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(RAW))
    assert normalise_file(path, check=True) and json.loads(path.read_text()) == RAW
    assert normalise_file(path)
    text = path.read_text()
    assert not normalise_file(path) and path.read_text() == text
    assert text.endswith("}\n") and text.startswith('{\n "cells"')


def test_the_fixed_form_is_a_valid_notebook():
    import nbformat

    nbformat.validate(normalise(RAW))
    assert (normalise(RAW)["nbformat"], normalise(RAW)["nbformat_minor"]) == (
        4,
        5,
    )  # 4.5 is the first with ids of cells


@pytest.mark.parametrize(
    ("words", "clean"),
    [
        (f"in {files.root()}/src/a.py", "in ./src/a.py"),
        (f"{sys.prefix}/lib/x.py: bad", "<environment>/lib/x.py: bad"),
        (f"{tempfile.gettempdir()}/ipykernel_12/3.py", "<temporary>/ipykernel_12/3.py"),
        ("'/home/someone/work/x.py'", "'…/x.py'"),
        ("/Users/a.b/c d", "…/c d"),
        ("a/home/b and 1/usr/2", "a/home/b and 1/usr/2"),
        ("https://example.org/home/x", "https://example.org/home/x"),
        ("<td>3/4</td></tr>", "<td>3/4</td></tr>"),
        ("colour 0x12, address 0xdeadbeef01", "colour 0x12, address 0x…"),
    ],
)
def test_paths_and_addresses_go(words, clean):
    assert plain(words) == clean
    assert plain(clean) == clean


@pytest.mark.parametrize("text", ["", "[]", '{"nbformat": 3, "cells": []}', "{"])
def test_what_is_no_notebook_is_named(tmp_path, text):
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    with pytest.raises(LedgerError, match=r"a.ipynb"):
        normalise_file(path)
    with pytest.raises(LedgerError, match=r"missing.ipynb"):
        normalise_file(tmp_path / "missing.ipynb")


def written(tmp_path, *sources):
    cells = [{"cell_type": "code", "source": s, "metadata": {"tags": ["parameters"]}} for s in sources]
    path = tmp_path / "05_x.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "cells": cells}))
    return path


def test_parameters_are_read_without_running_anything(tmp_path):
    path = written(tmp_path, 'profile = "book"\nseed = 0  # of everything')
    assert parameters_of(path) == {"profile": "book", "seed": 0}
    parameters_known(path, ("seed", "profile"))
    with pytest.raises(LedgerError, match=r"05_x.ipynb has no parameter profil, seeed; it has profile, seed"):
        parameters_known(path, ("profil", "seeed"))


@pytest.mark.parametrize("sources", [(), ("a = 1", "b = 2")])
def test_one_parameters_cell_is_wanted(tmp_path, sources):
    with pytest.raises(LedgerError, match=rf"must have one cell tagged `parameters`, got {len(sources)}"):
        parameters_of(written(tmp_path, *sources))


@pytest.mark.parametrize("source", ["seed = int('0')", "import os", "f()", "seed =", "a.b = 1"])
def test_a_parameters_cell_holds_literals_only(tmp_path, source):
    with pytest.raises(LedgerError, match="may hold `name = literal` lines only"):
        parameters_of(written(tmp_path, source))


def shown(*outputs, **cell):
    return {"cell_type": "code", "source": "", "outputs": list(outputs)} | cell


STREAM = {"output_type": "stream", "name": "stdout", "text": ["a\n", "b"]}
FIGURE = {"output_type": "display_data", "data": {"image/png": "iVBO", "text/plain": ["<Figure>"]}, "metadata": {}}
FAILED = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["a", "b"]}


def test_digests_follow_what_is_shown_and_not_how_it_is_stored():
    prose = {"cell_type": "markdown", "source": "words"}
    base = output_digests([shown(STREAM), shown(), shown(FIGURE)])
    assert list(base) == ["1", "3"], "cells that show nothing have none"
    moved = [prose, shown(STREAM | {"text": "a\nb"}, metadata={"tags": ["x"]}), shown(source="x"), prose]
    picture = FIGURE | {"data": {"text/plain": "<Figure>", "image/png": "iVBO\n"}, "metadata": {}}
    assert output_digests([*moved, shown(picture, execution_count=7)]) == base


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (STREAM, STREAM | {"text": "a\nc"}),
        (STREAM, STREAM | {"name": "stderr"}),
        (FIGURE, FIGURE | {"data": FIGURE["data"] | {"image/png": "iVBP"}}),
        (FIGURE, FIGURE | {"data": {"image/png": "iVBO"}}),
        (FIGURE, FIGURE | {"output_type": "execute_result"}),
        (FIGURE, FIGURE | {"data": FIGURE["data"] | {"application/json": {"a": 1}}}),
        (FIGURE, FIGURE | {"metadata": {"image/png": {"width": 1}}}),
        (FAILED, FAILED | {"ename": "KeyError"}),
        (FAILED, FAILED | {"evalue": "yes"}),
        (FAILED, FAILED | {"traceback": ["a"]}),
    ],
)
def test_digests_tell_outputs_apart(one, other):
    assert output_digests([shown(one)]) != output_digests([shown(other)])


def test_a_picture_without_words_is_named():
    words = {"mystnb": {"image": {"alt": "A curve"}, "figure": {"caption": "It falls."}}}
    cells = [
        shown(FIGURE, id="good", metadata=words), shown(FIGURE, id="none"), shown(STREAM, id="text"),
        shown(FIGURE, id="alt", metadata={"mystnb": words["mystnb"] | {"figure": {"name": "fig"}}}),
    ]  # fmt: skip
    alt, caption = "alternative text (mystnb: image: alt)", "caption (mystnb: figure: caption)"
    assert unworded(cells) == {"none": f"{alt} and no {caption}", "alt": caption}


@pytest.mark.parametrize(
    ("source", "known"),
    [
        ("n = run.pick(smoke=1, book=2)", ()),
        ("n = run.pick(smoke=1, book=2, full=3)", ("full",)),
        ("%time\nf(run.pick(smoke=1, book=2, paper=3), run.pick(book=2, smoke=1, full=3))", ("full", "paper")),
        ("full = g(full=3)\n'run.pick(full=3)'", ()),
        ("pick(full=3)", ()),
        ("run.pick(full=3", ()),
    ],
)
def test_a_chapter_knows_the_profiles_that_a_call_of_pick_names(tmp_path, source, known):
    path = tmp_path / "05_x.ipynb"
    cells = [{"cell_type": "markdown", "source": "run.pick(full=1)"}, shown(source=[source]), shown(source="x = 1")]
    path.write_text(json.dumps({"nbformat": 4, "cells": cells}))
    assert [name for name in ("smoke", "book", "full", "paper") if profile_known(path, name)] == [
        "smoke", "book", *known,
    ]  # fmt: skip
