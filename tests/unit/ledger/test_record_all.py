"""Several numbers of which the same is said."""

import pytest

from hjbridge.ledger import record_all, session


def recorded(*arguments, **settings):
    """The entries that a call of `record_all` adds to the open session."""
    before = set(session.current().results)
    record_all(*arguments, **settings)
    return [entry for id, entry in session.current().results.items() if id not in before]


def test_nested_names_become_ids(begin):
    begin()
    found = recorded("ch05.gap", {"ode": 0.1, "sde": {100: 0.3, 400: [0.1, 0.2, 0.3]}}, claims="C31", protocol="p")
    assert [one.id for one in found] == ["ch05.gap_ode", "ch05.gap_sde_100", "ch05.gap_sde_400"]
    assert found[2].value == pytest.approx(0.2) and found[2].seeds == 3 and found[2].stderr > 0
    assert {one.claims for one in found} == {("C31",)} and {one.protocol for one in found} == {"p"}


def test_a_bare_chapter_is_a_prefix_and_mappings_are_looked_up_by_name(begin):
    begin()
    one, two = recorded("ch05", {"a": 1.0, "b": {"c": 2.0}}, {"a": 1.5}, unit={"a": "m"}, tolerance={"b": {"c": 3.0}})
    assert (one.id, one.reference, one.unit, one.tolerance) == ("ch05.a", 1.5, "m", None)
    assert (two.id, two.reference, two.unit, two.tolerance) == ("ch05.b_c", None, None, 3.0)


def test_relative_tolerance_and_one_reference_for_all(begin):
    begin()
    one, two = recorded("ch05", {"a": -2.1, "b": {"c": 3.0}}, {"a": -2.0, "b": {"c": 4.0}}, rtol=0.1)
    assert one.tolerance == pytest.approx(0.2) and two.tolerance == pytest.approx(0.4) and one.within and not two.within
    zeros = recorded("ch05.z", {"a": 1e-9, "b": {"c": 1e-8}}, 0, tolerance=1e-7)
    assert [entry.reference for entry in zeros] == [0, 0]


def test_errors_are_those_of_record(begin):
    begin()
    with pytest.raises(ValueError, match="id must look like"):
        record_all("ch05", {"Bad": 1})
