"""Rules and verdicts as they were sealed, and `hjbridge seal`."""

import re
from contextlib import suppress

import pytest

from hjbridge.cli import main
from hjbridge.ledger import ClaimError, LedgerError, review, seals
from hjbridge.ledger.claims import load_claims


@pytest.fixture
def claimed(repository, form):
    """A repository with one number, two claims and a checkpoint, sealed."""
    seals.renew(form.write(repository, form.entry("ch05.a")))
    form.claims(repository, {"id": "C31"}, {"id": "R6", "chapter": "06"})
    path = repository / "data" / "checkpoints" / "digits.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    seals.renew(path)
    return repository


RULE = {"if": "ch05.a > 0", "verdict": "corrected", "because": "It is positive."}
LOOSE = {"if": "ch05.a > 0", "verdict": "reproduced", "because": "It is."}


def seal(root, *names):
    return review.seal([root / name for name in names or [review.CLAIMS]])


def test_the_list_holds_digests_and_verdicts_by_id(claimed):
    text = (claimed / review.LIST).read_text()
    assert re.fullmatch(r"# .*\nC31\n  rules \w{16}  text \w{16}  reproduced\nR6\n  rules .*  reproduced\n", text)
    assert review.dump(review.sealed(claimed)) == text and seal(claimed) == []
    assert (claimed / review.LIST).read_text() == text


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"rules": [LOOSE]}, "claim C31: its rule was changed (still reproduced)"),
        ({"rules": [RULE]}, "claim C31: its rule was changed (reproduced -> corrected)"),
        ({"ours": "It is {ch05.a}."}, "claim C31: its rule was changed (still reproduced)"),
        ({"default": "unsourced"}, "claim C31: its rule was changed (still reproduced)"),
        ({"correct": "Yes, always."}, "claim C31: its text was changed"),
        ({"checked": "twice"}, "claim C31: its text was changed"),
    ],
)
def test_sealing_claims_tells_what_has_changed(claimed, form, changed, told):
    form.claims(claimed, {"id": "C31"} | changed, {"id": "R6", "chapter": "06"}, seal=False)
    assert seal(claimed) == [told] and seal(claimed) == []


def test_new_claims_claims_that_are_gone_and_changed_verdicts_are_told(claimed, form):
    form.claims(claimed, {"id": "C31"}, {"id": "C32", "rules": [RULE]}, seal=False)
    assert seal(claimed) == ["claim C32: new, corrected", "claim R6: taken off the list"]
    (claimed / review.LIST).write_text((claimed / review.LIST).read_text().replace("reproduced", "open"))
    assert seal(claimed) == ["claim C31: its verdict was changed (open -> reproduced)"]


def test_a_claim_of_which_no_rule_holds_is_not_sealed(claimed, form):
    before = (claimed / review.LIST).read_text()
    form.claims(claimed, {"id": "C31", "rules": [RULE | {"if": "ch05.a < 0"}]}, seal=False)
    with pytest.raises(ClaimError, match=r"C31 .*no rule holds"):
        seal(claimed)
    assert (claimed / review.LIST).read_text() == before


def test_what_a_merge_has_left_is_told_and_written_anew(claimed):
    path = claimed / review.LIST
    text = path.read_text()
    path.write_text(text.replace("C31\n", "<<<<<<< HEAD\nC31\n"))
    with pytest.raises(LedgerError, match=r"got '<<<<<<< HEAD'; `hjbridge seal data/claims.yml` writes it anew"):
        review.sealed(claimed)
    assert seal(claimed) == ["claim C31: new, reproduced", "claim R6: new, reproduced"] and path.read_text() == text


def test_a_checkpoint_is_sealed_after_the_others_were_checked(claimed):
    name = "data/checkpoints/digits.safetensors"
    (claimed / name).write_bytes(b"trained anew")
    before = (claimed / seals.LIST).read_text()
    (claimed / "data" / "results" / "ch05.json").write_text("edited")
    with pytest.raises(LedgerError, match=r"results/ch05.json is not the file that was sealed; .*\nnothing was sealed"):
        seal(claimed, name)
    assert (claimed / seals.LIST).read_text() == before
    seals.renew(claimed / "data" / "results" / "ch05.json")
    old, new = seals.sealed(claimed)[name], seals.stage.content_hash(claimed / name)
    assert seal(claimed, name) == [f"{name}: {old[:12]} -> {new[:12]}"]
    assert seals.broken(claimed) == {} and seal(claimed, name) == []


def test_paths_may_begin_in_the_repository_and_a_file_that_is_gone_is_taken_off(claimed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = "data/checkpoints/digits.safetensors"
    (claimed / name).unlink()
    assert review.seal([seals.Path(name)]) == [
        f"{name}: {seals.stage.hashlib.sha256(b'weights').hexdigest()[:12]} -> none"
    ]
    (claimed / name).write_bytes(b"new")
    assert review.seal([seals.Path(name)])[0].startswith(f"{name}: none -> ")


def test_results_are_sealed_by_the_run_that_makes_them(claimed):
    with pytest.raises(ValueError, match=r"`make record CH=05` makes and seals data/results/ch05.json"):
        seal(claimed, "data/results/ch05.json")
    (claimed / "data" / "results" / "ch05.json").unlink()  # a chapter that was taken away
    assert seal(claimed, "data/results/ch05.json")[0].endswith("-> none")


def test_a_recording_judges_the_claims_of_its_chapter_only(claimed, form):
    form.claims(claimed, {"id": "C31", "rules": [RULE]}, {"id": "R6", "chapter": "06", "rules": [RULE]}, seal=False)
    load_claims.cache_clear()
    before = review.sealed(claimed)
    (claimed / review.LIST).write_text(review.renewed(claimed, claimed, ["05"]))
    after = review.sealed(claimed)
    assert after["C31"].verdict == "corrected" and after["R6"] == before["R6"]


def test_the_command_tells_what_it_has_sealed(claimed, form, capsys, monkeypatch):
    monkeypatch.chdir(claimed)
    form.claims(claimed, {"id": "C31", "rules": [LOOSE]}, {"id": "R6", "chapter": "06"}, seal=False)
    for printed in ("claim C31: its rule was changed (still reproduced)\n", "nothing has changed\n"):
        with suppress(SystemExit):
            main(["seal", review.CLAIMS])
        assert capsys.readouterr().out == printed
