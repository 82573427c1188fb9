"""A worker: reads, predicts and scores one shard at a time, and answers for the slices it holds.

A plain class that knows nothing of Ray; it needs torch, numpy and pyarrow only. A reader thread
decodes and encodes while the main thread runs the forward pass.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rayal import metrics
from rayal.columns import odd_lists, vectors
from rayal.engine import survivors
from rayal.engine.scoring import Rehearsal, Scoring, ShardReport, Testing
from rayal.engine.sieve import Sieve
from rayal.engine.survivors import SliceSpec, Taken
from rayal.errors import RayalError, ScoringError
from rayal.keys import Keys
from rayal.models.explain import is_out_of_memory
from rayal.pool import Pool, Shard
from rayal.ranking import Cut
from rayal.types import Checkpoint, Ids, Label, Outputs, Predictor, Slice

_REHEARSED = 64  # rows
IDS_ONLY_ROWS = 65_536  # rows at a time where nothing but ids is read
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class _Encoded:
    ids: Ids  # the real rows, without padding
    padded_ids: torch.Tensor
    encoded: Any
    columns: dict[str, torch.Tensor]
    odd: npt.NDArray[np.intp]  # positions of rows that a column has no value for


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

    def rehearse(self, shard: Shard, rehearsal: Rehearsal) -> None:
        """Asks an untrained model for all that the run will need, on a shard's first rows.

        Raises:
            ConfigError, NeedsError: the model cannot give it, as built or as configured.
        """
        rehearse = getattr(self.predictor, "rehearse", None)
        if rehearse is None:  # a predictor of the user's own need not have one
            return
        columns = tuple(dict.fromkeys(("sample_id", *self.predictor.columns())))
        for rows in self.pool.batches(shard, columns, min(_REHEARSED, self.predictor.batch_rows)):
            with self._named(shard):
                rehearse(
                    rows,
                    rehearsal.needs,
                    rehearsal.vocabulary,
                    rehearsal.num_members,
                    rehearsal.keys,
                )
            return

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
        kept = Sieve(scoring, cut)
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
            yield piece.ids, _without(outputs, piece.odd) if len(piece.odd) else outputs

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
                ids = rows.column("sample_id").to_numpy().copy()
                odd = _odd(rows, score_columns)
                extra = {name: _column(rows, name, odd) for name in score_columns}
                encoded, padded_ids = None, torch.empty(0, dtype=torch.int64)
                if needs_model:
                    # A short batch would change the bits of the forward pass, and reorder picks.
                    padded = _pad(rows, batch_rows)
                    padded_ids = torch.from_numpy(
                        ids if padded is rows else padded.column("sample_id").to_numpy().copy()
                    )
                    encoded = self.predictor.encode(padded)
                yield _Encoded(ids, padded_ids, encoded, extra, odd)

        yield from (_read_ahead(read) if needs_model else read())

    # ------------------------------------------------------------------------------- testing

    def test(self, shard: Shard, testing: Testing) -> np.ndarray:
        """Gives a test shard's tally (see `rayal.metrics`); rows without a label count nowhere."""
        labels = self._test_labels(shard, testing.labels_path)
        vocabulary = testing.vocabulary
        tallies = metrics.no_rows(vocabulary.kind, vocabulary.num_outputs)
        if labels is None or all(label is None for label in labels):
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
                said = outputs[needs[0]].cpu().numpy()
                wanted = (len(piece.ids), vocabulary.num_outputs)
                if said.shape != wanted:
                    raise ScoringError(
                        f"test shard {shard.index}: {type(self.predictor).__name__} gave "
                        f"{needs[0]} of shape {said.shape}, expected {wanted}, as the vocabulary "
                        "says; correct the predictor, or the vocabulary"
                    )
                said = said[known]
                if not np.isfinite(said).all():
                    raise ScoringError(
                        f"test shard {shard.index}: the model's {needs[0]} are not finite; "
                        "check the training (learning rate, inputs)"
                    )
                tallies = tallies + metrics.tally(vocabulary.kind, truth, said)
        return tallies

    def _test_labels(self, shard: Shard, path: str | None) -> list[Label | None] | None:
        if path is None:
            return self.pool.test_labels(shard)
        table = pq.read_table(path, columns=["sample_id", "label"])
        known = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
        batches = self.pool.batches(shard, ("sample_id",), IDS_ONLY_ROWS)
        return [known.get(i) for rows in batches for i in rows.column("sample_id").to_pylist()]

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
            if not is_out_of_memory(error):
                raise
            raise ScoringError(
                f"shard {shard.index}: no memory left with predictor.batch_rows="
                f"{self.predictor.batch_rows}; give workers more memory, or lower it in a new "
                "run_dir (it is part of the answer, so rayal does not do so by itself)"
            ) from error


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


