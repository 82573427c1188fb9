"""The one line that an error deserves on the command line."""

from __future__ import annotations

import sys

from rayal.errors import RayalError
from rayal.storage import is_disk_full

AGAIN = "run the same command again"


def line_of(error: BaseException) -> str | None:
    """Gives what to tell the user, or None for what only a developer can explain."""
    if isinstance(error, RayalError):
        return str(error)
    if is_disk_full(error):
        return f"the disk is full ({error}); nothing was half-written: free some space and {AGAIN}"
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror or error}; check the path, whose it is and what "
            f"lies there, then {AGAIN}"
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"no memory left in this process ({error}); lower trainer.rows_per_step or give it "
            f"more memory, then {AGAIN}"
        )
    return None


def tell(line: str) -> int:
    """Writes the line and gives the exit code of a failed command."""
    print(f"error: {line}", file=sys.stderr)
    return 1
