"""Writes one shard file: a row group is in memory at a time.

Why the files look as they do, on one core, 524,288 rows in batches of 8,192, millions of rows a
second: ids as deltas; vectors uncompressed and without dictionary (64 uint8: 54, mapped); text by
lz4 (49, against 57 uncompressed at 1.3 times the size, and 25 by zstd at 0.55). Row groups of 2,048
to 65,536 rows read at about the same speed, so they are sized by bytes: a few rows of a shard cost
a few row groups.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayal.columns import content_hash
from rayal.pool.folder import Bench
from rayal.pool.manifest import CONTENT_HASH, FOLDERS, Shard, Split

_GROUP_BYTES = 4 << 20
_MIN_GROUP, _MAX_GROUP = 256, 65_536


def group_rows(row_bytes: float) -> int:
    """Gives how many rows a row group has: about four MiB, and a power of two."""
    fitting = _GROUP_BYTES / max(1.0, row_bytes)
    return int(2 ** np.clip(np.floor(np.log2(fitting)), np.log2(_MIN_GROUP), np.log2(_MAX_GROUP)))


class ShardWriter:
    """One file of a split, open until `close`. Nothing is written before the first row."""

    def __init__(
        self,
        bench: Bench,
        split: Split,
        index: int,
        schema: pa.Schema,
        group: int,
        suffix: str = "",
    ) -> None:
        self._place = f"{FOLDERS[split]}/shard-{index:05d}{suffix}.parquet"
        self._bench, self._split, self._index = bench, split, index
        self._schema, self._group = schema, group
        self._held: list[pa.RecordBatch] = []
        self._num_held = self._num_rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._digest = hashlib.sha256()
        self._min_id, self._max_id = 2**63 - 1, -(2**63)

    def write(self, rows: pa.RecordBatch) -> None:
        """Adds rows; a full row group goes to the file."""
        if not rows.num_rows:
            return
        self._held.append(rows)
        self._num_held += rows.num_rows
        if self._num_held >= self._group:
            self._write_groups(last=False)

    def close(self, first_id: int) -> Shard | None:
        """Gives the entry of the finished file, which a power cut leaves whole, or None where there
        was no row."""
        self._write_groups(last=True)
        if self._writer is None:
            return None
        self._writer.add_key_value_metadata({CONTENT_HASH: self._digest.hexdigest()})
        self._writer.close()
        return Shard(
            split=self._split,
            index=self._index,
            path=self._place,
            num_rows=self._num_rows,
            size_bytes=self._bench.put(self._place),
            content_hash=self._digest.hexdigest(),
            first_id=first_id,
            min_id=self._min_id,
            max_id=self._max_id,
        )

    def _write_groups(self, last: bool) -> None:
        if not self._num_held:
            return
        table = pa.Table.from_batches(self._held, self._schema)
        whole = self._num_held if last else self._num_held - self._num_held % self._group
        for start in range(0, whole, self._group):
            self._write_group(table.slice(start, min(self._group, whole - start)).combine_chunks())
        rest = table.slice(whole)
        self._held, self._num_held = rest.to_batches(), rest.num_rows

    def _write_group(self, table: pa.Table) -> None:
        if self._writer is None:
            path = self._bench.folder / self._place
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = _open(path, self._schema)
        self._writer.write_table(table, row_group_size=len(table))
        ids = table.column("sample_id").to_numpy()
        self._min_id = min(self._min_id, int(ids.min()))
        self._max_id = max(self._max_id, int(ids.max()))
        self._num_rows += len(table)
        # Groups are cut at fixed rows, so the digest does not depend on how the source was read.
        self._digest.update(content_hash(table).encode())


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema,
        compression={field.name: "lz4" for field in schema if pa.types.is_string(field.type)},
        use_dictionary=False,
        column_encoding={"sample_id": "DELTA_BINARY_PACKED"},
        write_statistics=["sample_id"],
        write_page_checksum=True,
    )
