"""A worker: reads, predicts and scores one shard at a time, and answers for the slices it holds.

A plain class that knows nothing of Ray; it needs torch, numpy and pyarrow only. A reader thread
decodes and encodes while the main thread runs the forward pass.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rayal import copies, metrics
from rayal.engine import embedding as embeddings
from rayal.engine import remembered, survivors
from rayal.engine.again import Probed, Recall
from rayal.engine.batches import encoded, join_small, with_columns
from rayal.engine.embedding import Embedded, Embedding
from rayal.engine.scoring import Again, Rehearsal, Scoring, ShardReport, Testing
from rayal.engine.sieve import Sieve
from rayal.engine.survivors import Rejected, Rows, SliceSpec, Taken
from rayal.errors import RayalError, ScoringError
from rayal.keys import Keys
from rayal.models.explain import is_out_of_memory
from rayal.pool import Pool, Shard
from rayal.ranking import Cut
from rayal.storage import here
from rayal.types import Checkpoint, Ids, Label, Outputs, Predictor, Slice, source_of

_REHEARSED = 64  # rows
IDS_ONLY_ROWS = 65_536  # rows at a time where nothing but ids is read
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


class Worker:
    """Scores shards of one pool with one predictor, or with that of a proxy."""

    def __init__(self, pool: Pool, predictor: Predictor, proxy: Predictor | None = None) -> None:
        self.pool = pool
        self.predictor = predictor
        self.proxy = proxy
        self._loaded: dict[bool, tuple[str, Keys]] = {}  # whether of the proxy -> model and keys
        self._taken: tuple[str, Taken] | None = None
        self._only: tuple[tuple[str, str], Ids] | None = None
        self._recall: tuple[str, Recall] | None = None
        self._slices: dict[SliceSpec, Slice] = {}
        self._folder = ""  # of the pass under way
        if predictor.num_threads:
            set_num_threads(predictor.num_threads)
        keep_freed_memory()

    def rehearse(self, shard: Shard, rehearsal: Rehearsal) -> None:
        """Asks an untrained model for all that the run will need, on a shard's first rows.

        Raises:
            ConfigError, NeedsError: the model cannot give it, as built or as configured.
        """
        predictor = self._predictor(rehearsal.by_proxy)
        rehearse = getattr(predictor, "rehearse", None)
        if rehearse is None:  # a predictor of the user's own need not have one
            return
        columns = tuple(dict.fromkeys(("sample_id", *predictor.columns())))
        for rows in self.pool.batches(shard, columns, min(_REHEARSED, predictor.batch_rows)):
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
        self._drop_earlier(scoring.folder)
        done = survivors.read_report(scoring.folder, shard.index)
        if done is not None:
            return done
        if scoring.again is not None:
            return self._score_again(shard, scoring, scoring.again, cut)
        report, candidates, labelled, rejected = self.sift(shard, scoring, cut)
        survivors.write(scoring.folder, report, candidates, labelled, rejected)
        return report

    def sift(
        self, shard: Shard, scoring: Scoring, cut: Cut | None
    ) -> tuple[ShardReport, Rows, Rows, Rejected]:
        """Gives a shard's report, and what it leaves, in memory: candidates, labelled rows, and
        rows that could not be decoded."""
        self._load(
            scoring.checkpoint,
            scoring.checkpoint_path,
            scoring.keys,
            scoring.outputs,
            scoring.by_proxy,
        )
        taken = self._read_taken(scoring.taken_path)
        kept = Sieve(scoring, cut)
        with self._named(shard):
            for ids, outputs in join_small(self._outputs(shard, scoring)):
                kept.add(shard, ids, outputs, taken)
        report, candidates, labelled, rejected = kept.finish(shard)
        if scoring.allowed_path:
            report = replace(report, num_left_out=shard.num_live - report.num_rows)
        return report, candidates, labelled, rejected

    def _score_again(
        self, shard: Shard, scoring: Scoring, again: Again, cut: Cut | None
    ) -> ShardReport:
        recall, taken = self._recalled(scoring, again), self._read_taken(scoring.taken_path)
        with self._named(shard):
            report, candidates, labelled, rejected, kept = recall.sift(shard, taken, cut)
        survivors.write(scoring.folder, report, candidates, labelled, rejected)
        # Last: where a kill comes between, what is known of an earlier pass is still right.
        remembered.write(again.folder, shard, kept)
        return report

    def probe(self, shard: Shard, scoring: Scoring) -> Probed:
        """Says how rows that seemed to be among the best do under a new model."""
        assert scoring.again is not None
        recall, taken = self._recalled(scoring, scoring.again), self._read_taken(scoring.taken_path)
        with self._named(shard):
            return recall.probe(shard, taken)

    def inputs(self, shard: Shard, number: int) -> np.ndarray:
        """Gives (number, D) float32, at most, what a linear head multiplies, of some rows of a
        shard that keys choose; needs no checkpoint."""
        only = embeddings.keyed_rows(self.pool, shard, "cells", number)
        columns = self.predictor.columns()
        parts = []
        asked = columns, (), self.predictor.batch_rows, only
        for batch in encoded(self.pool, self.predictor, shard, *asked):
            found = self.predictor.inputs(batch.encoded)  # type: ignore[attr-defined]
            if found is not None:
                parts.append(found[: len(batch.ids)].numpy().copy())
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def _recalled(self, scoring: Scoring, again: Again) -> Recall:
        self._load(scoring.checkpoint, scoring.checkpoint_path, scoring.keys, scoring.outputs)
        if self._recall is None or self._recall[0] != scoring.folder:
            recall = Recall(self.pool, self.predictor, scoring, again)
            self._recall = (scoring.folder, recall)
        known = self._recall[1]
        known.again = again  # a pass and its probes share the rest
        return known

    def _outputs(self, shard: Shard, scoring: Scoring) -> Iterator[tuple[Ids, Outputs]]:
        asked_of = self._predictor(scoring.by_proxy)
        needs_model = scoring.decode or bool(scoring.outputs)
        columns = tuple(
            dict.fromkeys(
                (
                    *(source_of(name) for name in scoring.columns),
                    *(asked_of.columns() if needs_model else ()),
                )
            )
        )
        only_ids = not columns
        batch_rows = IDS_ONLY_ROWS if only_ids else asked_of.batch_rows
        predictor = asked_of if needs_model else None
        only = self._read_only(scoring)
        asked = columns, scoring.columns, batch_rows, only
        for batch in encoded(self.pool, predictor, shard, *asked):
            outputs = Outputs(batch.padded_ids, {})
            if predictor is not None:
                outputs = predictor.predict(batch.padded_ids, batch.encoded, scoring.outputs)
            yield batch.ids, with_columns(outputs, batch)

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
            batch_rows = self.predictor.batch_rows
            for batch in encoded(self.pool, self.predictor, shard, columns, (), batch_rows):
                outputs = self.predictor.predict(batch.padded_ids, batch.encoded, needs)
                outputs = with_columns(outputs, batch)
                some = labels[start : start + len(batch.ids)]
                start += len(batch.ids)
                known = np.asarray([label is not None for label in some])
                if outputs.rejected is not None:
                    known &= ~outputs.rejected.cpu().numpy()
                truth = vocabulary.encode(
                    [x for x, ok in zip(some, known, strict=True) if ok and x is not None]
                )
                said = outputs[needs[0]].cpu().numpy()
                wanted = (len(batch.ids), vocabulary.num_outputs)
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
        table = pq.read_table(here(path), columns=["sample_id", "label"])
        known = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
        batches = self.pool.batches(shard, ("sample_id",), IDS_ONLY_ROWS)
        return [known.get(i) for rows in batches for i in rows.column("sample_id").to_pylist()]

    # ------------------------------------------------------------------------------ features

    def measure(self, shard: Shard, embedding: Embedding) -> Any:
        """Gives how far the embeds of some rows of a shard reach: see `rayal.engine.embedding`."""
        self._load_for(embedding)
        with self._named(shard):
            return embeddings.measure(self.pool, self.predictor, shard, embedding)

    def embed(self, shard: Shard, embedding: Embedding) -> Embedded:
        """Writes a shard's features, or finds them there.

        Raises:
            ScoringError: embeds are not finite, or no memory.
        """
        self._load_for(embedding)
        with self._named(shard):
            return embeddings.embed(self.pool, self.predictor, shard, embedding)

    def _load_for(self, embedding: Embedding) -> None:
        path = embedding.checkpoint_path
        self._load(embedding.checkpoint, path, embedding.keys, ("embeds",))

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

    def _drop_earlier(self, folder: str) -> None:
        """Where the run lies in a store, this machine's copies of earlier rounds' passes go."""
        if folder == self._folder:
            return
        self._folder = folder
        passes, (mine, _, _) = Path(folder).parent, Path(folder).name.partition("-")
        if copies.origin(passes) is not None and passes.is_dir():
            for other in passes.iterdir():
                if not other.name.startswith(f"{mine}-"):
                    copies.drop(other)

    def _load(
        self,
        checkpoint: Checkpoint | None,
        path: str,
        keys: Keys,
        outputs: Sequence[str],
        by_proxy: bool = False,
    ) -> None:
        if checkpoint is None:
            if outputs:
                raise ScoringError(
                    f"{', '.join(outputs)} need a model and there is none yet; use a cold_start "
                    "that needs no model, such as strategy@cold_start=random"
                )
            return
        if self._loaded.get(by_proxy) != (checkpoint.model_id, keys):
            self._predictor(by_proxy).load(checkpoint, path, keys)
            self._loaded[by_proxy] = (checkpoint.model_id, keys)

    def _predictor(self, by_proxy: bool) -> Predictor:
        return self.proxy if by_proxy and self.proxy is not None else self.predictor

    def _read_taken(self, path: str) -> Taken:
        if self._taken is None or self._taken[0] != path:
            self._taken = (path, survivors.read_taken(path))
        return self._taken[1]

    def _read_only(self, scoring: Scoring) -> Ids | None:
        """Gives the ids to read: those that may be scored, and the taken ones; None: all."""
        if not scoring.allowed_path:
            return None
        paths = scoring.allowed_path, scoring.taken_path
        if self._only is None or self._only[0] != paths:
            taken = self._read_taken(scoring.taken_path).ids
            self._only = paths, np.union1d(survivors.read_allowed(scoring.allowed_path), taken)
        return self._only[1]

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
    """Gives torch and Arrow so many threads, and all libraries of math that are loaded later."""
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
