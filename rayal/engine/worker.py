"""A worker: reads, predicts and scores one shard at a time, and answers for the slices it holds.

A plain class that knows nothing of Ray; it needs torch, numpy and pyarrow only. A reader thread
decodes and encodes while the main thread runs the forward pass.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rayal import metrics
from rayal.engine import survivors
from rayal.engine.scoring import Scoring, ShardReport, Testing
from rayal.engine.survivors import Rows, SliceSpec, Taken
from rayal.errors import RayalError, ScoringError
from rayal.keys import Keys
from rayal.pool import Pool, Shard
from rayal.ranking import Cut, exact_cut, inside, sketch
from rayal.types import Checkpoint, Ids, Outputs, Predictor, Slice

IDS_ONLY_ROWS = 65_536  # rows at a time where nothing but ids is read
_AHEAD = 2  # encoded batches that wait for the forward pass
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MAX_LISTED = 1_000  # undecodable rows that a report names one by one


class ListedCandidates:
    """Slices in one process, asked in a for-loop: what every other `Candidates` must equal."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        self.slices = sorted(slices, key=lambda one: one.key)

    @property
    def num_rows(self) -> int:
        return sum(len(one) for one in self.slices)

    def each(self, ask: Callable[..., Any], step: int, *args: Any) -> list[Any]:
        """Asks every slice in key order."""
        return [ask(one, step, *args) for one in self.slices]


@dataclass(frozen=True)
class _Encoded:
    ids: Ids  # the real rows, without padding
    padded_ids: torch.Tensor
    encoded: Any
    columns: dict[str, torch.Tensor]


