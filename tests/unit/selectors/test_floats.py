"""Mode f: a product of float32 only says which centers may be nearest, and never rules one out."""

from unittest.mock import patch

import numpy as np
import pytest
import torch

from rayal.selectors import floats
from rayal.selectors.floats import Floats, true_places

WIDTHS = (1, 3, 24)


def points(rows_nD):
    width = rows_nD.shape[1]
    space = Floats(("embeds",), (np.zeros(width),), (1.0,), (False,))
    return space, space.place((rows_nD,))


def hard(kind, rng, num_rows, num_centers, width):
    """Rows and centers of which float32 tells many apart wrongly."""
    rows, centers = (rng.normal(size=(n, width)) for n in (num_rows, num_centers))
    if kind == "near-ties":  # centers in pairs, 2^-30 apart
        centers[1::2] = centers[: len(centers) // 2 * 2 : 2] * (1.0 + rng.normal() * 2.0**-30)
    elif kind == "a shell":  # all centers about as far from all rows
        rows *= 2.0**-14
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    elif kind == "far from 0":
        rows, centers = rows * 2.0**-12 + 1.0, centers * 2.0**-12 + 1.0
    elif kind == "wild norms":
        rows *= 10.0 ** rng.integers(-60, 1, (num_rows, 1))
        centers *= 10.0 ** rng.integers(-60, 1, (num_centers, 1))
    elif kind == "copies":
        centers[:] = centers[rng.integers(0, min(3, num_centers), num_centers)]
    longest = max(np.linalg.norm(rows, axis=1).max(), np.linalg.norm(centers, axis=1).max())
    return rows / longest, centers / longest


@pytest.mark.parametrize("num_centers", [2, 15, 64, 512])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "kind", ["plain", "near-ties", "a shell", "far from 0", "wild norms", "copies"]
)
def test_the_nearest_of_all_by_exact_sums(kind, width, num_centers):
    rng = np.random.default_rng(7)
    rows, centers = hard(kind, rng, 200, num_centers, width)
    space, x = points(rows)
    _, c = points(centers)
    place, squared = space.nearest(x, c)
    every = np.stack([np.square(rows - one).sum(axis=1) for one in centers], axis=1)
    by_itself = np.stack(
        [space.nearest(x, space.take(c, np.array([j])))[1] for j in range(num_centers)], axis=1
    )
    np.testing.assert_allclose(by_itself, every, rtol=1e-12)
    np.testing.assert_array_equal(place, by_itself.argmin(axis=1))
    np.testing.assert_array_equal(squared, by_itself.min(axis=1))


def test_float32_leaves_float64_little_to_do():
    """Else it would be a detour: of rows as they come nearly all have one center in question."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(256, 32)) / 12
    (_, x), (_, c) = points(rows), points(rng.normal(size=(512, 32)) / 12)
    with patch.object(floats, "_may_be_nearest", side_effect=AssertionError):
        row_P, _ = floats._maybe_nearest(x, c)
    assert len(row_P) < 1.02 * len(rows)


def test_without_whole_float32_the_answer_is_the_same():
    rng = np.random.default_rng(2)
    (space, x), (_, c) = points(rng.normal(size=(64, 8)) / 9), points(rng.normal(size=(40, 8)) / 9)
    expected = space.nearest(x, c)
    torch.set_float32_matmul_precision("medium")
    try:
        found = space.nearest(x, c)
        assert not floats._is_whole_float32("medium")
    finally:
        torch.set_float32_matmul_precision("highest")
    assert floats._is_whole_float32("highest")
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(5, 512), (3, 7), (0, 8), (4, 0), (33, 16)])
def test_true_places_are_those_of_numpy(shape):
    flags = np.random.default_rng(0).random(shape) < 0.1
    for one, other in zip(true_places(flags), np.nonzero(flags), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(true_places(flags.T), np.nonzero(flags.T), strict=True):
        np.testing.assert_array_equal(one, other)
