"""Features of a shard's rows: a frozen model's embeds, as codes, in one file beside the shard.

Needs torch, numpy and pyarrow only, as the worker does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.engine.batches import encoded
from rayal.errors import PoolError, ScoringError
from rayal.keys import Keys, hash_u64, salt
from rayal.pool import Pool, Shard
from rayal.pool.feature_file import Counts, FeatureWriter
from rayal.pool.features import FeatureSet
from rayal.types import Checkpoint, Ids, Predictor

SAMPLED_SHARDS, SAMPLED_ROWS = 32, 512  # of these so many a shard say how far int8 must reach
HEADROOM = 1.25  # beyond the largest magnitude that they show
_LARGEST = {"int8": 127.0, "float16": 65_504.0, "float32": float(np.finfo(np.float32).max)}


@dataclass(frozen=True)
class Embedding:
    """What a worker must know to write the features of a shard."""

    features: FeatureSet
    checkpoint: Checkpoint
    checkpoint_path: str
    keys: Keys


class Embedded(NamedTuple):
    """What became of a shard."""

    counts: Counts
    is_new: bool  # it was not there before, or damaged


def sampled(shards: Sequence[Shard], pool: str) -> list[Shard]:
    """Gives the shards whose rows are measured: a choice by their content, in order of index."""
    order = sorted(shards, key=lambda shard: salt("features", pool, shard.content_hash))
    return sorted(order[:SAMPLED_SHARDS], key=lambda shard: shard.index)


def scales_of(reaches: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Gives (D,) float32, what one step of an int8 code is worth in each place: the largest
    magnitude of the measured rows and a quarter, by 127. A place where they are all 0 has the
    largest step of the others."""
    reach_D = np.max(np.stack(reaches), axis=0).astype(np.float64) * HEADROOM
    reach_D[reach_D == 0.0] = reach_D.max() or 1.0
    scales_D = (reach_D / _LARGEST["int8"]).astype(np.float32)
    return np.maximum(scales_D, np.finfo(np.float32).tiny)


def keyed_rows(pool: Pool, shard: Shard, name: str, number: int) -> Ids:
    """Gives the ids of up to so many rows of a shard, ascending, as keys choose them. O(N)."""
    batches = pool.batches(shard, ["sample_id"], 1 << 16)
    parts = [rows.column("sample_id").to_numpy() for rows in batches]
    ids = np.concatenate([np.empty(0, np.int64), *parts])
    order = np.argsort(hash_u64(salt("features", name), ids), kind="stable")
    return np.sort(ids[order[:number]])


def measure(
    pool: Pool, predictor: Predictor, shard: Shard, embedding: Embedding
) -> npt.NDArray[np.float32]:
    """Gives (D,) the largest magnitudes among up to 512 rows of a shard that keys choose."""
    only = keyed_rows(pool, shard, embedding.features.pool, SAMPLED_ROWS)
    reach_D = np.zeros(embedding.features.width, np.float32)
    for _, values_ND, null_N in _embeds(pool, predictor, shard, embedding, only):
        if not null_N.all():
            reach_D = np.maximum(reach_D, np.abs(values_ND[~null_N]).max(0))
    return reach_D


def embed(pool: Pool, predictor: Predictor, shard: Shard, embedding: Embedding) -> Embedded:
    """Writes the file of a shard, or finds that it is there and whole.

    Raises:
        ScoringError: the model gave embeds that are not finite, or of another width.
    """
    features = embedding.features
    if features.place_of(shard).exists():
        try:
            return Embedded(features.file(shard).counts(), is_new=False)
        except PoolError:
            pass  # damaged: this command makes it anew, and puts it in its place
    with features.making(shard) as temporary:
        writer = FeatureWriter(temporary, features.form, shard.content_hash)
        places, done, num_live = pool.living_places(shard), 0, 0
        for ids, values_ND, null_N in _embeds(pool, predictor, shard, embedding):
            codes_ND, num_cut_off = codes_of(values_ND, null_N, features)
            # Removed rows have a place in the shard's file until it is compacted, so here, too.
            there = places[num_live : num_live + len(ids)] - done
            rows_ND = np.zeros((int(there[-1]) + 1, features.width), codes_ND.dtype)
            is_null = np.ones(len(rows_ND), bool)
            rows_ND[there], is_null[there] = codes_ND, null_N
            writer.add(rows_ND, is_null, num_cut_off)
            num_live, done = num_live + len(ids), done + len(rows_ND)
        left = shard.num_rows - done
        nothing = np.zeros((left, features.width), features.form.dtype)
        writer.add(nothing, np.ones(left, bool), 0)
        counts = writer.close()
    return Embedded(counts, is_new=True)


def codes_of(
    values_ND: npt.NDArray[np.float32], null_N: npt.NDArray[np.bool_], features: FeatureSet
) -> tuple[np.ndarray, int]:
    """Gives (N, D) what is stored of float32 values, and how many were too large for it and are
    stored as the largest there is; null rows are not counted. O(N D)."""
    largest = _LARGEST[features.dtype]
    steps_ND = values_ND if features.scales is None else np.rint(values_ND / features.scales)
    num_cut_off = int(np.count_nonzero((np.abs(steps_ND) > largest)[~null_N]))
    return np.clip(steps_ND, -largest, largest).astype(features.form.dtype), num_cut_off


def _embeds(
    pool: Pool, predictor: Predictor, shard: Shard, embedding: Embedding, only: Any = None
) -> Any:
    """Gives (ids, (N, D) float32 embeds, (N,) whether a row has none) by batch."""
    width = embedding.features.width
    asked = predictor.columns(), (), predictor.batch_rows, only
    for batch in encoded(pool, predictor, shard, *asked):
        outputs = predictor.predict(batch.padded_ids, batch.encoded, ("embeds",))
        number = len(batch.ids)
        values_ND = outputs.embeds[:number].cpu().numpy()
        null_N = np.zeros(number, bool)
        if outputs.rejected is not None:
            null_N = outputs.rejected[:number].cpu().numpy()
        if values_ND.shape != (number, width):
            raise ScoringError(
                f"shard {shard.index}: the model gave embeds of shape {values_ND.shape}, expected "
                f"({number}, {width}), as its checkpoint says; train it again, or mend its forward"
            )
        bad_N = ~np.isfinite(values_ND).all(1) & ~null_N
        if bad_N.any():
            first = batch.ids[np.flatnonzero(bad_N)[0]]
            raise ScoringError(
                f"shard {shard.index}: the model gave embeds that are not finite for "
                f"{int(bad_N.sum())} of {number} rows (first sample_id {first}); check the "
                "checkpoint and the pool's values"
            )
        yield batch.ids, values_ND, null_N
