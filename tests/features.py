"""Features of small pools: a model that was trained for a round, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from doors import Doors, Said

from rayal.columns import vectors
from rayal.pool import Pool, open_pool

MODEL = ("model=mlp", "model.module.hidden=[6]", "predictor.batch_rows=64")
COLUMN = "pool.features_column=deep"


def checkpoint_of(doors: Doors, pool: Pool) -> Path:
    """Gives the checkpoint of one round of a small network over a pool."""
    doors.run(pool, "base", *MODEL, "num_rounds=1").done()
    return doors.folder / "base" / "checkpoints" / "r0000"


def embed(doors: Doors, pool: Pool | Path | str, *more: object) -> Said:
    """Gives `rayal embed` of that network."""
    path = pool.path if isinstance(pool, Pool) else pool
    words = ["experiment=embeddings", f"pool.path={path}", *MODEL, "features=sets", *more]
    return doors("embed", *words)


def set_of(said: Said) -> Path:
    """Gives the folder that the command named."""
    return Path(said.done().out.split(": ")[0])


def values_in(pool: Pool, features: Path, column: str = "deep") -> tuple[np.ndarray, np.ndarray]:
    """Gives ids and features of all rows to score, in the order of shards."""
    opened = open_pool(pool.path, features=str(features), features_column=column)
    parts = [
        rows
        for shard in opened.shards
        for rows in opened.batches(shard, ["sample_id", column], 1000)
    ]
    ids = np.concatenate([rows.column("sample_id").to_numpy() for rows in parts])
    return ids, np.concatenate([vectors(rows, column) for rows in parts])
