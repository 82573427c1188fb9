import numpy as np
import pytest
from slices import cut, none_labelled

from rayal.selectors.farthest import fit_space
from rayal.selectors.space import sample_of
from rayal.selectors.view import Floats32, Integers, bounds, view_of


def opened(values, precision):
    rows = cut(np.arange(len(values)), features={"embeds": values})
    sample = sample_of(rows, ("embeds",), 0)
    names = (("embeds",), (False,))
    space, _ = fit_space(*names, rows, none_labelled(embeds=values), sample, 10, precision)
    (part,) = rows.parts
    space.open(part)
    return part, space, view_of(part, space)


def plain(part, space, center):
    points = space.rows(part, np.arange(len(part)))
    return space.nearest(points, space.place(center))[1]


VALUES = {
    "plain": np.random.default_rng(0).normal(size=(9_000, 24)).astype(np.float32),
    "float64": np.random.default_rng(1).normal(size=(500, 24)),
    "float16": np.random.default_rng(1).normal(size=(500, 24)).astype(np.float16),
    "offset": np.random.default_rng(2).normal(size=(500, 24)) + 1e7,
    "offset32": (np.random.default_rng(2).normal(size=(500, 24)) + 1e3).astype(np.float32),
    "far": np.random.default_rng(3).normal(size=(500, 24)) * np.logspace(-6, 6, 500)[:, None],
    "int32": np.random.default_rng(4).integers(-(2**30), 2**30, (500, 24), dtype=np.int32),
    "huge": np.random.default_rng(5).normal(size=(500, 24)) * 1e80,
    "minute": np.random.default_rng(5).normal(size=(500, 24)) * 1e-80,
    "int8": np.random.default_rng(6).integers(-99, 99, (9_000, 24)).astype(np.int8),
}  # fmt: skip
ON_INTEGERS = ("plain", "float64", "offset32", "int8")  # the others do not fit
CASES = [(name, "float") for name in VALUES] + [(name, "integer") for name in ON_INTEGERS]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_rows_nearer_by_a_bit_are_found_and_no_others(name, precision):
    part, space, view = opened(VALUES[name], precision)
    assert isinstance(view, Integers if precision == "integer" else Floats32)
    for at in (0, 7, len(part) - 1):
        center = space.payload(part, np.array([at]))
        squared = plain(part, space, center)
        rows, found = view.nearer(center[0], np.nextafter(squared, np.inf))
        np.testing.assert_array_equal(rows, np.arange(len(part)))
        assert found.tobytes() == squared.tobytes()
        assert len(view.nearer(center[0], squared)[0]) == 0
        taken = np.where(np.arange(len(part)) % 2, -1.0, np.inf)
        np.testing.assert_array_equal(view.nearer(center[0], taken)[0], np.arange(0, len(part), 2))
        some = np.arange(3, len(part), 5)
        assert view.measured(some, center[0]).tobytes() == squared[some].tobytes()


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_bounds_are_below_and_near(name, precision):
    part, space, view = opened(VALUES[name], precision)
    which = np.arange(0, len(part), 3)
    (vectors,) = space.payload(part, which)
    center = space.payload(part, np.array([1]))
    low = bounds(view, view.vectors(vectors), view.norms_of(view.vectors(vectors)), center[0])
    squared = plain(part, space, center)[which]
    assert low.dtype == np.float64
    assert (low <= squared).all()
    if precision == "integer":
        assert (low == squared).all()
    elif name not in ("huge", "minute", "far"):
        assert np.median(low / squared) > 0.9
