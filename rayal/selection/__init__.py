"""Selection without the loop: a batch out of what the user's own code says of each row."""

from rayal.selection.columns import Columns
from rayal.selection.selection import Selection

__all__ = ["Columns", "Selection"]
