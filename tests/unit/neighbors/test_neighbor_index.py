import sys

import numpy as np
import pytest

from rayal import neighbors
from rayal.errors import ConfigError
from rayal.neighbors import NeighborIndex

pytest.importorskip("faiss")


def textbook(points, queries, num_rows):
    """Every pair, then a sort by distance and place."""
    apart = points[None].astype(np.float64) - queries[:, None].astype(np.float64)
    squared = np.array([[sum(x * x for x in row) for row in rows] for rows in apart.tolist()])
    order = np.argsort(squared, axis=1, kind="stable")[:, :num_rows]
    return order, np.take_along_axis(squared, order, axis=1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["normal", "lattice", "equal", "far", "offset"])
@pytest.mark.parametrize("num_rows", [1, 7, 60])
def test_the_nearest_rows_are_those_of_all_pairs(seed, kind, num_rows):
    rng = np.random.default_rng(seed)
    n, width = int(rng.integers(1, 300)), int(rng.integers(1, 9))
    points = rng.standard_normal((n, width)).astype(np.float32)
    if kind == "lattice":
        points = rng.integers(-2, 3, (n, width)).astype(np.int8)
    elif kind == "equal":
        points[:] = points[0]
    elif kind == "far":
        points[rng.integers(n)] *= 1e6  # float32 tells nothing of the others apart
    elif kind == "offset":
        points = (points + 1e4).astype(np.float32)
    # From 20 queries on distances come of matrix products, which round far more.
    queries = np.concatenate([points[: min(n, 5)], points[rng.integers(n, size=20)] + 0.25])
    places, squared = NeighborIndex(points).nearest(queries, num_rows)
    expected, distances = textbook(points, queries, num_rows)
    if kind in ("lattice", "equal"):
        assert (places == expected).all()
    np.testing.assert_allclose(squared, distances, rtol=1e-12, atol=1e-12)
    again = ((points[places].astype(float) - queries[:, None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared, again, rtol=1e-12)
    assert (np.diff(squared, axis=1) >= 0).all()


@pytest.mark.parametrize("blocks", [64, 1 << 20])
def test_a_distance_does_not_depend_on_what_else_is_there(blocks, monkeypatch):
    monkeypatch.setattr(neighbors, "_PRODUCTS", blocks)
    rng = np.random.default_rng(0)
    points = rng.standard_normal((500, 33)).astype(np.float32)
    queries = rng.standard_normal((40, 33)).astype(np.float32)
    places, squared = NeighborIndex(points).nearest(queries, 20)
    for owner in (rng.integers(0, 3, 500), np.arange(500) % 50):
        parts = [np.flatnonzero(owner == key) for key in range(owner.max() + 1)]
        answers = [NeighborIndex(points[rows]).nearest(queries, 20) for rows in parts]
        rows = np.concatenate([r[p] for r, (p, _) in zip(parts, answers, strict=True)], axis=1)
        far = np.concatenate([s for _, s in answers], axis=1)
        order = np.lexsort((rows, far), axis=1)[:, :20]
        assert (np.take_along_axis(rows, order, axis=1) == places).all()
        assert np.take_along_axis(far, order, axis=1).tobytes() == squared.tobytes()


def test_lists_find_most_of_the_nearest_rows_and_repeat():
    rng = np.random.default_rng(1)
    centers = 10 * rng.standard_normal((20, 8))
    points = (centers[rng.integers(0, 20, 4_000)] + rng.standard_normal((4_000, 8))).astype("f4")
    exact, _ = NeighborIndex(points).nearest(points[:100], 30)
    found, squared = NeighborIndex(points, 40, 4, seed=3).nearest(points[:100], 30)
    share = np.mean([len(set(a) & set(b)) / 30 for a, b in zip(exact, found, strict=True)])
    assert 0.9 < share <= 1.0
    assert (found[:, 0] == np.arange(100)).all()
    assert (squared[:, 0] == 0).all()
    again, _ = NeighborIndex(points, 40, 4, seed=3).nearest(points[:100], 30)
    assert (again == found).all()
    few, far = NeighborIndex(points, 400, 1).nearest(points[:9], 2_000)
    assert few.shape == (9, 2_000)
    assert (few[:, -1] == -1).all()
    assert np.isinf(far[:, -1]).all()


def test_no_rows_and_no_queries():
    none, points = np.zeros((0, 3), np.float32), np.ones((4, 3), np.float32)
    assert NeighborIndex(none).nearest(points, 5)[0].shape == (4, 0)
    assert NeighborIndex(points).nearest(none, 5)[0].shape == (0, 4)
    assert NeighborIndex(points, 100, 5).nearest(points, 2)[0].tolist() == [[0, 1]] * 4


def test_without_faiss_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"a search for neighbors needs faiss, .* pip install"):
        NeighborIndex(np.zeros((3, 2)))
