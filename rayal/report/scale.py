"""Numbers as a reader meets them: axis ticks and metrics."""

from __future__ import annotations

import math


def ticks(low: float, high: float, num_wanted: int = 5) -> list[float]:
    """Gives round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high]."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / num_wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(
        (factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= rough), 10.0 * power
    )
    # Counted in steps, since adding a step again and again drifts.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)) + 1)
    return [round(index * step, digits) for index in range(first, last + 1)]


def format_metric(value: float | None) -> str:
    """Gives a metric with four digits that mean something, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e7):
        return f"{value:.3e}"
    return f"{value:.4f}" if size < 10 else f"{value:,.2f}"


def format_share(share: float) -> str:
    """Gives a share of rows in per cent."""
    return f"{share:.1%}"


def format_tick(value: float) -> str:
    """Gives the label of an axis tick."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:,g}" if size >= 1e-4 or size == 0 else f"{value:.0e}"
