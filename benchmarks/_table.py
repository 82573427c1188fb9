"""The table of benchmarks/select.py: a line a measurement, what is wanted of it, and whether it is.

Seconds are CPU seconds of all threads of this process: on a machine that others use, too, a clock
on the wall says little.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_COLUMNS = (
    ("what", 36),
    ("data", 13),
    ("N", 10),
    ("D", 4),
    ("B", 9),
    ("CPU s", 8),
    ("plain", 8),
    ("timed", 10),
    ("ratio", 7),
    ("evals/NB", 8),
    ("rounds", 6),
    ("identical", 12),
    ("", 7),
    ("wanted", 0),
)


class Goal(NamedTuple):
    """Something wanted of a line."""

    text: str
    is_met: bool


@dataclass(frozen=True)
class Line:
    """One measurement; what it has none of stays empty in the table."""

    what: str
    data: str = ""
    num_rows: int | None = None
    width: int | None = None
    budget: int | None = None
    ours_s: float = math.nan
    plain_s: float = math.nan
    timed: str = ""  # how much of the plain loop ran: "full", or "50 picks", scaled from there
    ratio: float = math.nan  # plain by ours, unless `what` says otherwise
    evaluations: float = math.nan  # distances by N B
    rounds: int | None = None
    identical: str = ""
    goals: Sequence[Goal] = field(default=())
    note: str = ""

    @property
    def missed(self) -> list[str]:
        """What is wanted and is not so."""
        return [goal.text for goal in self.goals if not goal.is_met]

    def text(self) -> str:
        """Gives the line as the table prints it."""
        verdict = "" if not self.goals else "MISSED" if self.missed else "ok"
        wanted = ", ".join(goal.text if goal.is_met else f"NOT {goal.text}" for goal in self.goals)
        cells = (
            self.what,
            self.data,
            _count(self.num_rows),
            _count(self.width),
            _count(self.budget),
            _number(self.ours_s),
            _number(self.plain_s),
            self.timed,
            _number(self.ratio),
            _number(self.evaluations),
            _count(self.rounds),
            self.identical,
            verdict,
            "; ".join(part for part in (wanted, self.note) if part),
        )
        return _joined(cells)


def header() -> str:
    """Gives the first line of the table."""
    return _joined([name for name, _ in _COLUMNS])


def at_least(what: str, found: float, wanted: float) -> Goal:
    """Wants a number to be so large; NaN is not."""
    return Goal(f"{what} >= {wanted:g}", found >= wanted)


def at_most(what: str, found: float, wanted: float) -> Goal:
    """Wants a number to be so small; NaN is not."""
    return Goal(f"{what} <= {wanted:g}", found <= wanted)


def cpu_seconds(work: Callable[[], T]) -> tuple[T, float]:
    """Gives what some work gives, and the CPU seconds it took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


class Looped(NamedTuple):
    """What a plain loop picked and took."""

    picks: list[int]
    seconds: float
    how: str  # "full", or how many picks ran


class TooLong(Exception):
    """Work that took more CPU seconds than it was given."""


@contextlib.contextmanager
def limit(cpu_s: float) -> Iterator[None]:
    """Ends what takes more CPU seconds than this, in the main thread of a process.

    Raises:
        TooLong: it did.
    """

    def end(*_: object) -> None:
        raise TooLong(f"not done in {cpu_s:g} CPU seconds")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def whole(loop: Callable[[], Iterator[int]], budget: int, timed: int) -> Looped:
    """Gives the first picks of a plain loop, and the seconds that `budget` of them take. What it
    does before its first pick is not scaled."""
    picks: list[int] = []

    def go(num_picks: int) -> None:
        picks.extend(itertools.islice(running, num_picks))

    timed = min(timed, budget)
    running, once_s = cpu_seconds(loop)
    once_s += cpu_seconds(lambda: go(1))[1]
    some_s = cpu_seconds(lambda: go(timed - 1))[1]
    how = "full" if timed == budget else f"{timed} picks"
    return Looped(picks, once_s + some_s * (budget - 1) / max(timed - 1, 1), how)


def said(note: str, what: str) -> int:
    """Gives the number before a word of a batch's note; 0 where it says none."""
    found = re.search(rf"([\d,]+) {what}", note)
    return int(found[1].replace(",", "")) if found else 0


def agreement(ours: Iterable[int], plain: Iterable[int]) -> tuple[str, bool]:
    """Gives how many picks the plain loop confirms, and whether it confirms all that it made."""
    pairs = list(zip(ours, plain, strict=False))
    first = next((at for at, (one, other) in enumerate(pairs) if one != other), len(pairs))
    if first == len(pairs):
        return f"yes, {first:,}", True
    return f"NO at {first:,}", False


def _joined(cells: Sequence[str]) -> str:
    parts = []
    for (name, width), cell in zip(_COLUMNS, cells, strict=True):
        is_text = name in ("what", "data", "identical", "", "wanted", "timed")
        parts.append(f"{cell:<{width}}" if is_text else f"{cell:>{width}}")
    return "  ".join(parts).rstrip()


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _number(number: float) -> str:
    if math.isnan(number):
        return ""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
