"""The user's rows as a pool, so that the engines score and slice them as they do any other.

A shard is so many rows of one or several groups that all of them fit memory well, whatever row
groups a file has: its slice is a file of its own, which stays a memory map.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from rayal.columns import tags
from rayal.errors import ConfigError
from rayal.pool import Manifest, Pool, Shard
from rayal.selection.columns import Column, ids_in
from rayal.selection.given import Files, Given, Group
from rayal.storage import atomic_path
from rayal.types import Ids

_SHARD_ROWS, _SHARD_BYTES = 1 << 18, 128 << 20  # of what is read of a row
_BATCH_ROWS, _BATCH_BYTES = 8_192, 4 << 20
_LEAST_ROWS = 64
_STAGED_ROWS = 1 << 16
_DIGEST_BYTES = 16  # of a row


class Range(NamedTuple):
    """Rows [start, stop) of a group."""

    group: Group
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class GivenPool(Pool):
    """Rows that the user gives, under rayal's names."""

    given: Given
    columns: tuple[Column, ...]
    id_column: str
    ranges: tuple[tuple[Range, ...], ...]  # of every shard
    batch_rows: int

    @classmethod
    def of(cls, given: Given, columns: tuple[Column, ...], id_column: str) -> GivenPool:
        """Gives the pool of these columns. O(groups)."""
        row_bytes = max(1, sum(column.row_bytes for column in columns))
        batch_rows = _BATCH_ROWS
        while batch_rows > _LEAST_ROWS and batch_rows * row_bytes > _BATCH_BYTES:
            batch_rows //= 2
        most = max(batch_rows, min(_SHARD_ROWS, _SHARD_BYTES // row_bytes))
        ranges = tuple(_dealt(given.groups, most // batch_rows * batch_rows))
        shards = tuple(_shard(place, some, given) for place, some in enumerate(ranges))
        manifest = Manifest(pa.schema([]), shards, "", 0.0, None, 0)
        return cls(
            path="",
            manifest=manifest,
            given=given,
            columns=columns,
            id_column=id_column,
            ranges=ranges,
            batch_rows=batch_rows,
        )

    def with_empty(self, count: int) -> GivenPool:
        """Gives the pool with so many more shards at its end, of no rows."""
        first = len(self.shards)
        more = tuple(_shard(place, (), self.given) for place in range(first, first + count))
        manifest = replace(self.manifest, shards=(*self.manifest.shards, *more))
        return replace(self, manifest=manifest, ranges=(*self.ranges, *([()] * count)))

    def batches(
        self, shard: Shard, columns: Sequence[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Gives those columns of a shard's rows, and `sample_id`, under rayal's names.

        Raises:
            RayalError: a file cannot be read, or a value is not what its column should hold.
        """
        wanted = [one for one in self.columns if one.name in columns]
        sources = list(dict.fromkeys((self.id_column, *(one.source for one in wanted))))
        for group, start, stop in self.ranges[shard.index]:
            where = self.given.where(group)
            for rows in self.given.rows(group, sources, batch_rows, start, stop):
                yield renamed(rows, wanted, self.id_column, where)

    def read_rows(self, shard: Shard, ids: Ids, columns: Sequence[str]) -> pa.Table:
        """Gives those rows of a shard whose id is among `ids`, in the order of the shard.

        Raises:
            RayalError: as `batches`.
        """
        names, wanted = list(dict.fromkeys(("sample_id", *columns))), np.unique(ids)
        parts = []
        for rows in self.batches(shard, names, self.batch_rows):
            is_wanted = np.isin(rows.column("sample_id").to_numpy(), wanted)
            parts.append(rows.filter(pa.array(is_wanted)))
        return pa.Table.from_batches(parts).select(list(dict.fromkeys(columns)))


def renamed(
    rows: pa.RecordBatch, columns: Sequence[Column], id_column: str, where: str
) -> pa.RecordBatch:
    """Gives rows with their values checked, under rayal's names and in the form of a pool's."""
    ids = ids_in(rows, id_column, where)
    named = [one.stored(rows, ids, where) for one in columns]
    fields = [pa.field("sample_id", pa.int64()), *(field for field, _ in named)]
    arrays = [pa.array(ids), *(array for _, array in named)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def columns_of(
    given: Given, wanted: Sequence[tuple[str, str]], id_column: str
) -> tuple[Column, ...]:
    """Gives the columns (rayal's name, the user's) as the first row says.

    Raises:
        ConfigError: there are no rows.
    """
    if not given.groups:
        raise ConfigError("the outputs hold no rows; check the path, or what writes them")
    group = given.groups[0]
    names = list(dict.fromkeys((id_column, *(source for _, source in wanted))))
    rows, where = next(iter(given.rows(group, names, 1, 0, 1))), given.where(group)
    return _found(rows, wanted, id_column, where)


def _found(
    rows: pa.RecordBatch, wanted: Sequence[tuple[str, str]], id_column: str, where: str
) -> tuple[Column, ...]:
    first = rows.slice(0, 1)
    ids = ids_in(first, id_column, where)
    return tuple(Column.found(name, source, first, ids, where) for name, source in wanted)


def stage(
    batches: Iterable[pa.RecordBatch],
    wanted: Sequence[tuple[str, str]],
    id_column: str,
    folder: Path,
    with_content: bool = False,
) -> tuple[Files, tuple[Column, ...]]:
    """Writes rows that come once into a Parquet file; gives it, and what its columns are.

    `with_content`: a hash of the rows goes with it, the same in any order. About a microsecond a
    row, and one more for every 2 kB of it.

    Raises:
        ConfigError: there are no rows.
        RayalError: a value is not what its column should hold, or the disk is full.
    """
    path, where = folder / "outputs.parquet", "the outputs"
    there = (batch for batch in batches if batch.num_rows)
    first = next(there, None)
    if first is None:
        raise ConfigError("the outputs hold no rows; check what gives them")
    columns = _found(first, wanted, id_column, where)
    content = Content() if with_content else None
    schema = renamed(first.slice(0, 1), columns, id_column, where).schema
    with (
        atomic_path(path, durable=False) as temporary,
        pq.ParquetWriter(temporary, schema, compression="none", use_dictionary=False) as writer,
    ):
        pieces = _pieces(itertools.chain([first], there))
        for named in _joined(renamed(rows, columns, id_column, where) for rows in pieces):
            writer.write_batch(named)
            if content is not None:
                content.add(named)
    stored = tuple(replace(one, source=one.name) for one in columns)
    files = Files.of(LocalFileSystem(), [(str(path), None)])
    if content is not None:
        files.content = content.fingerprint(stored)
    return files, stored


class Content:
    """A hash of rows that does not depend on their order: the sum of the rows' own hashes. Ids are
    in them, so that no two of a pool are equal and rows cannot change places unseen."""

    def __init__(self) -> None:
        self._sum = self._num_rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Counts rows in."""
        columns = [np.ascontiguousarray(tags(rows, name)) for name in rows.schema.names]
        flat = [one.reshape(rows.num_rows, -1).view(np.uint8) for one in columns]
        rows_NW = np.concatenate(flat, axis=1)
        width, every = rows_NW.shape[1], rows_NW.tobytes()
        for lo in range(0, len(every), width):
            digest = hashlib.blake2b(every[lo : lo + width], digest_size=_DIGEST_BYTES)
            self._sum += int.from_bytes(digest.digest(), "little")
        self._num_rows += rows.num_rows

    def fingerprint(self, columns: Sequence[Column]) -> str:
        """Gives the hash of all rows so far, which have these columns."""
        every = self._sum % (1 << 8 * _DIGEST_BYTES)
        return hashlib.sha256(repr((columns, self._num_rows, every)).encode()).hexdigest()


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Gives the rows in batches that are not large."""
    for batch in batches:
        for lo in range(0, batch.num_rows, _STAGED_ROWS):
            yield batch.slice(lo, _STAGED_ROWS)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Gives the rows in batches that are not small either: each becomes a row group."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.num_rows for one in held) >= _STAGED_ROWS:
            yield pa.concat_batches(held)
            held = []
    if held:
        yield pa.concat_batches(held)


def _dealt(groups: Sequence[Group], most: int) -> Iterator[tuple[Range, ...]]:
    """Gives ranges of up to `most` rows in all; only a larger group is cut."""
    held: list[Range] = []
    num_held = 0
    for group in groups:
        if held and num_held + group.num_rows > most:
            yield tuple(held)
            held, num_held = [], 0
        whole = (group.num_rows - 1) // most * most  # the last piece may take others in
        for start in range(0, whole, most):
            yield (Range(group, start, start + most),)
        held.append(Range(group, whole, group.num_rows))
        num_held += group.num_rows - whole
    if held:
        yield tuple(held)


def _shard(place: int, ranges: Sequence[Range], given: Given) -> Shard:
    where = ", ".join(dict.fromkeys(given.where(one.group) for one in ranges))
    num_rows = sum(one.stop - one.start for one in ranges)
    return Shard("pool", place, where[:200], num_rows, 0, "", 0, 0, 0)
