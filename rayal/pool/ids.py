"""One int64 id a row for life, from the place in the source or from the user's own column.

Duplicates are found in bounded memory: fingerprints are spread over files by hash, and each file is
small enough to sort. Equal ones would all fall into one file: of each lot, two are kept and the
others counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayal.errors import PoolError
from rayal.keys import hash_u64
from rayal.pool.sources import Piece
from rayal.types import Ids

_PARTS = 256  # 1e9 ids are 24 GB of fingerprints, 94 MB a part
_HELD_ROWS = 1 << 20
_RECORD = np.dtype([("low", "<u8"), ("high", "<u8"), ("row", "<i8")])


@dataclass(frozen=True)
class Duplicate:
    """An id that came twice: the source rows (counted over all files) of both."""

    first_row: int
    second_row: int
    bits: int  # the id itself, where it is an int64


class SeenIds:
    """All ids of a source, on disk. Ids of 128 bits: int64 as they are, text by BLAKE2b, of which
    two of 1e9 are equal by chance with a probability of 1e-21. O(n) disk, O(1) memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[np.ndarray] = []
        self._num_held = 0
        self._num_dropped = 0  # records that repeat one of the same lot a second time, or more
        self._spilled = False

    def add(self, first_row: int, ids: Ids | pa.Array, step: int = 1) -> None:
        """Remembers the ids of source rows `first_row`, `first_row + step`, and so on."""
        records = np.empty(len(ids), _RECORD)
        if isinstance(ids, np.ndarray):
            records["low"], records["high"] = ids.view(np.uint64), 0
        else:
            digests = b"".join(
                hashlib.blake2b(name.encode(), digest_size=16).digest() for name in ids.to_pylist()
            )
            pairs = np.frombuffer(digests, "<u8").reshape(-1, 2)
            records["low"], records["high"] = pairs[:, 0], pairs[:, 1]
        records["row"] = first_row + step * np.arange(len(ids))
        self._hold(records)

    def add_marked(self, row: int, ids: pa.Array) -> None:
        """Remembers ids of which an int64, or of text the 16 bytes of its hash, is all that is
        known; `row` stands for the place of each."""
        records = np.empty(len(ids), _RECORD)
        if pa.types.is_int64(ids.type):
            records["low"], records["high"] = ids.to_numpy().view(np.uint64), 0
        else:
            pairs = np.frombuffer(b"".join(ids.to_pylist()), "<u8").reshape(-1, 2)
            records["low"], records["high"] = pairs[:, 0], pairs[:, 1]
        records["row"] = row
        self._hold(records)

    def _hold(self, records: np.ndarray) -> None:
        self._held.append(records)
        self._num_held += len(records)
        if self._num_held >= _HELD_ROWS:
            self._spill()

    def duplicates(self, limit: int) -> tuple[int, list[Duplicate]]:
        """Gives how many rows repeat an earlier id, and the first few such ids in source order."""
        count, firsts = 0, list[Duplicate]()
        for part in self._parts():
            if not _may_repeat(part):
                continue
            records, times = _sorted(part)
            seconds = np.flatnonzero(times == 1)
            count += int((times > 0).sum())
            seconds = seconds[np.argsort(records["row"][seconds])][:limit]
            rows, bits = records["row"], records["low"].view(np.int64)
            firsts += [Duplicate(int(rows[p - 1]), int(rows[p]), int(bits[p])) for p in seconds]
        firsts = sorted(firsts, key=lambda pair: pair.second_row)[:limit]
        return count + self._num_dropped, firsts

    def _parts(self) -> Iterator[np.ndarray]:
        if not self._spilled:
            yield np.concatenate([np.empty(0, _RECORD), *self._held])
            return
        self._spill()
        for part in range(_PARTS):
            path = self._folder / f"{part:03d}"
            if path.exists():
                yield np.fromfile(path, _RECORD)

    def _spill(self) -> None:
        if not self._held:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._spilled = True
        records = np.concatenate(self._held)
        if _may_repeat(records):
            records, times = _sorted(records)
            self._num_dropped += int((times > 1).sum())
            records = records[times <= 1]
        part = hash_u64(0, records["low"].view(np.int64)) % np.uint64(_PARTS)
        order = np.argsort(part, kind="stable")
        records, ends = records[order], np.searchsorted(part[order], np.arange(_PARTS), "right")
        start = 0
        for index, end in enumerate(ends.tolist()):
            if end > start:
                with (self._folder / f"{index:03d}").open("ab") as file:
                    file.write(records[start:end].tobytes())
            start = end
        self._held, self._num_held = [], 0


def _may_repeat(records: np.ndarray) -> bool:
    """Whether an id may come twice: seldom, and asked at a seventh of the time of `_sorted`."""
    low = np.sort(records["low"])
    return bool((low[1:] == low[:-1]).any())


def _sorted(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives the records by id, and how many records of its id each comes after.

    Those of one id come in the order of rows, and stay in it: the sort is stable.
    """
    records = records[np.lexsort((records["high"], records["low"]))]
    is_new = np.ones(len(records), bool)
    is_new[1:] = records["low"][1:] != records["low"][:-1]
    is_new[1:] |= records["high"][1:] != records["high"][:-1]
    starts = np.flatnonzero(is_new)
    places = np.arange(len(records))
    return records, places - np.repeat(starts, np.diff(np.append(starts, len(records))))


def sample_ids(piece: Piece, column: str) -> Ids | None:
    """Gives the ids of an int64 column, or None where the column is of another type.

    Raises:
        PoolError: an id is null.
    """
    ids = piece.rows.column(column)
    _refuse_null(piece, column, ids)
    return ids.to_numpy() if pa.types.is_int64(ids.type) else None


def source_ids(piece: Piece, column: str) -> pa.Array:
    """Gives the ids of a column that is not int64, as text.

    Raises:
        PoolError: an id is null or empty, or the column's type has no exact text.
    """
    ids = piece.rows.column(column)
    kind = ids.type
    if pa.types.is_floating(kind) or pa.types.is_nested(kind) or pa.types.is_null(kind):
        raise PoolError(
            f"id column '{column}' is {kind}, expected text or integers; name another column, or "
            "none to number the rows"
        )
    _refuse_null(piece, column, ids)
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([name.hex() for name in ids.to_pylist()], pa.string())
    text = ids.cast(pa.string())
    empty = pc.index(text, "").as_py()
    if empty >= 0:
        raise PoolError(
            f"id column '{column}' is empty at {piece.at(empty)}; every row needs an id"
        )
    return text


def _refuse_null(piece: Piece, column: str, ids: pa.Array) -> None:
    if ids.null_count:
        row = int(pc.index(pc.is_null(ids), True).as_py())
        raise PoolError(
            f"id column '{column}' is null at {piece.at(row)}, and in {ids.null_count} rows of the "
            f"{len(ids)} from {piece.at(0)} on; every row needs an id"
        )
