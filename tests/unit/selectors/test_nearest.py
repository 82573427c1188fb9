import numpy as np
import pytest

from rayal.selectors.grid import Grid, squared_norms
from rayal.selectors.nearest import nearest


def brute(points, centers):
    """Every squared distance as a sum over differences, one row and center at a time."""
    squares = np.array(
        [
            [[squared_norms((x - c)[None])[0] for c in cs] for x in xs]
            for xs, cs in zip(points, centers, strict=True)
        ]
    )
    whole = squares.prod(axis=0)
    which = whole.argmin(axis=1)
    return which, squares[:, np.arange(len(which)), which]


def places(rng, fine, num_rows, width):
    """Integers as on a grid; on a fine one a few rows are 10^13 times farther out than the rest."""
    rows = rng.integers(-900, 900, (num_rows, width)).astype(float)
    if fine:
        rows[::9] *= 2.0**40
    return rows


@pytest.mark.parametrize("fine", [(False,), (True,), (False, True), (True, True), (False, False)])
@pytest.mark.parametrize("num_centers", [1, 2, 40])
@pytest.mark.parametrize("width", [1, 5, 130])
def test_it_is_the_nearest_to_the_last_bit_whatever_the_blocks(fine, num_centers, width):
    rng = np.random.default_rng(width)
    grids = tuple(Grid("embeds", fine=one) for one in fine)
    points = tuple(places(rng, one, 60, width) for one in fine)
    centers = tuple(places(rng, one, num_centers, width) for one in fine)
    for x, c in zip(points, centers, strict=True):
        c[num_centers // 2 :] = c[: num_centers - num_centers // 2]  # ties
        x[7] = c[0]
    expected = brute(points, centers)
    for size in (1, 7, 60):
        cuts = range(0, 60, size)
        parts = [nearest(grids, tuple(x[lo : lo + size] for x in points), centers) for lo in cuts]
        assert (np.concatenate([which for which, _ in parts]) == expected[0]).all()
        squares = np.concatenate([squares for _, squares in parts], axis=1)
        assert squares.tobytes() == expected[1].tobytes()


def test_equal_distances_go_to_the_lowest_center():
    points, centers = np.array([[3.0, 4.0]]), np.array([[0.0, 9.0], [6.0, 8.0], [0.0, 0.0]])
    for fine in (False, True):
        which, squares = nearest((Grid("embeds", fine=fine),), (points,), (centers,))
        assert (which.tolist(), squares.tolist()) == ([1], [[25.0]])
