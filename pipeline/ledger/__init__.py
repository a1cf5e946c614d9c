"""The record in Redis of every run: what is pending since when, what failed and why, counts, suspects."""

from pipeline.ledger.connection import check, connect
from pipeline.ledger.ledger import LEADER, WAKE, Ledger
from pipeline.ledger.records import Counts, Fed, Listing, Taken, failure_row

__all__ = ["LEADER", "WAKE", "Counts", "Fed", "Ledger", "Listing", "Taken", "check", "connect", "failure_row"]
