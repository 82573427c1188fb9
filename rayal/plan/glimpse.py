"""A small part of a pool that engines read like the whole: some shards, and of each its first rows.

Workers know the pool since they were hired, and are given shards one by one: so it is the shard
that says how much of it counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa

from rayal.pool import Pool, Shard
from rayal.types import Label


@dataclass(frozen=True)
class PartOfShard(Shard):
    """A shard of which only the first rows count."""

    most_rows: int = 0

    @property
    def num_live(self) -> int:
        """Rows that somebody may read."""
        return min(self.most_rows, self.num_rows - self.num_removed)


@dataclass(frozen=True)
class Glimpse(Pool):
    """A pool that reads no more of a `PartOfShard` than counts."""

    @classmethod
    def of(cls, pool: Pool) -> Glimpse:
        """Gives the same pool; all shards are whole until parts are asked for."""
        return cls(**{one.name: getattr(pool, one.name) for one in fields(pool)})

    def part(self, places: Sequence[int], most_rows: int) -> Glimpse:
        """Gives the pool of some of its ranges, by place among those to score, with the first
        `most_rows` rows of each file to score or to test on."""
        index = {self.shards[place].index for place in places}
        shards = [
            shard if shard.split == "labels" else _first_rows(shard, most_rows)
            for shard in self.manifest.shards
            if shard.index in index
        ]
        return replace(self, manifest=replace(self.manifest, shards=tuple(shards)))

    def batches(
        self, shard: Shard, columns: Sequence[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Gives what counts of a shard's rows, cut as the whole shard's are."""
        left = shard.num_live
        for rows in super().batches(shard, columns, batch_rows):
            if rows.num_rows >= left:
                yield rows.slice(0, left)
                return
            left -= rows.num_rows
            yield rows

    def test_labels(self, shard: Shard) -> list[Label | None] | None:
        """Gives the labels of a test shard's rows that count."""
        if self.vocabulary is None or not isinstance(shard, PartOfShard):
            return super().test_labels(shard)
        batches = self.batches(shard, ("sample_id",), max(1, shard.num_live))
        ids = np.concatenate([rows.column("sample_id").to_numpy() for rows in batches])
        known: dict[int, Label] = {}
        for labels in self.manifest.of("labels"):
            if labels.index == shard.index:
                known = self._labels(labels, np.unique(ids))
        return [known.get(sample_id) for sample_id in ids.tolist()]


def spread(num_shards: int, wanted: int) -> list[int]:
    """Gives places spread evenly over the shards, first and last among them."""
    wanted = min(num_shards, wanted)
    return sorted({round(place) for place in np.linspace(0, num_shards - 1, wanted)})


def _first_rows(shard: Shard, most_rows: int) -> PartOfShard:
    known = {one.name: getattr(shard, one.name) for one in fields(Shard)}
    return PartOfShard(**known, most_rows=most_rows)
