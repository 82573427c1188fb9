"""The ledger: an append-only record of every step of a run, its labels and what they cost."""

from rayal.ledger.chain import Entry
from rayal.ledger.configs import compare_configs
from rayal.ledger.labels import StoredLabel
from rayal.ledger.ledger import Ledger
from rayal.ledger.quarantine import Odd, Terms
from rayal.ledger.runs import Run, State
from rayal.ledger.steps import Event
from rayal.ledger.store import without_password

__all__ = [
    "Entry",
    "Event",
    "Ledger",
    "Odd",
    "Run",
    "State",
    "StoredLabel",
    "Terms",
    "compare_configs",
    "without_password",
]
