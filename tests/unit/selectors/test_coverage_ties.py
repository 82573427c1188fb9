"""Coverage where rows tie: the plain greedy over canonical gains, and what it may cost."""

import itertools

import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.keys import Keys
from rayal.selectors import kernel_coverage
from rayal.selectors.coverage import Coverage
from rayal.selectors.kernel_coverage import CoveragePool
from rayal.selectors.space import equal_rows

KEYS = Keys(3, 1)
IDS = np.random.default_rng(9).permutation(4_000)


def world(kind, num_rows=300, width=5):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((num_rows, width)).astype(np.float32) * 20
    if kind == "lattice":
        x = rng.integers(-1, 2, (num_rows, width)).astype(np.float32)
    elif kind == "duplicates":
        x[: num_rows // 2] = x[0]
        x[num_rows // 2 :: 3] = x[-1]
    elif kind == "few distinct":
        x = x[rng.integers(0, 12, num_rows)]
    elif kind == "mirrored":  # gains differ by rounding alone
        x[num_rows // 2 :] = -x[: num_rows - num_rows // 2]
    return x


def sides(x, num_slices=1, known=4, scores=None):
    num_rows = len(x) - known
    embeds = {"embeds": x[:num_rows]}
    theirs = {"embeds": x[num_rows:]}
    held = labelled(np.arange(9_000, 9_000 + known), theirs) if known else none_labelled(**embeds)
    return cut(IDS[:num_rows], scores, embeds, num_slices), held


class Watched(CoveragePool):
    """A pool that keeps what the plain greedy over all rows would pick."""

    def __init__(self, rule, ids, bounds, scores, payload, best_R):
        super().__init__(rule, ids, bounds, scores, payload, best_R)
        self.similar = np.array([self._similar(at) for at in range(len(ids))])

    def best(self):
        at = super().best()
        open_ = np.flatnonzero(self.bounds > -np.inf)
        gains = np.array([self._canonical(self.similar[one]) for one in open_])
        assert at == (open_[gains.argmax()] if len(open_) else -1)
        assert at < 0 or self.gain(at) == gains.max()
        return at


@pytest.mark.parametrize("kind", ["lattice", "duplicates", "few distinct", "mirrored"])
@pytest.mark.parametrize("precision", ["integer", "float"])
@pytest.mark.parametrize(
    ("kernel", "length"), [("rbf", None), ("rbf", 1e-3), ("ball", None), ("cosine", None)]
)
@pytest.mark.parametrize("many", [0, 4])
def test_every_pick_has_the_highest_canonical_gain_and_of_those_the_smallest_id(
    kind, precision, kernel, length, many, monkeypatch
):
    monkeypatch.setattr(kernel_coverage, "CoveragePool", Watched)
    monkeypatch.setattr(kernel_coverage, "_MANY", many)
    selector = Coverage(kernel=kernel, length=length, num_references=100, precision=precision)
    first = selector.select(*sides(world(kind)), 40, KEYS)
    again = selector.select(*sides(world(kind), 5), 40, KEYS)
    assert again.ids.tolist() == first.ids.tolist()
    assert again.keys.tobytes() == first.keys.tobytes()


@pytest.mark.parametrize("length", [20.0, 60.0, 90.0, 150.0])
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_add_the_same_in_another_order_tie(length, seed):
    # All ways to turn the axes: what a row adds, its turned copies add, reference by reference.
    some = np.random.default_rng(seed).integers(-99, 100, (60, 3))
    x = np.concatenate([some[:, turn] for turn in itertools.permutations(range(3))])
    rows, held = sides(x.astype(np.int8), known=0)
    picks = Coverage(length=length).select(rows, held, 2, KEYS)
    assert "their own codes" in picks.note
    first = int(np.flatnonzero(IDS[: len(x)] == picks.ids[0])[0])
    assert picks.ids[0] == IDS[first % 60 : len(x) : 60].min()


@pytest.mark.parametrize("precision", [None, "float"])
@pytest.mark.parametrize(
    ("kind", "length"), [("few distinct", 5.0), ("duplicates", 5.0), ("normal", 1e-3)]
)
def test_ties_cost_no_look_a_row_and_pick(precision, kind, length, monkeypatch):
    measured, canonical = [], CoveragePool._canonical
    monkeypatch.setattr(
        CoveragePool, "_canonical", lambda *args: measured.append(1) or canonical(*args)
    )
    selector = Coverage(length=length, precision=precision, num_references=500)
    picks = selector.select(*sides(world(kind, 2_000), known=0), 300, KEYS)
    assert len(picks.ids) == 300
    assert len(measured) < 2 * 2_000 + 20 * 300  # a look a row and pick: 600,000


def test_what_adds_nothing_is_picked_by_id_without_a_look(monkeypatch):
    x = np.zeros((300, 3), np.float32)
    x[:3] = np.eye(3) * 9
    looks = []
    for name in ("_look", "_measure"):
        plain = getattr(CoveragePool, name)
        monkeypatch.setattr(
            CoveragePool, name, lambda *args, plain=plain: looks.append(1) or plain(*args)
        )
    picks = Coverage(length=1.0, precision="float").select(*sides(x, known=0), 300, KEYS)
    assert picks.ids[4:].tolist() == sorted(picks.ids[4:])
    assert (picks.keys[4:] == 0.0).all()
    assert len(looks) < 50


def test_near_duplicates_cover_each_other_however_short_the_length():
    # A product leaves about 1e-14 of distances between rows that are equal.
    rng = np.random.default_rng(0)
    x = np.repeat(rng.standard_normal((40, 6)) + 30.0, 5, axis=0)
    x = x[rng.permutation(len(x))]
    for length in (1e-3, 1e-7, 1e-12, 1e-200):
        picks = Coverage(length=length, precision="float").select(*sides(x, 2, 0), 60, KEYS)
        np.testing.assert_allclose(picks.keys[:40], 1 / 40)
        assert (picks.keys[40:] == 0.0).all()


def test_equal_rows():
    rows = np.array([[1, 2], [3, 4], [1, 2], [1, 4]], np.float32)
    assert equal_rows((rows,)).tolist() == [0, 1, 0, 2]
    assert equal_rows((rows, np.array([[0], [0], [1], [0]]))).tolist() == [0, 1, 2, 3]
