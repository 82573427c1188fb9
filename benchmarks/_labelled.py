"""The source of `make_pool.py` with a label a row, so that runs train on it: which of a row's first
ten features is the largest."""

from __future__ import annotations

from pathlib import Path

import make_pool
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUM_CLASSES = 10
_SCHEMA = make_pool.SCHEMA.append(pa.field("label", pa.string()))
_NAMES = pa.array([f"class-{number}" for number in range(NUM_CLASSES)])


def block(first: int, num_rows: int) -> pa.RecordBatch:
    """Gives some rows of the source."""
    rows = make_pool.block(first, num_rows)
    largest_N = make_pool.features(first, num_rows)[:, :NUM_CLASSES].argmax(1)
    labels = _NAMES.take(pa.array(largest_N.astype(np.int64)))
    return pa.RecordBatch.from_arrays([*rows.columns, labels], schema=_SCHEMA)


def make(path: Path, num_rows: int) -> None:
    """Writes the source as one file, unless it is there whole."""
    if path.exists():
        return
    part = path.with_suffix(".part")
    with pq.ParquetWriter(
        part,
        _SCHEMA,
        compression={"key": "zstd"},
        use_dictionary=["embedding.list.element", "label"],
    ) as writer:
        for first in range(0, num_rows, make_pool.BLOCK_ROWS):
            writer.write_batch(block(first, min(make_pool.BLOCK_ROWS, num_rows - first)))
    part.rename(path)
