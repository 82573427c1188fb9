"""The journal of an ingest under way: what is done after each closed shard, so that a killed one
goes on there.

A line is JSON, a tab and a checksum of all lines up to it: one that was cut short or damaged does
not fit, and from there on nothing is believed. Lines hold what is new since the line before, so
that the journal grows with the shards and not with their square. A store cannot add to an object:
there the journal is a row of them, of which the last is put again until it has its share of lines.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from rayal.places import Place
from rayal.pool.manifest import UNDER_WAY

_LINES = 64  # of one object


class UnderWay:
    """A header, which says what is ingested, then an entry a closed shard."""

    def __init__(self, folder: Place) -> None:
        self._folder = folder
        self._checksum = 0
        self._lines: list[bytes] = []  # of the last object, in a store
        self._number = 0  # of that object

    @property
    def is_there(self) -> bool:
        """Whether an ingest did not end."""
        return self._part(0).exists()

    def read(self) -> list[dict[str, Any]]:
        """Gives header and entries up to the first line that does not fit; none where there is
        none. `add` goes on after them."""
        self._checksum, self._lines, self._number = 0, [], 0
        believed: list[bytes] = []
        for line in self._written():
            text, before = line.rpartition(b"\t")[0], self._checksum
            if not text or self._signed(text) != line:
                self._checksum = before
                break
            believed.append(line)
        self._keep(believed)
        return [json.loads(line.rpartition(b"\t")[0]) for line in believed]

    def begin(self, header: Mapping[str, Any]) -> None:
        """Starts a journal in place of any other."""
        self.end()
        self.add(header)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Writes an entry; it is there when this returns, whoever dies afterwards."""
        line = self._signed(json.dumps(entry, ensure_ascii=False).encode())
        if self._folder.is_local:
            with self._part(0).local.open("ab") as file:
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            return
        if len(self._lines) == _LINES:
            self._number, self._lines = self._number + 1, []
        self._lines.append(line)
        self._part(self._number).put_bytes(b"\n".join([*self._lines, b""]))

    def end(self) -> None:
        """Removes the journal: what it tells of is in the manifest, or is given up."""
        parts = list(self._parts())
        for part in parts:  # the first one first: without it the others tell nothing
            part.remove()
        self._checksum, self._lines, self._number = 0, [], 0

    def _written(self) -> Iterator[bytes]:
        """Gives the lines that were written to their ends."""
        for part in self._parts():
            yield from part.read_bytes().split(b"\n")[:-1]

    def _keep(self, believed: list[bytes]) -> None:
        """Goes on after these lines."""
        if self._folder.is_local:
            path = self._part(0).local
            num_bytes = sum(len(line) + 1 for line in believed)
            if path.exists() and path.stat().st_size > num_bytes:
                os.truncate(path, num_bytes)
            return
        self._number = max(0, len(believed) - 1) // _LINES
        self._lines = believed[self._number * _LINES :]

    def _part(self, number: int) -> Place:
        return self._folder / (f"{UNDER_WAY}.{number:05d}" if number else UNDER_WAY)

    def _parts(self) -> Iterator[Place]:
        number = 0
        while (part := self._part(number)).exists():
            yield part
            number += 1

    def _signed(self, text: bytes) -> bytes:
        self._checksum = zlib.crc32(text, self._checksum)
        return b"%b\t%08x" % (text, self._checksum)
