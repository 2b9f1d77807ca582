"""The committed record belongs to the committed code."""

from hjbridge.ledger import checks


def test_the_record_is_fresh(capsys):
    found = checks.check_all()
    with capsys.disabled():  # hours of work that has grown old is told, not failed
        for finding in (finding for finding in found if finding.level == "warning"):
            print(f"\nwarning: {finding}")
    checks.demand(found)
