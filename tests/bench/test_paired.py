"""Verdicts and order of measurement of the benchmarks; needs no peer."""

from pathlib import Path

import pytest


@pytest.fixture
def paired(monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("paired")


@pytest.mark.parametrize(
    ("ratios", "sense", "limit", "by", "judged", "passed"),
    [
        ((3.0, 6.0, 9.0), ">=", 5, "median", 6.0, True),
        ((3.0, 4.0, 9.0), ">=", 5, "median", 4.0, False),
        ((3.0, 6.0, 9.0), ">=", 5, "worst", 3.0, False),
        ((0.2, 0.5, 0.9), "<=", 0.6, "median", 0.5, True),
        ((0.2, 0.5, 0.9), "<=", 0.6, "worst", 0.9, False),
        ((1.0, 1.0), "<=", 1, "worst", 1.0, True),
        ((0.5, float("nan")), "<=", 1, "worst", None, False),
        ((float("nan"), 0.5), "<=", 1, "worst", None, False),
    ],
)
def test_verdict(paired, ratios, sense, limit, by, judged, passed):
    row = paired.Row("x", ratios, sense, limit, by)
    assert row.passed is passed and (judged is None or row.judged == judged)
    assert row.cells()[-1] == ("PASS" if passed else "FAIL")


def test_interleaved_reverses_every_second_round_and_does_not_count_the_first_call(paired):
    calls = []
    seconds = paired.interleaved([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert calls == list("ab" + "ab" + "ba" + "ab")
    assert [len(s) for s in seconds] == [3, 3] and all(value >= 0 for s in seconds for value in s)


def test_ratios_pair_the_repetitions(paired):
    assert paired.ratios([2.0, 9.0], [1.0, 3.0]) == (2.0, 3.0)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        paired.ratios([1.0], [1.0, 2.0])
