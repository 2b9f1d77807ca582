"""How numbers are printed and read."""

import pytest

from hjbridge.ledger import Result, all_results, record, result
from hjbridge.ledger.results import UnknownId, command, pretty


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
    with pytest.raises(UnknownId, match="result id must look like"):
        result(id)


def test_a_missing_file_tells_the_command(repository):
    with pytest.raises(UnknownId, match=r"result ch05.a is not recorded .*: `make record CH=05`"):
        result("ch05.a")


def test_a_missing_number_tells_the_nearest_and_its_command(repository, form):
    path = form.write(repository, *(form.entry(f"ch05.{name}") for name in ("prior_kl_third", "prior_kl_half", "z")))
    told = (
        r"ch05.prior_lk is not recorded in .*ch05.json; the nearest: ch05.prior_kl_half, ch05.prior_kl_third: `make rec"
    )
    with pytest.raises(UnknownId, match=told):
        result("ch05.prior_lk", path.parent)
    with pytest.raises(UnknownId, match=r"ch05.json: `make"):
        result("ch05.qqqqqqqqqqqqqqqqqqqqqqqq", path.parent)


def test_ids_may_be_written_in_capitals(repository, form):
    form.write(repository, form.entry("ch05.a", 3.0))
    form.write(repository, form.entry("ch05.a", 4.0), run_=form.run("full"))
    assert (result("CH05.A").value, result("Ch05.a@FULL").value) == (3.0, 4.0)


def test_a_missing_number_of_profile_full_tells_its_own_command(repository, form):
    told = "`hjbridge evaluate NAME` makes the full record"
    with pytest.raises(
        UnknownId, match=rf"result ch05.a@full is not recorded .*full/ch05.json does not exist.: {told}"
    ):
        result("ch05.a@full")
    form.write(repository, form.entry("ch05.b"), run_=form.run("full"))
    with pytest.raises(UnknownId, match=rf"ch05.a@full is not recorded in .*; the nearest: ch05.b@full: {told}"):
        result("ch05.a@full")


def test_full_results_are_addressed_by_their_profile(repository, begin, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_RESULTS", str(repository / "data" / "results"))
    begin("book")
    record("ch05.a", 1)
    begin("full", modules=())
    record("ch05.a", 2)
    assert (result("ch05.a").value, result("ch05.a@full").value) == (1, 2)
    assert result("ch05.a@full").profile == "full"
    assert {id: r.value for id, r in all_results().items()} == {"ch05.a": 1, "ch05.a@full": 2}


def test_each_number_names_the_command_that_makes_it():
    entry = Result("ch05.a", 1.0, run={"profile": "full"}, extra={"command": "hjbridge evaluate digits"})
    commands = ["make chapter CH=05", "hjbridge evaluate NAME", "hjbridge evaluate digits"]
    assert [command("ch05.a", entry), command("ch05.a@full"), command("ch05.a@full", entry)] == commands
    assert command("ch05.a", record=True) == "make record CH=05"
    own = Result("ch05.a", 1.0)
    assert command("ch05.a@full", own, record=True) == "hjbridge run --chapter 05 --profile full --record"
    assert own.profile == "book"
