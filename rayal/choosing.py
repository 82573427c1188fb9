"""The choice of a batch: the passes over the pool, the picks, and the rows that they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rayal.engine.picking import pick
from rayal.engine.rejects import write_rejected
from rayal.engine.rescoring import Grounds, Rescoring, score_again
from rayal.engine.restricted import proxied, restricted
from rayal.engine.scoring import Engine, Pass, Scoring, pass_id
from rayal.engine.survivors import Taken, read_rejected, write_taken
from rayal.errors import ScoringError
from rayal.keys import Keys
from rayal.pool import Pool
from rayal.progress import Reporter, Stopwatch
from rayal.rundir import RunDir
from rayal.storage import named
from rayal.strategy import Proxy, Strategy
from rayal.types import Checkpoint, Kind, Picks, Predictor

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Asked:
    """What a batch is chosen by; `name` is that of the run."""

    t: int
    strategy: Strategy
    budget: int
    keys: Keys
    taken: Taken
    name: str
    checkpoint: Checkpoint | None = None
    by_proxy: Checkpoint | None = None  # of the proxy; None: no proxy stands before the strategy
    decode: bool = False  # every row, also where no model runs


@dataclass(frozen=True)
class Chooser:
    """Chooses batches with an engine, and leaves what the passes write in a run's folder."""

    engine: Engine
    dir: RunDir
    kind: Kind
    proxy: Proxy | None
    max_rejected_share: float
    clock: Stopwatch
    progress: Reporter
    predictor: Predictor
    num_classes: int
    rescoring: Rescoring | None = None

    def choose(self, pool: Pool, asked: Asked) -> tuple[Pass, Picks, pa.Table]:
        """Gives the last pass over the pool, the picks, and their rows in the order picked.

        Raises:
            ScoringError: more rows could not be decoded than `max_rejected_share` allows.
            RayalError: what scorer, selector or predictor refuse.
        """
        scoring, note = self._scoring(pool, asked), ""
        before: list[tuple[str, Sequence[int]]] = []  # what the proxy's pass rejected
        with self.clock("score"):
            if self.proxy is not None and asked.by_proxy is not None:
                folder = f"{scoring.folder}-proxy"
                scoring, by_proxy, note = self._past_proxy(pool, scoring, asked)
                before.append((folder, by_proxy.rejecting))
            with self.progress.phase(f"round {asked.t} score", pool.num_rows) as bar:
                strategy = asked.strategy
                scoring, said = restricted(self.engine, scoring, strategy.restriction, asked.budget)
                place, budget = self.dir.path / "rescoring", asked.budget
                grounds = Grounds(self.predictor, pool, place, self.num_classes, budget)
                done, how = score_again(self.rescoring, self.engine, scoring, grounds, bar)
        if how is not None:
            self.progress.say(f"round {asked.t}: {how.line}")
            done = replace(done, rescored=how.note())
        note = "; ".join(one for one in (note, said) if one)
        if note:
            self.progress.say(f"round {asked.t}: {note}")
        self._check_rejected(pool, asked.t, done, scoring.folder, before)
        with self.clock("select"):
            picks = pick(asked.strategy, done, asked.budget, asked.keys)
            picks = replace(picks, note="; ".join(one for one in (note, picks.note) if one))
        with self.clock("fetch"):
            rows = self.engine.rows(picks.ids, pool.schema.names)
        return done, picks, rows

    def _scoring(self, pool: Pool, asked: Asked) -> Scoring:
        strategy, checkpoint = asked.strategy, asked.checkpoint
        taken_path = self.dir.round(asked.t) / "taken.arrow"
        write_taken(taken_path, asked.taken)
        keep = strategy.keep(asked.budget)
        taken_hash = hashlib.sha256(asked.taken.ids.tobytes()).hexdigest()
        depends = [keep, strategy.selector.needs, taken_hash, asked.decode, pool.content_hash]
        if asked.by_proxy is not None:
            depends.append(asked.by_proxy.model_id)
        name = pass_id(asked.name, asked.t, checkpoint and checkpoint.model_id, *depends)
        scoring = Scoring(
            keys=asked.keys,
            scorer=strategy.scorer,
            features=strategy.selector.needs,
            keep=keep,
            checkpoint=checkpoint,
            checkpoint_path="" if checkpoint is None else str(self.dir.inside(checkpoint.path)),
            taken_path=str(taken_path),
            folder=str(self.dir.pass_folder(asked.t, name)),
            pass_id=name,
            decode=asked.decode,
            kind=self.kind,
        )
        Path(scoring.folder).mkdir(parents=True, exist_ok=True)
        return scoring

    def _past_proxy(self, pool: Pool, scoring: Scoring, asked: Asked) -> tuple[Scoring, Pass, str]:
        assert self.proxy is not None
        assert asked.by_proxy is not None
        path = str(self.dir.inside(asked.by_proxy.path))
        with self.progress.phase(f"round {asked.t} proxy", pool.num_rows) as bar:
            only, done, note = proxied(self.engine, scoring, self.proxy, asked.by_proxy, path, bar)
        self._check_rejected(pool, asked.t, done, f"{scoring.folder}-proxy")
        return only, done, note

    def _check_rejected(
        self,
        pool: Pool,
        t: int,
        done: Pass,
        folder: str,
        before: Sequence[tuple[str, Sequence[int]]] = (),
    ) -> None:
        tallies = done.tallies
        if not tallies.num_rejected:
            return
        path = self.dir.path / "rejected.parquet"
        write_rejected(path, pool, t, [*before, (folder, done.rejecting)])
        place = named(path)
        first = read_rejected(folder, done.rejecting[0]).reasons[0]
        share = tallies.num_rejected / tallies.num_rows
        found = f"{tallies.num_rejected} of {tallies.num_rows} rows could not be decoded"
        if share > self.max_rejected_share:
            raise ScoringError(
                f"{found}, more than max_rejected_share={self.max_rejected_share:g} allows (first "
                f"sample_id {tallies.rejected[0]}: {first}; all are listed in {place}); mend the "
                "source, or raise it"
            )
        self.progress.say(f"{found} and are left out; they are listed in {place}")
