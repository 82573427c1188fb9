"""Scoring again what may have changed enough: what a run asks for, and the driver's side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rayal import neighbors
from rayal.engine.again import CELLS, MOST_STEPS, SHRINK_STEP, Probed, head_path, shares
from rayal.engine.embedding import sampled
from rayal.engine.remembered import BYTES_A_ROW, FARTHEST, MOST_CELLS, MOST_CLASSES
from rayal.engine.scoring import Again, Engine, Pass, Scoring
from rayal.errors import ConfigError
from rayal.models.head import LinearHead
from rayal.pool import Pool
from rayal.ranking import Threshold, exact_cut, score_of
from rayal.storage import atomic_path, here, write_text
from rayal.types import Bounded, Kind, Predictor, Scorer

_LAST, _PASS = "last.json", "again.json"
_ROWS_A_SHARD = 128  # of the sample that cells are made of
_MOST_SAMPLED = 1 << 24  # bytes of it
_QUARTER = 0.25  # of M: how fast scores fall there tells how far below the cut probes begin
_MOST_PAIRED = 2048  # classes: a bound takes 4 bytes a pair, and 40 while it is made
_SEEN = 0.999  # of the rows that were seen shrank by less than what is taken for the most


@dataclass(frozen=True)
class Rescoring:
    """Passes by rows whose score cannot have risen into the best M since they were scored last.

    With a linear head (`rayal.models.modules.Linear`, or a module of your own with `linear`) in
    float32 the bound is rigorous, and picks, slices and tallies are those of a pass over all rows:
    `num_cells` cells, nearest centers of k-means, say where a row lies. It serves scorers that
    state a bound (`Bounded`: margin, least confidence) and one label a row. Of any other model it
    knows no bound, and scores all.

    `max_missed_share` above 0 lets other models be served, too, by what is seen: gaps are taken to
    shrink no more than they did, but for one in a thousand, in a sample of `audit_share` of the
    rows, which keys choose. The same sample is scored in every pass: where it shows that more than
    `max_missed_share` of the best M were passed by, all rows are scored after all. Such a run may
    pick other rows than one without it.

    14 bytes a row on disk, below the run's folder, and no pool that needs more than `max_gib` of
    them; O(N) for the bounds, then a pass over the rows that remain. A bound holds a number for
    each pair of classes, so there are at most 2,048 of them for a linear head; rows whose last
    model no room is left for are scored.
    """

    num_cells: int = 64
    max_missed_share: float = 0.0
    audit_share: float = 0.01
    max_gib: float = 16.0

    def __post_init__(self) -> None:
        if not 1 <= self.num_cells <= MOST_CELLS:
            raise ConfigError(
                f"rescoring.num_cells is {self.num_cells}, expected 1 to {MOST_CELLS}"
            )
        if not 0.0 <= self.max_missed_share < 1.0:
            raise ConfigError(
                f"rescoring.max_missed_share is {self.max_missed_share:g}, expected 0 (only where "
                "the bound is rigorous) to below 1"
            )
        if not 0.0 < self.audit_share <= 0.5:
            raise ConfigError(
                f"rescoring.audit_share is {self.audit_share:g}, expected more than 0, to 0.5"
            )
        if not self.max_gib > 0.0:
            raise ConfigError(f"rescoring.max_gib is {self.max_gib:g}, expected more than 0")

    def no_use(
        self,
        kind: Kind,
        num_classes: int,
        scorer: Scorer | None,
        keep: int | None,
        is_restricted: bool,
        num_rows: int,
    ) -> str:
        """Gives why all rows are scored, whatever the model is, and nothing is kept of them; "":
        there is no reason."""
        if kind != "class" or not 2 <= num_classes <= MOST_CLASSES:
            return f"labels are of kind {kind}, with {num_classes} classes"
        if not isinstance(scorer, Bounded):
            name = "no scorer" if scorer is None else type(scorer).__name__
            return f"{name} states no bound of a score (margin and least_confidence do)"
        if keep is None:
            return "the selector wants all rows, of any score"
        if is_restricted:
            return "a restriction or a proxy chooses the rows"
        if num_rows * BYTES_A_ROW > self.max_gib * 2**30:
            return (
                f"what is kept of {num_rows:,} rows takes {num_rows * BYTES_A_ROW / 2**30:.3g} "
                f"GiB, more than rescoring.max_gib={self.max_gib:g}"
            )
        return ""

    def no_bound(self, has_head: bool, num_classes: int) -> str:
        """Gives why there is no bound of a model with or without a linear head; "": there is."""
        if has_head and num_classes > _MOST_PAIRED:
            return (
                f"{num_classes} classes are more than the {_MOST_PAIRED} that are kept pair by pair"
            )
        if not has_head and not self.max_missed_share:
            return (
                "the model is no linear head in float32, and rescoring.max_missed_share is 0, so "
                "that only a rigorous bound will do"
            )
        return ""


@dataclass(frozen=True)
class Said:
    """How a pass went, for the round's note and the progress line."""

    how: str  # rigorous, observed, or none with the reason
    num_rows: int = 0
    num_passed: int = 0
    missed_share: float | None = None  # as the audit estimates it, where there is one
    fell_back: bool = False
    is_placed: bool = False

    @property
    def line(self) -> str:
        """Gives the progress line."""
        if self.how not in ("rigorous", "observed"):
            return f"all rows were scored: {self.how}"
        scored = self.num_rows - self.num_passed
        share = scored / max(self.num_rows, 1)
        text = f"{share:.1%} of {self.num_rows:,} rows were scored again, by a bound that is "
        text += self.how
        if self.missed_share is not None:
            text += f"; the audit says that {self.missed_share:.2%} of the best were missed"
        if self.is_placed:
            text += (
                "; here a row's last bits depend on its place in a batch, so that none was passed "
                "by (on a CPU features whose width is a multiple of 8 are free of that)"
            )
        return text + (", so all rows were scored" if self.fell_back else "")

    def note(self) -> dict[str, Any]:
        """Gives what the ledger notes."""
        return asdict(self)


