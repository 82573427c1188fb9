import numpy as np
import pytest
from slices import cut, labelled

from rayal.errors import ConfigError, ScoringError
from rayal.keys import Keys
from rayal.neighbors import train_kmeans
from rayal.selectors import typical
from rayal.selectors.grid import Grid, fit
from rayal.selectors.sample import centroids
from rayal.selectors.turns import clusters_of
from rayal.selectors.typiclust import TypiClust

KEYS = Keys(3, 2)


class World:
    """Zipf-weighted clusters; rows are multiples of 1/8, so that distances tie and are exact."""

    def __init__(self, seed, n=300, num_known=12, num_centers=9, width=4):
        rng = np.random.default_rng(seed)
        total = n + num_known
        centers = 20 * rng.standard_normal((num_centers, width))
        share = 1 / np.arange(1, num_centers + 1)
        rows = centers[rng.choice(num_centers, total, p=share / share.sum())]
        rows = rows + rng.standard_normal((total, width)) * rng.uniform(0.5, 2, (total, 1))
        self.embeds = (np.round(rows * 8) / 8).astype(np.float32)
        self.ids = rng.choice(np.arange(-4 * total, 4 * total), total, replace=False)
        self.scores = rng.random(n)
        self.n = n

    def sides(self, num_slices=1, seed=None):
        mine, known = {"embeds": self.embeds[: self.n]}, {"embeds": self.embeds[self.n :]}
        return (
            cut(self.ids[: self.n], self.scores, mine, num_slices, seed),
            labelled(self.ids[self.n :], known, num_slices=2),
        )

    def settled(self, num_clusters):
        """The clusters as they are found, where equal rows and places between two decide much."""
        sides = self.sides()
        (grid,) = fit((Grid("embeds"),), *sides)
        found = centroids(sides, grid, num_clusters, 64, 10, KEYS, "typiclust")
        every = cut(self.ids, None, {"embeds": self.embeds}).parts[0]
        clusters, _ = clusters_of(every, grid, found)
        return clusters[np.searchsorted(every.ids, self.ids)]

    def clusters(self, num_clusters, num_sampled):
        stream = KEYS.stream("typiclust sample")
        rows = np.argsort(stream.uniform(self.ids))[:num_sampled]
        rows = rows[np.argsort(self.ids[rows])]
        seed = KEYS.stream("typiclust").seed()
        centroids = train_kmeans(self.embeds[rows], num_clusters, seed)
        far = ((self.embeds[:, None].astype(float) - centroids[None]) ** 2).sum(axis=2)
        return far.argmin(axis=1)


