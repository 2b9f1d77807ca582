"""The list of claims, and how verdicts follow from recorded numbers."""

import dataclasses
import math
import re

import pytest
import yaml
from bs4 import BeautifulSoup

from hjbridge.ledger import ClaimError, LedgerError, Result, files, record, rules, verdict, verdict_table
from hjbridge.ledger.claims import SLOT, VERDICTS, cited, find_claim, load_claims
from hjbridge.ledger.results import UnknownId
from hjbridge.ledger.verdicts import Verdict, VerdictTable, fill, judge, shown, status

#: numbers that bear out every rule, from the closed forms or well inside the bounds
GOOD = {
    "ch05.alpha_bar_chain": math.exp(sum(math.log1p(-(1e-4 + (0.02 - 1e-4) * k / 999)) for k in range(1000))),
    "ch05.alpha_bar_sde": math.exp(-10.05),
    "ch05.chain_order": 1.004,
    "ch05.prior_kl_quarter": 7.2787e-6,
    "ch05.prior_kl_third": 9.7047e-6,
    "ch05.ve_end_std": 50.0,
    "ch05.coefficient_deviation": 2e-15,
    "ch05.w1_floor": 0.047,
    "ch05.w1_sde": 0.052,
    "ch05.w1_ode": 0.050,
    "ch05.floors_sde": 1.1,
    "ch05.floors_ode": 1.1,
    "ch05.quadratic_variation_sde": 10.0,
    "ch05.quadratic_variation_ode": 0.02,
    "ch06.params_cifar10": 35746307,
    "ch06.params_px256": 113673219,
    "ch06.prior_bits_quarter": 7.2787e-6,
    "ch06.prior_bits_third": 9.7047e-6,
    "ch06.fd_ddpm": 4.0,
}
EXPECTED = {
    "C26": "reproduced", "C27": "corrected", "C28": "corrected", "C30": "corrected", "C31": "corrected",
    "C32": "reproduced", "C33": "reproduced", "C34": "reproduced", "R6": "reproduced", "R7": "reproduced",
}  # fmt: skip
#: one number a time that must overturn the verdict
BAD = [
    ("C27", "ch06.params_cifar10", 35746308),
    ("C27", "ch06.params_px256", 113673220),
    ("C30", "ch05.alpha_bar_chain", 4.0359e-5),
    ("C30", "ch05.alpha_bar_sde", 4.0358e-5),
    ("C30", "ch05.chain_order", 1.2),
    ("C31", "ch05.prior_kl_quarter", 7.30e-6),
    ("C31", "ch05.prior_kl_third", 9.72e-6),
    ("C31", "ch05.ve_end_std", 1.0),
    ("C32", "ch05.coefficient_deviation", 1e-9),
    ("C33", "ch05.w1_sde", 0.062),
    ("C33", "ch05.w1_floor", 0.0),
    ("C34", "ch05.w1_ode", 0.062),
    ("C34", "ch05.w1_floor", 0.03),
    ("C34", "ch05.floors_sde", 1.31),
    ("C34", "ch05.floors_ode", 1.31),
    ("C34", "ch05.quadratic_variation_ode", 2.0),
    ("C34", "ch05.quadratic_variation_sde", 5.0),
    ("R6", "ch06.params_cifar10", 35746306),
    ("R6", "ch06.params_px256", 113673218),
    ("R7", "ch06.prior_bits_third", 9.72e-6),
    ("R7", "ch06.prior_bits_quarter", 7.26e-6),
]


def lookup(changes=None, profile="book"):
    known = GOOD | (changes or {})
    return lambda id: Result(id, known[id], run={"profile": profile})


def test_the_claims_of_these_chapters_are_there():
    assert set(load_claims(files.root() / "data" / "claims.yml")) >= set(EXPECTED)


def test_every_claim_is_well_formed():
    for claim in load_claims().values():
        assert re.fullmatch(r"[CR]\d+", claim.id)
        assert claim.rules and claim.default in VERDICTS
        assert claim.correct and claim.checked and claim.ours and claim.claim
        for rule in claim.rules:
            assert ("if" in rule) != ("source" in rule), f"{claim.id}: a rule has either `if` or `source`"
        if any("source" in rule for rule in claim.rules):
            assert claim.source["title"], f"{claim.id}: a verdict from reading needs a source"
        for id in claim.results:
            assert id.startswith(f"ch{claim.chapter}."), f"{claim.id} is judged by {id} of another chapter"


