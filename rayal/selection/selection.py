"""One selection: columns in, a batch out, by the engines and strategies of the loop."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.engine.held import HeldEngine
from rayal.engine.local import LocalEngine
from rayal.engine.restricted import restricted
from rayal.engine.scoring import Engine, Scoring, pass_id
from rayal.engine.survivors import Taken, write_taken
from rayal.errors import ConfigError
from rayal.keys import Keys
from rayal.progress import Reporter
from rayal.selection.batch import batch_of, described
from rayal.selection.columns import Column, Columns
from rayal.selection.given import Files, Held, Stream, open_given
from rayal.selection.ids import look_at_ids
from rayal.selection.labelled import Labelled, read_labelled
from rayal.selection.needs import Plan, plan_of
from rayal.selection.own_rows import OwnRows
from rayal.selection.pool import GivenPool, columns_of, stage
from rayal.selection.predictor import GivenPredictor
from rayal.storage import explained
from rayal.strategy import Strategy
from rayal.types import Checkpoint, Kind, Picks

_NO_MODEL = Checkpoint("", "given outputs")


@dataclass(frozen=True)
class Selection:
    """What to pick; parts come built.

    Raises:
        ConfigError: the budget is below 1.
    """

    strategy: Strategy
    engine: Engine
    budget: int
    seed: int = 0
    round: int = 0
    kind: Kind = "class"
    classes: Sequence[str | int] | None = None  # of labels, in the order of the probabilities
    columns: Columns = field(default_factory=Columns)
    name: str | None = None  # of the strategy, in the batch

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ConfigError(f"budget is {self.budget}, expected at least 1")

    def run(
        self,
        outputs: Any,
        labelled: Any = None,
        work: str | Path | None = None,
        scratch: str | Path | None = None,
        reporter: Reporter | None = None,
    ) -> pa.Table:
        """Gives the batch, one row a pick in the order picked.

        In the folder `work` slices and the journal of picks stay, so that the same selection goes
        on where it was killed. Without one they lie in a temporary folder below `scratch`, or in
        memory where the outputs do. O(N) reads of the outputs, and what the strategy costs.

        Raises:
            RayalError: what is asked for cannot be had; the message says what to do.
        """
        reporter = reporter or Reporter(quiet=True)
        strategy = self.strategy.for_kind(self.kind)
        given = open_given(outputs)
        plan = plan_of(strategy, self.columns, given.names)
        with _folder(work, scratch) as folder, explained(folder):
            pool = self._pool(given, plan, folder)
            known = read_labelled(
                labelled,
                self.columns,
                [source for _, source in plan.wanted],
                self.kind,
                self.classes,
                _num_classes(pool.columns),
            )
            with reporter.phase("read ids", pool.num_rows) as bar:
                num_rows, found = look_at_ids(
                    pool.given, pool.id_column, known.ids, folder / "ids", bar
                )
            self._check_budget(num_rows, int(found.sum()))
            place = folder / "pass"
            if work is not None:
                source = pool.given if isinstance(given, Stream) else given
                place = folder / pass_id(self._described, source.fingerprint, known.fingerprint)
            is_held = isinstance(pool.given, Held) and work is None
            engine = HeldEngine() if is_held else self.engine
            picks, note = self._select(pool, plan, known, found, place, engine, reporter)
        return batch_of(picks, plan.strategy, self.name, self.seed, self.round, note)

    # ------------------------------------------------------------------------------- the rows

    def _pool(self, given: Held | Files | Stream, plan: Plan, folder: Path) -> GivenPool:
        id_column = self.columns.sample_id
        if id_column not in given.names:
            raise ConfigError(
                f"the outputs have no column '{id_column}' (they have: "
                f"{', '.join(given.names) or 'none'}); name the one with the ids: "
                "columns.sample_id=NAME"
            )
        if isinstance(given, Held) and not isinstance(self.engine, LocalEngine):
            given = given.stream()
        if not isinstance(given, Stream):
            return GivenPool.of(given, columns_of(given, plan.wanted), id_column)
        names = list(dict.fromkeys((id_column, *(source for _, source in plan.wanted))))
        files, columns = stage(given.read(names), plan.wanted, id_column, folder)
        return GivenPool.of(files, columns, "sample_id")

    def _check_budget(self, num_rows: int, num_labelled: int) -> None:
        if self.budget > num_rows - num_labelled:
            raise ConfigError(
                f"budget is {self.budget}, more than the {num_rows - num_labelled} candidates "
                f"({num_rows} rows, {num_labelled} of them labelled); lower it"
            )

    # ----------------------------------------------------------------------------- the choice

    def _select(
        self,
        pool: GivenPool,
        plan: Plan,
        known: Labelled,
        found: np.ndarray,
        place: Path,
        engine: Engine,
        reporter: Reporter,
    ) -> tuple[Picks, str]:
        among, others = known.take(found), known.take(~found)
        predictor = GivenPredictor.of(pool.columns, self.kind, pool.batch_rows)
        keys = Keys(self.seed, self.round)
        scoring = Scoring(
            keys=keys,
            scorer=plan.scorer,
            features=plan.features,
            keep=plan.strategy.keep(self.budget),
            checkpoint=_NO_MODEL,
            checkpoint_path="",
            taken_path=str(place / "taken.arrow"),
            folder=str(place),
            pass_id=place.name,
            kind=self.kind,
        )
        write_taken(Path(scoring.taken_path), Taken(among.ids, among.labels, among.pending))
        own: OwnRows | None = None
        notes = [plan.note]
        if len(others.ids) and plan.sources:
            own = OwnRows.of(others, plan, self.columns, pool, self.kind)
            pool = pool.with_empty(len(own.pool.shards))
        elif len(others.ids):
            notes.append(f"{len(others.ids)} labelled ids are not among the outputs")

        def prepare(one_pass: Scoring) -> None:
            if own is not None:
                own.leave(one_pass, engine)

        try:
            engine.open(pool, predictor, None)
            restriction = plan.strategy.restriction
            scoring, note = restricted(engine, scoring, restriction, self.budget, prepare)
            prepare(scoring)
            with reporter.phase("read rows", pool.num_rows) as bar:
                done = engine.score(scoring, bar)
            picks = plan.strategy.select(done.candidates, done.labelled, self.budget, keys)
            picks = plan.strategy.with_chances(picks, done.tallies.num_scored)
        finally:
            engine.close()
        return picks, "; ".join(one for one in (*notes, note, picks.note) if one)

    @property
    def _described(self) -> Any:
        """All that the picks depend on but the rows."""
        names = [one.name for one in fields(self) if one.name not in ("engine", "name")]
        return {name: described(getattr(self, name)) for name in names}


def _num_classes(columns: Sequence[Column]) -> int | None:
    for column in columns:
        if column.name in ("probs", "logits") and column.shape:
            return column.shape[-1]
    return None


@contextlib.contextmanager
def _folder(work: str | Path | None, scratch: str | Path | None) -> Iterator[Path]:
    if work is not None:
        folder = Path(work).expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=".tmp-rayal-", dir=scratch) as name:
        yield Path(name)