def textbook(world, clusters, budget, k=20, small=5, most=None):
    """Cluster by cluster, every row against every other; turns are taken one by one."""
    n, queues, size, had = world.n, {}, {}, {}
    draws = KEYS.stream("typiclust reference").uniform(world.ids)
    for c in range(clusters.max() + 1):
        rows = np.flatnonzero(clusters[:n] == c)
        had[c], size[c] = int((clusters[n:] == c).sum()), int((clusters == c).sum())
        others = rows if most is None else rows[np.argsort(draws[rows])[:most]]
        number = min(k, len(others) // 2)
        mean = {}
        for row in rows:
            apart = [
                np.sqrt(((world.embeds[row].astype(float) - world.embeds[o]) ** 2).sum())
                for o in others
                if o != row
            ]
            mean[row] = float(np.mean(np.sort(apart)[:number])) if number else 0.0
        queues[c] = sorted(rows, key=lambda row: (round(mean[row], 9), world.ids[row]))
    order = sorted(queues, key=lambda c: (-size[c], c))
    picked = []
    for group in (
        [c for c in order if size[c] > small],
        [c for c in order if size[c] <= small],
    ):
        turn = 0
        while any(queues[c] for c in group) and len(picked) < budget:
            for c in group:
                if had[c] <= turn and queues[c] and len(picked) < budget:
                    picked.append(queues[c].pop(0))
            turn += 1
    return world.ids[picked]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_known", [0, 12])
@pytest.mark.parametrize("max_clusters", [7, 500])
@pytest.mark.parametrize("num_slices", [1, 3, 7])
def test_typiclust_is_the_plain_algorithm(seed, num_known, max_clusters, num_slices):
    world = World(seed, num_known=num_known)
    selector = TypiClust(max_clusters=max_clusters, sample_per_cluster=8)
    picks = selector.select(*world.sides(num_slices, seed), 30, KEYS)
    num_clusters = min(30 + num_known, max_clusters)
    clusters = world.clusters(num_clusters, 8 * num_clusters)
    assert (picks.ids == textbook(world, clusters, 30)).all()
    row = {i: r for r, i in enumerate(world.ids)}
    assert (picks.details["cluster"] == clusters[[row[i] for i in picks.ids]]).all()
    assert (picks.scores == world.scores[[row[i] for i in picks.ids]]).all()
    first = np.array([reason.endswith(", turn 1") for reason in picks.reasons])
    assert first.sum() >= 1 or max_clusters == 7
    assert not set(clusters[world.n :]) & set(picks.details["cluster"][first].tolist())


def test_two_thousand_rows():
    world = World(1, n=2_000, num_known=20, num_centers=30)
    clusters = world.clusters(70, 70 * 64)
    picks = TypiClust().select(*world.sides(3), 50, KEYS)
    assert (picks.ids == textbook(world, clusters, 50)).all()


@pytest.mark.parametrize("seed", range(3))
def test_crowded_clusters_are_measured_against_rows_drawn_by_id(seed):
    world = World(seed)
    selector = TypiClust(max_clusters=6, num_neighbors=5, max_reference=15)
    clusters = world.clusters(6, 6 * 64)
    expected = textbook(world, clusters, 25, k=5, most=15)
    for num_slices in (1, 4, 300):
        picks = selector.select(*world.sides(num_slices, 1), 25, KEYS)
        assert (picks.ids == expected).all()
    assert (expected != textbook(world, clusters, 25, k=5)).any()


@pytest.mark.parametrize("at_once", [1, 100, 65_536])
@pytest.mark.parametrize("far", [False, True])
def test_no_slicing_changes_a_pick(at_once, far, monkeypatch):
    world = World(8)
    if far:
        world.embeds[5] *= 1e9  # takes the resolution of a plain grid from all others
    first = TypiClust().select(*world.sides(), 50, KEYS)
    monkeypatch.setattr(typical, "_ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(typical, "_DISTANCES", 7 * at_once)
    for num_slices, seed in ((3, None), (7, None), (3, 1), (320, 2)):
        again = TypiClust().select(*world.sides(num_slices, seed), 50, KEYS)
        assert (again.ids == first.ids).all()
        assert again.keys.tobytes() == first.keys.tobytes()
        assert again.reasons == first.reasons


@pytest.mark.parametrize("round_of", range(40))
def test_fuzz(round_of):
    rng = np.random.default_rng(round_of)
    world = World(
        round_of,
        n=int(rng.integers(1, 60)),
        num_known=int(rng.integers(0, 9)),
        num_centers=int(rng.integers(1, 6)),
        width=int(rng.integers(1, 4)),
    )
    if round_of % 4 == 0:
        world.embeds[:] = np.round(world.embeds / 32)  # most rows are equal
    budget, most = int(rng.integers(1, 70)), int(rng.integers(3, 30))
    num_clusters = min(min(budget, world.n) + len(world.ids) - world.n, most)
    selector = TypiClust(max_clusters=most, small_cluster=int(rng.integers(1, 9)))
    picks = selector.select(*world.sides(int(rng.integers(1, 9)), round_of), budget, KEYS)
    expected = textbook(world, world.settled(num_clusters), budget, small=selector.small_cluster)
    assert (picks.ids == expected).all()
    assert len(picks.ids) == min(budget, world.n)


def test_the_densest_place_of_a_cluster_is_picked_and_not_its_middle():
    rng = np.random.default_rng(0)
    world = World(0, n=400, num_known=0, width=3)
    world.embeds[:300] = 10 * rng.standard_normal((300, 3))
    world.embeds[300:] = [9, 9, 9] + 0.1 * rng.standard_normal((100, 3))
    picks = TypiClust(max_clusters=1).select(*world.sides(3), 1, KEYS)
    row = world.ids.tolist().index(picks.ids[0])
    assert row >= 300
    assert np.linalg.norm(world.embeds[row] - 9) < 0.1  # the mean of the dense place is 0.16
    assert "from its 20 nearest rows of cluster 0 (400 candidates) on average" in picks.reasons[0]
    assert 0.02 < picks.keys[0] < 0.1


def test_a_tight_cluster_far_from_the_others_is_measured_by_differences():
    world = World(0, n=120, num_known=0, width=3)
    world.embeds = 1e-3 * np.random.default_rng(0).standard_normal((120, 3))
    world.embeds[80:] += 1e6
    picks = TypiClust(max_clusters=2, num_neighbors=5).select(*world.sides(3, 1), 40, KEYS)
    place = {int(sample_id): row for row, sample_id in enumerate(world.ids)}
    far = world.embeds[80:]
    apart = np.linalg.norm(far[:, None] - far, axis=2)
    means = np.sort(apart, axis=1)[:, 1:6].mean(axis=1)  # 0 is the row itself
    there = [(place[i], key) for i, key in zip(picks.ids.tolist(), picks.keys, strict=True)]
    rows, keys = zip(*[(row - 80, key) for row, key in there if row >= 80], strict=True)
    assert rows == tuple(np.argsort(means)[: len(rows)])
    np.testing.assert_allclose(keys, means[list(rows)], rtol=1e-5)


def test_bad_input_is_named():
    world = World(4)
    world.embeds[9, 2] = np.inf
    with pytest.raises(ScoringError, match=rf"first sample_id {world.ids[9]}\)"):
        TypiClust().select(*world.sides(4), 3, KEYS)
    with pytest.raises(ConfigError, match=r"TypiClust.feature is 'label'"):
        TypiClust("label")
    for name in ("max_clusters", "num_neighbors", "small_cluster", "max_reference"):
        with pytest.raises(ConfigError, match=rf"TypiClust.{name} is 0, expected a whole number"):
            TypiClust(**{name: 0})
    assert len(TypiClust().select(*World(1).sides(), 0, KEYS).ids) == 0
    assert len(TypiClust().select(*World(1, n=0).sides(2), 5, KEYS).ids) == 0
