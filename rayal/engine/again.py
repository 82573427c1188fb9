"""Scoring again what may have changed enough: the worker's side.

A shard's rows are known by what `remembered` keeps of them. Those whose score cannot reach `floor`,
which the best M rows of the pool all reach, are passed by; all others are read and scored in the
same batches, padded to the same size, as in a pass over all rows. What a row that is passed by adds
to the tallies is known as well: its likeliest class cannot have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rayal.columns import is_vector, vector_shape
from rayal.engine import remembered
from rayal.engine.batches import Batch, encoded, join_small, pad, with_columns
from rayal.engine.bounds import AtMost, Shrinkage, rules, seen_of, shrinkage, softmax_error
from rayal.engine.remembered import FARTHEST, UNIT, UNKNOWN, Remembered
from rayal.engine.scoring import Again, Scoring, ShardReport
from rayal.engine.sieve import Sieve, check_finite
from rayal.engine.survivors import Rejected, Rows, Taken
from rayal.keys import salt, uniform
from rayal.models.head import LinearHead, Matrix
from rayal.pool import Pool, Shard
from rayal.probabilities import ROUGH, top_three
from rayal.ranking import Cut, Sketch, order_key, score_of, sketch
from rayal.scorers.asked import scores_of
from rayal.storage import here
from rayal.types import Bounded, Ids, Outputs, Predictor, source_of

CELLS = "cells.npz"
SHRINK_STEP, MOST_STEPS = 1.0 / 64.0, 64 * 130  # a gap is at most 60, and at least log 1e-30
_SLACK = 64.0 * 2.0**-23  # of sums of float32 logarithms up to 64, and of comparisons
_LAST_ID = 2**63 - 1
_PIECE_BYTES = 128 << 20  # of vectors of the rows that are read at a time
_TABLES_BYTES = 128 << 20  # of shrinkages that a worker holds, one a model
Places = npt.NDArray[np.intp]


class Headed(Protocol):
    """A predictor that can say that its model is a linear head, such as TorchPredictor."""

    def head(self, path: str) -> LinearHead | None: ...
    def inputs(self, encoded: Any) -> torch.Tensor | None: ...


class Probed(NamedTuple):
    """What a shard says of some of its rows under the new model, before the pass."""

    sketch: Sketch  # scores of those that may be picked and seemed to be among the best
    steps: Places  # by how much the gaps of rows shrank that keys chose, in `SHRINK_STEP`, up
    counts: npt.NDArray[np.int64]  # of how many rows, by these steps


def head_path(folder: str, model_id: str) -> Path:
    """Gives where the head of a model lies."""
    return Path(folder) / "heads" / f"{model_id[:32]}.npz"


class Recall:
    """What a worker does with what is remembered, in one pass."""

    def __init__(self, pool: Pool, predictor: Predictor, scoring: Scoring, again: Again) -> None:
        assert isinstance(scoring.scorer, Bounded)
        assert scoring.checkpoint is not None
        self.pool, self.predictor = pool, predictor
        self.scoring, self.again = scoring, again
        self.scorer: Bounded = scoring.scorer
        self.model_id = scoring.checkpoint.model_id
        self.is_exact = again.shrunk is None
        cells = here(Path(again.folder) / CELLS)
        self.centers_GD: Matrix = np.zeros((1, 1))
        self.step = 1.0
        if self.is_exact:
            with np.load(cells) as found:
                self.centers_GD, self.step = found["centers"], float(found["step"])
        self._error = softmax_error(again.num_classes) + ROUGH
        self._shrinkages: dict[str, Shrinkage | AtMost | None] = {}
        self._is_free: bool | None = None

    # ------------------------------------------------------------------------------ which rows

    def out_of_reach(self, kept: Remembered, floor: float) -> Places:
        """Gives the places of the rows whose likeliest class is as it was, and whose score is below
        the floor, for sure. O(N)."""
        error = self._error
        listed = rules(self.scorer.highest, floor, error)
        parts = [np.zeros(0, np.intp)]
        model_N = np.where(kept.arrays["cell"] == UNKNOWN, UNKNOWN, kept.arrays["model"])
        for number, model in reversed(list(enumerate(kept.models))):  # room goes to the newest
            rows = np.flatnonzero(model_N == number)
            found = self._since(model) if len(rows) else None
            if found is None:
                continue
            top_N, second_N, cell_N = (
                kept.arrays[name].take(rows).astype(np.intp) for name in ("top", "second", "cell")
            )
            radius_N = kept.arrays["radius"].take(rows) * np.float32(self.step)
            odds_N, gap_N, third_N = (
                kept.logarithms(name, rows) for name in ("odds", "gap", "third")
            )
            any_N, one_N = found(top_N, second_N, cell_N, radius_N)
            gap_N = np.minimum(gap_N - one_N, third_N - any_N)
            odds_N -= any_N
            is_out = np.zeros(len(rows), bool)
            for odds, gap in listed:  # a comparison with NaN is false: such a row is scored
                is_out |= (gap_N > np.float32(gap + _SLACK)) & (odds_N > np.float32(odds + _SLACK))
            parts.append(rows[is_out])
        return np.concatenate(parts)

    def seemed_best(self, kept: Remembered) -> Places:
        """Gives the places of the rows that seemed to score at least `look_from`, when they were
        scored last. O(N)."""
        least = 1.0 / self.again.num_classes  # of the likeliest class
        gap_N = kept.arrays["gap"]
        near = gap_N <= _steps_below(self.scorer, least, self.again.look_from)
        rows = np.flatnonzero(near & (kept.arrays["model"] != UNKNOWN))
        odds_N, gaps_N = (
            kept.logarithms(name, rows).astype(np.float64) for name in ("odds", "gap")
        )
        scores_N = self.scorer.highest(1.0 / (1.0 + np.exp(-odds_N)), np.maximum(gaps_N, 0.0))
        return rows[scores_N >= self.again.look_from]

    def chosen(self, shard: Shard) -> npt.NDArray[np.bool_]:
        """Gives which rows keys choose to be scored in any case, to see what is missed; the rows of
        a shard are known by their places."""
        places = np.arange(shard.num_rows, dtype=np.int64)
        key = salt("again", self.again.mark, shard.content_hash)
        return uniform(key, places) < self.again.audit_share

    def _since(self, model: str) -> Shrinkage | AtMost | None:
        """Gives by how much gaps may have shrunk since a model; None: nobody knows."""
        if model not in self._shrinkages:
            self._shrinkages[model] = self._settle(model)
        return self._shrinkages[model]

    def _settle(self, model: str) -> Shrinkage | AtMost | None:
        if self.again.shrunk is not None:
            most = self.again.shrunk.get(model)
            return None if most is None else AtMost(most)
        table_bytes = 4 * self.again.num_classes**2
        if (1 + len(self._shrinkages)) * table_bytes > _TABLES_BYTES:
            return None
        paths = [here(head_path(self.again.folder, one)) for one in (model, self.model_id)]
        if not all(path.exists() for path in paths):
            return None
        then, now = (LinearHead.read(path) for path in paths)
        return shrinkage(then, now, self.centers_GD, self.step * FARTHEST)

    # -------------------------------------------------------------------------------- a shard

    def sift(
        self, shard: Shard, taken: Taken, cut: Cut | None
    ) -> tuple[ShardReport, Rows, Rows, Rejected, Remembered]:
        """Gives what `Worker.sift` gives, and what to remember of the shard from now on."""
        kept = remembered.read(self.again.folder, shard)
        living = self.pool.living_places(shard)
        needed = np.zeros(shard.num_rows, bool)
        needed[living] = True
        passed, audited = np.zeros(0, np.intp), np.zeros(0, np.intp)
        floor = self.again.floor
        is_placed = floor is not None and not self.is_free(shard)
        if is_placed:
            floor = None  # probes had rows at other places, and the last of the best may miss it
        if floor is not None:
            is_out = np.zeros(shard.num_rows, bool)
            is_out[self.out_of_reach(kept, floor)] = True
            is_out &= needed
            is_out[self.pool.places(shard, taken.ids)] = False
            if self.again.audit_share:
                audited = np.flatnonzero(is_out & self.chosen(shard))
                is_out[audited] = False
            needed &= ~is_out
            passed = np.flatnonzero(is_out)
        # The floor alone where it is audited: a cut of the moment depends on who came first.
        sieve = Sieve(self.scoring, _higher(None if self.again.audit_share else cut, floor))
        places = np.flatnonzero(needed)
        rows_of = places if len(passed) else None  # else in the batches of a pass over all rows
        number = kept.number_of(self.model_id)
        batches = self._scored(shard, kept, number, places, rows_of)
        for ids, outputs in join_small(batches):
            sieve.add(shard, ids, outputs, taken)
        report, candidates, labelled, rejected = sieve.finish(shard)
        report = replace(self._with_passed(report, kept, passed), is_placed=is_placed)
        if len(audited):
            missed = self.pool.ids_at(shard, audited)
            report = replace(report, num_missed=int(np.isin(candidates.ids, missed).sum()))
        return report, candidates, labelled, rejected, kept

    def probe(self, shard: Shard, taken: Taken) -> Probed:
        """Scores those rows of a shard that seemed to be among the best, and those that keys
        choose, and says how they do under the new model. Nothing is kept of it."""
        kept = remembered.read(self.again.folder, shard)
        wanted = np.zeros(shard.num_rows, bool)
        wanted[self.seemed_best(kept)] = True
        seen = np.zeros(shard.num_rows, bool)
        if self.again.audit_share and self.again.last in kept.models:
            number = kept.models.index(self.again.last)
            seen = self.chosen(shard) & (kept.arrays["model"] == number)
        living = self.pool.living_places(shard)
        places = living[(wanted | seen)[living]]
        ids, scores, shrinks = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0)]
        start = 0
        for batch, outputs in self._predicted(shard, places):
            rows = places[start : start + len(batch.ids)]
            start += len(batch.ids)
            found_N = scores_of(self.scorer, outputs, self.scoring.keys).cpu().numpy()
            fresh_N = wanted[rows]
            fresh_N[taken.find(batch.ids)[0]] = False
            if outputs.rejected is not None:
                fresh_N &= ~outputs.rejected.cpu().numpy()
            check_finite(shard, "scores", found_N, batch.ids, fresh_N, self.scorer)
            ids.append(batch.ids[fresh_N])
            scores.append(found_N[fresh_N])
            here = np.flatnonzero(seen[rows])
            if len(here):
                shrinks.append(_shrinks(kept, rows[here], outputs.probs.cpu().numpy()[here]))
        keep = self.scoring.keep or 0
        found = sketch(np.concatenate(scores), np.concatenate(ids), keep)
        steps_N = np.ceil(np.nan_to_num(np.concatenate(shrinks), nan=np.inf) / SHRINK_STEP)
        counts = np.bincount(np.clip(steps_N, 0, MOST_STEPS).astype(np.intp))
        steps = np.flatnonzero(counts)
        return Probed(found, steps, counts[steps])

    def is_free(self, shard: Shard) -> bool:
        """Whether a row has the same bits wherever in a batch it is, here and with this model:
        looked at once a pass, on a batch and the same one shuffled. Where not, all is scored."""
        if self._is_free is None:
            columns = tuple(dict.fromkeys(("sample_id", *self.predictor.columns())))
            rows = next(self.pool.batches(shard, columns, self.predictor.batch_rows), None)
            self._is_free = rows is None or self._alike(pad(rows, self.predictor.batch_rows))
        return self._is_free

    def _alike(self, rows: pa.RecordBatch) -> bool:
        order = np.argsort(uniform(salt("again"), np.arange(rows.num_rows)), kind="stable")
        found = []
        for places in (np.arange(rows.num_rows), order):
            some = rows.take(pa.array(places))
            ids = torch.from_numpy(some.column("sample_id").to_numpy().copy())
            outputs = self.predictor.predict(ids, self.predictor.encode(some), ("probs",))
            probs_NC = outputs.probs.cpu().numpy()
            if outputs.rejected is not None:  # which row stands in for these, places do decide
                rejected_N = outputs.rejected.cpu().numpy()
                probs_NC = np.where(rejected_N[:, None], np.float32(0.0), probs_NC)
            found.append(probs_NC)
        return bool(np.array_equal(found[0][order], found[1], equal_nan=True))

    def _with_passed(self, report: ShardReport, kept: Remembered, passed: Places) -> ShardReport:
        if not len(passed):
            return report
        counts = np.bincount(kept.arrays["top"][passed], minlength=self.again.num_classes)
        before = np.array(report.class_counts or np.zeros_like(counts))
        return replace(
            report,
            num_rows=report.num_rows + len(passed),
            num_scored=report.num_scored + len(passed),
            class_counts=tuple(int(n) for n in before + counts),
            num_passed=len(passed),
        )

    # ------------------------------------------------------------------------------- scoring

    def _scored(
        self, shard: Shard, kept: Remembered, number: int, places: Places, rows_of: Places | None
    ) -> Iterator[tuple[Ids, Outputs]]:
        """Gives ids and outputs by batch, and notes what they say of the rows."""
        start = 0
        for batch, outputs in self._predicted(shard, rows_of):
            rows = places[start : start + len(batch.ids)]
            start += len(batch.ids)
            self._note(kept, number, rows, batch, outputs)
            yield batch.ids, outputs

    def _predicted(self, shard: Shard, places: Places | None) -> Iterator[tuple[Batch, Outputs]]:
        scoring, predictor = self.scoring, self.predictor
        columns = dict.fromkeys(
            (*(source_of(name) for name in scoring.columns), *predictor.columns())
        )
        row_bytes = sum(
            vector_shape(one)[0].itemsize * vector_shape(one)[1]
            for one in map(self.pool.schema.field, columns)
            if is_vector(one)
        )
        num_batches = _PIECE_BYTES // max(row_bytes, 1) // predictor.batch_rows
        size = max(1, num_batches) * predictor.batch_rows
        pieces: list[Places | None] = [None]
        if places is not None:
            pieces = [places[lo : lo + size] for lo in range(0, len(places), size)]
        for piece in pieces:
            asked = tuple(columns), scoring.columns, predictor.batch_rows
            for batch in encoded(self.pool, predictor, shard, *asked, places=piece):
                outputs = predictor.predict(batch.padded_ids, batch.encoded, scoring.outputs)
                yield batch, with_columns(outputs, batch)

    def _note(
        self, kept: Remembered, number: int, rows: Places, batch: Batch, outputs: Outputs
    ) -> None:
        good = np.arange(len(rows))
        if outputs.rejected is not None:
            kept.arrays["model"][rows] = UNKNOWN  # it is read again, and rejected again
            good = np.flatnonzero(~outputs.rejected.cpu().numpy())
        classes_NK, ranked_NK = top_three(outputs)
        seen = seen_of(ranked_NK[good], self._error)
        kept.set_seen(rows[good], number, classes_NK[good], *seen)
        new = good[kept.arrays["cell"][rows[good]] == UNKNOWN]
        if len(new):
            kept.set_cells(rows[new], *self._cells(batch, new), self.step)

    def _cells(self, batch: Batch, new: Places) -> tuple[np.ndarray, npt.NDArray[np.float64]]:
        if not self.is_exact:
            return np.zeros(len(new), np.uint8), np.zeros(len(new))
        inputs = self._headed.inputs(batch.encoded)
        assert inputs is not None, "rows that could be read have inputs"
        inputs_ND = inputs.numpy()[new]
        centers_GD = self.centers_GD.astype(np.float32)
        lengths_G = 0.5 * np.einsum("gd,gd->g", centers_GD, centers_GD)
        cell_N = (inputs_ND @ centers_GD.T - lengths_G).argmax(1)  # any cell would do, this is best
        away_ND = inputs_ND.astype(np.float64) - self.centers_GD[cell_N]
        return cell_N, np.sqrt(np.einsum("nd,nd->n", away_ND, away_ND)) * (1.0 + 1e-9)

    @property
    def _headed(self) -> Any:
        return self.predictor


def _shrinks(
    kept: Remembered, rows: Places, probs_NC: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Gives by how much the gap to whoever is second shrank since the rows were scored last."""
    top_N = kept.arrays["top"][rows].astype(np.intp)
    probs_NC = np.maximum(probs_NC.astype(np.float64), 1e-30)
    at = np.arange(len(rows))
    first_N = probs_NC[at, top_N].copy()
    probs_NC[at, top_N] = 0.0
    gap_N = np.log(first_N / probs_NC.max(1))
    return np.minimum(kept.logarithms("gap", rows), 60.0) - np.minimum(gap_N, 60.0)


def _steps_below(scorer: Bounded, first: float, score: float) -> int:
    """Gives a gap, as it is kept, above which no row scores as much, however unlikely its likeliest
    class is."""
    for steps in (1 << power for power in range(15)):
        gap = np.array([steps * UNIT])
        if float(scorer.highest(np.array([first]), gap)[0]) < score:
            return steps
    return 1 << 15


def _higher(cut: Cut | None, floor: float | None) -> Cut | None:
    """Gives the higher of a cut and the one below which no row of the best lies."""
    if floor is None:
        return cut
    low = Cut(int(order_key(np.array([floor]))[0]), _LAST_ID)
    return low if cut is None or score_of(np.uint64(cut.key)) < floor else cut


def shares(shrunk: Mapping[str, float], step: float, last: str) -> dict[str, float]:
    """Gives by how much gaps may have shrunk since each model, a step after the last."""
    return {model: most + step for model, most in {**shrunk, last: 0.0}.items()}
