"""The record in Redis of every run: what is pending since when, what failed and why, counts, suspects."""

from pipeline.ledger.connection import check, connect, impatient
from pipeline.ledger.ledger import LEADER, WAKE, Ledger
from pipeline.ledger.memory import FEEDING_LIMIT, LISTING_LIMIT, fill, share
from pipeline.ledger.reader import ACTIVE, RUNS, LedgerReader, base
from pipeline.ledger.records import Counts, Fed, Listing, Taken, failure_row

__all__ = [
    "ACTIVE", "FEEDING_LIMIT", "LEADER", "LISTING_LIMIT", "RUNS", "WAKE", "Counts", "Fed", "Ledger", "LedgerReader",
    "Listing", "Taken", "base", "check", "connect", "failure_row", "fill", "impatient", "share",
]  # fmt: skip
