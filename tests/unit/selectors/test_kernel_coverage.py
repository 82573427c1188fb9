"""Bounds of coverage: whatever rounds, and in whatever order, none is below its gain."""

import numpy as np
import pytest
import torch

from rayal.selectors.codes import Codes
from rayal.selectors.floats import Floats
from rayal.selectors.kernel_coverage import CoveragePool, CoverageState, KernelCoverage
from rayal.selectors.kernels import Kernel
from rayal.types import Slice

WIDTH = 6


class World:
    """Rows of a slice, references, and how well these are covered."""

    def __init__(self, kernel, on_integers, num_rows, num_references, seed):
        rng = np.random.default_rng(seed)
        x = 0.3 * rng.standard_normal((num_rows + num_references, WIDTH))
        self.space = Floats(("embeds",), (np.zeros(WIDTH),), (1.0,), (False,))
        if on_integers:
            self.space = Codes("embeds", None, 1.0, "int8")
            x = np.rint(60 * x)
        x = x.astype(np.int8 if on_integers else np.float32)
        self.part = Slice(0, np.arange(num_rows), np.zeros(num_rows), {"embeds": x[:num_rows]})
        self.kernel = Kernel(kernel, 60.0 if on_integers else 1.0)
        self.references = (x[num_rows:],)
        self.space.open(self.part)

    def similar(self):
        """Gives (M, R) similarities, each by itself."""
        rows = self.space.rows(self.part, np.arange(len(self.part)))
        references = self.space.place(self.references)
        each = [self.space.take(rows, np.array([at])) for at in range(len(self.part))]
        return self.kernel.of(np.stack([self.space.nearest(references, one)[1] for one in each]))

    def bounds(self, best_R):
        """Gives the bounds of the slice, those of the pool's product, and the gains."""
        rule = KernelCoverage(
            self.space, self.kernel, self.references, np.ones(len(best_R)), best_R
        )
        every = np.arange(len(self.part))
        state = CoverageState(self.part, rule)
        state.refresh(every, -np.inf)
        payload = self.space.payload(self.part, every)
        unknown = np.full(len(every), np.inf)
        pool = CoveragePool(rule, every, unknown, self.part.scores, payload, best_R)
        gains = np.array([pool._canonical(one_R) for one_R in self.similar()])
        pool._look(every)
        return state.bounds, pool.bounds, gains


@pytest.mark.parametrize("kernel", ["rbf", "cosine", "ball"])
@pytest.mark.parametrize("on_integers", [False, True])
@pytest.mark.parametrize("num_references", [3, 300])
def test_no_bound_is_below_its_gain(kernel, on_integers, num_references):
    for seed in range(3):
        world = World(kernel, on_integers, 300, num_references, seed)
        similar = world.similar()
        for share in (0.0, 1 - 1e-3, 1 - 1e-5):  # of what the fourth best row would cover
            best_R = share * np.partition(similar, -4, axis=0)[-4]
            for_slice, for_pool, gains = world.bounds(best_R)
            assert (for_slice >= gains).all()
            assert (for_pool >= gains).all()


def one_after_the_other(matrix, vector):
    """A product that BLAS may give: no order of its sums is promised."""
    total = torch.zeros(len(matrix))
    for column, factor in zip(matrix.T, vector, strict=True):
        total += column * factor
    return total


@pytest.mark.parametrize("product", [torch.mv, one_after_the_other])
def test_sums_in_float32_hide_no_gain(product, monkeypatch):
    monkeypatch.setattr(torch, "mv", product)
    world = World("cosine", False, 300, 256, 0)
    world.references[0][:] = 0  # so that a row adds the same for each, and rounding adds up
    for_slice, for_pool, gains = world.bounds(np.zeros(256))
    assert (for_slice >= gains).all()
    assert (for_pool >= gains).all()
