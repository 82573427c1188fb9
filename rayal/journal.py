"""The journal of a selection: picks as they are made, so that a driver that died goes on there.

One JSON line an entry, the first names what is being selected. A line that a kill cut short is as
if it had not been written; a journal of another selection is written over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rayal.storage import write_text


class Journal:
    """Entries in the order made; without a path they are kept nowhere."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = None if path is None else Path(path)

    def begin(self, *names: Any) -> list[dict[str, Any]]:
        """Gives the entries of an earlier attempt at the same selection; from now on `add` follows
        them. `names` are all that the selection depends on."""
        if self.path is None:
            return []
        head = json.dumps([repr(name) for name in names])
        lines = self._whole_lines()
        if not lines or lines[0] != head:
            lines = [head]
        write_text(self.path, "".join(line + "\n" for line in lines))
        return [json.loads(line) for line in lines[1:]]

    def add(self, **entry: Any) -> None:
        """Writes an entry; it is there when this returns, whoever dies afterwards."""
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def _whole_lines(self) -> list[str]:
        if self.path is None or not self.path.exists():
            return []
        text = self.path.read_text()
        return text[: text.rfind("\n") + 1].splitlines()


def journal_of(candidates: Any) -> Journal:
    """Gives the journal that an engine keeps beside its candidates, else one that keeps nothing."""
    found = getattr(candidates, "journal", None)
    return found if isinstance(found, Journal) else Journal()