@pytest.mark.parametrize(("id", "word"), EXPECTED.items())
def test_right_numbers_give_the_verdict(id, word):
    found = judge(find_claim(id), lookup())
    assert found.verdict == word
    assert "{" not in found.ours and found.reason


@pytest.mark.parametrize(("id", "result", "value"), BAD)
def test_a_wrong_number_is_noticed(id, result, value):
    with pytest.raises(ClaimError, match=rf"{id} .*no rule holds\n.*expected .*got .*\n.*make chapter CH="):
        judge(find_claim(id), lookup({result: value}))


def test_every_number_in_a_rule_of_these_chapters_can_overturn_it():
    claims = [find_claim(id) for id in EXPECTED]
    needed = {(c.id, r) for c in claims for rule in c.rules for r in rules.names(rule.get("if", ""))}
    assert needed <= {(id, result) for id, result, _ in BAD}


def test_smoke_is_not_judged():
    found = judge(find_claim("C31"), lookup({"ch05.ve_end_std": 1.0}, profile="smoke"))
    assert (found.verdict, found.reason) == ("open", "Profile smoke is too small to judge.")


def test_a_missing_number_is_an_error_in_a_run_and_open_on_the_page(repository, begin):
    begin()
    record("ch05.ve_end_std", 50.0)
    with pytest.raises(
        ClaimError, match=r"C31 cannot be judged: ch05.prior_kl_quarter has not been recorded in this run"
    ):
        verdict("C31")

    def absent(id):
        raise UnknownId(f"{id} is not recorded")

    def damaged(id):
        raise LedgerError("ch05.json is damaged")

    with pytest.raises(LedgerError, match="is damaged"):
        status(find_claim("C31"), damaged)
    assert status(find_claim("C31"), absent).verdict == "open"
    assert status(find_claim("C26"), absent).verdict == "reproduced"


def test_a_verdict_reads_the_open_record(begin):
    begin()
    for id, value in GOOD.items():
        if id.startswith("ch05"):
            record(id, value)
    table = verdict_table("05")
    assert repr(table) == "C30 corrected\nC31 corrected\nC32 reproduced\nC33 reproduced\nC34 reproduced"
    assert table == verdict_table(5)
    assert repr(verdict("C31")) == "C31 corrected"
    page = table._repr_html_()
    assert page.count("<tr>") == 6 and "9.70 × 10⁻⁶" in page and "Ho et al. 2020, sec. 4" in page
    assert "**C31**" in verdict("C31")._repr_markdown_()


def test_all_failures_of_a_chapter_are_told(begin):
    begin()
    for id, value in (GOOD | {"ch05.ve_end_std": 1.0, "ch05.w1_sde": 9.0}).items():
        if id.startswith("ch05"):
            record(id, value)
    with pytest.raises(ClaimError, match=r"(?s)C31 .*got 1\n.*C33 .*got 9\n"):
        verdict_table("05")


def test_unknown_claims_and_chapters_are_told(repository):
    with pytest.raises(
        UnknownId, match=r"claim C266 is unknown; the nearest: C26(, \w+)*; `hjbridge claims` lists all"
    ):
        verdict("C266")
    assert find_claim("c26").id == "C26"
    with pytest.raises(LedgerError, match=r"chapter must be one that data/claims.yml knows, got '77'"):
        verdict_table("77")


def test_markup_in_a_claim_is_escaped_in_html():
    page = VerdictTable([Verdict("C1", "<b>", "open", "a & b", "")])._repr_html_()
    assert "&lt;b&gt;" in page and "a &amp; b" in page and "<b>" not in page


def test_the_source_is_cited_briefly():
    assert cited(find_claim("C31")) == "Ho et al. 2020, sec. 4"
    assert cited(find_claim("C33")) == "Anderson 1982, reverse-time SDE"


