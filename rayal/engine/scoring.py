"""What a pass over the pool asks for, what a shard answers, what comes next; no transport."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from rayal.keys import Keys
from rayal.pool import Pool, Shard
from rayal.ranking import Cut, Sketch, Threshold
from rayal.strategy import Proxy
from rayal.types import (
    OUTPUTS,
    Candidates,
    Checkpoint,
    Ids,
    Kind,
    Needs,
    Predictor,
    Scorer,
    Trainer,
    Vocabulary,
    source_of,
)


@dataclass(frozen=True)
class Again:
    """What a pass may know of the passes before it: see `rayal.engine.again`."""

    folder: str  # what is remembered of shards, the heads and the cells
    mark: str  # of the pool: decides which rows are scored to see what is missed
    num_classes: int
    floor: float | None = None  # the best M rows all reach this score; None: every row is scored
    look_from: float = 0.0  # for probes: rows that seemed to score at least this
    # Since each model, by how much gaps may have shrunk, as far as was seen; None: heads tell.
    shrunk: Mapping[str, float] | None = None
    audit_share: float = 0.0  # of the rows, scored in any case
    last: str = ""  # the model of the pass before


@dataclass(frozen=True)
class Scoring:
    """One pass: score every row that is not taken, keep the best `keep` with their features."""

    keys: Keys
    scorer: Scorer | None  # None: a pure diversity method, every row scores 0
    features: Needs  # what the selector needs of candidates and labelled rows
    keep: int | None  # M; None: all rows
    checkpoint: Checkpoint | None  # None: nothing that needs a model
    checkpoint_path: str  # the local folder of the checkpoint
    taken_path: str  # spent and pending rows: see survivors.write_taken
    folder: str  # where survivors are written, one file a shard
    pass_id: str  # names everything above that an answer depends on
    decode: bool = False  # decode every row, to reject some, also where nothing needs a model
    kind: Kind = "class"  # of the labels: what a predicted class is
    allowed_path: str = ""  # the only rows to score, see survivors.write_allowed; "": every row
    by_proxy: bool = False  # the proxy's predictor scores, and the checkpoint is its own
    again: Again | None = None  # None: nothing is remembered

    @property
    def needs(self) -> Needs:
        """Gives outputs and pool columns that scorer and selector need, each once."""
        scorer_needs = () if self.scorer is None else self.scorer.needs
        return tuple(dict.fromkeys((*scorer_needs, *self.features)))

    @property
    def outputs(self) -> Needs:
        """Gives what a predictor must say."""
        sources = (source_of(name) for name in self.needs)
        return tuple(dict.fromkeys(name for name in sources if name in OUTPUTS))

    @property
    def columns(self) -> Needs:
        """Gives the needs that are columns of the pool, or made of one."""
        return tuple(name for name in self.needs if source_of(name) not in OUTPUTS)


def pass_id(*parts: Any) -> str:
    """Gives a short name for a pass: equal for equal parts, whatever process asks."""
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ShardReport:
    """What a shard says when it is done; but for `num_kept` the same whoever did it."""

    shard: int
    num_rows: int
    num_scored: int  # rows neither taken nor rejected
    num_kept: int  # survivors in its file
    num_labelled: int
    sketch: Sketch | None
    class_counts: tuple[int, ...] = ()  # predicted class of the scored rows
    num_rejected: int = 0
    rejected: tuple[int, ...] = ()  # sample_ids that could not be decoded, the first thousand
    num_left_out: int = 0  # rows that a restriction left unread; num_rows counts the others
    num_passed: int = 0  # rows that were not scored again; num_rows and num_scored count them
    num_missed: int = 0  # rows that would have been passed by, and reach the floor
    is_placed: bool = False  # a row's bits depend on its place in a batch: none was passed by


@dataclass(frozen=True)
class Tallies:
    """Integer sums over the shards of a pass: the same in any order."""

    num_rows: int = 0
    num_scored: int = 0
    class_counts: tuple[int, ...] = ()
    num_rejected: int = 0
    rejected: tuple[int, ...] = ()
    num_left_out: int = 0

    @classmethod
    def of(cls, reports: Iterable[ShardReport]) -> Tallies:
        """Gives the sums over reports."""
        listed = sorted(reports, key=lambda report: report.shard)
        widths = {len(report.class_counts) for report in listed} - {0}
        counts = np.zeros(max(widths, default=0), np.int64)
        for report in listed:
            if report.class_counts:
                counts += np.asarray(report.class_counts)
        return cls(
            sum(report.num_rows for report in listed),
            sum(report.num_scored for report in listed),
            tuple(int(count) for count in counts),
            sum(report.num_rejected for report in listed),
            tuple(sample_id for report in listed for sample_id in report.rejected),
            sum(report.num_left_out for report in listed),
        )

    def to_json(self) -> dict[str, Any]:
        """Gives a JSON-able form."""
        return asdict(self)


@dataclass
class PassState:
    """Which shards are done and what may be dropped. Reports are kept by shard and replaced, never
    added, so that a shard that was done twice counts once."""

    keep: int | None
    reports: dict[int, ShardReport] = field(default_factory=dict)
    _threshold: Threshold | None = None
    _waiting: list[Sketch] = field(default_factory=list)  # that the threshold does not know yet
    _merged_at: int = 0

    def record(self, report: ShardReport) -> None:
        """Takes a shard's report in place of any earlier one."""
        if report.shard in self.reports:
            self._threshold, self._merged_at, self._waiting = None, 0, []
            others = (r for r in self.reports.values() if r.shard != report.shard)
            self._waiting += [r.sketch for r in others if r.sketch is not None]
        self.reports[report.shard] = report
        if report.sketch is not None:
            self._waiting.append(report.sketch)

    def cut(self) -> Cut | None:
        """Gives a threshold that no row of the exact top `keep` lies below, or None."""
        # Merging sorts 256 pairs a shard: every time at first, then each 5 % more shards.
        if len(self.reports) > self._merged_at * 1.05:
            return self.last_cut()
        return None if self._threshold is None else self._threshold.cut

    def last_cut(self) -> Cut | None:
        """Gives the threshold of all shards so far."""
        if self.keep is None:
            return None
        if self._threshold is None:
            self._threshold = Threshold(self.keep)
        self._threshold.add(self._waiting)
        self._waiting, self._merged_at = [], len(self.reports)
        return self._threshold.cut

    def todo(self, shards: Sequence[Shard]) -> list[Shard]:
        """Gives the shards that have no report yet."""
        return [shard for shard in shards if shard.index not in self.reports]


