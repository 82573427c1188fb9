"""The learning curve, as coordinates of a drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rayal.report.scale import format_metric, format_tick, ticks
from rayal.report.view import Curve

_WIDTH, _HEIGHT = 860, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 16, 48


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in drawing units."""

    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    """A measured point."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """One curve; `color` counts the colors of the page's style."""

    name: str
    color: int
    dots: tuple[Dot, ...]
    is_own: bool

    @property
    def points(self) -> str:
        """Gives the corners of the polyline."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


@dataclass(frozen=True)
class CurveChart:
    """A drawing of metric against labels."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM


def curve_chart(own_name: str, own: Curve, others: Mapping[str, Curve]) -> CurveChart | None:
    """Gives the drawing, the run's own curve first, or None where no point was measured."""
    curves = {own_name: _measured(own)}
    for name, curve in others.items():
        curves[f"{name} (compared)" if name in curves else name] = _measured(curve)
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return None
    xs, ys = [float(x) for x, _ in points], [y for _, y in points]
    x_values, y_values = ticks(min(0.0, *xs), max(xs), 8), ticks(min(ys), max(ys), 5)

    def x_at(value: float) -> float:
        share = (value - x_values[0]) / (x_values[-1] - x_values[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y_at(value: float) -> float:
        share = (value - y_values[0]) / (y_values[-1] - y_values[0])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    lines = tuple(
        Line(
            name=name,
            color=place,
            dots=tuple(
                Dot(x_at(x), y_at(y), f"{name}: {format_metric(y)} at {x:,} labels")
                for x, y in curve
            ),
            is_own=place == 0,
        )
        for place, (name, curve) in enumerate(curves.items())
        if curve
    )
    return CurveChart(
        lines,
        tuple(Tick(x_at(value), format_tick(value)) for value in x_values),
        tuple(Tick(y_at(value), format_tick(value)) for value in y_values),
    )


def gap(own: Curve, other: Curve) -> tuple[int, float] | None:
    """Gives (num_labels, own minus other) where both were last measured, or None."""
    own_at, other_at = dict(_measured(own)), dict(_measured(other))
    common = own_at.keys() & other_at.keys()
    if not common:
        return None
    last = max(common)
    return last, own_at[last] - other_at[last]


def _measured(curve: Curve) -> tuple[tuple[int, float], ...]:
    return tuple(
        (num_labels, value)
        for num_labels, value in curve
        if value is not None and math.isfinite(value)
    )