def edited(repository, change):
    path = repository / "data" / "claims.yml"
    tree = yaml.safe_load(path.read_text())
    change(tree["claims"])
    path.write_text(yaml.safe_dump(tree))
    load_claims.cache_clear()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.append(c[0]), r"claim [CR]\d+ stands there twice"),
        (lambda c: c[0].update(kind="fact"), "kind must be one of .*, got 'fact'"),
        (lambda c: c[0].pop("locus"), r"claim '[CR]\d+': fields are .*; unknown or missing: .*locus"),
        (lambda c: c[0].update(colour="red"), "unknown or missing: .*colour"),
        (lambda c: c[0].update(ours=None), r"ours must be a text \(in quotes\), got None"),
        (lambda c: c[0].update(locus=2021), r"locus must be a text \(in quotes\), got 2021"),
        (lambda c: c[0]["rules"][0].update({"if": True}), "if of a rule must be a text .*, got True"),
        (lambda c: c[0].update(source={"authors": "A. Body"}), "source must have year and title beside its authors"),
        (lambda c: c[0].update(default="perhaps"), "default must be one of .*, got 'perhaps'"),
        (lambda c: c[0].update(chapter="five"), "chapter must be a number .*, got 'five'"),
        (lambda c: c[0]["rules"][0].update(verdict="true"), "verdict must be one of .*, got 'true'"),
        (lambda c: c[0]["rules"][0].pop("because"), "a rule has `if` or `source`, `verdict` and `because`"),
    ],
)
def test_a_wrong_entry_is_named(repository, change, message):
    edited(repository, change)
    with pytest.raises(LedgerError, match=message):
        load_claims()


@pytest.mark.parametrize("text", ["claims: [", "", "other: 1", "claims: 1", "claims: [1]"])
def test_a_damaged_list_is_named(repository, text):
    (repository / "data" / "claims.yml").write_text(text)
    with pytest.raises(LedgerError, match=r"(?s)claims.yml cannot be read .*git checkout -- data/claims.yml"):
        load_claims()


def test_slots_take_digits():
    assert [m.groups() for m in SLOT.finditer("{ch05.a} and {ch05.b:3}, {ch06.c@full}")] == [
        ("ch05.a", None), ("ch05.b", "3"), ("ch06.c@full", None),
    ]  # fmt: skip


def test_a_number_is_shown_with_error_and_unit_or_with_digits_alone():
    entry = Result("ch05.a", 3.1234, stderr=0.0412, unit="nats", digits=5)
    assert shown(entry) == "3.12 ± 0.04 nats"
    assert shown(entry, 2) == "3.1" and shown(entry, 5) == "3.1234"
    assert shown(Result("ch05.a", 35746307, unit="m/s"), 3) == "3.57 × 10⁷"
    assert fill("{ch05.a} or {ch05.a:2} nats", {"ch05.a": entry}) == "3.12 ± 0.04 nats or 3.1 nats"


def test_a_verdict_tells_the_printed_figure_and_the_tolerances_of_its_numbers():
    claim = dataclasses.replace(find_claim("C31"), reported="about 1e-5 bits")
    allowed = {"ch05.prior_kl_quarter": 2e-8, "ch05.prior_kl_third": 2e-8, "ch05.ve_end_std": 0.123}
    known = {id: dataclasses.replace(lookup()(id), tolerance=allowed.get(id)) for id in GOOD}
    found = judge(claim, known.__getitem__)
    assert set(claim.results) == set(allowed)
    # from the least to the largest, in one digit, and none for a number without one
    assert (found.reported, found.tolerance) == ("about 1e-5 bits", "2 × 10⁻⁸ to 0.1")
    assert judge(claim, lookup()).tolerance == "" and judge(find_claim("C31"), lookup()).tolerance == ""
    none = dataclasses.replace(claim, reported=None)
    assert judge(none, lookup()).reported == ""


def test_the_table_of_verdicts_has_a_column_for_each():
    row = Verdict("C1", "claim", "open", "ours", "reason", "source", "<printed>", "0.12")
    page = BeautifulSoup(VerdictTable([row])._repr_html_(), "html.parser")
    heads = [cell.text for cell in page.select("th[scope=col]")]
    cells = dict(zip(heads, [cell.text for cell in page.select("td")], strict=True))
    assert cells == {"id": "C1", "claim": "claim", "source": "source", "reported": "<printed>", "ours": "ours",
                     "tolerance": "0.12", "verdict": "open"}  # fmt: skip
    assert page.select_one("div.pst-scrollable-table-container > table.claims")