@dataclass(frozen=True)
class Pass:
    """The end of a pass: candidates and labelled rows where they lie, the sums, and which shards
    hold rows that could not be decoded."""

    candidates: Candidates
    labelled: Candidates
    tallies: Tallies
    rejecting: tuple[int, ...] = ()
    num_passed: int = 0  # rows that were not scored again
    num_missed: int = 0  # see ShardReport
    is_placed: bool = False  # in some shard
    rescored: Mapping[str, Any] | None = None  # how it went, where not every row was scored


@dataclass(frozen=True)
class Testing:
    """One pass over the test split."""

    checkpoint: Checkpoint
    checkpoint_path: str
    vocabulary: Vocabulary
    keys: Keys
    labels_path: str | None = None  # Parquet of sample_id and label; None: the pool's own labels


@dataclass(frozen=True)
class Rehearsal:
    """What a run will ask of its model, tried before a label is bought."""

    needs: Needs
    vocabulary: Vocabulary
    num_members: int
    keys: Keys
    by_proxy: bool = False  # of the proxy's model


@dataclass(frozen=True)
class Fitting:
    """One training: everything a rank must know, all of it small or a path."""

    trainer: Trainer
    labels_path: str  # the snapshot's Parquet
    vocabulary: Vocabulary
    start_path: str | None
    out_path: str
    keys: Keys

    def moved(self, out_path: str) -> Fitting:
        """Gives the same training with another folder to leave the checkpoint in."""
        return replace(self, out_path=out_path)


class Engine(Protocol):
    """Where the work runs. Every engine gives the bits that the local one gives."""

    def open(
        self,
        pool: Pool,
        predictor: Predictor,
        trainer: Trainer | None,
        proxy: Proxy | None = None,
    ) -> None:
        """Starts what it needs; called once, before anything else. No trainer: none will fit."""
        ...

    def renew(self, pool: Pool) -> None:
        """Goes on with the pool as it has grown: from now on its shards are these."""
        ...

    def rehearse(self, rehearsal: Rehearsal) -> None:
        """Refuses what no trained model could give either: see `Worker.rehearse`."""
        ...

    def score(self, scoring: Scoring, progress: Any = None) -> Pass: ...
    def test(self, testing: Testing, progress: Any = None) -> np.ndarray:
        """Gives the test split's tally (see `rayal.metrics`), summed in shard order."""
        ...

    def map(
        self, shards: Sequence[Shard], method: str, argument: Any, progress: Any = None
    ) -> list[Any]:
        """Gives what a method of `Worker` answers for each shard, in the order of the shards."""
        ...

    def rows(self, ids: Ids, columns: Sequence[str]) -> pa.Table:
        """Gives payload rows in the order of ids."""
        ...

    def fit(self, fitting: Fitting) -> Checkpoint: ...
    def describe(self) -> dict[str, Any]:
        """Gives what a note about hardware should hold; never part of an answer."""
        ...

    def close(self) -> None: ...
