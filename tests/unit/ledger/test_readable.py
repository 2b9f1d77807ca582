"""Readers' copies: nothing of the book's own language is left in them, and their code is that of the chapters."""

import json
import re
import shutil

import pytest

from hjbridge.ledger import files, result
from hjbridge.ledger.claims import load_claims
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.notebook import has_picture, text
from hjbridge.ledger.reading import Book, copy_of, numbered, write
from hjbridge.ledger.reading.bibliography import load, plain
from hjbridge.ledger.reading.numbering import count
from hjbridge.ledger.reading.prose import Prose
from hjbridge.ledger.results import chapter_file

CHAPTERS = [path.stem for path in files.notebooks().values()]


@pytest.fixture(scope="module")
def book():
    return Book(files.root())


@pytest.fixture(scope="module")
def numbers(book):
    return numbered(book)


@pytest.fixture(scope="module", params=CHAPTERS)
def pair(request, book, numbers):
    original = json.loads((book.root / "notebooks" / f"{request.param}.ipynb").read_text(encoding="utf-8"))
    return original, copy_of(request.param, book, numbers)


def words(notebook):
    return "\n\n".join(text(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def test_no_role_and_no_directive_is_left(pair):
    original, copy = pair
    raw = re.compile(r"\{[\w:]+\}`|^[> ]*:::|^\([\w-]+\)=|\$\$ \(", re.MULTILINE)
    assert raw.search(words(original)) and not raw.search(words(copy))


def test_code_is_that_of_the_chapter(pair):
    original, copy = pair
    code = [[cell for cell in one["cells"] if cell["cell_type"] == "code"] for one in pair]
    assert [text(cell["source"]) for cell in code[0]] == [text(cell["source"]) for cell in code[1]]
    for before, after in zip(*code, strict=True):
        tags = before["metadata"].get("tags", [])
        folded = after["metadata"].get("jupyter", {}).get("source_hidden", False)
        assert folded == bool({"record", "hide-input"} & set(tags))
        assert len(before["outputs"]) == len(after["outputs"])
    assert copy["metadata"]["kernelspec"] == original["metadata"]["kernelspec"]
    assert len({cell["id"] for cell in copy["cells"]}) == len(copy["cells"])


def test_every_number_of_the_text_is_written_out(pair):
    original, copy = pair
    printed = words(copy)
    used = re.findall(r"\{result\}`([\w.@]+)`", words(original))
    assert len(used) > 10
    for id in used:
        assert result(id, files.committed()).text().replace("-", "\N{MINUS SIGN}") in printed, id


def test_tables_keep_their_columns(pair):
    rows = [[line for line in words(one).splitlines() if line.startswith("|")] for one in pair]
    assert [row.count("|") for row in rows[0]] == [row.count("|") for row in rows[1]]


def test_each_captioned_figure_has_its_caption_below(pair):
    original, copy = pair
    figures = [cell for cell in original["cells"] if has_picture(cell)]
    cells = {cell["id"]: k for k, cell in enumerate(copy["cells"])}
    assert figures
    for cell in figures:
        below = copy["cells"][cells[cell["id"]] + 1]
        assert re.match(r"\*\*Figure \d+\.\*\* \w", text(below["source"])), cell["id"]
        drawn = [one for one in copy["cells"][cells[cell["id"]]]["outputs"] if "image/png" in one.get("data", {})]
        assert drawn and all(one["data"].keys() == {"image/png", "text/plain"} for one in drawn)
        alt = cell["metadata"]["mystnb"]["image"]["alt"]
        assert all(one["metadata"]["image/png"]["alt"] == alt for one in drawn)


def rewritten(book, source, page="01_x"):
    notebook = {"cells": [{"cell_type": "markdown", "source": source}]}
    return Prose(page, book, count({page: notebook})).rewrite(source)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("{cite:t}`jia2022`", "Jia and Zhou (2022)"),
        ("{cite:p}`jia2022,tallec2019`", "(Jia and Zhou, 2022; Tallec et al., 2019)"),
        ("{cite:t}`song2021` {cite:t}`song2021ddim`", "Song et al. (2021a) Song et al. (2021b)"),
        ("$$\nx\n$$ (eq-a)\n\n$$ y $$\n\n$$\nz\n$$ (eq-b)\n\nby {eq}`eq-b`",
         "$$\nx \\tag{1}\n$$\n\n$$ y $$\n\n$$\nz \\tag{2}\n$$\n\nby (2)"),
        (":::{admonition} Title\n:class: tip\n- a {cite:t}`jia2022`\n\n$$\nx\n$$\n:::",
         "> **Title**\n>\n> - a Jia and Zhou (2022)\n>\n> $$ x $$"),
        ("::::{note}\n:::{tip}\ninner\n:::\n::::", "> **Note**\n>\n> > **Tip**\n> >\n> > inner"),
        (":::{exercise-start}\n:label: ex-a\n:::\nProve.\n:::{exercise-end}\n:::\n\n:::{solution-start} ex-a\n:::\nSo.",
         "**Exercise 1.**\n\nProve.\n\n**Solution of exercise 1.**\n\nSo."),
        (":::{prf:theorem} Of us\n:label: thm-a\nIt is.\n:::", "> **Theorem 1 (Of us).**\n>\n> It is."),
        ("(here)=\n## A place\n\nsee {ref}`it <here>`", "## A place\n\nsee [it](#A-place)"),
        ("see {doc}`chapter <02_exact_problems>`", "see [chapter](02_exact_problems.ipynb)"),
        (r"$\E x$, $\dot x$, $\d t$", r"$\mathbb{E} x$, $\dot x$, $\mathrm{d} t$"),
        ("`` {result}`ch06.fd_ddpm` ``", "`` {result}`ch06.fd_ddpm` ``"),
        ("```python\nx = {}\n```", "```python\nx = {}\n```"),
    ],
)  # fmt: skip
def test_each_role_and_directive_has_its_form(book, source, wanted):
    assert rewritten(book, source) == wanted


