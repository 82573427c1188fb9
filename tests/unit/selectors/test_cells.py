"""Cells of two levels: as many as asked for, the same for any slicing, and no large sample."""

import numpy as np
import pytest
from slices import Slices, cut, labelled, none_labelled

from rayal.keys import Keys
from rayal.selectors import cells
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.grid import Grid, fit
from rayal.selectors.kmeans import KMeans

KEYS = Keys(3, 2)


class Watched(Slices):
    """Slices that note the largest array among their answers."""

    def __init__(self, parts):
        super().__init__(parts)
        self.most_bytes = 0

    def each(self, ask, step, *args):
        answers = super().each(ask, step, *args)
        arrays = [a for one in answers for a in (one if isinstance(one, tuple) else (one,))]
        sizes = [a.nbytes for a in arrays if isinstance(a, np.ndarray) and a.ndim == 2]
        self.most_bytes = max(self.most_bytes, sum(sizes))
        return answers


def fitted(x, num_clusters, per_cluster=10, num_slices=3, seed=None, ids=None):
    rows = Watched(
        cut(np.arange(len(x)) if ids is None else ids, None, {"embeds": x}, num_slices, seed).parts
    )
    (grid,) = fit((Grid("embeds"),), rows, none_labelled(embeds=x))
    return cells.fit_cells((rows,), grid, num_clusters, per_cluster, 5, KEYS, "kmeans"), rows


def in_clusters(num_rows, spread=1.0, width=4, seed=0):
    rng = np.random.default_rng(seed)
    centers = 20 * rng.standard_normal((30, width))
    share = rng.dirichlet(np.full(30, 0.3))
    return centers[rng.choice(30, num_rows, p=share)] + spread * rng.standard_normal(
        (num_rows, width)
    )


@pytest.mark.parametrize("num_clusters", [51, 100, 333, 700])
@pytest.mark.parametrize("per_cluster", [1, 10])
@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0])
def test_there_are_as_many_cells_as_asked_for(monkeypatch, num_clusters, per_cluster, spread):
    monkeypatch.setattr(cells, "MOST_FLAT", 50)
    found, _ = fitted(in_clusters(900, spread), num_clusters, per_cluster)
    assert isinstance(found, cells.TwoLevelCells)
    assert found.number == num_clusters == found.starts[-1]


def test_fewer_rows_than_cells_give_a_cell_a_row(monkeypatch):
    monkeypatch.setattr(cells, "MOST_FLAT", 50)
    found, rows = fitted(in_clusters(80), 300)
    assert found.number == 80
    assert all((found.of(part)[0] >= 0).all() for part in rows.parts)


@pytest.mark.parametrize("seed", range(3))
def test_upper_cells_without_rows_hold_no_cells(monkeypatch, seed):
    monkeypatch.setattr(cells, "MOST_FLAT", 50)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((15, 4))[rng.integers(0, 15, 900)]
    found, rows = fitted(x, 400, per_cluster=2)  # 20 upper cells of 15 distinct rows
    assert found.number == 400
    assert len(found.upper_TD) == len(found.starts) - 1 <= 15
    assert (np.diff(found.starts) > 0).all()
    for part in rows.parts:
        clusters, squared = found.of(part)
        assert (clusters >= 0).all()
        # faiss parts equal rows by about a thousandth; distinct ones are farther apart.
        assert (np.sqrt(squared) < 0.01 * found.grid.scale).all()


@pytest.mark.parametrize("seed", range(40))
def test_shares_are_whole_and_no_more_than_asked_for(seed):
    rng = np.random.default_rng(seed)
    sizes = np.where(rng.random(30) < 0.3, 0, rng.integers(1, 10 ** rng.integers(1, 6), 30))
    for number in (int((sizes > 0).sum()), 40, 200, int(sizes.sum()), int(sizes.sum()) + 9):
        if number < (sizes > 0).sum():
            continue
        shares = cells.shared_out(number, sizes)
        assert shares.sum() == min(number, sizes.sum())
        assert (shares <= sizes).all()
        assert ((shares > 0) == (sizes > 0)).all()
        # In proportion, as far as each must have one: of larger sizes no smaller shares.
        assert (np.diff(shares[np.argsort(sizes, kind="stable")]) >= -1).all()


def fine_rows(seed, num_rows=3000, width=24):
    """Rows in tight groups of near-equals, and one far out, so that the grid is fine."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(250, width))[rng.integers(0, 250, num_rows)]
    x += rng.choice([-1e-8, 1e-8, 2e-8], size=x.shape)
    x[0] = 1e4
    return x, rng.choice(10**9, num_rows, replace=False)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("selector", [KMeans(), ClusterMargin(num_clusters=280)], ids=repr)
def test_no_slicing_changes_cells_of_a_fine_grid(monkeypatch, seed, selector):
    monkeypatch.setattr(cells, "MOST_FLAT", 50)
    x, ids = fine_rows(seed)
    first = None
    for num_slices, dealt in ((1, None), (3, None), (7, 1), (40, 5)):
        rows = cut(ids, ids % 97.0, {"embeds": x}, num_slices, dealt)
        picks = selector.select(rows, none_labelled(embeds=x), 300, KEYS)
        first = picks if first is None else first
        assert picks.ids.tolist() == first.ids.tolist()
        assert picks.keys.tobytes() == first.keys.tobytes()


def test_probes_of_a_fine_grid_are_those_of_exact_differences():
    x, _ = fine_rows(1, num_rows=400)
    (grid,) = fit(
        (Grid("embeds"),), cut(np.arange(400), None, {"embeds": x}), none_labelled(embeds=x)
    )
    assert grid.fine
    points = grid.place(x)
    upper = points[::7]
    exact = ((points[:, None] - upper[None]) ** 2).sum(axis=2)
    expected = np.argsort(exact, axis=1, kind="stable")[:, :8]
    found = cells.near_cells(grid, points, upper, 8)
    at = np.arange(400)[:, None]
    np.testing.assert_allclose(exact[at, found], exact[at, expected], rtol=1e-12)
    alone = np.concatenate(
        [cells.near_cells(grid, points[i : i + 1], upper, 8) for i in range(400)]
    )
    assert (alone == found).all()


def test_no_large_part_of_the_rows_travels_at_once(monkeypatch):
    monkeypatch.setattr(cells, "MOST_FLAT", 50)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 8)).astype(np.float32)
    found, rows = fitted(x, 400, per_cluster=40)
    assert found.number == 400
    assert rows.most_bytes < 0.15 * x.nbytes  # 16,000 rows are sampled, a twentieth at a time


def test_labelled_rows_are_of_the_sample_too(monkeypatch):
    monkeypatch.setattr(cells, "MOST_FLAT", 50)
    x = in_clusters(1000)
    ids = np.arange(1000)
    first = None
    for num_slices in (1, 4):
        held = labelled(ids[900:], {"embeds": x[900:]}, num_slices=num_slices)
        rows = cut(ids[:900], np.zeros(900), {"embeds": x[:900]}, num_slices)
        picks = KMeans().select(rows, held, 60, KEYS)
        first = picks if first is None else first
        assert picks.ids.tolist() == first.ids.tolist()
    assert len(set(picks.details["cluster"].tolist())) == 60
