"""The record of the book: what was run, what came out, what it says about each claim, and whether it is still true."""

from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.profile import Profile
from hjbridge.ledger.results import Result, all_results, result
from hjbridge.ledger.session import record, record_all
from hjbridge.ledger.setup import setup
from hjbridge.ledger.verdicts import ClaimError, Verdict, verdict, verdict_table

__all__ = [
    "ClaimError",
    "LedgerError",
    "Profile",
    "Result",
    "Verdict",
    "all_results",
    "record",
    "record_all",
    "result",
    "setup",
    "verdict",
    "verdict_table",
]
