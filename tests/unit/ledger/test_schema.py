"""What the stored form refuses, and that it says where."""

import json

import pytest

from hjbridge.ledger import LedgerError, schema


@pytest.fixture
def path(repository, form):
    """A record of two numbers."""
    one = form.entry("ch05.a", 1.5, stderr=0.1, seeds=[0, 1, 2], n=10, claims=["C31", "R6"])
    return form.write(repository, one, form.entry("ch05.b", 2, digits=3, extra={"sd": [1.0, {"x": None}]}))


def at(k, **changes):
    """A change of one entry."""
    return lambda tree: tree["results"][k].update(changes)


def test_what_is_written_is_read(path):
    record = schema.read(path)
    assert record == json.loads(path.read_text()) and schema.edited(record) == {}
    assert record["digests"]["results"]["ch05.b"] == schema.digest(record["results"][1])
    assert schema.digest({"b": 1, "a": "é"}) == schema.digest({"a": "é", "b": 1}) == "aa58fba8483623be"


WRONG = [
    (at(0, value="1"), 28, 'ch05.a: value must be a finite number, got "1"'),
    (at(0, value=True), 28, "ch05.a: value must be a finite number, got true"),
    (at(0, value=None), 28, "ch05.a: value must be a finite number, got null"),
    (at(1, value=float("nan")), 47, "ch05.b: value must be a finite number, got NaN"),
    (at(1, value=float("inf")), 47, "ch05.b: value must be a finite number, got Infinity"),
    (at(0, stderr=-0.1), 29, "ch05.a: stderr must be null or a finite number >= 0, got -0.1"),
    (at(0, stderr=float("nan")), 29, "ch05.a: stderr must be null or a finite number >= 0, got NaN"),
    (at(0, n=0), 30, "ch05.a: n must be null or a positive integer, got 0"),
    (at(0, n=2.0), 30, "ch05.a: n must be null or a positive integer, got 2.0"),
    (at(0, seeds=[]), 31, "ch05.a: seeds must be null or a positive integer or a list of integers, got []"),
    (at(0, seeds=0), 31, "ch05.a: seeds must be null or a positive integer or a list of integers, got 0"),
    (at(0, seeds=[0, 1, "2"]), 31, "ch05.a: seeds must be null or a positive integer or a list of integers"),
    (at(0, seeds=[0, 0, 1]), 31, "ch05.a: seeds must be 3 or more where there is a stderr, got 2"),
    (at(0, seeds=2), 31, "ch05.a: seeds must be 3 or more where there is a stderr, got 2"),
    (at(0, seeds=None), 31, "ch05.a: seeds must be 3 or more where there is a stderr, got 0"),
    (at(0, unit=5), 36, "ch05.a: unit must be null or a string, got 5"),
    (at(0, protocol=[]), 37, "ch05.a: protocol must be null or a string, got []"),
    (at(0, reference="1"), 38, "ch05.a: reference must be null or a finite number"),
    (at(0, tolerance=-1), 39, "ch05.a: tolerance must be null or a finite number >= 0, got -1"),
    (at(0, claims="C31"), 40, "ch05.a: claims must be a list of claims such as C31"),
    (at(0, claims=["31"]), 40, "ch05.a: claims must be a list of claims such as C31"),
    (at(1, digits=0), 56, "ch05.b: digits must be a positive integer, got 0"),
    (at(1, extra={}), 57, "ch05.b: extra must be an object of finite values"),
    (at(1, extra={"a": [float("nan")]}), 57, "ch05.b: extra must be an object of finite values"),
    (at(0, sd=0.1), 44, "ch05.a: sd is not a known field"),
    (at(0, run={}), 44, "ch05.a: run is not a known field"),
    (at(1, id="ch06.b"), 46, "ch06.b is an id of another chapter"),
    (at(1, id="ch05.B"), 46, "ch05.B: id must be like ch05.prior_kl"),
    (at(1, id="ch05.a"), 46, "ch05.a stands there twice"),
    (lambda t: t["results"][1].pop("unit"), 45, "ch05.b: unit is missing"),
    (lambda t: t["results"].append(3), 66, "an entry must be an object"),
    (lambda t: t.update(results={}), 25, "results must be a list"),
    (lambda t: t.update(chapter="06"), 3, "chapter must be '05', as the file is named, got '06'"),
    (lambda t: t.update(note=1), 67, "the record: note is not a known field"),
    (lambda t: t.pop("digests"), 1, "the record: digests is missing"),
    (lambda t: t.update(digests=[]), 1, "digests must be an object"),
    (lambda t: t["digests"].update(cells={"1": 2}), 23, "digests: cells must be an object of strings"),
    (lambda t: t.update(run=3), 1, "run must be an object"),
    (lambda t: t["run"].update(profile="huge"), 5, "run: profile must be one of smoke, book, full, paper"),
    (lambda t: t["run"].update(profile="full"), 5, "run: profile must be book, or smoke or paper in a staging folder"),
    (lambda t: t["run"].update(seed=-1), 6, "run: seed must be an integer >= 0, got -1"),
    (lambda t: t["run"].update(versions={"python": 3}), 7, "run: versions must be an object of strings"),
    (lambda t: t["run"].update(cpu=3), 10, "run: cpu must be a string, got 3"),
    (lambda t: t["run"].update(seconds=-1), 11, "run: seconds must be a finite number >= 0, got -1"),
    (lambda t: t["run"].update(hashes=1), 12, "run: hashes must be an object, got 1"),
    (lambda t: t["run"]["hashes"].update(notebook=1), 13, "run: hashes: notebook must be null or a string"),
    (lambda t: t["run"]["hashes"].update(modules=[]), 14, "run: hashes: modules must be an object of strings"),
    (lambda t: t["run"]["hashes"].update(checkpoints={"a": 1}), 15, "run: hashes: checkpoints must be an object"),
    (lambda t: t["run"]["hashes"].pop("modules"), 1, "run: hashes: modules is missing"),
]


