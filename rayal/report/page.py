"""The report page of a run: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

import rayal
from rayal.currency import format_money
from rayal.progress import format_count, format_seconds
from rayal.report.bars import BarChart, balance_chart, phases, seconds_chart
from rayal.report.curve import CurveChart, curve_chart, gap
from rayal.report.redact import mask, mask_config
from rayal.report.scale import format_metric
from rayal.report.view import Curve, RoundView, RunView

_TEMPLATE = "page.html.j2"
# Older rounds keep their line in the table; a page of 500 rounds should still open.
_MAX_ROUNDS_IN_DETAIL = 12
_MAX_PREVIEW = 240


def render(view: RunView, secrets: Collection[str] = ()) -> str:
    """Gives the page as HTML, a function of the view alone.

    Every text is escaped, and masked where it has the form of a secret or holds one of `secrets`
    (the values of vendor keys, for instance, that must not be shown whatever they look like).
    """

    def without_secrets(value: Any) -> Any:
        # Markup is what a macro made of texts that came through here already.
        return mask(value, secrets) if isinstance(value, str) and not _is_markup(value) else value

    environment = jinja2.Environment(
        autoescape=True,
        finalize=without_secrets,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "metric": format_metric,
        "seconds": format_seconds,
        "count": format_count,
        "clip": _clip,
    }
    text = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    detailed = view.rounds[-_MAX_ROUNDS_IN_DETAIL:][::-1]
    return environment.from_string(text).render(
        view=view,
        version=rayal.__version__,
        config=mask_config(view.config, secrets),
        facts=_facts(view),
        curve=_curve_chart(view),
        gaps=_gaps(view),
        rows=_rows(view),
        phases=phases(view.rounds),
        seconds=seconds_chart(view.rounds),
        balances=_balances(detailed),
        picks=[turn for turn in detailed if turn.picks],
        num_left_out=len(view.rounds) - len(detailed),
        max_preview=_MAX_PREVIEW,
    )


@dataclass(frozen=True)
class _Row:
    """A line of the table of rounds."""

    turn: RoundView
    change: str
    is_better: bool | None
    is_best: bool
    total_s: float


def _rows(view: RunView) -> list[_Row]:
    values = [value for turn in view.rounds if (value := _measured(turn)) is not None]
    best = (max if view.higher_is_better else min)(values) if values else None
    rows: list[_Row] = []
    before: float | None = None
    for turn in view.rounds:
        change, is_better = "", None
        value = _measured(turn)
        if value is not None:
            if before is not None:
                step = value - before
                change = f"{'+' if step >= 0 else '−'}{format_metric(abs(step))}"
                is_better = None if step == 0 else (step > 0) == view.higher_is_better
            before = value
        is_best = value is not None and value == best
        rows.append(_Row(turn, change, is_better, is_best, sum(turn.seconds.values())))
    return rows


def _measured(turn: RoundView) -> float | None:
    value = turn.test_metric
    return value if value is not None and math.isfinite(value) else None


def _facts(view: RunView) -> list[tuple[str, str, str]]:
    """Gives (name, value, remark) of the row of figures at the head of the page."""
    total_s = sum(sum(turn.seconds.values()) for turn in view.rounds)
    num_labels = view.rounds[-1].num_labels if view.rounds else 0
    measured = [turn for turn in view.rounds if _measured(turn) is not None]
    facts = [
        ("pool", format_count(view.num_pool_rows), f"{view.num_pool_rows:,} rows"),
        ("rounds", str(len(view.rounds)), ""),
        ("labels", f"{num_labels:,}", _label_share(num_labels, view.num_pool_rows)),
    ]
    if measured:
        first = format_metric(measured[0].test_metric)
        facts.append(
            (
                view.metric,
                format_metric(measured[-1].test_metric),
                f"from {first} in round {measured[0].round}" if len(measured) > 1 else "",
            )
        )
    facts.append(("time", format_seconds(total_s), "in the phases below"))
    if view.spend is not None:
        money = format_money(view.spend.amount_minor, view.spend.currency)
        facts.append(("spent", money, f"for {view.spend.num_labels:,} labels"))
    return facts


def _label_share(num_labels: int, num_pool_rows: int) -> str:
    return f"{num_labels / num_pool_rows:.2%} of the pool" if num_pool_rows else ""


def _own_curve(view: RunView) -> Curve:
    return tuple((turn.num_labels, turn.test_metric) for turn in view.rounds)


def _curve_chart(view: RunView) -> CurveChart | None:
    return curve_chart(view.strategy, _own_curve(view), view.curves)


def _gaps(view: RunView) -> list[str]:
    """Gives one sentence a compared curve, saying how far apart the runs ended."""
    sentences: list[str] = []
    for name, other in view.curves.items():
        found = gap(_own_curve(view), other)
        if found is None:
            continue
        num_labels, difference = found
        if difference == 0:
            word = "level with"
        else:
            is_better = (difference > 0) == view.higher_is_better
            word = f"{format_metric(abs(difference))} {'better' if is_better else 'worse'} than"
        sentences.append(f"{view.strategy} is {word} {name} at {num_labels:,} labels.")
    return sentences


def _balances(turns: tuple[RoundView, ...]) -> list[tuple[int, BarChart]]:
    charts = ((t.round, balance_chart(t.predicted_shares, t.picked_shares)) for t in turns)
    return [(number, chart) for number, chart in charts if chart is not None]


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _is_markup(value: str) -> bool:
    return hasattr(value, "__html__")