@dataclass(frozen=True)
class Grounds:
    """What a run has that a pass by a bound must know."""

    predictor: Predictor
    pool: Pool
    place: Path  # where what is remembered lies
    num_classes: int
    budget: int  # how many of the best a round may take away


def score_again(
    rescoring: Rescoring | None,
    engine: Engine,
    scoring: Scoring,
    grounds: Grounds,
    progress: Any = None,
) -> tuple[Pass, Said | None]:
    """Gives a pass as `engine.score` gives it, over the rows that it needs, and how it went.
    Without a rescoring or a model: over all rows, and nothing to say."""
    if rescoring is None or scoring.checkpoint is None:
        return engine.score(scoring, progress), None
    head = head_of(grounds.predictor, scoring.checkpoint_path)
    why = _why_not(rescoring, scoring, head, grounds)
    if why:
        return engine.score(scoring, progress), Said(why)
    return _Driver(rescoring, engine, scoring, grounds, head).run(progress)


def head_of(predictor: Predictor, checkpoint_path: str) -> LinearHead | None:
    """Gives the linear head of a model, None where it has none."""
    find = getattr(predictor, "head", None)
    return None if find is None else find(checkpoint_path)


def _why_not(
    rescoring: Rescoring, scoring: Scoring, head: LinearHead | None, grounds: Grounds
) -> str:
    num_rows = sum(shard.num_rows for shard in grounds.pool.shards)
    is_restricted = bool(scoring.allowed_path)
    of_run = scoring.kind, grounds.num_classes, scoring.scorer, scoring.keep, is_restricted
    return rescoring.no_use(*of_run, num_rows) or rescoring.no_bound(
        head is not None, grounds.num_classes
    )


