"""Labels of the test split that the pool does not hold: from a file, or ordered before round 0.

The split itself is made at ingest, by a keyed hash of the id. Its labels come from the pool's label
column where there is one; this page is for pools without.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from rayal.errors import ConfigError, LabelError
from rayal.keys import Keys
from rayal.pool import Pool
from rayal.rundir import label_array
from rayal.types import Ids, Picks, Vocabulary

TEST = -1  # the round under which the ledger holds the order of the test labels

_READERS = {".parquet": pq.read_table, ".csv": pa.csv.read_csv, ".jsonl": pa.json.read_json}


def choose(pool: Pool, num_rows: int, keys: Keys) -> Picks:
    """Gives a keyed uniform sample of the test rows. O(test rows) time, O(num_rows) memory.

    Raises:
        ConfigError: the test split has fewer rows.
    """
    if num_rows > pool.num_test_rows:
        raise ConfigError(
            f"test_budget={num_rows} is more than the {pool.num_test_rows} rows of the test split; "
            "lower it, or ingest with a larger --test-share"
        )
    stream = keys.stream("test order")
    ids, keys_N = np.empty(0, np.int64), np.empty(0)
    for shard in pool.test_shards:
        for rows in pool.batches(shard, ("sample_id",), 1 << 20):
            more = rows.column("sample_id").to_numpy()
            ids = np.concatenate([ids, more])
            keys_N = np.concatenate([keys_N, stream.uniform(more)])
            best = np.lexsort((ids, -keys_N))[:num_rows]
            ids, keys_N = ids[best], keys_N[best]
    chance = np.full(num_rows, num_rows / max(pool.num_test_rows, 1))
    return Picks(ids, keys_N, keys_N, chance, ("drawn from the test split",) * num_rows)


def read_file(path: str, pool: Pool, vocabulary: Vocabulary) -> pa.Table:
    """Gives (sample_id, label), in order of sample_id, of a Parquet, CSV or JSONL file.

    Raises:
        LabelError: a column is missing, an id is given twice or is not in the test split, a label
            is outside the vocabulary.
    """
    place = Path(path).expanduser()
    reader = _READERS.get(place.suffix)
    if reader is None or not place.exists():
        raise LabelError(
            f"test_labels={path} is not there, or is none of {', '.join(_READERS)}; give such a "
            "file with the columns sample_id and label"
        )
    table = reader(place)
    for name in ("sample_id", "label"):
        if name not in table.schema.names:
            raise LabelError(
                f"{place} has no column '{name}' (it has: {', '.join(table.schema.names)}); name "
                "its columns sample_id and label"
            )
    table = table.sort_by("sample_id")
    ids = table.column("sample_id").to_numpy()
    values = table.column("label").to_pylist()
    if len(np.unique(ids)) != len(ids):
        twice = int(ids[np.flatnonzero(np.diff(ids) == 0)[0]])
        raise LabelError(f"{place} gives sample_id {twice} twice; keep one label of it")
    there = ids_among(pool, ids)
    if len(there) != len(ids):
        stranger = int(np.setdiff1d(ids, there)[0])
        raise LabelError(
            f"{place}: sample_id {stranger} is not in the test split ({len(ids) - len(there)} of "
            f"{len(ids)} are not); give labels of test rows only"
        )
    vocabulary.encode(values)
    return pa.table({"sample_id": pa.array(ids), "label": label_array(values, vocabulary)})


def ids_among(pool: Pool, ids: Ids) -> Ids:
    """Gives those of the ids that are test rows, ascending."""
    parts = [np.empty(0, np.int64)]
    for shard in pool.test_shards:
        for rows in pool.batches(shard, ("sample_id",), 1 << 20):
            parts.append(np.intersect1d(rows.column("sample_id").to_numpy(), ids))
    return np.sort(np.concatenate(parts))
