"""One selection: columns in, a batch out, by the engines and strategies of the loop."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import rayal
from rayal.engine.held import HeldEngine
from rayal.engine.local import LocalEngine
from rayal.engine.picking import pick
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
from rayal.selection.work import TEMPORARY, alone_in, open_work, temporary_in
from rayal.storage import explained
from rayal.strategy import Strategy
from rayal.types import Checkpoint, Kind, Picks

_NO_MODEL = Checkpoint("", "given outputs")


@dataclass(frozen=True)
class Selection:
    """What to pick; parts come built.

    Raises:
        ConfigError: the budget is below 1, seed or round are beyond int64, or a part is none.
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
        for name in ("seed", "round"):
            value = getattr(self, name)
            if not -(2**63) <= value < 2**63:
                raise ConfigError(f"{name} is {value}, expected a whole number of up to 64 bits")
        if not isinstance(self.strategy, Strategy):
            raise ConfigError(
                f"strategy is {self.strategy!r}, expected the name of one or a "
                "rayal.strategy.Strategy, which holds a selector, and a scorer where it needs one"
            )
        if not callable(getattr(self.engine, "score", None)):
            raise ConfigError(f"engine is {self.engine!r}, expected local, ray or an engine")

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
        on where it was killed; once one comes to its end those of earlier ones go. Without one they
        lie in a temporary folder below `scratch`, or in memory where the outputs do. O(N) reads of
        the outputs, and what the strategy costs.

        Raises:
            RayalError: what is asked for cannot be had; the message says what to do.
        """
        reporter = reporter or Reporter(quiet=True)
        strategy = self.strategy.for_kind(self.kind)
        given = open_given(outputs)
        plan = plan_of(strategy, self.columns, given.names)
        kept = None if work is None else open_work(work)
        with _temporary(kept, scratch) as folder, explained(kept or folder):
            rows = self._rows(given, plan, folder, kept is not None)
            plan.check_columns(rows.columns)
            num_classes = _num_classes(rows.columns)
            plan = plan.with_classes(self.kind, self._class_names(num_classes))
            known = read_labelled(
                labelled,
                self.columns,
                [source for _, source in plan.wanted],
                self.kind,
                self.classes,
                num_classes,
            )
            pool = rows.pool
            with reporter.phase("read ids", pool.num_rows) as bar:
                num_rows, found = look_at_ids(
                    pool.given, pool.id_column, known.ids, folder / "ids", bar
                )
            self._check_budget(num_rows, int(found.sum()))
            if kept is None:
                engine = HeldEngine() if isinstance(rows.given, Held) else self.engine
                place = folder / "pass"
                picks, note = self._select(pool, plan, known, found, place, engine, reporter)
            else:
                named = (self._described, rows.given.fingerprint, known.fingerprint)
                place = kept / pass_id(*named)
                with alone_in(place):
                    pool = rows.moved(place).pool
                    picks, note = self._select(
                        pool, plan, known, found, place, self.engine, reporter
                    )
        return batch_of(picks, plan.strategy, self.name, self.seed, self.round, note)

    # ------------------------------------------------------------------------------- the rows

    def _rows(self, given: Held | Files | Stream, plan: Plan, folder: Path, is_kept: bool) -> _Rows:
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
            return _Rows(given, columns_of(given, plan.wanted, id_column), id_column)
        names = list(dict.fromkeys((id_column, *(source for _, source in plan.wanted))))
        files, columns = stage(given.read(names), plan.wanted, id_column, folder, is_kept)
        return _Rows(files, columns, "sample_id", is_staged=True)

    def _class_names(self, num_classes: int | None) -> Sequence[str | int]:
        """Gives what the classes are called; where nobody says so their places."""
        if self.kind == "number":
            return ()
        if self.classes is None:
            return range(num_classes or 0)
        if num_classes is not None and len(self.classes) != num_classes:
            raise ConfigError(
                f"there are {len(self.classes)} classes, and probabilities of {num_classes}; give "
                "the classes in the order of the probabilities"
            )
        return self.classes

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
            picks = pick(plan.strategy, done, self.budget, keys)
        finally:
            engine.close()
        return picks, "; ".join(one for one in (*notes, note, picks.note) if one)

    @property
    def _described(self) -> Any:
        """All that the picks depend on but the rows. Another version of rayal may pick others, and
        write other slices."""
        names = [one.name for one in fields(self) if one.name not in ("engine", "name")]
        parts = {name: described(getattr(self, name)) for name in names}
        return {"version": rayal.__version__, **parts}


@dataclass(frozen=True)
class _Rows:
    """Rows that can be read again, and what is read of them."""

    given: Held | Files
    columns: tuple[Column, ...]
    id_column: str
    is_staged: bool = False

    @property
    def pool(self) -> GivenPool:
        return GivenPool.of(self.given, self.columns, self.id_column)

    def moved(self, place: Path) -> _Rows:
        """Gives the rows with those that were staged in the folder of their selection."""
        if not self.is_staged or not isinstance(self.given, Files):
            return self
        return replace(self, given=self.given.moved(place / "outputs.parquet"))


def _num_classes(columns: Sequence[Column]) -> int | None:
    for column in columns:
        if column.name in ("probs", "logits") and column.shape:
            return column.shape[-1]
    return None


@contextlib.contextmanager
def _temporary(kept: Path | None, scratch: str | Path | None) -> Iterator[Path]:
    if kept is not None:
        with temporary_in(kept) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=scratch) as name:
        yield Path(name)
