"""Claims judged on the committed record: it bears them out, and each number that a rule names can overturn it."""

import dataclasses

import pytest

from hjbridge.ledger import ClaimError, files, rules
from hjbridge.ledger.claims import load_claims
from hjbridge.ledger.results import all_results
from hjbridge.ledger.verdicts import judge

CLAIMS = load_claims(files.root() / "data" / "claims.yml")
RECORD = all_results(files.root() / "data" / "results")
NEEDED = sorted({(c.id, r) for c in CLAIMS.values() for rule in c.rules for r in rules.names(rule.get("if", ""))})
#: what a slip would do to a number: a wrong power of ten, a sign, a factor, a per cent, a shift
SLIPS = (
    lambda v: 10 * v, lambda v: v / 10, lambda v: -v, lambda v: 2 * v, lambda v: v / 2, lambda v: 1.03 * v,
    lambda v: 1.001 * v, lambda v: v + 1, lambda v: v - 1, lambda v: v + 1e-6, lambda v: 1e-3,
)  # fmt: skip


@pytest.mark.parametrize("id", CLAIMS)
def test_the_record_gives_a_verdict(id):
    found = judge(CLAIMS[id], RECORD.__getitem__)
    assert "{" not in found.ours and found.reason


@pytest.mark.parametrize(("id", "result"), NEEDED)
def test_each_number_of_a_rule_can_overturn_it(id, result):
    verdict, right = judge(CLAIMS[id], RECORD.__getitem__).verdict, RECORD[result]
    for slip in SLIPS:
        wrong = dataclasses.replace(right, value=slip(right.value))
        try:
            if (
                judge(CLAIMS[id], lambda name, wrong=wrong: wrong if name == result else RECORD[name]).verdict
                != verdict
            ):
                return
        except ClaimError:
            return
    pytest.fail(f"{id} holds whatever {result} is")
