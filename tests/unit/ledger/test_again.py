"""A later run of a chapter repeats its record, or not."""

import pytest

from hjbridge.ledger.again import check_repeated


@pytest.fixture
def chapter(repository):
    """A repository with a chapter that is not read."""
    (repository / "notebooks" / "05_x.ipynb").write_text("{}")
    return repository


ERROR = {"value": -2.0, "stderr": 0.1, "seeds": [0, 1, 2]}
TEN = ERROR | {"seeds": 10}
TOLD = {"n": 100, "unit": "nats", "protocol": "mean", "seeds": 3}


@pytest.mark.parametrize(
    ("entry", "change", "told"),
    [
        ({"value": 1.0}, {"value": 1.0009}, None),
        ({"value": 1.0}, {"value": 1.0011}, "is on record as 1, a new run gave 1.0011"),
        (ERROR, {"value": -2.29}, None),
        (ERROR, {"value": -2.31}, "is on record as -2, a new run gave -2.31"),
        ({"value": 1e-15, "tolerance": 1e-10}, {"value": 9e-15}, None),
        ({"value": 1e-15}, {"value": 9e-15}, "is on record as"),
        ({"value": 0.0}, {}, None),
        (ERROR, {"stderr": 0.8}, None),  # a factor of exp(3/sqrt(2)) = 8.34
        (ERROR, {"stderr": 0.84}, "has the error 0.1 on record, a new run gave 0.84"),
        (ERROR, {"stderr": 0.0121}, None),
        (ERROR, {"stderr": 0.01}, "has the error 0.1 on record, a new run gave 0.01"),
        (TEN, {"stderr": 0.271}, None),  # a factor of e
        (TEN, {"stderr": 0.273}, "has the error 0.1 on record, a new run gave 0.273"),
        (TEN | {"seeds": list(range(10))}, {"stderr": 0.273}, "has the error 0.1 on record, a new run gave 0.273"),
        (ERROR | {"seeds": 3, "stderr": 0.0}, {}, None),
        (ERROR | {"stderr": 0.0}, {"stderr": 1.9e-9}, None),
        (ERROR | {"stderr": 0.0}, {"stderr": 2.1e-9}, "has the error 0.0 on record"),
        (ERROR, {"stderr": None}, "has the error 0.1 on record, a new run gave None"),
        ({"value": 1.0, "seeds": 3}, {"stderr": 0.0}, "has the error None on record"),
        (TOLD, {"n": 101}, "has n 100 on record, a new run gave 101"),
        (TOLD, {"unit": "bits"}, "has unit nats on record, a new run gave bits"),
        (TOLD, {"protocol": None}, "has protocol mean on record, a new run gave None"),
        (TOLD, {"seeds": 4}, "has seeds 3 on record, a new run gave 4"),
    ],
)
def test_a_number_must_be_repeated_by_a_later_run(chapter, tmp_path, form, entry, change, told):
    path = form.write(chapter, form.entry("ch05.a", **entry))
    later = form.write(tmp_path / "later", form.entry("ch05.a", **(entry | change)))
    found = check_repeated(later.parent)
    assert [finding.subject for finding in found] == ([] if told is None else ["ch05.a"])
    assert told is None or (told in found[0].problem and found[0].mend == "make record CH=05")
    assert path.is_file()


def test_what_was_not_run_or_recorded_again_is_told(chapter, tmp_path, form):
    form.write(chapter, form.entry("ch05.a"))
    (finding,) = check_repeated(tmp_path)
    assert finding.problem.startswith("has not been run again") and finding.mend == "make test"
    (finding,) = check_repeated(form.write(tmp_path / "later").parent)
    assert finding.problem == "was not recorded when the chapter was run again"


def test_all_differences_of_a_number_are_told_at_once(chapter, tmp_path, form):
    form.write(chapter, form.entry("ch05.a", 1.0, n=3))
    (finding,) = check_repeated(form.write(tmp_path / "later", form.entry("ch05.a", 2.0, n=4)).parent)
    assert finding.problem == "is on record as 1, a new run gave 2; has n 3 on record, a new run gave 4"
