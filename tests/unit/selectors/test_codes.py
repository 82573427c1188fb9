"""Mode q: when rows become integers, which ones, and where their middle lies."""

import numpy as np
import pytest
from slices import cut, none_labelled

from rayal.keys import Keys
from rayal.selectors.codes import fit_codes
from rayal.selectors.k_center import KCenter
from rayal.selectors.space import sample_of

KEYS = Keys(2, 0)


def mostly_near_0(rng, num_rows=500):
    """Rows far apart by a few coordinates, and their mirror images; other coordinates are small."""
    x = rng.standard_normal((num_rows, 64)) * 1.6e-3
    at = rng.integers(0, 64, (num_rows, 3))
    x[np.arange(num_rows)[:, None], at] = rng.uniform(-1, 1, (num_rows, 3))
    return np.concatenate([x, -x]).astype(np.float32)


def crowds(rng, num_rows=1_000):
    """Rows in crowds, a few steps wide."""
    x = np.repeat(rng.standard_normal((num_rows // 50, 32)), 50, axis=0)
    return (x + 8e-3 * rng.standard_normal(x.shape)).astype(np.float32)


def fitted(x, budget=100, force=False):
    rows = cut(np.arange(len(x)), features={"embeds": x}, num_slices=3)
    (sample_nD,) = sample_of(rows, ("embeds",), 0)
    return fit_codes("embeds", rows, none_labelled(embeds=x), sample_nD, budget, 1, force)


def said_of(why):
    """Gives the share of the median coordinate that a step is, and the steps between neighbours."""
    words = why.split()
    return float(words[words.index("of") - 1]), float(words[words.index("steps") - 1])


def test_coordinates_that_would_round_to_0_make_no_codes():
    codes, why = fitted(mostly_near_0(np.random.default_rng(0)))
    share, steps = said_of(why)
    assert codes is None
    assert 0.5 < share < 1
    assert steps > 100  # the other half of the gate passes


def test_neighbours_that_rounding_would_reorder_make_no_codes():
    codes, why = fitted(crowds(np.random.default_rng(0)))
    share, steps = said_of(why)
    assert codes is None
    assert share < 0.05  # the other half of the gate passes
    assert 10 < steps < 24


@pytest.mark.parametrize("kind", [mostly_near_0, crowds])
def test_what_is_asked_for_in_spite_of_the_gate_is_int16(kind):
    x = kind(np.random.default_rng(0))
    codes, why = fitted(x, force=True)
    assert why.startswith("int16 as asked, though a step is ")
    assert codes.dtype == "int16"
    norms = np.linalg.norm(codes.encode(x).astype(float), axis=1)
    assert 2_000 < norms.max() <= 2_047  # the whole range, without int8's cap on coordinates


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("width", [3, 200])
def test_codes_are_the_nearest_integers(dtype, width):
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((500, width)) + 5).astype(dtype)
    codes, _ = fitted(x, force=True)
    exact = (x.astype(float) - codes.origin) * codes.scale
    found = codes.encode(x)
    assert found.dtype == codes.dtype
    assert np.abs(found - exact).max() <= 0.5 + 1e-3  # of float32, in which rows are moved


@pytest.mark.parametrize("budget", [10, 100])  # the plain way, and mode q
def test_int8_rows_that_are_their_own_codes_begin_farthest_from_their_mean(budget):
    x = np.random.default_rng(0).integers(20, 100, (400, 4)).astype(np.int8)
    ids = np.random.default_rng(1).permutation(400)
    rows = cut(ids, features={"embeds": x}, num_slices=3)
    picks = KCenter().select(rows, none_labelled(embeds=x), budget, KEYS)
    assert ("their own codes" in picks.note) == (budget == 100)
    place = x.astype(float).mean(axis=0)
    far = np.square(x - (np.rint(place) if budget == 100 else place)).sum(axis=1)
    assert picks.ids[0] == ids[np.lexsort((ids, -far))[0]]
    np.testing.assert_allclose(picks.keys[0], np.sqrt(far.max()))


@pytest.mark.parametrize(("highest", "is_own"), [(100, True), (127, False)])
def test_int8_rows_are_their_own_codes_only_up_to_norms_whose_products_are_exact(highest, is_own):
    x = np.random.default_rng(0).choice([-highest, highest], (300, 400)).astype(np.int8)
    codes, _ = fitted(x)
    assert (codes.origin is None) == is_own
    assert np.linalg.norm(codes.encode(x).astype(float), axis=1).max() <= 2_047


def test_norms_stay_in_range_where_all_coordinates_would_round_up():
    some = np.random.default_rng(0).choice([-1.0, 1.0], (150, 270))
    x = np.concatenate([some, -some]).astype(np.float32)
    codes, _ = fitted(x)
    norms = np.linalg.norm(codes.encode(x).astype(float), axis=1)
    assert 2_000 < norms.max() <= 2_047  # at 2,047 / sqrt(270) = 124.6 steps it would be 2,054