class Worker:
    """Scores shards of one pool with one predictor."""

    def __init__(self, pool: Pool, predictor: Predictor) -> None:
        self.pool = pool
        self.predictor = predictor
        self._loaded: tuple[str, Keys] | None = None
        self._taken: tuple[str, Taken] | None = None
        self._slices: dict[SliceSpec, Slice] = {}
        set_num_threads(predictor.num_threads)
        keep_freed_memory()

    # ------------------------------------------------------------------------------- scoring

    def score(self, shard: Shard, scoring: Scoring, cut: Cut | None) -> ShardReport:
        """Scores a shard and leaves its survivors under `scoring.folder`.

        Raises:
            ScoringError: non-finite scores or features, naming shard and first sample_id, or no
                memory.
        """
        done = survivors.read_report(scoring.folder, shard.index)
        if done is not None:
            return done
        self._load(scoring.checkpoint, scoring.checkpoint_path, scoring.keys, scoring.outputs)
        taken = self._read_taken(scoring.taken_path)
        kept = _Survivors(scoring, cut)
        with self._named(shard):
            for ids, outputs in self._outputs(shard, scoring):
                kept.add(shard, ids, outputs, taken)
        report, candidates, labelled = kept.finish(shard)
        survivors.write(scoring.folder, report, candidates, labelled)
        return report

    def _outputs(self, shard: Shard, scoring: Scoring) -> Iterator[tuple[Ids, Outputs]]:
        needs_model = scoring.decode or bool(scoring.outputs)
        columns = tuple(
            dict.fromkeys((*scoring.columns, *(self.predictor.columns() if needs_model else ())))
        )
        only_ids = not columns
        batch_rows = IDS_ONLY_ROWS if only_ids else self.predictor.batch_rows
        for piece in self._encoded(shard, columns, scoring.columns, needs_model, batch_rows):
            if needs_model:
                outputs = self.predictor.predict(piece.padded_ids, piece.encoded, scoring.outputs)
                outputs = _unpadded(outputs, len(piece.ids), piece.columns)
            else:
                ids_N = torch.from_numpy(piece.ids)
                outputs = Outputs(ids_N, piece.columns)
            yield piece.ids, outputs

    def _encoded(
        self,
        shard: Shard,
        columns: Sequence[str],
        score_columns: Sequence[str],
        needs_model: bool,
        batch_rows: int,
    ) -> Iterator[_Encoded]:
        def read() -> Iterator[_Encoded]:
            for rows in self.pool.batches(shard, ("sample_id", *columns), batch_rows):
                ids = rows.column("sample_id").to_numpy()
                extra = {name: _column(rows, name) for name in score_columns}
                encoded, padded_ids = None, torch.empty(0, dtype=torch.int64)
                if needs_model:
                    # A short batch would change the bits of the forward pass, and reorder picks.
                    padded = _pad(rows, batch_rows)
                    padded_ids = torch.from_numpy(padded.column("sample_id").to_numpy().copy())
                    encoded = self.predictor.encode(padded)
                yield _Encoded(ids.copy(), padded_ids, encoded, extra)

        yield from (_read_ahead(read) if needs_model else read())

    # ------------------------------------------------------------------------------- testing

    def test(self, shard: Shard, testing: Testing) -> np.ndarray:
        """Gives a test shard's tally (see `rayal.metrics`); rows without a label count nowhere."""
        labels = self.pool.test_labels(shard)
        vocabulary = testing.vocabulary
        tallies = metrics.no_rows(vocabulary.kind, vocabulary.num_outputs)
        if labels is None:
            return tallies
        self._load(testing.checkpoint, testing.checkpoint_path, testing.keys, ("probs",))
        needs = ("preds",) if vocabulary.kind == "number" else ("probs",)
        start = 0
        columns = self.predictor.columns()
        with self._named(shard):
            for piece in self._encoded(shard, columns, (), True, self.predictor.batch_rows):
                outputs = self.predictor.predict(piece.padded_ids, piece.encoded, needs)
                outputs = _unpadded(outputs, len(piece.ids), {})
                some = labels[start : start + len(piece.ids)]
                start += len(piece.ids)
                known = np.asarray([label is not None for label in some])
                if outputs.rejected is not None:
                    known &= ~outputs.rejected.cpu().numpy()
                truth = vocabulary.encode(
                    [x for x, ok in zip(some, known, strict=True) if ok and x is not None]
                )
                said = outputs[needs[0]].cpu().numpy()[known]
                if not np.isfinite(said).all():
                    raise ScoringError(
                        f"test shard {shard.index}: the model's {needs[0]} are not finite; "
                        "check the training (learning rate, inputs)"
                    )
                tallies = tallies + metrics.tally(vocabulary.kind, truth, said)
        return tallies

    def fetch(self, shard: Shard, ids: Ids, columns: Sequence[str]) -> pa.Table:
        """Gives those of the ids that lie in the shard, in shard order."""
        return self.pool.read_rows(shard, ids, columns)

    # ------------------------------------------------------------------------------- slices

    def ask(
        self, specs: Sequence[SliceSpec], ask: Callable[..., Any], step: int, *args: Any
    ) -> list[Any]:
        """Asks the named slices, reading those it does not hold yet."""
        answers = []
        for spec in specs:
            if spec not in self._slices:
                self._slices[spec] = spec.load()
            answers.append(ask(self._slices[spec], step, *args))
        return answers

    def forget(self) -> None:
        """Drops all slices, and the files they map."""
        self._slices.clear()

    # ------------------------------------------------------------------------------- loading

    def _load(
        self, checkpoint: Checkpoint | None, path: str, keys: Keys, outputs: Sequence[str]
    ) -> None:
        if checkpoint is None:
            if outputs:
                raise ScoringError(
                    f"{', '.join(outputs)} need a model and there is none yet; use a cold_start "
                    "that needs no model, such as strategy@cold_start=random"
                )
            return
        if self._loaded != (checkpoint.model_id, keys):
            self.predictor.load(checkpoint, path, keys)
            self._loaded = (checkpoint.model_id, keys)

    def _read_taken(self, path: str) -> Taken:
        if self._taken is None or self._taken[0] != path:
            self._taken = (path, survivors.read_taken(path))
        return self._taken[1]

    @contextlib.contextmanager
    def _named(self, shard: Shard) -> Iterator[None]:
        try:
            yield
        except RayalError:
            raise
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise ScoringError(
                f"shard {shard.index}: no memory left with predictor.batch_rows="
                f"{self.predictor.batch_rows}; give workers more memory, or lower it in a new "
                "run_dir (it is part of the answer, so rayal does not do so by itself)"
            ) from error


