"""A pass over the pool by a crew, and the slices that it leaves with the crew's workers.

Nothing here knows what carries the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rayal.engine.crew import Crew, Seat
from rayal.engine.local import finish_pass
from rayal.engine.scoring import Pass, PassState, Scoring
from rayal.engine.survivors import SliceSpec
from rayal.journal import Journal
from rayal.pool import Shard


def score_by(crew: Crew, shards: Sequence[Shard], scoring: Scoring, progress: Any = None) -> Pass:
    """Gives candidates and labelled rows of one pass over the shards, begun in this order."""
    crew.forget()
    state = PassState(scoring.keep)
    carried = crew.transport.put(scoring)

    def record(shard: Shard, report: Any) -> None:
        state.record(report)
        if progress is not None:
            progress.advance(shard.num_live)

    crew.map_shards(shards, "score", lambda shard: (carried, state.cut()), record)
    crew.wait_ready()
    return finish_pass(state, scoring, lambda specs: CrewCandidates(crew, specs))


class CrewCandidates:
    """Slices on a crew's workers; one call a worker and question."""

    def __init__(self, crew: Crew, specs: Sequence[SliceSpec]) -> None:
        self._crew = crew
        self._specs = sorted(specs, key=lambda spec: spec.key)
        self._journal: list[tuple[Any, ...]] = []
        self._seats: dict[int, Seat] = {}  # slice key -> the worker that knows the journal so far
        self._num_rows: int | None = None
        self.journal = Journal()

    @property
    def num_rows(self) -> int:
        """How many rows all slices hold."""
        if self._num_rows is None:
            self._num_rows = sum(self.each(_length, 0))
        return self._num_rows

    def each(self, ask: Callable[..., Any], step: int, *args: Any) -> list[Any]:
        """Asks every slice, in parallel over workers; answers in key order."""
        if not self._specs:
            return []
        self._journal.append((ask, step, self._crew.put_once(args)))
        return self._crew.ask(self._specs, self._journal, self._seats)


def _length(part: Any, step: int) -> int:
    return len(part)
