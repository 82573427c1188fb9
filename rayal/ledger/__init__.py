"""The ledger: an append-only record of every step of a run, its labels and what they cost."""

from rayal.ledger.configs import compare_configs
from rayal.ledger.labels import StoredLabel
from rayal.ledger.ledger import Ledger
from rayal.ledger.runs import Run, State
from rayal.ledger.steps import Event
from rayal.ledger.store import without_password

__all__ = ["Event", "Ledger", "Run", "State", "StoredLabel", "compare_configs", "without_password"]
