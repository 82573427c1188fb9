"""What a waiting person sees of a run, and where its seconds went.

One line a phase: redrawn in place on a terminal, written now and then elsewhere, so that a log file
of a week-long run stays readable. A progress line must never end a run: a stream that is closed,
full or broken is given up silently, and the work goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

_LIVE_INTERVAL_S = 0.2
_PLAIN_INTERVAL_S = 10.0
_ERASE_TO_END = "\x1b[K"


def format_count(count: float) -> str:
    """Gives a count as a person reads it: 950, 12.3k, 6.64M, 1.20B."""
    for scale, suffix in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if count >= scale:
            scaled = count / (1e3 if suffix == "k" else scale)
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f}{suffix}"
    return f"{count:.0f}"


def format_seconds(seconds: float) -> str:
    """Gives a duration as a person reads it: 4.2s, 3:07, 2:05:09."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _format_rate(rate: float) -> str:
    return format_count(rate) if rate >= 10 else f"{rate:.1f}"


class Phase:
    """One stretch of work; `advance` says how much of it is done. Threads may share it."""

    def __init__(
        self, name: str, total: int | None, unit: str, draw: Callable[[Phase], None], start_s: float
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.num_done = 0
        self.start_s = start_s
        self.drawn_s = start_s
        self._draw = draw
        self._lock = threading.Lock()

    def advance(self, count: int = 1) -> None:
        """Counts `count` more units as done, and redraws the line when it is time."""
        with self._lock:
            self.num_done += count
        self._draw(self)

    def line(self, elapsed_s: float) -> str:
        """Gives the line of a phase that is under way."""
        rate = self.num_done / elapsed_s if elapsed_s > 0 else 0.0
        parts = [f"{self.name}:"]
        if self.total is None:
            parts.append(f"{format_count(self.num_done)} {self.unit}")
        else:
            share = min(1.0, self.num_done / self.total) if self.total else 1.0
            done = f"{format_count(self.num_done)}/{format_count(self.total)}"
            parts.append(f"{share:4.0%}  {done} {self.unit}")
        parts.append(f" {_format_rate(rate)} {self.unit}/s")
        if self.total is not None and 0 < self.num_done < self.total and rate > 0:
            parts.append(f" {format_seconds((self.total - self.num_done) / rate)} left")
        return " ".join(parts)

    def closing_line(self, elapsed_s: float, failed: bool) -> str:
        """Gives the line that stays when a phase is over."""
        done = f"{format_count(self.num_done)} {self.unit}"
        if self.total is not None and self.num_done != self.total:
            done = f"{format_count(self.num_done)} of {format_count(self.total)} {self.unit}"
        ending = "stopped after" if failed else "in"
        text = f"{self.name}: {done} {ending} {format_seconds(elapsed_s)}"
        if elapsed_s <= 0:
            return text
        return f"{text} ({_format_rate(self.num_done / elapsed_s)} {self.unit}/s)"


class Reporter:
    """Shows phases on a stream: a live line on a terminal, plain lines every ten seconds elsewhere.

    `interval_s` is the least time between two lines of one phase; None takes 0.2 s on a terminal
    and 10 s elsewhere. `quiet` shows nothing. Nothing here raises because of the stream.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        interval_s: float | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Looked up now and not at import, so that a stream that was replaced since is respected.
        self._stream = sys.stderr if stream is None else stream
        self._live = _is_terminal(self._stream)
        default_s = _LIVE_INTERVAL_S if self._live else _PLAIN_INTERVAL_S
        self._interval_s = default_s if interval_s is None else interval_s
        self._muted = quiet
        self._clock = clock
        self._lock = threading.Lock()
        self._line_is_open = False

    @contextlib.contextmanager
    def phase(self, name: str, total: int | None, unit: str = "rows") -> Iterator[Phase]:
        """Gives the phase to advance; `total` None leaves share and time left out."""
        phase = Phase(name, total, unit, self._draw, self._clock())
        failed = True
        try:
            yield phase
            failed = False
        finally:
            text = phase.closing_line(self._clock() - phase.start_s, failed)
            with self._lock:
                self._write_line(text)

    def say(self, text: str) -> None:
        """Writes a line of its own, above the live line where there is one."""
        with self._lock:
            self._write_line(text)

    def _draw(self, phase: Phase) -> None:
        if self._muted:
            return
        with self._lock:
            now_s = self._clock()
            if now_s - phase.drawn_s < self._interval_s:
                return
            phase.drawn_s = now_s
            text = phase.line(now_s - phase.start_s)
            if not self._live:
                self._write_line(text)
                return
            # A line that wraps cannot be taken back by a carriage return.
            self._write("\r" + text[: _width(self._stream) - 1] + _ERASE_TO_END)
            self._line_is_open = True

    def _write_line(self, text: str) -> None:
        start = "\r" + _ERASE_TO_END if self._line_is_open else ""
        self._line_is_open = False
        self._write(start + text + "\n")

    def _write(self, text: str) -> None:
        if self._muted:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a broken pipe, a full disk, a closed file, an old encoding
            self._muted = True


class Stopwatch:
    """Sums seconds by name: `with stopwatch("score"): ...`. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Adds the seconds that the block takes to `name`, also when the block raises."""
        start_s = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - start_s

    def take(self) -> dict[str, float]:
        """Gives the seconds by name, in the order the names came up, and starts again."""
        with self._lock:
            taken, self._seconds = self._seconds, {}
        return taken


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


def _width(stream: TextIO) -> int:
    try:
        return max(20, os.get_terminal_size(stream.fileno()).columns)
    except (OSError, ValueError, AttributeError):
        return 80