class _Driver:
    """One pass."""

    def __init__(
        self,
        rescoring: Rescoring,
        engine: Engine,
        scoring: Scoring,
        grounds: Grounds,
        head: LinearHead | None,
    ) -> None:
        assert scoring.checkpoint is not None
        assert scoring.keep is not None
        self.rescoring, self.engine, self.scoring = rescoring, engine, scoring
        self.pool, self.budget = grounds.pool, grounds.budget
        # What was remembered with other cells, or of another kind of model, says nothing here.
        cells = f"cells-{rescoring.num_cells}"
        self.place = grounds.place / (cells if head is not None else "observed")
        self.head, self.keep, self.model_id = head, scoring.keep, scoring.checkpoint.model_id
        self.again = Again(
            str(self.place),
            grounds.pool.manifest.test_key,
            grounds.num_classes,
            shrunk=None if head is not None else {},
            audit_share=0.0 if head is not None else rescoring.audit_share,
        )

    def run(self, progress: Any) -> tuple[Pass, Said]:
        """Probes, passes over what is needed, audits, and notes where the next pass begins."""
        self.place.mkdir(parents=True, exist_ok=True)
        if self.head is not None:
            self._leave_head(self.head)
        again = self._settled()
        done = self.engine.score(replace(self.scoring, again=again), progress)
        missed, fell_back = None, False
        num_passed = done.num_passed
        if again.shrunk is not None and again.floor is not None:
            share = again.audit_share
            missed = done.num_missed * (1.0 - share) / share / self.keep
            fell_back = missed > self.rescoring.max_missed_share
        if fell_back:
            folder = f"{self.scoring.folder}-all"
            Path(folder).mkdir(parents=True, exist_ok=True)
            whole = replace(self.scoring, folder=folder, pass_id=f"{self.scoring.pass_id}-all")
            done = self.engine.score(replace(whole, again=replace(again, floor=None)), progress)
        self._note_last(done, again)
        how = "rigorous" if self.head is not None else "observed"
        is_placed = done.is_placed
        return done, Said(how, done.tallies.num_rows, num_passed, missed, fell_back, is_placed)

    # ------------------------------------------------------------------------------ before it

    def _leave_head(self, head: LinearHead) -> None:
        path = here(head_path(str(self.place), self.model_id))
        if not path.exists():
            head.write(path)
        cells = here(self.place / CELLS)
        if not cells.exists():
            centers_GD, farthest = self._centers(head.weights_CD.shape[1])
            step = np.array(4.0 * farthest / FARTHEST)  # rows four times as far have a cell, too
            with atomic_path(cells) as temporary, temporary.open("wb") as file:
                np.savez(file, centers=centers_GD, step=step)

    def _centers(self, width: int) -> tuple[np.ndarray, float]:
        """Gives (G, D) float64 centers, and how far from them rows of the sample lie."""
        shards = sampled(self.pool.shards, "cells")
        rows = max(1, min(_ROWS_A_SHARD, _MOST_SAMPLED // (4 * width * len(shards))))
        found = self.engine.map(shards, "inputs", rows)
        parts = [one for one in found if one.shape[1:] == (width,)]
        if not parts:
            return np.zeros((1, width)), 1.0
        sample, number = np.concatenate(parts), self.rescoring.num_cells
        centers_GD = neighbors.train_kmeans(sample, number, seed=0).astype(np.float64)
        _, squares_N = neighbors.assign(sample, centers_GD)
        return centers_GD, float(np.sqrt(squares_N.max())) or 1.0

    def _settled(self) -> Again:
        """Gives what workers are told: what an attempt that was killed told them, where there was
        one, so that rows are judged alike in the whole pass."""
        path = here(Path(self.scoring.folder) / _PASS)
        if not path.exists():
            write_text(path, json.dumps(self._asked()))
        return replace(self.again, **json.loads(path.read_text()))

    def _asked(self) -> dict[str, Any]:
        last = self._read_last()
        if last is None:
            return {}
        again = replace(self.again, look_from=last["look_from"], last=last["model_id"])
        probes = self.engine.map(self.pool.shards, "probe", replace(self.scoring, again=again))
        asked = {"floor": self._floor(probes)}
        if self.again.shrunk is None:
            return asked
        step = _most(probes)
        if step is None:
            return {}
        return {**asked, "shrunk": shares(last["shrunk"], step, last["model_id"])}

    def _floor(self, probes: Sequence[Probed]) -> float | None:
        """Gives a score that the best M rows all reach: M rows that may be picked do."""
        found = Threshold(self.keep)
        found.add([probe.sketch for probe in probes])
        return None if found.cut is None else float(score_of(np.uint64(found.cut.key)))

    # ------------------------------------------------------------------------------- after it

    def _read_last(self) -> Mapping[str, Any] | None:
        path = here(self.place / _LAST)
        found = json.loads(path.read_text()) if path.exists() else None
        # A pass that was done, and whose picks were not recorded, is done again as it was asked.
        if found is not None and found["model_id"] == self.model_id:
            return found["before"]
        return found

    def _note_last(self, done: Pass, again: Again) -> None:
        """Notes where the next pass looks for rows that are likely to be the best: below the cut,
        so far that about M and a quarter are left when this round's picks are gone, if scores lie
        as close there as those of the last quarter of M."""
        before = self._read_last()
        low, high = (
            self._score_at(done, self.keep),
            self._score_at(done, int(self.keep * (1.0 - _QUARTER))),
        )
        if low is None or high is None:
            # Not M rows: there is nothing to choose. Written, since a store keeps what is unlinked.
            write_text(self.place / _LAST, "null")
            return
        last = {
            "model_id": self.model_id,
            "look_from": low - (high - low) * (1.0 + self.budget / (_QUARTER * self.keep)),
            "shrunk": dict(again.shrunk or {}),
            "before": None if before is None else {**before, "before": None},
        }
        write_text(self.place / _LAST, json.dumps(last))

    def _score_at(self, done: Pass, number: int) -> float | None:
        if number < 1 or number > done.candidates.num_rows:
            return None
        if number == done.candidates.num_rows:
            return float(min(done.candidates.each(_lowest, 0)))
        cut = exact_cut(done.candidates, number)
        return None if cut is None else float(score_of(np.uint64(cut.key)))


def _lowest(part: Any, step: int) -> float:
    return float(part.scores.min()) if len(part) else np.inf


def _most(probes: Sequence[Probed]) -> float | None:
    """Gives what all but one in a thousand of the gaps that were seen shrank by at most; None: too
    few were seen to say."""
    counts = np.zeros(MOST_STEPS + 1, np.int64)
    for probe in probes:  # whole: those that shrank most may lie in few shards
        counts[probe.steps] += probe.counts
    place = int(counts.sum() * (1.0 - _SEEN))
    if place < 1:
        return None
    at_least = np.cumsum(counts[::-1])[::-1]  # rows that shrank by so many steps
    return float(np.flatnonzero(at_least > place)[-1] * SHRINK_STEP)
