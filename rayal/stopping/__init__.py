"""When a run ends, beside its number of rounds."""

from rayal.stopping.rules import check

__all__ = ["check"]
