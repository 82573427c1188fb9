"""Limits of the selectors made so small that small worlds meet them."""

import pytest

from rayal.selectors import farthest, lazy, nearest_center


@pytest.fixture
def small_pools(monkeypatch):
    """Thresholds, inner pools and blocks of a few rows, so that small worlds meet all of them."""
    for module, name, value in (
        (lazy, "_FEWEST", 3),
        (lazy, "_MOST", 17),
        (lazy, "_AIM", 9),
        (nearest_center, "_INNER", 5),
        (nearest_center, "BLOCK_ROWS", 13),
        (nearest_center, "BLOCK_CENTERS", 7),
        (farthest, "_CENTERS", 4),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("rayal.selectors.plain.MOST_PICKS", 0)  # never the plain way
