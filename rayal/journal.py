"""The journal of a selection: picks as they are made, so that a driver that died goes on there.

The first line is JSON and names what is being selected. Every other is an entry in JSON, a tab and
a checksum of all lines up to it, so that a line that was cut short, damaged, repeated or written by
another does not fit where it stands: from there on nothing is believed, and those picks are made
again. A journal of another selection is written over.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from rayal import copies
from rayal.storage import here, write_bytes


class Journal:
    """Entries in the order made; without a path they are kept nowhere."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._checksum = 0  # of all lines so far

    def begin(self, *names: Any) -> list[dict[str, Any]]:
        """Gives the entries of an earlier attempt at the same selection; from now on `add` follows
        them. `names` are all that the selection depends on."""
        if self.path is None:
            return []
        head = json.dumps([repr(name) for name in names]).encode()
        here(self.path)
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        self._checksum = zlib.crc32(head)
        entries = self._believed(lines[1:]) if lines[:1] == [head] else []
        write_bytes(self.path, b"\n".join([head, *lines[1 : len(entries) + 1], b""]))
        return entries

    def add(self, **entry: Any) -> None:
        """Writes an entry; it is there when this returns, whoever dies afterwards. Of a run in a
        store the last seconds may be lost, and are picked again."""
        if self.path is not None:
            line = self._signed(json.dumps(entry).encode())
            with self.path.open("ab") as file:
                file.write(line + b"\n")
            copies.put_now_and_then(self.path)

    def _believed(self, lines: list[bytes]) -> list[dict[str, Any]]:
        """Gives the entries up to the first line that does not fit, or picks a row again."""
        entries: list[dict[str, Any]] = []
        picked: set[int] = set()
        for line in lines:
            text, before = line.rpartition(b"\t")[0], self._checksum
            entry = json.loads(text) if self._signed(text) == line and text else None
            ids = [] if entry is None else [pick[0] for pick in entry.get("picks", [])]
            if entry is None or len(picked.union(ids)) < len(picked) + len(ids):
                self._checksum = before
                break
            picked.update(ids)
            entries.append(entry)
        return entries

    def _signed(self, text: bytes) -> bytes:
        """Gives a line without its end, and counts it among those so far."""
        self._checksum = zlib.crc32(text, self._checksum)
        return b"%b\t%08x" % (text, self._checksum)


def journal_of(candidates: Any) -> Journal:
    """Gives the journal that an engine keeps beside its candidates, else one that keeps nothing."""
    found = getattr(candidates, "journal", None)
    return found if isinstance(found, Journal) else Journal()
