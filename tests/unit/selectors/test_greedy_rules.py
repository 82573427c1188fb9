"""Coverage, log-det and pairwise against the textbook greedy over all pairs."""

import os
import subprocess
import sys

import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.errors import ConfigError, ScoringError
from rayal.keys import Keys
from rayal.selectors import lazy, volume
from rayal.selectors.coverage import Coverage
from rayal.selectors.log_det import LogDet
from rayal.selectors.pairwise import Pairwise
from rayal.types import NO_ID

KEYS = Keys(3, 1)


class World:
    """Clusters of rows, some of them equal, and labelled rows among them."""

    def __init__(self, seed=0, num_rows=700, num_known=9, width=6, ties=False):
        rng = np.random.default_rng(seed)
        n = num_rows + num_known
        if ties:
            self.x = rng.integers(-3, 4, (n, width)).astype(np.float32)
            self.scores = rng.integers(0, 4, num_rows) / 4
        else:
            centers = 3 * rng.standard_normal((12, width))
            self.x = (centers[rng.integers(0, 12, n)] + rng.standard_normal((n, width))).astype(
                np.float32
            )
            self.scores = rng.random(num_rows)
        self.ids = rng.choice(np.arange(-5000, 5000), n, replace=False)
        self.n = num_rows

    def sides(self, num_slices=1, seed=None):
        known = {"embeds": self.x[self.n :]}
        return (
            cut(self.ids[: self.n], self.scores, {"embeds": self.x[: self.n]}, num_slices, seed),
            labelled(self.ids[self.n :], known, num_slices=2)
            if len(known["embeds"])
            else none_labelled(**known),
        )


def greedy(ids, gains_of, take, budget, follow=None):
    """Picks the highest gain, ties (but for rounding) by the smallest id; where `follow` says
    which of the rows that tie but for 1e-11, that one."""
    place = {int(sample_id): row for row, sample_id in enumerate(ids)}
    left, picked, keys = np.ones(len(ids), bool), [], []
    for turn in range(min(budget, len(ids))):
        gains = np.where(left, gains_of(), -np.inf)
        tied = np.flatnonzero(gains.round(9) == gains.round(9).max())
        best = int(tied[ids[tied].argmin()])
        if follow is not None and gains[place[int(follow[turn])]] > gains.max() - 1e-11:
            best = place[int(follow[turn])]
        picked.append(best)
        keys.append(gains[best])
        left[best] = False
        take(best)
    return ids[picked], np.array(keys)


def squared(a, b):
    return ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(axis=2)


def unit(x):
    norms = np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    return x / np.where(norms == 0, 1, norms)


def coverage_by_hand(world, budget, selector, follow=None):
    x = unit(world.x) if selector.normalise or selector.kernel == "cosine" else world.x
    stream = KEYS.stream("coverage references")
    order = np.argsort(stream.uniform(world.ids[: world.n]))[: selector.num_references]
    far = squared(x, x[: world.n][order])
    kernel = {
        "rbf": lambda d: np.exp(-d / selector.length**2),
        "ball": lambda d: (d <= selector.length**2).astype(float),
        "cosine": lambda d: 1 - d / 4,
    }[selector.kernel]
    k = kernel(far)
    w = world.scores[order] if selector.weighted else np.ones(len(order))
    best = np.max(k[world.n :], axis=0, initial=0.0)
    state = {"best": best}

    def gains():
        found = np.maximum(k[: world.n] - state["best"], 0.0) @ w / w.sum()
        return np.where(found < 2.0**-19, 0.0, found)

    def take(row):
        state["best"] = np.maximum(state["best"], k[row])

    return greedy(world.ids[: world.n], gains, take, budget, follow)


COVERAGES = [
    Coverage(length=4.0, num_references=300, precision="float"),
    Coverage(length=2.0, weighted=True, num_references=200, precision="float"),
    Coverage(kernel="ball", length=2.5, num_references=300, precision="float"),
    Coverage(kernel="cosine", num_references=10_000, precision="float"),
    Coverage(length=0.7, normalise=True, num_references=100, precision="float"),
]


@pytest.mark.parametrize("selector", COVERAGES, ids=repr)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 9])
def test_coverage_is_the_textbooks(selector, ties, num_known):
    for seed in range(2):
        world = World(seed, ties=ties, num_known=num_known)
        picks = selector.select(*world.sides(3), 60, KEYS)
        is_step = selector.kernel == "ball"  # its gains are whole numbers: ties are real
        ids, keys = coverage_by_hand(world, 60, selector, None if is_step else picks.ids)
        assert picks.ids.tolist() == ids.tolist()
        np.testing.assert_allclose(picks.keys, keys, atol=1e-9)


def test_coverage_on_integers_covers_as_well():
    world = World(1, num_rows=3000)
    selector = Coverage(length=4.0, num_references=500)
    picks = selector.select(*world.sides(3), 40, KEYS)
    assert "mode q" in picks.note
    _, keys = coverage_by_hand(world, 40, selector)
    assert abs(picks.keys.sum() / keys.sum() - 1) < 0.01


