"""The progress line and the stopwatch, on a clock that the test turns."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from rayal.progress import Reporter, Stopwatch, format_count, format_seconds


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class BrokenStream(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.num_writes = error, 0

    def write(self, text: str) -> int:
        self.num_writes += 1
        raise self.error


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (9_999, "9999"),
        (12_340, "12.3k"),
        (644_757, "645k"),
        (6_644_757, "6.64M"),
        (2.5e9, "2.50B"),
    ],
)
def test_counts_read_well(count: float, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0s"), (59.9, "59.9s"), (187, "3:07"), (7509, "2:05:09")]
)
def test_seconds_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_plain_lines_come_every_ten_seconds_and_one_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with Reporter(stream, clock=clock).phase("score", total=100_000) as phase:
        for _ in range(25):  # 25 seconds, 4,000 rows each
            clock.now_s += 1.0
            phase.advance(4_000)
    assert stream.getvalue().splitlines() == [
        "score:  40%  40.0k/100k rows  4000 rows/s  15.0s left",
        "score:  80%  80.0k/100k rows  4000 rows/s  5.0s left",
        "score: 100k rows in 25.0s (4000 rows/s)",
    ]


def test_a_terminal_gets_one_line_that_is_redrawn() -> None:
    stream, clock = Terminal(), Clock()
    with Reporter(stream, clock=clock).phase("train", total=4, unit="epochs") as phase:
        for _ in range(4):
            clock.now_s += 1.0
            phase.advance()
    text = stream.getvalue()
    assert text.count("\n") == 1
    redrawn = text.split("\n")[0].split("\r")
    assert redrawn[2] == "train:  50%  2/4 epochs  1.0 epochs/s  2.0s left\x1b[K"
    assert redrawn[-1] == "\x1b[Ktrain: 4 epochs in 4.0s (1.0 epochs/s)"


def test_a_terminal_is_not_redrawn_more_often_than_the_interval() -> None:
    stream, clock = Terminal(), Clock()
    with Reporter(stream, interval_s=0.5, clock=clock).phase("score", 1000) as phase:
        for _ in range(1000):
            clock.now_s += 0.001
            phase.advance()
    assert stream.getvalue().count("rows/s") == 2 + 1  # at 0.5 s, at 1.0 s, and the closing line


def test_a_live_line_never_wraps() -> None:
    stream, clock = Terminal(), Clock()
    with Reporter(stream, clock=clock).phase("a name " * 30, total=10) as phase:
        clock.now_s += 1.0
        phase.advance()
        live = stream.getvalue()
    assert len(live.removeprefix("\r").removesuffix("\x1b[K")) == 79


def test_what_is_said_stands_on_a_line_of_its_own() -> None:
    stream, clock = Terminal(), Clock()
    reporter = Reporter(stream, clock=clock)
    with reporter.phase("score", total=2) as phase:
        clock.now_s += 1.0
        phase.advance()
        reporter.say("waiting for labels")
    assert "\r\x1b[Kwaiting for labels\n" in stream.getvalue()


def test_an_unknown_total_leaves_share_and_rest_out() -> None:
    stream, clock = io.StringIO(), Clock()
    with Reporter(stream, interval_s=0.0, clock=clock).phase("ingest", None) as phase:
        clock.now_s += 2.0
        phase.advance(10)
    assert stream.getvalue().splitlines() == [
        "ingest: 10 rows  5.0 rows/s",
        "ingest: 10 rows in 2.0s (5.0 rows/s)",
    ]


@pytest.mark.parametrize("total", [0, 5, None])
def test_an_empty_phase_on_a_clock_that_stands_still(total: int | None) -> None:
    stream = io.StringIO()
    with Reporter(stream, interval_s=0.0, clock=Clock()).phase("test", total) as phase:
        phase.advance(0)
    assert stream.getvalue().splitlines()[-1].endswith("in 0.0s")


def test_an_error_passes_and_the_line_says_how_far_it_came() -> None:
    stream, clock = io.StringIO(), Clock()

    def break_down() -> None:
        with Reporter(stream, clock=clock).phase("score", total=10) as phase:
            clock.now_s += 2.0
            phase.advance(4)
            raise KeyError("the work's own error")

    with pytest.raises(KeyError):
        break_down()
    assert stream.getvalue() == "score: 4 of 10 rows stopped after 2.0s (2.0 rows/s)\n"


def test_quiet_writes_nothing() -> None:
    stream = Terminal()
    reporter = Reporter(stream, interval_s=0.0, quiet=True)
    with reporter.phase("score", total=1) as phase:
        phase.advance()
    reporter.say("nobody hears this")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(32, "Broken pipe"), ValueError("I/O operation on closed file")],
)
def test_a_broken_stream_does_not_end_the_work(error: Exception) -> None:
    stream = BrokenStream(error)
    with Reporter(stream, interval_s=0.0).phase("score", total=3) as phase:
        for _ in range(3):
            phase.advance()
    assert phase.num_done == 3
    assert stream.num_writes == 1  # given up at the first failure


def test_the_stream_is_the_standard_error_of_now(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter().phase("score", total=1) as phase:
        phase.advance()
    captured = capsys.readouterr()
    assert captured.err.startswith("score: 1 rows in")
    assert captured.out == ""


def test_threads_lose_no_count() -> None:
    with Reporter(io.StringIO(), interval_s=0.0).phase("score", total=8_000) as phase:

        def work() -> None:
            for _ in range(2_000):
                phase.advance()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert phase.num_done == 8_000


def test_a_stopwatch_sums_by_name_and_starts_again() -> None:
    clock: Any = Clock()
    stopwatch = Stopwatch(clock)
    for name, seconds in (("score", 2.0), ("train", 0.5), ("score", 1.0)):
        with stopwatch(name):
            clock.now_s += seconds
    assert stopwatch.take() == {"score": 3.0, "train": 0.5}
    assert stopwatch.take() == {}


def test_a_stopwatch_counts_a_block_that_raises() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)

    def fail() -> None:
        with stopwatch("score"):
            clock.now_s += 4.0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert stopwatch.take() == {"score": 4.0}
