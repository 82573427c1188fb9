"""Ticks, formats and the coordinates of the drawings, with numbers a reader can check by hand."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from rayal.report.bars import balance_chart, phases, seconds_chart
from rayal.report.curve import curve_chart, gap
from rayal.report.scale import format_metric, format_share, format_tick, ticks
from rayal.report.view import RoundView


@pytest.mark.parametrize(
    ("low", "high", "num_wanted", "expected"),
    [
        (0, 18_000, 8, [0, 5_000, 10_000, 15_000, 20_000]),
        (0.712, 0.853, 5, [0.7, 0.75, 0.8, 0.85, 0.9]),
        (0.0, 1.0, 5, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3.0, 3.0, 5, [-4.0, -2.0, 0.0, 2.0, 4.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, num_wanted: int, expected: list[float]) -> None:
    assert ticks(low, high, num_wanted) == expected


def test_ticks_enclose_any_range_in_even_steps() -> None:
    draw = random.Random(0)
    for _ in range(2_000):
        low = draw.uniform(-1, 1) * 10 ** draw.randrange(-6, 9)
        high = low + draw.uniform(1e-3, 1) * 10 ** draw.randrange(-6, 9)
        if high - low < 1e-9 * abs(low):
            continue  # finer than float64 can space ticks
        found = ticks(low, high)
        step = found[1] - found[0]
        slack = 1e-6 * step
        assert found[0] <= low + slack
        assert found[-1] >= high - slack
        assert 2 <= len(found) <= 8
        gaps = [b - a for a, b in itertools.pairwise(found)]
        assert gaps == pytest.approx([step] * len(gaps), rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.8, -3.0, 1e9])
def test_ticks_of_a_single_value_lie_on_both_sides(value: float) -> None:
    found = ticks(value, value)
    assert found[0] < value < found[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.853, "0.8530"),
        (1450.1, "1,450.10"),
        (0.0, "0.0000"),
        (2.5e-5, "2.500e-05"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_metrics_read_well(value: float | None, text: str) -> None:
    assert format_metric(value) == text


def test_other_formats() -> None:
    assert [format_tick(value) for value in (0, 5_000, 15_000, 2.5e6, 0.05, 1e-6)] == [
        "0",
        "5,000",
        "15k",
        "2.5M",
        "0.05",
        "1e-06",
    ]
    assert format_share(0.1234) == "12.3%"


def test_a_curve_lies_where_its_numbers_say() -> None:
    chart = curve_chart("margin", ((0, 0.0), (50, 0.5), (100, 1.0)), {"random": ((100, 0.5),)})
    assert chart is not None
    own, other = chart.lines
    assert [line.name for line in chart.lines] == ["margin", "random"]
    assert [line.is_own for line in chart.lines] == [True, False]
    middle_x, middle_y = (chart.left + chart.right) / 2, (chart.top + chart.bottom) / 2
    assert [(dot.x, dot.y) for dot in own.dots] == [
        (chart.left, chart.bottom),
        (middle_x, middle_y),
        (chart.right, chart.top),
    ]
    assert [(dot.x, dot.y) for dot in other.dots] == [(chart.right, middle_y)]
    assert own.dots[1].text == "margin: 0.5000 at 50 labels"
    assert chart.y_ticks[0].at == chart.bottom
    assert (chart.x_ticks[0].text, chart.x_ticks[-1].text) == ("0", "100")


def test_rounds_without_a_metric_leave_no_dot() -> None:
    chart = curve_chart("margin", ((10, None), (20, math.nan), (30, 0.7)), {})
    assert chart is not None
    assert [dot.text for dot in chart.lines[0].dots] == ["margin: 0.7000 at 30 labels"]
    assert curve_chart("margin", ((10, None),), {"random": ((10, math.nan),)}) is None


def test_two_curves_of_one_name_both_stay() -> None:
    chart = curve_chart("margin", ((1, 0.1),), {"margin": ((1, 0.2),)})
    assert chart is not None
    assert [line.name for line in chart.lines] == ["margin", "margin (compared)"]


def test_the_gap_is_taken_where_both_were_last_measured() -> None:
    own = ((100, 0.5), (200, 0.7), (300, 0.8))
    assert gap(own, ((100, 0.5), (200, 0.6), (300, None), (400, 0.9))) == (
        200,
        pytest.approx(0.1),
    )
    assert gap(own, ((150, 0.5),)) is None


def test_balance_bars_are_as_long_as_their_shares() -> None:
    chart = balance_chart({"a": 0.2, "b": 0.8}, {"a": 1.0})
    assert chart is not None
    assert [row.name for row in chart.rows] == ["b", "a"]
    unit = chart.x_ticks[-1].at - chart.left  # 100 per cent
    assert chart.x_ticks[-1].text == "100%"
    assert [[bar.width / unit for bar in row.bars] for row in chart.rows] == [
        [pytest.approx(0.8), 0.0],
        [pytest.approx(0.2), pytest.approx(1.0)],
    ]
    assert chart.rows[1].note == "20.0% / 100.0%"
    assert chart.legend == ((0, "pool predictions"), (1, "picks"))


def test_picks_alone_are_drawn_alone() -> None:
    chart = balance_chart({}, {"a": 0.5, "b": 0.5})
    assert chart is not None
    assert chart.legend == ((1, "picks"),)
    assert [len(row.bars) for row in chart.rows] == [1, 1]
    assert balance_chart({}, {}) is None


def test_small_classes_are_added_up() -> None:
    predicted = {f"class {place:03d}": 2.0 * (100 - place) / (101 * 100) for place in range(100)}
    picked = {"class 099": 1.0}  # the least predicted class, but the most picked
    chart = balance_chart(predicted, picked)
    assert chart is not None
    assert len(chart.rows) == 24
    assert chart.rows[-1].name == "77 other classes"
    assert "class 099" in [row.name for row in chart.rows]
    unit = chart.x_ticks[1].at - chart.left
    share = float(chart.x_ticks[1].text.rstrip("%")) / 100
    for side, whole in ((0, 1.0), (1, 1.0)):
        drawn = sum(row.bars[side].width for row in chart.rows)
        assert drawn / unit * share == pytest.approx(whole)


def test_phases_stack_without_gap_or_overlap() -> None:
    rounds = (
        RoundView(0, 10, seconds={"train": 30.0}),
        RoundView(1, 20, seconds={"score": 10.0, "train": 30.0, "test": 20.0}),
    )
    assert phases(rounds) == ("train", "score", "test")
    chart = seconds_chart(rounds)
    assert chart is not None
    assert [row.note for row in chart.rows] == ["30.0s", "1:00"]
    bars = chart.rows[1].bars
    assert bars[0].x == chart.left
    for bar, following in itertools.pairwise(bars):
        assert bar.x + bar.width == pytest.approx(following.x)
    widths = [bar.width for bar in bars]
    assert widths == pytest.approx([3 * widths[1], widths[1], 2 * widths[1]])
    assert bars[0].color == chart.rows[0].bars[0].color == 0


def test_no_seconds_no_drawing() -> None:
    assert seconds_chart((RoundView(0, 10),)) is None
    assert seconds_chart(()) is None