def test_coverage_goes_on_when_all_is_covered():
    world = World(0, num_rows=60, num_known=0)
    world.x[:] = world.x[np.arange(60) % 3]
    selector = Coverage(length=1.0, precision="float")
    picks = selector.select(*world.sides(4), 60, KEYS)
    assert sorted(picks.ids) == sorted(world.ids)
    assert (picks.keys[3:] == 0).all()
    assert picks.ids[3:].tolist() == sorted(picks.ids[3:])


def log_det_by_hand(world, budget, weighted=False, ridge=1.0):
    x = world.x.astype(float)
    w = world.scores if weighted else np.ones(world.n)
    width = x.shape[1]
    ridge = ridge * (x[: world.n] ** 2).sum(axis=1).mean() / width
    known = np.zeros((width, width))
    if not weighted:
        known = x[world.n :].T @ x[world.n :]
    state = {"m": ridge * np.eye(width) + known}
    mine = x[: world.n] * np.sqrt(w)[:, None]

    def gains():
        return np.log1p(np.einsum("nd,de,ne->n", mine, np.linalg.inv(state["m"]), mine))

    def take(row):
        state["m"] = state["m"] + np.outer(mine[row], mine[row])

    return greedy(world.ids[: world.n], gains, take, budget)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 9])
@pytest.mark.parametrize("num_slices", [1, 5])
def test_log_det_is_the_textbooks(ties, num_known, num_slices):
    for seed in range(3):
        world = World(seed, ties=ties, num_known=num_known)
        picks = LogDet().select(*world.sides(num_slices), 80, KEYS)
        ids, keys = log_det_by_hand(world, 80)
        assert picks.ids.tolist() == ids.tolist()
        np.testing.assert_allclose(picks.keys, keys, rtol=1e-9)


def test_log_det_weighs_by_score():
    world = World(2, num_known=0)
    picks = LogDet(weighted=True, ridge=0.1).select(*world.sides(3), 50, KEYS)
    assert picks.ids.tolist() == log_det_by_hand(world, 50, True, 0.1)[0].tolist()


def graph_by_hand(world, k):
    """The k nearest candidates of every row, distances, and whether candidates are neighbours."""
    x = unit(world.x)
    far = squared(x, x[: world.n])
    ids = world.ids[: world.n]
    far[np.arange(world.n), np.arange(world.n)] = np.inf
    near = np.array([np.lexsort((ids, row.round(9)))[:k] for row in far])
    edge = np.zeros((world.n, world.n), bool)
    edge[np.arange(world.n)[:, None], near[: world.n]] = True
    return near, far, edge | edge.T


def pairwise_by_hand(world, budget, selector):
    near, far, edge = graph_by_hand(world, selector.num_neighbours)
    ids = world.ids[: world.n]
    s = 1 - far / 4
    penalty = np.zeros(world.n)
    for row in range(world.n, len(world.ids)):
        penalty[near[row]] += s[row, near[row]]
    state = {"penalty": penalty}

    def take(row):
        state["penalty"] = state["penalty"] + np.where(edge[row], np.where(edge[row], s[row], 0), 0)

    return greedy(
        ids,
        lambda: selector.alpha * world.scores - selector.beta * state["penalty"],
        take,
        budget,
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 9])
@pytest.mark.parametrize("num_slices", [1, 5])
def test_pairwise_is_the_textbooks(ties, num_known, num_slices):
    for seed in range(2):
        world = World(seed, num_rows=300, ties=ties, num_known=num_known)
        if ties:
            world.x += 4  # no row of zeros, whose neighbours are all
        selector = Pairwise(alpha=1.0, beta=0.3, num_neighbours=5, precision="float")
        picks = selector.select(*world.sides(num_slices), 120, KEYS)
        ids, keys = pairwise_by_hand(world, 120, selector)
        np.testing.assert_allclose(picks.keys, keys, atol=1e-8)
        assert picks.ids.tolist() == ids.tolist()


@pytest.mark.parametrize("num_known", [0, 40])
@pytest.mark.parametrize("num_slices", [1, 5])
def test_pairwise_names_the_last_neighbour_picked_or_labelled(num_known, num_slices, monkeypatch):
    for name, value in (("_FEWEST", 3), ("_MOST", 17), ("_AIM", 9)):
        monkeypatch.setattr(lazy, name, value)  # many rounds
    world = World(3, num_rows=200, num_known=num_known)
    selector = Pairwise(alpha=1.0, beta=0.3, num_neighbours=5, precision="float")
    picks = selector.select(*world.sides(num_slices), 100, KEYS)
    near, _, edge = graph_by_hand(world, 5)
    place = {int(sample_id): row for row, sample_id in enumerate(world.ids)}
    rows = [place[sample_id] for sample_id in picks.ids.tolist()]
    known = sorted(range(world.n, len(world.ids)), key=lambda row: world.ids[row])
    for turn, row in enumerate(rows):
        before = [one for one in known if row in near[one]]
        before += [one for one in rows[:turn] if edge[row, one]]
        last = world.ids[before[-1]] if before else NO_ID
        assert picks.details["nearest_id"][turn] == last


