"""Class balance and seconds a phase, as coordinates of a drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayal.progress import format_seconds
from rayal.report.curve import Tick
from rayal.report.scale import format_share, ticks
from rayal.report.view import RoundView, Shares

_WIDTH = 860
_MAX_CLASSES = 24


@dataclass(frozen=True)
class Bar:
    """A bar from `x` on, `width` drawing units long."""

    x: float
    width: float
    text: str
    color: int = 0


@dataclass(frozen=True)
class Row:
    """Bars beside one name."""

    name: str
    y: float
    bars: tuple[Bar, ...]
    note: str = ""


@dataclass(frozen=True)
class BarChart:
    """A drawing of named rows of bars; `legend` names the colors in use."""

    rows: tuple[Row, ...]
    x_ticks: tuple[Tick, ...]
    legend: tuple[tuple[int, str], ...]
    left: int
    height: int
    row_height: int
    width: int = _WIDTH


def balance_chart(predicted: Shares, picked: Shares) -> BarChart | None:
    """Gives shares of pool predictions and of picks side by side, most predicted class first.

    Past 24 classes the ones with the smallest shares are added up in a last row.
    """
    names = sorted(
        predicted.keys() | picked.keys(),
        key=lambda name: (-predicted.get(name, 0.0), -picked.get(name, 0.0), name),
    )
    if not names:
        return None
    rows = [(name, (predicted.get(name, 0.0), picked.get(name, 0.0))) for name in names]
    if len(rows) > _MAX_CLASSES:
        by_size = sorted(rows, key=lambda row: -max(row[1]))
        shown = set(by_size[: _MAX_CLASSES - 1])
        rest = [shares for name, shares in rows if (name, shares) not in shown]
        rows = [row for row in rows if row in shown]
        added_up = (sum(of_pool for of_pool, _ in rest), sum(of_picks for _, of_picks in rest))
        rows.append((f"{len(rest)} other classes", added_up))
    left, right, row_height, head = 150, 120, 26, 6
    values = ticks(0.0, max(max(shares) for _, shares in rows) or 1.0, 5)
    scale = (_WIDTH - left - right) / values[-1]
    sides = (("pool predictions", predicted), ("picks", picked))
    used = tuple((color, side) for color, (side, shares) in enumerate(sides) if shares)
    return BarChart(
        rows=tuple(
            Row(
                name,
                head + place * row_height,
                tuple(
                    Bar(
                        x=left,
                        width=shares[color] * scale,
                        text=f"{name}: {format_share(shares[color])} of {side}",
                        color=color,
                    )
                    for color, side in used
                ),
                " / ".join(format_share(shares[color]) for color, _ in used),
            )
            for place, (name, shares) in enumerate(rows)
        ),
        x_ticks=tuple(Tick(left + value * scale, f"{100 * value:g}%") for value in values),
        legend=used,
        left=left,
        height=head + len(rows) * row_height + 26,
        row_height=row_height,
    )


def phases(rounds: Sequence[RoundView]) -> tuple[str, ...]:
    """Gives the names of all phases, in the order in which they first come up."""
    return tuple(dict.fromkeys(name for turn in rounds for name in turn.seconds))


def seconds_chart(rounds: Sequence[RoundView]) -> BarChart | None:
    """Gives one stacked bar a round, a color a phase."""
    names = phases(rounds)
    totals = [sum(turn.seconds.values()) for turn in rounds]
    if not names or max(totals) <= 0:
        return None
    left, right, row_height, head = 90, 90, 26, 6
    values = ticks(0.0, max(totals), 6)
    scale = (_WIDTH - left - right) / values[-1]
    return BarChart(
        rows=tuple(
            Row(
                f"round {turn.round}",
                head + place * row_height,
                _stacked(turn.seconds, names, left, scale),
                format_seconds(total),
            )
            for place, (turn, total) in enumerate(zip(rounds, totals, strict=True))
        ),
        x_ticks=tuple(Tick(left + value * scale, _axis_seconds(value)) for value in values),
        legend=tuple(enumerate(names)),
        left=left,
        height=head + len(rounds) * row_height + 26,
        row_height=row_height,
    )


def _stacked(
    seconds: Mapping[str, float], names: tuple[str, ...], left: float, scale: float
) -> tuple[Bar, ...]:
    bars: list[Bar] = []
    at = float(left)
    for color, name in enumerate(names):
        width = seconds.get(name, 0.0) * scale
        if width > 0:
            bars.append(Bar(at, width, f"{name}: {format_seconds(seconds[name])}", color))
        at += max(width, 0.0)
    return tuple(bars)


def _axis_seconds(seconds: float) -> str:
    return f"{seconds:g}s" if seconds < 60 else format_seconds(seconds)
