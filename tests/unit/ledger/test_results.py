"""How numbers are printed and read."""

import json

import pytest

from hjbridge.ledger import LedgerError, Result, all_results, record, result
from hjbridge.ledger.results import pretty


@pytest.mark.parametrize(
    ("value", "stderr", "digits", "text"),
    [
        (3.1234, 0.0412, None, "3.12 ± 0.04"),
        (3.1234, 0.0142, None, "3.123 ± 0.014"),
        (3.1234, 0.0951, None, "3.12 ± 0.10"),
        (0.9996, 0.0096, None, "1.000 ± 0.010"),
        (12345.6, 200, None, "12,300 ± 200"),
        (392.0, 50, None, "390 ± 50"),
        (-3.2, 0.25, None, "-3.2 ± 0.2"),
        (0.0, 0.01, None, "0.000 ± 0.010"),
        (7.2787e-6, 2.3e-8, None, "(7.28 ± 0.02) × 10⁻⁶"),
        (9.7047e-6, None, 3, "9.70 × 10⁻⁶"),
        (9.7047e-6, None, None, "9.705 × 10⁻⁶"),
        (9.99999e-6, None, 3, "1.00 × 10⁻⁵"),
        (1.5e9, 2e7, None, "(1.50 ± 0.02) × 10⁹"),
        (35746307, None, None, "35,746,307"),
        (35746307, None, 3, "3.57 × 10⁷"),
        (50.0, None, 2, "50"),
        (0.00123, None, 2, "0.0012"),
        (0.000123, None, 2, "1.2 × 10⁻⁴"),
        (0, None, None, "0"),
        (0.0, None, None, "0"),
        (2.0, 0.0, None, "2.000"),
        (0.375, 8e-17, None, "0.3750"),
        (1e-11, None, 1, "1 × 10⁻¹¹"),
    ],
)
def test_digits_follow_the_error(value, stderr, digits, text):
    assert pretty(value, stderr, digits) == text


def test_the_unit_and_recorded_digits_are_used():
    entry = Result("ch05.a", 9.7047e-6, unit="bits/dim", digits=3)
    assert entry.text() == "9.70 × 10⁻⁶ bits/dim"
    assert entry.text(2, unit=False) == "9.7 × 10⁻⁶"
    assert repr(entry) == "ch05.a = 9.70 × 10⁻⁶ bits/dim"


def test_within_compares_with_the_reference():
    assert Result("ch05.a", 1.0).within
    assert Result("ch05.a", 1.0, reference=1.1, tolerance=0.2).within
    assert not Result("ch05.a", 1.0, reference=1.3, tolerance=0.2).within


@pytest.mark.parametrize("id", ["a", "ch05.a@book", "ch05.", "ch05.a@x"])
def test_a_malformed_id_is_told(repository, id):
    with pytest.raises(LedgerError, match="result id must look like"):
        result(id)


def test_a_missing_file_tells_the_command(repository):
    with pytest.raises(LedgerError, match=r"result ch05.a is not recorded .*: make record CH=05"):
        result("ch05.a")


def test_a_missing_number_tells_what_is_there(repository, begin):
    begin()
    record("ch05.a", 1)
    with pytest.raises(LedgerError, match=r"ch05.b is not recorded in .*ch05.json, which holds ch05.a"):
        result("ch05.b", repository / "_build" / "results")


def test_a_missing_number_of_profile_full_tells_its_own_command(repository, begin, monkeypatch):
    told = "`hjbridge evaluate NAME` makes the full record"
    with pytest.raises(
        LedgerError, match=rf"result ch05.a@full is not recorded .*full/ch05.json does not exist.: {told}"
    ):
        result("ch05.a@full")
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(repository / "data" / "results"))
    begin("full", modules=())
    record("ch05.b", 1)
    with pytest.raises(LedgerError, match=rf"ch05.a@full is not recorded in .*, which holds ch05.b: {told}"):
        result("ch05.a@full")


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema": 1}', '{"schema": 1, "run": {}, "results": [{"id": "ch05.a"}]}', "[]"]
)
def test_a_damaged_file_is_named(repository, text):
    path = repository / "data" / "results" / "ch05.json"
    path.write_text(text)
    with pytest.raises(LedgerError, match=r"ch05.json is damaged .* restore it with `git checkout"):
        result("ch05.a")


def test_another_schema_is_refused(repository):
    (repository / "data" / "results" / "ch05.json").write_text(json.dumps({"schema": 2, "run": {}, "results": []}))
    with pytest.raises(LedgerError, match="schema must be 1, got 2"):
        result("ch05.a")


def test_full_results_are_addressed_by_their_profile(repository, begin, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(repository / "data" / "results"))
    begin("book")
    record("ch05.a", 1)
    begin("full", modules=())
    record("ch05.a", 2)
    assert (result("ch05.a").value, result("ch05.a@full").value) == (1, 2)
    assert result("ch05.a@full").profile == "full"
    assert {id: r.value for id, r in all_results().items()} == {"ch05.a": 1, "ch05.a@full": 2}
