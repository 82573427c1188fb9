"""The k nearest candidates, block by block and slice by slice, against all pairs."""

import itertools

import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.selectors.farthest import fit_space
from rayal.selectors.floats import Floats
from rayal.selectors.neighbourhood import Best, nearest_candidates
from rayal.selectors.space import sample_of


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_smallest_of_all_blocks_are_among_what_is_given(dtype):
    rng = np.random.default_rng(0)
    values = np.round(40 * rng.random((30, 1_000))).astype(dtype)  # many ties
    values[rng.random(values.shape) < 0.3] = np.inf
    values[3] = np.inf
    best, found = Best(30, 7), np.zeros(values.shape, bool)
    edges = [0, 3, 5, 300, 301, 640, 1_000]
    for lo, hi in itertools.pairwise(edges):
        row, other = best.add(values[:, lo:hi], 0.0)
        found[row, other + lo] = True
    for row, given in zip(values, found, strict=True):
        assert np.isfinite(row[given]).all()
        wanted = np.sort(row)[:7]
        wanted = wanted[np.isfinite(wanted)]
        assert np.sort(row[given])[: len(wanted)].tolist() == wanted.tolist()
        assert not given.all()


@pytest.mark.parametrize("precision", ["integer", "float"])
@pytest.mark.parametrize("num_slices", [1, 3])
def test_they_are_the_nearest_of_all_pairs_over_many_blocks(precision, num_slices):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6_000, 4)).astype(np.float32)
    x[::3] = x[0]  # ties beyond any k
    rows = cut(np.arange(6_000), features={"embeds": x}, num_slices=num_slices, seed=2)
    none = none_labelled(embeds=x)
    sample = sample_of(rows, ("embeds",), 0)
    space, _ = fit_space(("embeds",), (False,), rows, none, sample, 100, precision)
    held = labelled(np.arange(20), {"embeds": x[:20]})
    rows.each(_opened, 20, space)
    queries = space.encoded(held.parts[0], 0, 20)
    found = nearest_candidates(rows, space, queries, np.arange(20), 5, 21)
    every = labelled(np.arange(6_000), {"embeds": x})
    points = space.place(space.encoded(every.parts[0], 0, 6_000))
    for query in range(20):
        far = space.nearest(points, space.take(points, np.array([query])))[1]
        far[query] = np.inf  # no row is its own neighbour
        order = np.lexsort((np.arange(6_000), far))[:5]
        assert found.ids[query].tolist() == order.tolist()
        assert found.squared[query].tolist() == far[order].tolist()


def _opened(part, step, space):
    space.open(part)


@pytest.mark.parametrize("num_slices", [1, 3])
def test_of_equal_rows_few_are_looked_at(num_slices, monkeypatch):
    """Else f M equal rows (blank images) are (f M)^2 pairs."""
    x = np.random.default_rng(1).standard_normal((1_500, 4)).astype(np.float32)
    x[::2] = 0.0
    rows = cut(np.arange(1_500), features={"embeds": x}, num_slices=num_slices, seed=2)
    sample = sample_of(rows, ("embeds",), 0)
    space, _ = fit_space(("embeds",), (False,), rows, none_labelled(embeds=x), sample, 100, "float")
    measured = []
    paired = Floats.paired
    monkeypatch.setattr(
        Floats, "paired", lambda *args: measured.append(paired(*args)) or measured[-1]
    )
    rows.each(_opened, 20, space)
    found = nearest_candidates(rows, space, (x[:40],), np.arange(40), 5, 21)
    assert sum(map(len, measured)) < 40 * 3 * 8 * num_slices
    blank = np.arange(0, 14, 2)
    for query in range(0, 40, 2):
        assert found.ids[query].tolist() == blank[blank != query][:5].tolist()
