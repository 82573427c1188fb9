"""A pool that nobody wrote: probabilities and vectors of a row as a law of its sample_id.

A row's margin grows with its rank in its shard, and a row's rank is a permutation that can be
turned round: so the best rows of a shard of any size are known without looking at the others, and a
predictor that is asked row by row says the same. Every probability is exact in float32; margins tie
within and between shards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rayal.columns import vector_field
from rayal.engine.survivors import Rows
from rayal.keys import Keys, hash_u64, salt, uniform
from rayal.pool import Shard
from rayal.ranking import Cut, rows_inside, score_of
from rayal.types import Checkpoint, Float64s, Ids, Needs, Outputs

VECTOR = "vector"
_CENTERS = 4_096


@dataclass(frozen=True)
class Law:
    """`num_shards` shards of `shard_rows` rows each; ids count through them."""

    num_shards: int
    shard_rows: int
    width: int = 64  # of the int8 vectors, a multiple of 8
    seed: int = 0
    step: float = 2.0**-23  # of a margin: halves are exact in a float32 between 1/2 and 1

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return self.num_shards * self.shard_rows

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The shards, as a manifest lists them."""
        n = self.shard_rows
        return tuple(
            Shard("pool", s, f"shards/shard-{s:05d}.parquet", n, n, "", s * n, s * n, s * n + n - 1)
            for s in range(self.num_shards)
        )

    # --------------------------------------------------------------------------- probabilities

    def margins(self, ids: Ids) -> Float64s:
        """Gives (N,) by how much the likelier of two classes is the likelier."""
        margins = np.empty(len(ids))
        for shard in np.unique(ids // self.shard_rows).tolist():
            at = np.flatnonzero(ids // self.shard_rows == shard)
            rows = ids[at] - shard * self.shard_rows
            ahead, by, _ = self._turn(shard)
            margins[at] = self._margins(shard, ids[at], (ahead * rows + by) % self.shard_rows)
        return margins

    def probs(self, ids: Ids) -> torch.Tensor:
        """Gives (N, 2) float32."""
        margins = self.margins(ids)
        return torch.from_numpy(np.stack([(1 + margins) / 2, (1 - margins) / 2], 1)).float()

    def best(self, shard: int, cut: Cut | None) -> tuple[Ids, Float64s]:
        """Gives ids (ascending) and margin scores of a shard's rows inside a cut; None: of all."""
        n, (_, by, back) = self.shard_rows, self._turn(shard)
        most = n
        if cut is not None:
            worst = 1.0 - float(score_of(np.uint64(cut.key))) + 2 * self.step
            most = min(n, max(0, math.ceil(worst * n / self._slope(shard)) + 1))
        ranks = np.arange(most)
        ids = shard * n + (back * (ranks - by)) % n
        scores = 1.0 - self._margins(shard, ids, ranks)
        order = np.argsort(ids)
        ids, scores = ids[order], scores[order]
        if cut is not None:
            inside = rows_inside(scores, ids, cut)
            ids, scores = ids[inside], scores[inside]
        return ids, scores

    def _margins(self, shard: int, ids: Ids, ranks: np.ndarray) -> Float64s:
        places = (ranks + uniform(salt("place", self.seed), ids)) / self.shard_rows
        return np.floor(places * self._slope(shard) / self.step) * self.step

    def _slope(self, shard: int) -> float:
        """Gives the largest margin of a shard: some hold four times as many close rows."""
        return 0.25 + 0.74 * float(uniform(salt("slope", self.seed), np.array([shard]))[0])

    def _turn(self, shard: int) -> tuple[int, int, int]:
        """Gives a, b and the inverse of a in rank = a row + b, modulo the rows of a shard."""
        n = self.shard_rows
        mixed = int(hash_u64(salt("turn", self.seed), np.array([shard]))[0])
        ahead = 1 + mixed % max(n - 1, 1)
        while math.gcd(ahead, n) > 1:
            ahead += 1
        return ahead, (mixed >> 32) % n, pow(ahead, -1, n)

    # --------------------------------------------------------------------------------- vectors

    def vectors(self, ids: Ids) -> np.ndarray:
        """Gives (N, width) int8: one of 4,096 centers and noise."""
        centers = (hash_u64(salt("center", self.seed), ids) % np.uint64(_CENTERS)).astype(np.int64)
        return (self._bytes("of center", centers) >> 1) + (self._bytes("of row", ids) >> 3)

    def _bytes(self, what: str, ids: Ids) -> np.ndarray:
        words = self.width // 8
        counters = (ids[:, None] * words + np.arange(words)).ravel()
        drawn = hash_u64(salt(what, self.seed), counters)
        return drawn.astype("<u8").view(np.int8).reshape(len(ids), self.width)

    def rows(self, shard: int, cut: Cut | None, features: Needs) -> Rows:
        """Gives what a worker that scores a shard leaves of it."""
        ids, scores = self.best(shard, cut)
        return Rows(ids, scores, {name: self.vectors(ids) for name in features})

    def table(self) -> pa.Table:
        """Gives the rows as a source that can be ingested."""
        ids = np.arange(self.num_rows)
        field = vector_field(VECTOR, np.dtype(np.int8), self.width)
        flat = pa.py_buffer(np.ascontiguousarray(self.vectors(ids)))
        column = pa.Array.from_buffers(field.type, len(ids), [None, flat])
        return pa.table([column], schema=pa.schema([field]))


@dataclass(frozen=True)
class ByLaw:
    """A predictor that knows a row by its id."""

    law: Law
    batch_rows: int = 4_096
    num_threads: int = 1

    def columns(self) -> tuple[str, ...]:
        """Nothing is read."""
        return ()

    def load(self, checkpoint: Checkpoint, path: str, keys: Keys) -> None:
        """There is nothing to load."""

    def encode(self, rows: pa.RecordBatch) -> Any:
        """Nothing is encoded."""
        return None

    def predict(self, ids: torch.Tensor, encoded: Any, needs: Needs) -> Outputs:
        """Gives the probabilities."""
        return Outputs(ids, {"probs": self.law.probs(ids.numpy())})
