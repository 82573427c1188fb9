"""Laws of time on points that are made of one."""

from __future__ import annotations

import pytest

from rayal.plan.laws import Law, Point, each, fit, grown, once


def _point(shards: float, rows: float) -> Point:
    wall_s = 0.5 + 0.01 * shards + 1e-5 * rows
    return Point((shards, rows), wall_s, 2 * wall_s)


def test_a_law_is_found_again() -> None:
    law = fit([_point(1, 100), _point(4, 400), _point(1, 80_000), _point(3, 300_000)])
    assert law.wall_s == pytest.approx((0.5, 0.01, 1e-5), rel=1e-6)
    assert law.wall(51, 6_000_000) == pytest.approx(0.5 + 0.51 + 60.0)
    assert law.cpu(51, 6_000_000) == pytest.approx(2 * 61.01)


def test_points_of_one_size_grow_with_their_rows() -> None:
    law = fit([Point((2, 1_000), 0.2, 0.1)] * 3)
    assert law.wall_s == pytest.approx((0.0, 0.0, 2e-4))


def test_nothing_is_negative() -> None:
    # The larger piece took less: noise, and no reason to expect seconds back from a larger one.
    law = fit([Point((1, 1_000), 0.2, 0.2), Point((1, 2_000), 0.1, 0.1)])
    assert min(law.wall_s) == 0.0
    assert law.wall(1, 1_000_000) >= 0.1


def test_a_law_of_pieces_and_one_of_a_whole() -> None:
    assert each(0.25, 0.5).wall(8) == 2.0
    assert each(0.25, 0.5).cpu(8) == 4.0
    assert once(3.0, 1.0).wall() == 3.0
    assert Law((1.0, 2.0), (0.0, 0.0)).wall(4) == 9.0


@pytest.mark.parametrize(
    ("seconds", "sizes", "size", "expected"),
    [
        ((1.0, 4.0), (100, 200), 800, 64.0),  # with the square
        ((1.0, 2.0), (100, 200), 800, 8.0),  # in a line
        ((1.0, 64.0), (100, 200), 400, 256.0),  # two short times say no more than the square
        ((2.0, 1.0), (100, 200), 800, 1.0),  # it did not grow
        ((0.0, 1.0), (100, 200), 800, 4.0),  # too short for a clock: a line
    ],
)
def test_growth_by_the_power_that_two_sizes_show(
    seconds: tuple[float, float], sizes: tuple[float, float], size: float, expected: float
) -> None:
    assert grown(seconds, sizes, size) == pytest.approx(expected)
