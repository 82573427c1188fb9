"""The list of rows that could not be decoded, from what the shards of a pass left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayal.engine import survivors
from rayal.pool import Pool
from rayal.storage import atomic_path


def write_rejected(
    path: Path, pool: Pool, t: int, passes: Sequence[tuple[str, Sequence[int]]]
) -> None:
    """Writes a Parquet file of the rows that a round's passes (folder, shards) could not decode:
    `sample_id`, `source_id` where the pool has one, `shard`, `round` and `reason`. It takes the
    place of an earlier one; a row group a shard, so that no more than one shard's are in memory.

    Raises:
        ScoringError: what a shard left cannot be read.
        PoolError: the pool is not what its manifest says.
    """
    names = [name for name in ("sample_id", "source_id") if name in pool.schema.names]
    fields = [pool.schema.field(name).remove_metadata() for name in names]
    more = [("shard", pa.int64()), ("round", pa.int64()), ("reason", pa.string())]
    schema = pa.schema([*fields, *(pa.field(*one) for one in more)])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for folder, shards in passes:
            for table in _tables(pool, names, t, folder, shards):
                writer.write_table(table.cast(schema))


def _tables(
    pool: Pool, names: Sequence[str], t: int, folder: str, shards: Sequence[int]
) -> Iterator[pa.Table]:
    by_index = {shard.index: shard for shard in pool.shards}
    for index in shards:
        rejected = survivors.read_rejected(folder, index)
        rows = pool.read_rows(by_index[index], rejected.ids, names).sort_by("sample_id")
        for name, value in (("shard", index), ("round", t)):
            rows = rows.append_column(name, pa.array(np.full(rows.num_rows, value)))
        yield rows.append_column("reason", pa.array(rejected.reasons, pa.string()))
