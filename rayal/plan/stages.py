"""The clock of a trial: seconds and memory of each stage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rayal.plan.watch import DRIVER, Memory, Watch


@dataclass
class Clock:
    """Wall and CPU seconds of the block just left."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


class Stages:
    """Stages by name, each with the peak of the largest process of a role."""

    def __init__(self) -> None:
        self.peaks: dict[str, dict[str, Memory]] = {}
        self.base = Memory()  # of this process, before anything
        self._watch = Watch()

    def begin(self) -> None:
        """Begins to look."""
        self._watch.start()
        self.base = self._watch.take().peaks[DRIVER]

    def end(self) -> None:
        """Ends the looking."""
        self._watch.end()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Clock]:
        """Gives a clock of the block; what it takes counts for the stage of this name."""
        self._watch.take()
        clock = Clock()
        start_s = time.perf_counter()
        yield clock
        clock.wall_s = time.perf_counter() - start_s
        taken = self._watch.take()
        clock.cpu_s = taken.cpu_s
        peaks = self.peaks.setdefault(name, {})
        for role, size in taken.peaks.items():
            peaks[role] = size.max(peaks.get(role, Memory()))
