"""Gold questions: rows whose label is known, asked among others to see how good annotators are.

They come from the test split, so that no model is trained on them, and go out like any other row.
Their answers lie in the ledger under a round of their own and are labels of nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rayal.keys import Keys
from rayal.pool import Pool
from rayal.rundir import RunDir, label_array, sample_ids
from rayal.types import PICK_COLUMNS, Batch, Ids, Label, Picks, Snapshot, Vocabulary

GOLD = -2  # the round under which the ledger holds the answers to gold questions
STEP = "gold"  # of the round that asks them

_LABEL = "gold_label"  # the column of gold.parquet that never leaves
_ROWS = 1 << 20


@dataclass(frozen=True)
class Gold:
    """Draws a run's gold questions: `share` of a batch more, rounded up; of a small test split all
    rows whose label is known."""

    share: float
    pool: Pool
    dir: RunDir
    seed: int
    vocabulary: Vocabulary

    def num_of(self, num_rows: int) -> int:
        """Gives how many questions more are asked with so many rows."""
        return math.ceil(self.share * num_rows)

    def pick(self, t: int, num_rows: int, exam: Snapshot | None) -> Batch:
        """Draws the questions of round t, to go out with `num_rows` rows, and writes them with
        their labels. `exam`: the labels of the test split where the pool has none. O(test rows)
        time, O(questions and a test shard) memory."""
        ids, keys_N, labels = np.empty(0, np.int64), np.empty(0), np.empty(0, object)
        stream = Keys(self.seed, t).stream("gold")
        for more, told in self._known(exam):
            ids = np.concatenate([ids, more])
            keys_N = np.concatenate([keys_N, stream.uniform(more)])
            labels = np.concatenate([labels, told])
            best = np.lexsort((ids, -keys_N))[: self.num_of(num_rows)]
            ids, keys_N, labels = ids[best], keys_N[best], labels[best]
        why = ("its label is known",) * len(ids)
        picks = Picks(ids, keys_N, keys_N, np.full(len(ids), np.nan), why)
        rows = self.pool.rows(ids, self.pool.schema.names)
        rows = rows.append_column(_LABEL, label_array(labels.tolist(), self.vocabulary))
        return self.dir.write_batch(t, picks, rows, "gold.parquet")

    def mixed(self, t: int, rows: pa.Table, gold: Batch) -> pa.Table:
        """Gives a batch's rows with the questions among them: the order of the others is kept, and
        no column tells them apart."""
        questions = self.dir.read(gold)
        num_all = rows.num_rows + questions.num_rows
        if not questions.num_rows or not rows.num_rows:
            return rows
        draws = Keys(self.seed, t).stream("gold places").uniform(np.arange(num_all))
        is_gold = np.zeros(num_all, bool)
        is_gold[np.argsort(draws, kind="stable")[: questions.num_rows]] = True
        # A reason or a score would: they have those of the row that comes before them.
        before = np.maximum(np.cumsum(~is_gold)[is_gold] - 1, 0)
        like = rows.take(pa.array(before))
        for name in PICK_COLUMNS:
            place = questions.schema.get_field_index(name)
            questions = questions.set_column(place, name, like.column(name))
        both = pa.concat_tables([rows, questions.select(rows.schema.names)])
        places = np.empty(num_all, np.int64)
        places[~is_gold] = np.arange(rows.num_rows)
        places[is_gold] = rows.num_rows + np.arange(questions.num_rows)
        return both.take(pa.array(places))

    def _known(self, exam: Snapshot | None) -> Iterator[tuple[Ids, np.ndarray]]:
        """Gives ids and labels of test rows whose label is known, some at a time."""
        if exam is not None:
            table = self.dir.read(exam)
            yield sample_ids(table), _objects(table.column("label").to_pylist())
            return
        for shard in self.pool.test_shards:
            told = self.pool.test_labels(shard)
            if told is None:
                continue
            parts = self.pool.batches(shard, ("sample_id",), _ROWS)
            ids = np.concatenate([rows.column("sample_id").to_numpy() for rows in parts])
            is_known = np.asarray([one is not None for one in told], bool)
            yield ids[is_known], _objects(told)[is_known]


def answers_of(run_dir: RunDir, gold: Batch) -> dict[int, Label]:
    """Gives the known label of each question; one that was erased has none."""
    told = run_dir.read(gold, ["sample_id", _LABEL]).to_pydict()
    pairs = zip(told["sample_id"], told[_LABEL], strict=True)
    return {sample_id: label for sample_id, label in pairs if label is not None}


def _objects(labels: list[Label | None]) -> np.ndarray:
    """Gives (L,) labels: lists stay lists."""
    out = np.empty(len(labels), object)
    out[:] = labels
    return out