def _unpadded(outputs: Outputs, num_rows: int, columns: dict[str, torch.Tensor]) -> Outputs:
    if num_rows == len(outputs.ids) and not columns:
        return outputs
    arrays = {name: tensor[:num_rows] for name, tensor in outputs.arrays.items()}
    device = outputs.ids.device
    arrays.update({name: tensor.to(device) for name, tensor in columns.items()})
    rejected = None if outputs.rejected is None else outputs.rejected[:num_rows]
    return Outputs(outputs.ids[:num_rows], arrays, rejected)


def _odd(rows: pa.RecordBatch, columns: Sequence[str]) -> npt.NDArray[np.intp]:
    """Gives the positions of rows that one of these columns has no vector for."""
    odd = [odd_lists(rows, name) for name in columns]
    return np.unique(np.concatenate(odd)) if odd else np.empty(0, np.intp)


def _column(rows: pa.RecordBatch, name: str, odd: npt.NDArray[np.intp]) -> torch.Tensor:
    if not len(odd):
        return torch.from_numpy(vectors(rows, name).copy())
    good = np.setdiff1d(np.arange(rows.num_rows), odd)
    values = vectors(rows.take(pa.array(good)), name)
    filled = np.zeros((rows.num_rows, *values.shape[1:]), values.dtype)
    filled[good] = values
    return torch.from_numpy(filled)


def _without(outputs: Outputs, odd: npt.NDArray[np.intp]) -> Outputs:
    rejected = torch.zeros(len(outputs.ids), dtype=torch.bool, device=outputs.ids.device)
    rejected[torch.from_numpy(odd)] = True
    if outputs.rejected is not None:
        rejected |= outputs.rejected
    return Outputs(outputs.ids, outputs.arrays, rejected)


def _pad(rows: pa.RecordBatch, batch_rows: int) -> pa.RecordBatch:
    missing = batch_rows - rows.num_rows
    if missing <= 0:
        return rows
    last = np.full(missing, rows.num_rows - 1)
    return rows.take(pa.array(np.concatenate([np.arange(rows.num_rows), last])))


def _read_ahead(read: Callable[[], Iterator[_Encoded]]) -> Iterator[_Encoded]:
    """Gives what `read` yields, made in a thread that is one piece ahead.

    More would leave a core's cache before it is used. Two bare locks hand the piece over: a
    `queue.Queue` takes ten times as long, which a small model's pass would feel.
    """
    taken, made = threading.Lock(), threading.Lock()
    made.acquire()
    place: list[_Encoded | BaseException | None] = [None]
    is_over = False

    def hand_over(piece: _Encoded | BaseException | None) -> bool:
        taken.acquire()
        if is_over:
            return False
        place[0] = piece
        made.release()
        return True

    def run() -> None:
        try:
            for piece in read():
                if not hand_over(piece):
                    return
            hand_over(None)
        except BaseException as error:  # handed to the main thread, which raises it
            hand_over(error)

    thread = threading.Thread(target=run, name="rayal-reader", daemon=True)
    thread.start()
    try:
        while True:
            made.acquire()
            piece, place[0] = place[0], None
            taken.release()
            if piece is None:
                return
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        is_over = True
        with contextlib.suppress(RuntimeError):
            taken.release()  # it may wait there
        thread.join()
