"""Each way to edit the record by hand is noticed, once, by name, with the command that mends it."""

import json

import pytest

from hjbridge.cli import main
from hjbridge.ledger import schema
from hjbridge.ledger.checks import check_all

BOOK, FULL, NOTEBOOK = "data/results/ch05.json", "data/results/full/ch05.json", "notebooks/05_x.ipynb"
CLAIMS, WEIGHTS = "data/claims.yml", "data/checkpoints/digits.safetensors"
PRINTED = {"name": "stdout", "output_type": "stream", "text": ["a = 1.5\n", "b = 2\n"]}


def entry(k=0, file=BOOK, **changes):
    """An edit of one number."""
    return file, lambda tree: tree["results"][k].update(changes)


def output(cell, k, *keys, value):
    """An edit of an output."""

    def change(tree):
        place = tree["cells"][cell]["outputs"][k]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return NOTEBOOK, change


def words(file, old, new):
    """An edit of a text."""
    return file, (old, new)


A = ("ch05.a", "was edited by hand", f"git checkout -- {BOOK}", "make record CH=05")
AGAIN = "hjbridge run --chapter 05 --profile full --record"
D = ("ch05.d@full", "was edited by hand", f"git checkout -- {FULL}", AGAIN)
REST = (BOOK, "is not the file that was sealed, and no single entry shows why", *A[2:])
KEEP, RESTORE = f"hjbridge seal {CLAIMS}", f"git checkout -- {CLAIMS}"
CODE = ("chapter 05", "the code of its notebook has changed", "make record CH=05", "")


def damaged(problem, file=BOOK):
    return (file, problem, f"git checkout -- {file}", "")


def shows(cell):
    problem, restore = f"the output of {cell}) is not that of the recorded run", f"git checkout -- {NOTEBOOK}"
    return ("chapter 05", problem, restore, "make record CH=05")


def tagged(cell, tag):
    """A tag that takes an output off the page or out of the tests."""
    edit = (NOTEBOOK, lambda t: t["cells"][cell]["metadata"].update(tags=[tag]))
    return edit, ("chapter 05", f"has the tag {tag}, which hides or skips", f"git checkout -- {NOTEBOOK}", "")


def broken_notebook(change, problem):
    """A notebook of another form."""
    return (NOTEBOOK, change), ("chapter 05", problem, f"git checkout -- {NOTEBOOK}", "")


def claim(problem, otherwise=KEEP):
    return ("claim C31", problem, RESTORE, otherwise)


def listed(file, problem):
    return (file, problem, f"git checkout -- {file}", "")


def unworded(missing):
    return ("chapter 05", f"the picture of cell-04 has no {missing}", f"git checkout -- {NOTEBOOK}", "")


def sealed(file, subject=None, problem="is not the file that was sealed"):
    return (subject or file, problem, f"git checkout -- {file}", f"hjbridge seal {file}")


