"""The journal of an ingest under way: what is done after each closed shard, so that a killed one
goes on there.

A line is JSON, a tab and a checksum of all lines up to it: one that was cut short or damaged does
not fit, and from there on nothing is believed. Lines hold what is new since the line before, so
that the journal grows with the shards and not with their square.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayal.pool.manifest import UNDER_WAY


class UnderWay:
    """A header, which says what is ingested, then an entry a closed shard."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / UNDER_WAY
        self._checksum = 0

    @property
    def is_there(self) -> bool:
        """Whether an ingest did not end."""
        return self._path.exists()

    def read(self) -> list[dict[str, Any]]:
        """Gives header and entries up to the first line that does not fit; none where there is
        none. `add` goes on after them."""
        self._checksum, whole = 0, 0
        entries: list[dict[str, Any]] = []
        lines = self._path.read_bytes().split(b"\n")[:-1] if self.is_there else []
        for line in lines:
            text, before = line.rpartition(b"\t")[0], self._checksum
            if not text or self._signed(text) != line:
                self._checksum = before
                break
            entries.append(json.loads(text))
            whole += len(line) + 1
        if self.is_there and self._path.stat().st_size > whole:
            os.truncate(self._path, whole)
        return entries

    def begin(self, header: Mapping[str, Any]) -> None:
        """Starts a journal in place of any other."""
        self._checksum = 0
        self._path.unlink(missing_ok=True)
        self.add(header)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Writes an entry; it is there when this returns, whoever dies afterwards."""
        line = self._signed(json.dumps(entry, ensure_ascii=False).encode())
        with self._path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def end(self) -> None:
        """Removes the journal: what it tells of is in the manifest, or is given up."""
        self._path.unlink(missing_ok=True)

    def _signed(self, text: bytes) -> bytes:
        self._checksum = zlib.crc32(text, self._checksum)
        return b"%b\t%08x" % (text, self._checksum)