EVERY = [
    Coverage(num_references=150),
    Coverage(kernel="ball", num_references=150, precision="float"),
    Coverage(kernel="cosine", weighted=True),
    LogDet(),
    LogDet(weighted=True),
    Pairwise(num_neighbours=4),
]


@pytest.mark.parametrize("selector", EVERY, ids=repr)
@pytest.mark.parametrize("ties", [False, True])
def test_no_slicing_changes_a_pick_or_a_key(selector, ties):
    world = World(5, num_rows=400, ties=ties)
    first = selector.select(*world.sides(), 90, KEYS)
    for num_slices, seed in ((3, None), (7, 1), (450, 2)):
        again = selector.select(*world.sides(num_slices, seed), 90, KEYS)
        assert again.ids.tolist() == first.ids.tolist()
        assert again.keys.tobytes() == first.keys.tobytes()
        assert again.reasons == first.reasons


@pytest.mark.parametrize("selector", EVERY, ids=repr)
def test_small_worlds(selector):
    world = World(4, num_rows=7, num_known=2)
    assert sorted(selector.select(*world.sides(9), 50, KEYS).ids) == sorted(world.ids[:7])
    assert len(selector.select(*world.sides(), 0, KEYS).ids) == 0
    nobody = World(4, num_rows=0, num_known=2)
    assert len(selector.select(*nobody.sides(2), 3, KEYS).ids) == 0
    one = World(4, num_rows=1, num_known=0)
    assert selector.select(*one.sides(), 3, KEYS).ids.tolist() == one.ids.tolist()


@pytest.mark.parametrize("selector", EVERY, ids=repr)
def test_bad_numbers_are_named(selector):
    world = World(6)
    world.x[17, 2] = np.nan
    with pytest.raises(ScoringError, match=rf"\(first sample_id {world.ids[17]}\)"):
        selector.select(*world.sides(2), 5, KEYS)


@pytest.mark.parametrize("selector", [Coverage(weighted=True), LogDet(weighted=True)], ids=repr)
def test_weights_below_0_are_refused(selector):
    world = World(6)
    world.scores[:] = -1.0
    with pytest.raises(ScoringError, match="expected weights of at least 0"):
        selector.select(*world.sides(2), 5, KEYS)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Coverage(kernel="linear"), "expected 'rbf', 'cosine' or 'ball'"),
        (lambda: Coverage(length=0.0), "expected more than 0"),
        (lambda: Coverage(num_references=0), "whole number of at least 1"),
        (lambda: LogDet(ridge=0.0), "expected more than 0"),
        (lambda: Pairwise(beta=-1.0), "expected at least 0"),
        (lambda: Pairwise(num_neighbours=0), "whole number of at least 1"),
        (lambda: Coverage(precision="double"), "expected 'integer', 'float' or nothing"),
    ],
)
def test_arguments_that_cannot_mean_anything(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_equal_rows_are_measured_once_a_pick(monkeypatch):
    rows = np.eye(6, dtype=np.float32)[np.random.default_rng(0).integers(0, 6, 900)]
    measured = []
    canonical = volume.canonical
    monkeypatch.setattr(
        volume, "canonical", lambda *args: measured.append(canonical(*args)) or measured[-1]
    )
    candidates = cut(np.arange(900), features={"embeds": rows}, num_slices=2)
    picks = LogDet().select(candidates, none_labelled(embeds=rows), 60, KEYS)
    # Directions in turn, and of each the smallest ids.
    turns = np.argmax(rows[picks.ids], axis=1).reshape(10, 6)
    assert (np.sort(turns, axis=1) == np.arange(6)).all()
    for direction in range(6):
        mine = picks.ids[np.argmax(rows[picks.ids], axis=1) == direction]
        assert mine.tolist() == np.flatnonzero(rows[:, direction])[:10].tolist()
    assert len(measured) <= 60 * 6


ROOT = """
import sys
import numpy as np
import torch
from rayal.selectors.log_det import LogDet
from slices import cut, labelled
from rayal.keys import Keys
torch.set_num_threads(int(sys.argv[1]))
x = np.random.default_rng(0).standard_normal((3_000, 256)).astype(np.float32)
mine = cut(np.arange(100), features={"embeds": x[:100]})
picks = LogDet().select(mine, labelled(np.arange(100, 3_000), {"embeds": x[100:]}), 20, Keys(0, 0))
print(picks.ids.tolist(), picks.keys.tobytes().hex())
"""


def test_threads_change_no_bit_of_a_root():
    said = []
    for number in ("1", "2"):
        threads = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), number
        )
        path = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, **threads, "PYTHONPATH": path}
        command = [sys.executable, "-c", ROOT, number]
        said.append(
            subprocess.run(command, env=environment, check=True, capture_output=True).stdout
        )
    assert said[0] == said[1]
