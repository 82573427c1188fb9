"""A Parquet file in a store: the bytes of the next row group come while this one is decoded.

Each needed byte is asked for once: columns that lie side by side are one request, and what nobody
needs is not read. Two row groups are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from rayal.places import Ranges

Span: TypeAlias = tuple[int, int]  # first byte, and the one after the last

# A request costs about what 64 KiB cost, but bytes are what a pass is held to: nearer ones only.
_GAP_BYTES = 4 << 10
_THREADS = 4  # requests at once of a process, where a row group's columns lie apart


class StoredFile(pq.ParquetFile):  # type: ignore[misc]
    """A `ParquetFile` over ranges of an object."""

    def __init__(self, ranges: Ranges, verify: bool) -> None:
        self._fetched = _Fetched(ranges)
        super().__init__(self._fetched, pre_buffer=False, page_checksum_verification=verify)

    def iter_batches(
        self,
        batch_size: int,
        row_groups: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        use_threads: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """As of `ParquetFile`, but cut at the ends of row groups, too."""
        groups = list(range(self.num_row_groups) if row_groups is None else row_groups)
        plans = [_spans(self.metadata.row_group(group), columns) for group in groups]
        for place, group in enumerate(groups):
            self._fetched.turn_to(plans[place], *plans[place + 1 : place + 2])
            yield from super().iter_batches(batch_size, [group], columns, use_threads)

    def read_row_group(
        self, i: int, columns: Sequence[str] | None = None, use_threads: bool = False
    ) -> pa.Table:
        """As of `ParquetFile`."""
        self._fetched.turn_to(_spans(self.metadata.row_group(i), columns))
        return super().read_row_group(i, columns, use_threads)


def _spans(group: Any, columns: Sequence[str] | None) -> list[Span]:
    """Gives where the bytes of some columns of a row group lie, neighbours joined."""
    spans: list[Span] = []
    for index in range(group.num_columns):
        column = group.column(index)
        if columns is not None and column.path_in_schema.partition(".")[0] not in columns:
            continue
        start = column.data_page_offset
        if column.has_dictionary_page and column.dictionary_page_offset:
            start = min(start, column.dictionary_page_offset)
        spans.append((start, start + column.total_compressed_size))
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] <= _GAP_BYTES:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


class _Fetched:
    """The file as `ParquetFile` reads it: out of what was fetched, else by a request of its own."""

    closed = False

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._at = 0
        self._coming: dict[Span, Future[pa.Buffer]] = {}

    def turn_to(self, now: Sequence[Span], after: Sequence[Span] = ()) -> None:
        """Lets go of all but these spans, and has them come."""
        coming = self._coming
        self._coming = {}
        for start, end in (*now, *after):
            known = coming.get((start, end))
            if known is None:
                known = _threads().submit(self._ranges.read_at, start, end - start)
            self._coming[start, end] = known

    def read(self, size: int = -1) -> Any:
        end = self._ranges.size_bytes if size < 0 else self._at + size
        content = self._between(self._at, min(end, self._ranges.size_bytes))
        self._at += content.size
        return content

    def _between(self, start: int, end: int) -> pa.Buffer:
        for (first, last), coming in self._coming.items():
            if first <= start and end <= last:
                return coming.result().slice(start - first, end - start)
        return self._ranges.read_at(start, end - start)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = (0, self._at, self._ranges.size_bytes)[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        return self._ranges.size_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        self._coming = {}


_POOLS: list[ThreadPoolExecutor] = []


def _threads() -> ThreadPoolExecutor:
    """Gives the threads of this process that read ahead."""
    if not _POOLS:
        _POOLS.append(ThreadPoolExecutor(_THREADS, thread_name_prefix="rayal-ahead"))
    return _POOLS[0]
