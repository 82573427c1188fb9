"""The local engine for rows that are in memory already: what a pass leaves stays there, too."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from rayal.engine.local import LocalEngine
from rayal.engine.scoring import Pass, Scoring, ShardReport
from rayal.engine.survivors import PARTS, ListedCandidates, Part, Rejected, Rows, SliceSpec
from rayal.pool import Shard
from rayal.ranking import Cut
from rayal.types import Candidates


class HeldEngine(LocalEngine):
    """One shard after the other; no row is written anywhere. A pass is known by its folder."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, dict[int, tuple[ShardReport, Rows, Rows]]] = {}

    def hold(
        self,
        folder: str,
        report: ShardReport,
        candidates: Rows,
        labelled: Rows,
        rejected: Rejected | None = None,
    ) -> None:
        """Takes what a shard leaves in a pass, in which it is not scored then. Of rejected rows the
        report says enough here."""
        self._held.setdefault(folder, {})[report.shard] = (report, candidates, labelled)

    def score(self, scoring: Scoring, progress: Any = None) -> Pass:
        """Gives candidates and labelled rows of one pass; those of another one are let go."""
        self._held = {scoring.folder: self._held.get(scoring.folder, {})}
        return super().score(scoring, progress)

    def _score(self, shard: Shard, scoring: Scoring, cut: Cut | None) -> ShardReport:
        held = self._held[scoring.folder]
        if shard.index not in held:
            self.hold(scoring.folder, *self.worker.sift(shard, scoring, cut))
        return held[shard.index][0]

    def _listed(self, specs: Sequence[SliceSpec]) -> Candidates:
        return ListedCandidates(
            [spec.load(functools.partial(self._rows, spec.folder)) for spec in specs]
        )

    def _rows(self, folder: str, shard: int, part: Part) -> Rows:
        _, *parts = self._held[folder][shard]
        return parts[PARTS.index(part)]

    def close(self) -> None:
        """Lets go of the rows."""
        super().close()
        self._held.clear()
