"""rayal: distributed active learning for very large pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rayal.cli.select import select as select
else:

    def __getattr__(name: str) -> object:
        """Gives `rayal.select`, whose libraries are imported when it is first asked for."""
        if name == "select":
            from rayal.cli.select import select

            return select
        raise AttributeError(f"module 'rayal' has no attribute '{name}'")