class _Survivors:
    """The rows of one shard that are still above the threshold, pruned as they grow."""

    def __init__(self, scoring: Scoring, cut: Cut | None) -> None:
        self.scoring = scoring
        self.cut = cut
        self.parts: list[Rows] = []
        self.labelled: list[Rows] = []
        self.num_pending_rows = 0
        self.num_rows = 0
        self.num_scored = 0
        self.rejected: list[int] = []
        self.class_counts: np.ndarray | None = None

    def add(self, shard: Shard, ids: Ids, outputs: Outputs, taken: Taken) -> None:
        scorer = self.scoring.scorer
        scores_N = np.zeros(len(ids))
        if scorer is not None:
            scores_N = scorer.score(outputs, self.scoring.keys).double().cpu().numpy()
        place_N = taken.find(ids)
        fresh_N = place_N < 0
        if outputs.rejected is not None:
            rejected_N = outputs.rejected.cpu().numpy()
            self.rejected += ids[rejected_N].tolist()
            fresh_N &= ~rejected_N
        _check_finite(shard, "scores", scores_N, ids, fresh_N, scorer)
        self.num_rows += len(ids)
        self.num_scored += int(np.count_nonzero(fresh_N))
        self._count_classes(outputs, fresh_N)
        keep_N = fresh_N
        if self.cut is not None:
            keep_N = fresh_N & inside(scores_N, ids, self.cut)
        at = np.flatnonzero(keep_N)
        if len(at):
            self.parts.append(self._rows(shard, outputs, ids, scores_N, at))
            self.num_pending_rows += len(at)
            if self.scoring.keep is not None and self.num_pending_rows > 2 * self.scoring.keep:
                self._prune(self.scoring.keep)
        at = np.flatnonzero(place_N >= 0)
        if len(at):
            rows = self._rows(shard, outputs, ids, scores_N, at)
            known = {"label": taken.labels[place_N[at]], "pending": taken.pending[place_N[at]]}
            self.labelled.append(Rows(rows.ids, rows.scores, {**rows.features, **known}))

    def finish(self, shard: Shard) -> tuple[ShardReport, Rows, Rows]:
        """Gives the report and the rows to keep; ids ascend."""
        keep = self.scoring.keep
        if keep is not None and self.num_pending_rows > keep:
            self._prune(keep)
        candidates = _sorted(self.parts, self.scoring.features)
        labelled = _sorted(self.labelled, self.scoring.features)
        found = None
        if keep is not None:
            found = sketch(candidates.scores, candidates.ids, keep)
        counts = () if self.class_counts is None else tuple(int(n) for n in self.class_counts)
        report = ShardReport(
            shard.index,
            self.num_rows,
            self.num_scored,
            len(candidates.ids),
            len(labelled.ids),
            found,
            counts,
            len(self.rejected),
            tuple(sorted(self.rejected)[:_MAX_LISTED]),
        )
        return report, candidates, labelled

    def _prune(self, keep: int) -> None:
        rows = Rows.concat(self.parts)
        cut = exact_cut(ListedCandidates([Slice(0, rows.ids, rows.scores, {})]), keep)
        if cut is not None:
            rows = rows.take(inside(rows.scores, rows.ids, cut))
            self.cut = cut  # who is not among the best of the shard is not among those of the pool
        self.parts, self.num_pending_rows = [rows], len(rows.ids)

    def _rows(
        self, shard: Shard, outputs: Outputs, ids: Ids, scores_N: np.ndarray, at: np.ndarray
    ) -> Rows:
        features = {}
        where = torch.from_numpy(at)
        for name in self.scoring.features:
            tensor = outputs[name]
            array = tensor[where.to(tensor.device)].cpu().numpy()
            if array.dtype.kind == "f":
                finite = np.isfinite(array).reshape(len(array), -1).all(1)
                _check_finite(shard, name, np.where(finite, 0.0, np.nan), ids[at], None, None)
            features[name] = array
        return Rows(ids[at], scores_N[at], features)

    def _count_classes(self, outputs: Outputs, fresh_N: np.ndarray) -> None:
        if "probs" not in outputs.arrays:
            return
        probs_NC = outputs.probs
        predicted_N = outputs.likeliest[1].cpu().numpy()
        counts = np.bincount(predicted_N[fresh_N], minlength=probs_NC.shape[1])
        self.class_counts = counts if self.class_counts is None else self.class_counts + counts


