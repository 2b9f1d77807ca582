"""One cause, one finding: what stands on harmed inputs is not told as well, and what is no harm is not told at all."""

import pytest

from hjbridge.ledger import checks, schema, seals
from hjbridge.ledger.checks import check_all
from hjbridge.ledger.findings import Finding

READ = {"source": "a book", "verdict": "corrected", "because": "It says so."}


def test_swapped_checkpoints_are_both_told_and_nothing_that_stands_on_them(intact):
    one, two = (intact / "data" / "checkpoints" / f"{name}.safetensors" for name in ("digits", "mnist"))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert [finding.subject for finding in check_all()] == ["checkpoint digits", "checkpoint mnist"]


def test_a_claim_that_is_gone_is_told_once_and_not_by_the_numbers_that_speak_to_it(intact, form):
    form.claims(intact, seal=False)
    assert [(one.subject, one.problem) for one in check_all()] == [
        (f"claim {id}", "is gone from data/claims.yml") for id in ("C31", "C32")
    ]


def test_a_new_claim_is_to_be_sealed(intact, form):
    text = (intact / "data" / "claims.yml").read_text()
    form.claims(intact, {"id": "C33", "ours": "None.", "rules": [READ]}, seal=False)
    (intact / "data" / "claims.yml").write_text(text + (intact / "data" / "claims.yml").read_text().partition("\n")[2])
    (finding,) = check_all()
    assert str(finding) == "claim C33: is not sealed; mend it with `hjbridge seal data/claims.yml`"


def test_a_number_recorded_for_an_unknown_claim_is_recorded_anew(intact, form):
    path = intact / "data" / "results" / "ch05.json"
    stored = schema.read(path)
    stored["results"][2]["claims"] = ["C99"]
    entries = {entry["id"]: entry for entry in stored["results"]}
    path.write_text(schema.dump("05", stored["run"], entries, stored["digests"]["cells"]))
    seals.renew(path)
    (finding,) = check_all()
    assert (finding.subject, finding.mend) == ("ch05.c", "make record CH=05")


def test_words_of_pictures_and_prose_are_no_outputs(intact, form):
    def change(tree):
        tree["cells"][3]["metadata"]["mystnb"]["image"]["alt"] = "Another word"
        tree["cells"].insert(2, {"cell_type": "markdown", "id": "new", "metadata": {}, "source": "More prose."})
        tree["cells"][3]["outputs"][0]["text"] = "a = 1.5\nb = 2\n"  # one string, as other editors write it

    form.edit(intact / "notebooks" / "05_x.ipynb", change)
    assert check_all() == []


@pytest.mark.parametrize("name", ["old/ch05.json", "ch05.json.bak", "full/old/ch05.json", "ch05.txt"])
def test_a_stray_file_is_told_and_decides_nothing(intact, name):
    path = intact / "data" / "results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    (finding,) = check_all()
    told = (f"data/results/{name}", "is no file of the record", f"rm data/results/{name}")
    assert (finding.subject, finding.problem, finding.mend) == told


def test_a_record_that_is_a_link_is_told(intact):
    path = intact / "data" / "results" / "ch05.json"
    path.rename(intact / "elsewhere.json")
    path.symlink_to(intact / "elsewhere.json")
    assert [finding.subject for finding in check_all()] == ["data/results/ch05.json"]


def test_a_link_that_leads_nowhere_does_not_hide_other_findings(intact, form):
    (intact / "data" / "checkpoints" / "x.safetensors").symlink_to(intact / "nothing")
    form.edit(intact / "data" / "results" / "ch05.json", lambda tree: tree["results"][0].update(value=9.0))
    assert {"checkpoints", "ch05.a"} <= {finding.subject for finding in check_all()}


def test_warnings_of_one_cause_and_one_remedy_are_one():
    same = [Finding("warning", f"ch06.{name}@full", "changed: mnist", "hjbridge evaluate mnist") for name in "abc"]
    other = Finding("warning", "ch06.d@full", "changed: digits", "hjbridge evaluate digits")
    error = Finding("error", "ch06.e", "changed: mnist", "hjbridge evaluate mnist")
    found = checks.grouped([same[0], error, same[1], other, same[2]])
    assert [one.subject for one in found] == ["ch06.a@full and 2 more", "ch06.e", "ch06.d@full"]