@pytest.mark.parametrize(("change", "line", "problem"), WRONG)
def test_what_does_not_belong_is_told_by_line_and_field(path, form, change, line, problem):
    form.edit(path, change)
    with pytest.raises(schema.Damaged) as error:
        schema.read(path)
    told = str(error.value)
    assert told.startswith(f"{path} is damaged, line {line}: {problem}"), told
    assert told.endswith("; restore it with `git checkout -- data/results/ch05.json`")


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ('"value": 2,', '"value": 2, "value": 3,', 47, "ch05.b: value stands there twice"),
        ('"seed": 0,', '"seed": 0,\n"seed": 1,', 7, "run: seed stands there twice"),
        ('"sd":', '"sd": 1, "sd":', 57, "ch05.b: extra must be an object of finite values, each name once"),
        ('"value": 2,', '"value": 2', 48, "Expecting ',' delimiter"),
        ('"value": 2,', '"value": 1e999,', 47, "ch05.b: value must be a finite number, got Infinity"),
        ('"schema": 2', '"schema": 2.5', 2, "schema must be 2, got 2.5"),
        ('{\n  "schema": 2', '\n{\n  "schema": 3', 3, "schema must be 2, got 3"),
        ('"results": [', '"results": 5, "x": [', 25, "the record: x is not a known field"),
    ],
)
def test_what_only_the_text_holds_is_told_by_its_line(path, old, new, line, problem):
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(schema.Damaged, match="is damaged") as error:
        schema.read(path)
    assert error.value.problem.startswith(f"line {line}: {problem}")


@pytest.mark.parametrize("text", ["", "[]", "\n[]", "3", '{"schema": 2}', "{"])
def test_a_file_that_is_no_record_is_named(path, text):
    path.write_text(text)
    with pytest.raises(LedgerError, match=r"ch05.json is damaged, line 1: .*restore it with `git checkout"):
        schema.read(path)


def test_a_record_of_old_is_recorded_anew(path):
    path.write_text('{"schema": 1, "results": []}')
    with pytest.raises(schema.Damaged, match="line 1: schema must be 2, got 1") as error:
        schema.read(path)
    assert error.value.mend == "make record CH=05"


def test_a_file_that_is_gone_or_not_text_is_named(path):
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(schema.Damaged, match=r"ch05.json is damaged, .*utf-8"):
        schema.read(path)
    path.unlink()
    with pytest.raises(schema.Damaged, match=r"ch05.json is damaged, .*No such file"):
        schema.read(path)


def test_a_record_elsewhere_is_made_again(tmp_path, path, form):
    staged = form.write(tmp_path / "stage", form.entry("ch05.a"), run_=form.run("smoke"))
    assert schema.read(staged)["run"]["profile"] == "smoke"
    staged.write_text("{")
    with pytest.raises(schema.Damaged) as error:
        schema.read(staged)
    assert error.value.mend == "make chapter CH=05"


def test_numbers_of_smoke_may_rest_on_fewer_seeds(repository, form):
    entry = form.entry("ch05.a", stderr=0.1, seeds=1)
    assert schema.read(form.write(repository, entry, run_=form.run("smoke")))["results"][0] == entry


FULL = [
    (lambda t: t["run"].update(profile="book"), "run: profile must be full in this folder, got book"),
    (lambda t: t["run"].update(seed=0), "run: seed is not a known field"),
    (lambda t: t["results"][0]["run"].update(profile="book"), "ch05.a: run: profile must be full in this folder, got"),
    (lambda t: t["results"][0]["run"].pop("cpu"), "ch05.a: run: cpu is missing"),
    (lambda t: t["results"][0]["run"]["hashes"].update(extra=1), "ch05.a: run: hashes: extra is not a known field"),
    (lambda t: t["results"][0].pop("run"), "ch05.a: run is missing"),
]


@pytest.mark.parametrize(("change", "problem"), FULL)
def test_a_record_of_full_has_a_run_in_each_entry(repository, form, change, problem):
    path = form.write(repository, form.entry("ch05.a"), run_=form.run("full"))
    assert schema.read(path)["results"][0]["run"] == form.run("full")
    form.edit(path, change)
    with pytest.raises(schema.Damaged) as error:
        schema.read(path)
    assert problem in error.value.problem and error.value.mend == "git checkout -- data/results/full/ch05.json"


def test_what_was_done_to_each_entry_by_hand_is_told(path, form):
    def change(tree):
        tree["results"][0]["stderr"] = 0.01
        tree["results"][1]["id"] = "ch05.c"
        tree["results"].append(form.entry("ch05.d"))

    form.edit(path, change)
    edits = {"ch05.a": "was edited by hand", "ch05.b": "was renamed to ch05.c by hand", "ch05.d": "was added by hand"}
    assert schema.edited(schema.read(path)) == edits
    form.edit(path, lambda tree: tree["results"].pop(1))
    assert schema.edited(schema.read(path)) == edits | {"ch05.b": "was deleted by hand"}


def test_keys_of_extra_values_become_strings_before_they_are_hashed(repository, form):
    path = form.write(repository, form.entry("ch05.a", extra={"at": {2: 1.0, 10: (2.0, 3.0)}}))
    assert schema.edited(schema.read(path)) == {}