def test_a_claim_comes_with_its_verdict_and_a_run_with_its_time(book):
    assert rewritten(book, "{claim}`C05`") == "C05 (reproduced)"
    seconds = json.loads(chapter_file(files.committed(), "05").read_text())["run"]["seconds"]
    assert rewritten(book, "{runtime}`05`") == f"{seconds:.0f} s"
    assert rewritten(book, "{rerun}`05`").startswith(f"Recorded in {seconds:.0f} s on one core of a processor ")


def test_digits_and_link_of_a_number(book):
    linked = Book(book.root, site="https://example.org/b")
    printed = result("ch01.contraction", files.committed()).text(3)
    wanted = f"[{printed}](https://example.org/b/book/results.html#result-ch01-contraction)"
    assert rewritten(linked, "{result}`ch01.contraction | 3`") == wanted
    assert rewritten(linked, "{claim}`C05`").endswith("(https://example.org/b/book/claims.html#claim-c05)")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{colour}`red`", "the role colour has no form"),
        (":::{dropdown} x\n:::", "the directive dropdown has no form"),
        (":::{note}\nx", "the directive note is not closed by :::"),
        ("```{note}\nx\n```", "only the book's site can show '```{note}'"),
        (":::\n", "only the book's site can show ':::'"),
        ("[a]{.red}", "only the book's site can show ']{.red}'"),
        ("{{ name }}", "only the book's site can show '{{ name }}'"),
        ("note[^1]", "only the book's site can show '[^1]'"),
        ("{result}`ch01.contractio`", "the nearest: ch01.contraction"),
        ("{result}`ch01.contraction | x`", "digits of ch01.contraction must be a number, got 'x'"),
        ("{claim}`C999`", "claim C999 is unknown"),
        ("{cite:t}`nobody`", "no reference of the book is called 'nobody'"),
        ("{eq}`eq-none`", "no equation of the book is called 'eq-none'"),
        ("{ref}`none`", "no heading of the book is called 'none'"),
        ("{numref}`none`", "no figure, exercise or theorem of the book is called 'none'"),
        ("{doc}`none`", "no page of the book is called 'notebooks/none'"),
        ("{runtime}`99`", "chapter 99 has no record of its run"),
    ],
)
def test_what_cannot_be_written_out_is_named(book, source, fault):
    with pytest.raises(LedgerError) as refused:
        rewritten(book, source)
    assert fault in str(refused.value)