TAMPERINGS = {
    "exact value by 5 %": (entry(2, value=3.15), ("ch05.c", *A[1:])),
    "value + 5 %": (entry(value=1.575), A),
    "value + 1 stderr": (entry(value=1.51), A),
    "value beyond its tolerance": (entry(1, value=9.0), ("ch05.b", *A[1:])),
    "stderr / 10": (entry(stderr=0.001), A),
    "no stderr": (entry(stderr=None), A),
    "unit": (entry(unit="bits"), A),
    "n": (entry(n=1000), A),
    "seeds": (entry(seeds=[0, 1, 2, 3, 4]), A),
    "too few seeds": (entry(seeds=[0, 1]), damaged("line 41: ch05.a: seeds must be 3 or more")),
    "protocol": (entry(protocol="mean of 300"), A),
    "reference": (entry(1, reference=2.1), ("ch05.b", *A[1:])),
    "NaN": (entry(value=float("nan")), damaged("line 38: ch05.a: value must be a finite number, got NaN")),
    "text for a number": (entry(value="1.5"), damaged('ch05.a: value must be a finite number, got "1.5"')),
    "unknown field": (entry(sigma=0.1), damaged("ch05.a: sigma is not a known field")),
    "duplicated id": (
        (BOOK, lambda t: t["results"].insert(1, t["results"][0] | {"value": 2.0})),
        damaged("line 55: ch05.a stands there twice"),
    ),
    "renamed id": (entry(2, id="ch05.cc"), ("ch05.c", "was renamed to ch05.cc by hand", *A[2:])),
    "deleted id": ((BOOK, lambda t: t["results"].pop(2)), ("ch05.c", "was deleted by hand", *A[2:])),
    "deleted id of a rule": ((BOOK, lambda t: t["results"].pop(0)), ("ch05.a", "was deleted by hand", *A[2:])),
    "added id": (
        (BOOK, lambda t: t["results"].append(t["results"][2] | {"id": "ch05.z"})),
        ("ch05.z", "was added by hand", *A[2:]),
    ),
    "id of another chapter": (entry(2, id="ch06.c"), damaged("ch06.c is an id of another chapter")),
    "value with its digest": (
        (BOOK, lambda t: (t["results"][2].update(value=4), rehash(t, 2))),
        REST,
    ),
    "profile": (
        (BOOK, lambda t: t["run"].update(profile="smoke")),
        ("chapter 05", "was recorded with profile smoke, not book", *A[2:]),
    ),
    "profile full": ((BOOK, lambda t: t["run"].update(profile="full")), damaged("run: profile must be book")),
    "seed of the run": ((BOOK, lambda t: t["run"].update(seed=1)), REST),
    "hash of the run": (
        (BOOK, lambda t: t["run"]["hashes"].update(notebook=None)), REST,
    ),
    "layout": (words(BOOK, '"n": 100', '"n":  100'), (BOOK, "is not the file that was sealed", *A[2:])),
    "value in full": (entry(file=FULL, value=4.1), D),
    "stderr in full": (entry(file=FULL, stderr=0.001), D),
    "cpu in full": ((FULL, lambda t: t["results"][0]["run"].update(cpu="a better one")), D),
    "profile in full": (
        (FULL, lambda t: t["results"][0]["run"].update(profile="book")),
        damaged("ch05.d: run: profile must be full in this folder, got book", FULL),
    ),
    "digests in full": (
        (FULL, lambda t: t["digests"]["cells"].update(x="0")),
        (FULL, "no single entry shows why", f"git checkout -- {FULL}", "hjbridge evaluate"),
    ),
    "record deleted": ((BOOK, None), ("chapter 05", "has lost its record", *A[2:])),
    "full record deleted": ((FULL, None), (FULL, "is gone", f"git checkout -- {FULL}", "hjbridge evaluate")),
    "output text": (output(2, 0, "text", value=["a = 1.6\n"]), shows("cell-03 (text, code cell 2")),
    "certificate text": (
        output(4, 0, "data", "text/plain", value=["V = 1.4, certified\n", "residual 1e-9"]),
        shows("cell-05 (text, code cell 4"),
    ),
    "html": (output(4, 1, "data", "text/html", value="<b>1.6</b>"), shows("cell-05 (text, code cell 4")),
    "exchanged picture": (
        output(3, 0, "data", "image/png", value="iVBORw0KGgp="), shows("cell-04 (a picture, code cell 3"),
    ),
    "output deleted": ((NOTEBOOK, lambda t: t["cells"][2].update(outputs=[])), shows("cell-03 (text, code cell 2")),
    "output added": (
        (NOTEBOOK, lambda t: t["cells"][1].update(outputs=[PRINTED])), shows("cell-02 (text, code cell 1"),
    ),
    "output hidden": tagged(2, "remove-output"),
    "comparison skipped": tagged(2, "skip-execution"),
    "picture scaled away": (
        output(3, 0, "metadata", value={"image/png": {"width": 1}}), shows("cell-04 (a picture, code cell 3"),
    ),
    "notebook without cells": broken_notebook(lambda t: t.pop("cells"), "KeyError: 'cells'"),
    "cell without source": broken_notebook(lambda t: t["cells"][1].pop("source"), "source of cell 2 is missing"),
    "metadata null": broken_notebook(lambda t: t["cells"][1].update(metadata=None), "metadata of cell 2"),
    "mystnb null": broken_notebook(lambda t: t["cells"][3]["metadata"].update(mystnb=None), "mystnb of cell 4"),
    "text a number": broken_notebook(output(2, 0, "text", value=3)[1], "text of an output of cell 3"),
    "notebook deleted": (
        (NOTEBOOK, None), ("ch05.json", "has lost its notebook", "git checkout -- notebooks", f"rm {BOOK}"),
    ),
    "value and its digest in a sealed file": (
        (BOOK, lambda t: (t["results"][0].update(value=9.0), t["digests"]["results"].update(
            {"ch05.a": schema.digest(t["results"][0])}))),
        REST,
    ),
    "alt text removed": (
        (NOTEBOOK, lambda t: t["cells"][3]["metadata"]["mystnb"].pop("image")),
        unworded("alternative text (mystnb: image: alt)"),
    ),
    "caption emptied": (
        (NOTEBOOK, lambda t: t["cells"][3]["metadata"]["mystnb"]["figure"].update(caption=" ")),
        unworded("caption (mystnb: figure: caption)"),
    ),
    "formula": (
        words("src/sde.py", "-x / 2", "-x / 3"),
        ("chapter 05", "changed since it was recorded: hjbridge.sde", "make record CH=05", ""),
    ),
    "notebook code": ((NOTEBOOK, lambda t: t["cells"][1].update(source="a = 1.6")), CODE),
    "notebook code and output": (
        (NOTEBOOK, lambda t: (t["cells"][1].update(source="a = 1.6"), t["cells"][2].update(outputs=[]))), CODE,
    ),
    "checkpoint flipped": ((WEIGHTS, lambda b: b[:-1] + b"\x03"), sealed(WEIGHTS, "checkpoint digits")),
    "header of a checkpoint": ((WEIGHTS, lambda b: b"\xff" * 8 + b[8:]), sealed(WEIGHTS, "checkpoint digits")),
    "checkpoint exchanged": ((WEIGHTS, lambda b: b.replace(b"\x01", b"\x02")), sealed(WEIGHTS, "checkpoint digits")),
    "checkpoint deleted": ((WEIGHTS, None), sealed(WEIGHTS, None, "is gone")),
    "data set": (("data/mnist/mnist.npz", lambda b: b[:-1] + b"\x01"), sealed("data/mnist/mnist.npz")),
    "provenance": (("data/mnist/provenance.json", lambda b: b'{"x": 1}'), sealed("data/mnist/provenance.json")),
    "claim without target": (
        words(CLAIMS, "ch05.a - 1.5", "ch05.aa - 1.5"),
        claim("names ch05.aa, which chapter 05 does not record; the nearest: ch05.a", ""),
    ),
    "finding without target": (
        words(CLAIMS, "{ch05.a}", "{ch05.x_y}"), claim("names ch05.x_y, which chapter 05 does not record", ""),
    ),
    "result with an unknown claim": (
        entry(claims=["C39"]),
        ("ch05.a", "speaks to claim C39, which data/claims.yml does not hold; the nearest: C3", A[2], ""),
    ),
    "rule loosened": (words(CLAIMS, "< 0.02", "< 2"), claim("its rule was changed (still reproduced)")),
    "rule flipped": (
        words(CLAIMS, "< 0.02", "> 0.02"), claim("its rule was changed: C31 (a is one): no rule holds", ""),
    ),
    "verdict typed": (
        words(CLAIMS, "verdict: reproduced", "verdict: refuted"),
        claim("its rule was changed (reproduced -> refuted)"),
    ),
    "finding typed": (words(CLAIMS, "a is {ch05.a}", "a is 1"), claim("its rule was changed")),
    "text of a claim": (words(CLAIMS, "correct: Yes", "correct: Always"), claim("its text was changed")),
    "claim that stands there twice": (
        words(CLAIMS, "id: C31", "id: C32"), ("claims", "claim C32 stands there twice", RESTORE, KEEP),
    ),
    "sealed verdict": (
        words(".ci/verdicts", "reproduced", "refuted"), claim("its verdict was changed (refuted -> reproduced)"),
    ),
    "list of verdicts deleted": ((".ci/verdicts", None), listed(".ci/verdicts", "is gone, no claim is sealed")),
    "list of seals deleted": ((".ci/seals", None), listed(".ci/seals", "is gone, nothing is sealed")),
    "list of seals damaged": (
        words(".ci/seals", "  data/mnist", " data/mnist"), listed(".ci/seals", "must be `<sha256>  <path>`"),
    ),
    "seal deleted": (
        (".ci/seals", lambda b: b"".join(line for line in b.splitlines(True) if WEIGHTS.encode() not in line)),
        (WEIGHTS, "is not sealed", f"hjbridge seal {WEIGHTS}", ""),
    ),
}  # fmt: skip


def rehash(tree, k):
    """What a careful forger does as well."""
    number = tree["results"][k]
    tree["digests"]["results"][number["id"]] = schema.digest(number)


def tamper(root, file, change):
    path = root / file
    if change is None:
        path.unlink()
    elif isinstance(change, tuple):
        text = path.read_text()
        assert change[0] in text
        path.write_text(text.replace(*change, 1))
    elif path.suffix in (".json", ".ipynb") and "mnist" not in file:
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree, indent=2) + "\n")
    else:
        path.write_bytes(change(path.read_bytes()))


def test_nothing_is_found_where_nothing_was_touched(intact):
    assert check_all() == []


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_a_tampering_is_noticed_once_by_name_with_the_command_that_mends_it(intact, capsys, kind):
    (file, change), (subject, problem, mend, otherwise) = TAMPERINGS[kind]
    tamper(intact, file, change)
    found = check_all()
    assert [one.subject for one in found] == [subject], found
    (one,) = found
    assert problem in one.problem and (one.level, one.mend, one.otherwise) == ("error", mend, otherwise)
    with pytest.raises(SystemExit) as end:
        main(["check"])
    printed = capsys.readouterr().out
    assert end.value.code == 1 and subject in printed and f"mend it with `{mend}`" in printed
