"""Shards under way: who has which, since when, and which of them others may overtake."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from rayal.pool import Shard

# A shard is late after so many times the median of what shards take, waiting behind another
# included, and after so many seconds. No measure of the machine: a second look at a shard costs a
# worker that has nothing else to do, and the pass ends with whoever is first.
LATE_TIMES, LATE_S = 2.0, 5.0
_REMEMBERED = 101  # answers whose seconds say what is usual


class _Run(NamedTuple):
    worker: int
    shard: Shard
    since_s: float


class UnderWay:
    """What is still to do of some shards, what is done, and by whom."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.todo = collections.deque(shards)
        self.load: collections.Counter[int] = collections.Counter()  # calls of a worker
        self.running: dict[Any, _Run] = {}  # by call
        self._held: collections.Counter[Shard] = collections.Counter()  # calls for a shard
        self._answered: set[Shard] = set()
        self._seconds: collections.deque[float] = collections.deque(maxlen=_REMEMBERED)

    @property
    def is_over(self) -> bool:
        """Whether every shard has an answer; calls may still run that were overtaken."""
        if self.todo:
            return False
        return all(run.shard in self._answered for run in self.running.values())

    @property
    def waiting(self) -> list[int]:
        """The shards without an answer."""
        there = {run.shard for run in self.running.values()} - self._answered
        return sorted(shard.index for shard in there.union(self.todo))

    def begin(self, call: Any, worker: int, shard: Shard, now_s: float) -> None:
        """Takes note of a call."""
        self.running[call] = _Run(worker, shard, now_s)
        self.load[worker] += 1
        self._held[shard] += 1

    def end(self, call: Any, now_s: float) -> tuple[int, Shard, bool]:
        """Gives whose call it was, for which shard, and whether its answer is the first."""
        worker, shard, since_s = self.running.pop(call)
        self.load[worker] -= 1
        self._held[shard] -= 1
        self._seconds.append(now_s - since_s)
        is_first = shard not in self._answered
        self._answered.add(shard)
        return worker, shard, is_first

    def lose(self, worker: int) -> None:
        """Puts back what a worker that is lost had, unless somebody else has it, too."""
        lost = [call for call, run in self.running.items() if run.worker == worker]
        shards = [self.running.pop(call).shard for call in lost]
        for shard in shards:
            self._held[shard] -= 1
            if not self._held[shard] and shard not in self._answered:
                self.todo.appendleft(shard)
        self.load[worker] = 0

    def late(self, now_s: float, number: int) -> list[Shard]:
        """Gives up to so many shards that one worker alone has had for far too long, the longest
        first. O(late)."""
        if not self._seconds or number < 1:
            return []
        limit_s = max(LATE_S, LATE_TIMES * statistics.median(self._seconds))
        found: list[Shard] = []
        for run in self.running.values():  # in the order begun
            if len(found) == number or now_s - run.since_s <= limit_s:
                break
            if self._held[run.shard] == 1 and run.shard not in self._answered:
                found.append(run.shard)
        return found

    def overtaken(self) -> list[int]:
        """Gives the workers that still work on shards which others have answered."""
        return sorted({run.worker for run in self.running.values()})
