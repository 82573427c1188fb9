import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.errors import ConfigError, ScoringError
from rayal.keys import Keys
from rayal.selectors import seals as module
from rayal.selectors.seals import Seals

pytest.importorskip("faiss")
KEYS = Keys(3, 2)


class World:
    def __init__(self, seed, n=300, num_known=9, width=4, lattice=False):
        rng = np.random.default_rng(seed)
        total = n + num_known
        rows = rng.integers(-2, 3, (total, width)) if lattice else rng.normal(size=(total, width))
        self.rows = rows.astype(np.float32)
        self.ids = rng.choice(np.arange(-4 * total, 4 * total), total, replace=False)
        self.n = n

    def sides(self, num_slices=1, seed=None, known_slices=2):
        mine, known = {"place": self.rows[: self.n]}, {"place": self.rows[self.n :]}
        return (
            cut(self.ids[: self.n], None, mine, num_slices, seed),
            labelled(self.ids[self.n :], known, num_slices=known_slices),
        )

    def textbook(self, k, budget):
        """The k nearest of every labelled row by all pairs, k doubled while they are too few."""
        while True:
            found = set()
            for query in self.rows[self.n :].astype(float):
                squared = ((self.rows[: self.n] - query) ** 2).sum(axis=1)
                found |= set(np.lexsort((self.ids[: self.n], squared))[:k].tolist())
            if len(found) >= min(budget, self.n):
                return sorted(self.ids[sorted(found)].tolist())
            k *= 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lattice", [False, True])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_the_neighbors_of_the_labelled_rows_are_allowed(seed, lattice, k, monkeypatch):
    monkeypatch.setattr(module, "_QUERIES", 4)
    world = World(seed, lattice=lattice)
    for budget in (3, 60, 300, 500):
        expected = world.textbook(k, budget)
        for num_slices, dealt in ((1, None), (3, seed), (7, seed), (120, 1))[: 4 - (k > 1)]:
            sides = world.sides(num_slices, dealt, 1 + seed % 3)
            allowed = Seals("place", k).restrict(*sides, budget, KEYS)
            assert allowed.ids.tolist() == expected


@pytest.mark.parametrize("round_of", range(60))
def test_fuzz(round_of):
    rng = np.random.default_rng(round_of)
    world = World(
        round_of,
        n=int(rng.integers(1, 50)),
        num_known=int(rng.integers(1, 9)),
        width=int(rng.integers(1, 4)),
        lattice=bool(rng.integers(2)),
    )
    if round_of % 5 == 0:
        world.rows[:] = 1.5
    k, budget = int(rng.integers(1, 9)), int(rng.integers(1, 60))
    sides = world.sides(int(rng.integers(1, 9)), round_of)
    allowed = Seals("place", k).restrict(*sides, budget, KEYS)
    assert allowed.ids.tolist() == world.textbook(k, budget)


def test_the_note_says_what_is_scored():
    world = World(1)
    note = Seals("place", 5).restrict(*world.sides(3), 10, KEYS).note
    num = len(world.textbook(5, 10))
    assert note == (
        f"{num} of 300 rows are scored: the 5 nearest of each of 9 labelled rows by 'place'"
    )
    assert "the 10 nearest (5 gave too few) of" in (
        Seals("place", 5).restrict(*world.sides(3), 50, KEYS).note
    )


def test_without_labelled_rows_every_row_is_scored():
    mine, _ = World(1).sides(3)
    none = none_labelled(place=np.zeros((0, 4), np.float32))
    allowed = Seals("place").restrict(mine, none, 10, KEYS)
    assert allowed.ids is None
    assert allowed.note == "nothing is labelled yet, so every row is scored"


def test_no_candidates_at_all():
    world = World(1, n=0)
    assert len(Seals("place").restrict(*world.sides(2), 10, KEYS).ids) == 0


def test_lists_are_approximate_and_repeat():
    world = World(2, n=2_000, num_known=20)
    exact = Seals("place", 20).restrict(*world.sides(2), 10, KEYS).ids
    seals = Seals("place", 20, "ivf", num_lists=32, num_probes=8)
    found = seals.restrict(*world.sides(2), 10, KEYS).ids
    assert len(np.intersect1d(exact, found)) > 0.8 * len(exact)
    assert (seals.restrict(*world.sides(2), 10, KEYS).ids == found).all()
    few = Seals("place", 20, "ivf", num_lists=500, num_probes=1)
    assert few.restrict(*world.sides(1), 2_000, KEYS).ids is None


def test_lost_and_repeated_questions_change_nothing():
    from test_lost_slices import Losing

    world = World(4)
    steady = Seals("place", 7).restrict(*world.sides(4), 90, KEYS)
    mine, known = world.sides(4)
    shaken = Seals("place", 7).restrict(Losing(mine.parts), Losing(known.parts), 90, KEYS)
    assert (shaken.ids == steady.ids).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_bad_features_are_named(bad):
    world = World(4)
    world.rows = world.rows.astype(np.float64)
    world.rows[9, 2] = bad
    with pytest.raises(ScoringError, match=rf"first sample_id {world.ids[9]}\)"):
        Seals("place").restrict(*world.sides(4), 3, KEYS)


def test_arguments_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"Seals.feature is 'embeds', an output of the model"):
        Seals("embeds")
    with pytest.raises(ConfigError, match=r"Seals.feature is 'label'"):
        Seals("label")
    with pytest.raises(ConfigError, match=r"Seals.index is 'hnsw', expected one of flat, ivf"):
        Seals("place", index="hnsw")
    for name in ("num_neighbors", "num_lists", "num_probes"):
        with pytest.raises(ConfigError, match=rf"Seals.{name} is 0, expected a whole number"):
            Seals("place", **{name: 0})