def set_num_threads(num_threads: int) -> None:
    """Gives every math library of this process the same number of threads."""
    torch.set_num_threads(num_threads)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(num_threads)
    pa.set_cpu_count(max(1, num_threads))
    pa.set_io_thread_count(max(1, num_threads))


def keep_freed_memory() -> None:
    """Lets glibc keep up to 256 MiB of freed memory for the next batch; no other C library is told.

    Otherwise the activations of a batch go back to the system, and the next batch faults them in
    anew: 370,000 page faults a million rows, 15 % of the time (64-256-10, batches of 4,096).
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest value that glibc takes
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def has_undecodable(predictor: Predictor, rows: pa.Table) -> bool:
    """Whether a model could not read one of these rows. Needs no checkpoint."""
    for batch in rows.combine_chunks().to_batches(max_chunksize=predictor.batch_rows):
        ids = torch.from_numpy(batch.column("sample_id").to_numpy().copy())
        rejected = predictor.predict(ids, predictor.encode(batch), ()).rejected
        if rejected is not None and bool(rejected.any()):
            return True
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    # What torch raises on a CPU is a RuntimeError like any other, but for its words.
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        one in str(error) for one in words
    )


def _sorted(parts: list[Rows], features: Sequence[str]) -> Rows:
    if not parts:
        empty = {name: np.empty((0, 1), np.float32) for name in features}
        return Rows(np.empty(0, np.int64), np.empty(0), empty)
    rows = Rows.concat(parts)
    return rows if (np.diff(rows.ids) > 0).all() else rows.take(np.argsort(rows.ids))


def _check_finite(
    shard: Shard, what: str, values: np.ndarray, ids: Ids, fresh: np.ndarray | None, part: Any
) -> None:
    bad = ~np.isfinite(values) if fresh is None else ~np.isfinite(values) & fresh
    if not bad.any():
        return
    who = "the predictor" if part is None else type(part).__name__
    raise ScoringError(
        f"shard {shard.index}: {who} gave {int(bad.sum())} non-finite {what} of {len(ids)} rows "
        f"(first sample_id {ids[np.flatnonzero(bad)[0]]}); check the model's outputs and the "
        "pool's features"
    )


def _unpadded(outputs: Outputs, num_rows: int, columns: dict[str, torch.Tensor]) -> Outputs:
    arrays = {name: tensor[:num_rows] for name, tensor in outputs.arrays.items()}
    device = outputs.ids.device
    arrays.update({name: tensor.to(device) for name, tensor in columns.items()})
    rejected = None if outputs.rejected is None else outputs.rejected[:num_rows]
    return Outputs(outputs.ids[:num_rows], arrays, rejected)


def _column(rows: pa.RecordBatch, name: str) -> torch.Tensor:
    from rayal.columns import vectors

    return torch.from_numpy(vectors(rows, name).copy())


def _pad(rows: pa.RecordBatch, batch_rows: int) -> pa.RecordBatch:
    missing = batch_rows - rows.num_rows
    if missing <= 0:
        return rows
    last = np.full(missing, rows.num_rows - 1)
    return rows.take(pa.array(np.concatenate([np.arange(rows.num_rows), last])))


def _read_ahead(read: Callable[[], Iterator[_Encoded]]) -> Iterator[_Encoded]:
    """Gives what `read` yields, made in a thread that runs `_AHEAD` batches before."""
    pieces: queue.Queue[_Encoded | BaseException | None] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(piece: _Encoded | BaseException | None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                pieces.put(piece, timeout=0.1)
                return True
        return False

    def run() -> None:
        try:
            for piece in read():
                if not put(piece):
                    return
            put(None)
        except BaseException as error:  # handed to the main thread, which raises it
            put(error)

    thread = threading.Thread(target=run, name="rayal-reader", daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        stop.set()
        thread.join()