@pytest.fixture
def small(tmp_path, book):
    """A book of one chapter with two cells."""
    for name in (
        "_config.yml",
        "_toc.yml",
        "CITATION.cff",
        "constraints.txt",
        "data/claims.yml",
        "book/references.bib",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(book.root / name, tmp_path / name)
    (tmp_path / "notebooks").mkdir()
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title {cite:t}`jia2022`"]},
        {"cell_type": "code", "id": "b", "metadata": {"tags": ["record"]}, "source": "1", "outputs": [],
         "execution_count": None},
    ]  # fmt: skip
    whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    (tmp_path / "notebooks" / "01_x.ipynb").write_text(json.dumps(whole))
    load_claims.cache_clear()
    return Book(tmp_path)


def test_a_copy_that_was_edited_is_kept(small, tmp_path):
    folder = tmp_path / "copies"
    (path,), kept = write(folder, small)
    assert not kept and path.name == "01_x.ipynb"
    copy = json.loads(path.read_text())
    copy["cells"][2]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    path.write_text(json.dumps(copy))
    assert write(folder, small) == ([path], []), "a run is no edit"
    copy["cells"][2]["source"] = "2"
    path.write_text(json.dumps(copy))
    assert write(folder, small) == ([], [path])
    assert json.loads(path.read_text())["cells"][2]["source"] == "2"
    assert write(folder, small, force=True) == ([path], [])
    assert text(json.loads(path.read_text())["cells"][2]["source"]) == "1"


def test_an_original_is_never_overwritten(small, tmp_path):
    before = (tmp_path / "notebooks" / "01_x.ipynb").read_bytes()
    with pytest.raises(LedgerError, match="is no readers' copy and would be overwritten"):
        write(tmp_path / "notebooks", small, force=False)
    with pytest.raises(LedgerError, match="is no readers' copy"):
        write(tmp_path / "notebooks", small, force=True)
    assert (tmp_path / "notebooks" / "01_x.ipynb").read_bytes() == before


def test_an_error_names_notebook_and_cell(small, tmp_path):
    path = tmp_path / "notebooks" / "01_x.ipynb"
    path.write_text(path.read_text().replace("{cite:t}", "{cyte:t}"))
    with pytest.raises(LedgerError, match=r"notebooks/01_x.ipynb, cell 1: the role cyte:t has no form"):
        write(tmp_path / "copies", small)
    assert not (tmp_path / "copies").exists()


def test_figures_count_through_the_book_in_the_order_of_its_contents(book):
    cell = {"cell_type": "code", "source": "1", "metadata": {"mystnb": {"figure": {"name": "fig-a"}}}}
    assert count({"01_x": {"cells": [cell]}}).named == {}, "a cell that draws nothing"
    cell["outputs"] = [{"data": {"image/png": ""}}]
    page = "```{program-output} 1\n:alt: words\ncaption\n```\n\n```{program-output} 2\n```\n"
    assert count({"start": page, "01_x": {"cells": [cell]}, "end": page}).named == {"fig-a": "Figure 2"}
    names = [path.name for path in book.pages()]
    assert names[:2] == ["intro.md", "quickstart.md"] and "06_ddpm.ipynb" in names


def test_a_label_stands_in_the_book_once(book):
    cell = {"cell_type": "markdown", "source": "$$\nx\n$$ (eq-a)"}
    with pytest.raises(LedgerError, match="b: the label eq-a stands in the book twice"):
        count({"a": {"cells": [cell]}, "b": {"cells": [cell]}})


def test_every_reference_is_readable(book):
    sources = load(book.root / "book" / "references.bib")
    assert len(sources) > 30
    assert not [key for key, source in sources.items() if re.search(r"[{}\\]", source.names + source.text)]
    assert sources["rossler2010"].names == "Rößler" and sources["binkowski2018"].names == "Bińkowski et al."
    assert "Açıkmeşe, Behçet" in sources["acikmese2007"].text and "Hyvärinen" in sources["hyvarinen2005"].text
    with pytest.raises(LedgerError, match="TeX that is not known"):
        plain(r"{\foo} x")
