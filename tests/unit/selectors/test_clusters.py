import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.errors import ScoringError
from rayal.keys import Keys
from rayal.neighbors import train_kmeans
from rayal.selectors import cells
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.grid import Grid, fit
from rayal.selectors.kmeans import KMeans
from rayal.selectors.sample import keyed_sample
from rayal.selectors.turns import fill

KEYS = Keys(3, 2)


class World:
    def __init__(self, seed, num_rows=400, num_known=15, ties=False, num_centers=12):
        rng = np.random.default_rng(seed)
        n = num_rows + num_known
        centers = rng.standard_normal((num_centers, 5)) * 4
        share = rng.dirichlet(np.ones(num_centers))
        noise = 0.0 if ties else 0.5
        rows = centers[rng.choice(num_centers, n, p=share)] + noise * rng.standard_normal((n, 5))
        self.ids = rng.choice(np.arange(-900, 900), n, replace=False)
        self.embeds = rows.astype(np.float32)
        self.scores = rng.integers(0, 4, num_rows) / 4 if ties else rng.random(num_rows)
        self.n = num_rows

    def sides(self, num_slices=1, seed=None):
        mine, known = {"embeds": self.embeds[: self.n]}, {"embeds": self.embeds[self.n :]}
        return (
            cut(self.ids[: self.n], self.scores, mine, num_slices, seed),
            labelled(self.ids[self.n :], known, num_slices=2),
        )

    def clusters(self, num_clusters, name, among):
        """Centroids of the sample (here: all rows), and everybody's nearest one."""
        rows = np.argsort(self.ids[:among])
        centroids = train_kmeans(self.embeds[rows], num_clusters, KEYS.stream(name).seed())
        far = ((self.embeds[:, None].astype(float) - centroids[None]) ** 2).sum(axis=2)
        return far.round(6).argmin(axis=1), np.sqrt(far.min(axis=1))


def round_robin(clusters, n, ids, value, budget, smallest_first):
    """Clusters in order of size give one row a turn; labelled rows were the first turns."""
    num = clusters.max() + 1
    queues = {
        k: sorted((r for r in range(n) if clusters[r] == k), key=lambda r: (-value[r], ids[r]))
        for k in range(num)
    }
    size = {k: len(queue) for k, queue in queues.items()}
    had = {k: int((clusters[n:] == k).sum()) for k in range(num)}
    order = sorted(queues, key=lambda k: (size[k] if smallest_first else -size[k], k))
    picked, turn = [], 0
    while len(picked) < min(budget, n):
        for k in order:
            if had[k] <= turn and queues[k] and len(picked) < budget:
                picked.append(queues[k].pop(0))
        turn += 1
    return ids[picked]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 15])
@pytest.mark.parametrize("budget", [5, 60, 390])
def test_cluster_margin_is_round_robin(seed, ties, num_known, budget):
    world = World(seed, ties=ties, num_known=num_known)
    picks = ClusterMargin(num_clusters=9).select(*world.sides(3), budget, KEYS)
    clusters, _ = world.clusters(9, "cluster_margin", world.n)
    expected = round_robin(clusters, world.n, world.ids, world.scores, budget, True)
    assert (picks.ids == expected).all()
    assert (picks.keys == picks.scores).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_known", [0, 15])
@pytest.mark.parametrize("max_clusters", [8, 4096])
def test_kmeans_is_nearest_to_centroid(seed, num_known, max_clusters):
    world = World(seed, num_known=num_known)
    picks = KMeans(max_clusters=max_clusters).select(*world.sides(3), 20, KEYS)
    num_clusters = min(20 + num_known, max_clusters)
    clusters, distances = world.clusters(num_clusters, "kmeans", len(world.ids))
    expected = round_robin(clusters, world.n, world.ids, -distances, 20, False)
    row = {i: r for r, i in enumerate(world.ids)}
    mine, theirs = [row[i] for i in picks.ids], [row[i] for i in expected]
    # The two rows of a cluster of two are equally near to their mean, so that rounding decides.
    halves = np.bincount(clusters[: world.n])[clusters[mine]] == 2
    assert ((picks.ids == expected) | halves).all()
    assert (clusters[mine] == clusters[theirs]).all()
    np.testing.assert_allclose(picks.keys, distances[theirs], rtol=1e-4)
    if max_clusters > 35:
        assert not set(clusters[mine]) & set(clusters[world.n :])


@pytest.mark.parametrize("selector", [ClusterMargin(), KMeans(), ClusterMargin(num_clusters=4)])
@pytest.mark.parametrize("ties", [False, True])
def test_no_slicing_changes_a_pick(selector, ties):
    world = World(8, ties=ties)
    first = selector.select(*world.sides(), 50, KEYS)
    for num_slices, seed in ((3, None), (7, None), (3, 1), (450, 2)):
        again = selector.select(*world.sides(num_slices, seed), 50, KEYS)
        assert (again.ids == first.ids).all()
        assert again.keys.tobytes() == first.keys.tobytes()
        assert again.reasons == first.reasons


@pytest.mark.parametrize("selector", [ClusterMargin(), KMeans()])
def test_small_and_equal_worlds(selector):
    world = World(3, num_rows=6, num_known=3)
    assert sorted(selector.select(*world.sides(9), 100, KEYS).ids) == sorted(world.ids[:6])
    assert len(selector.select(*world.sides(), 0, KEYS).ids) == 0
    assert len(selector.select(*World(3, num_rows=0).sides(2), 5, KEYS).ids) == 0
    same = World(3, num_rows=300, num_known=0)
    same.embeds[:], same.scores[:] = 1.5, 0.5
    assert selector.select(*same.sides(3), 4, KEYS).ids.tolist() == sorted(same.ids)[:4]
    alone = World(3, num_rows=1, num_known=0)
    assert selector.select(*alone.sides(), 4, KEYS).ids.tolist() == alone.ids.tolist()


@pytest.mark.parametrize("selector", [ClusterMargin(), KMeans()])
def test_bad_features_are_named(selector):
    world = World(4)
    world.embeds[9, 2] = np.inf
    with pytest.raises(ScoringError, match=rf"first sample_id {world.ids[9]}\)"):
        selector.select(*world.sides(4), 3, KEYS)


def test_reasons_say_turn_and_cluster():
    world = World(2)
    first = ClusterMargin(num_clusters=3).select(*world.sides(), 9, KEYS).reasons[0]
    assert first.startswith("rank 1: score ")
    assert ", turn " in first
    assert "from the centroid of cluster" in KMeans().select(*world.sides(), 9, KEYS).reasons[8]


def test_keyed_sample_is_of_ids_alone():
    world, stream = World(6), KEYS.stream("test")
    everybody = np.concatenate([world.embeds[: world.n], world.embeds[world.n :]])
    draws = stream.uniform(world.ids)
    chosen = np.argsort(draws)[:50]
    expected = everybody[chosen[np.argsort(world.ids[chosen])]]
    for num_slices in (1, 4):
        sample = keyed_sample(world.sides(num_slices, 1), Grid("embeds"), 50, stream, first_step=0)
        assert (sample == expected).all()
    assert len(keyed_sample(world.sides(2), Grid("embeds"), 10_000, stream, first_step=0)) == 415


@pytest.mark.parametrize("seed", range(30))
def test_fill_is_water_filling(seed):
    rng = np.random.default_rng(seed)
    sizes, drawn = rng.integers(0, 9, 12), rng.integers(0, 6, 12)
    order = rng.permutation(12)
    for budget in (0, 1, 7, 30, 500):
        given, turn = np.zeros(12, int), 0
        while given.sum() < min(budget, sizes.sum()):
            for k in order:
                if drawn[k] <= turn and given[k] < sizes[k] and given.sum() < budget:
                    given[k] += 1
            turn += 1
        assert (fill(sizes, drawn, order, budget) == given).all()


def test_stored_clusters_take_turns_as_they_are_named():
    rng = np.random.default_rng(3)
    ids, scores = rng.permutation(200), rng.random(200)
    stored = rng.choice([-7, 3, 40, 1_000_000], 200, p=[0.1, 0.2, 0.3, 0.4])
    known = np.array([3, 3, 77])
    first = None
    for num_slices, seed in ((1, None), (3, 1), (250, 2)):
        held = labelled(np.arange(500, 503), {"cell": known})
        rows = cut(ids, scores, {"cell": stored}, num_slices, seed)
        picks = ClusterMargin(clusters="cell").select(rows, held, 60, KEYS)
        first = picks if first is None else first
        assert picks.ids.tolist() == first.ids.tolist()
    sizes = {code: int((stored == code).sum()) for code in np.unique(stored)}
    best = {
        c: [i for _, i in sorted(zip(-scores[stored == c], ids[stored == c], strict=True))]
        for c in sizes
    }
    expected, turn = [], 0
    while len(expected) < 60:  # a cluster with two labelled rows joins in the third turn
        for code in sorted(sizes, key=lambda one: sizes[one]):
            place = turn - (2 if code == 3 else 0)
            if 0 <= place < sizes[code] and len(expected) < 60:
                expected.append(best[code][place])
        turn += 1
    assert first.ids.tolist() == expected
    assert set(first.details["cluster"].tolist()) == {-7, 3, 40, 1_000_000}
    assert first.note == "4 clusters of 'cell'"


@pytest.mark.parametrize(
    ("column", "said"),
    [(np.array([0.0, 1.5, 2.0]), "sample_id 1 is 1.5"), (np.zeros((3, 2)), "2 numbers a row")],
)
def test_clusters_are_named_by_whole_numbers(column, said):
    rows = cut(np.arange(3), features={"cell": column})
    with pytest.raises(ScoringError, match=said):
        ClusterMargin(clusters="cell").select(rows, none_labelled(cell=column), 2, KEYS)


def test_two_levels_of_cells_are_nearly_as_good_as_one(monkeypatch):
    rng = np.random.default_rng(0)
    centers = 20 * rng.standard_normal((60, 4))
    x = (centers[rng.integers(0, 60, 3000)] + rng.standard_normal((3000, 4))).astype(np.float32)
    found = {}
    for most in (100_000, 50):
        monkeypatch.setattr(cells, "MOST_FLAT", most)
        for num_slices, seed in ((1, None), (5, 2)):
            rows = cut(np.arange(3000), rng.random(3000) * 0, {"embeds": x}, num_slices, seed)
            (grid,) = fit((Grid("embeds"),), rows, none_labelled(embeds=x))
            fitted = cells.fit_cells((rows,), grid, 200, 10, 10, KEYS, "kmeans")
            parts = [(part.ids, *fitted.of(part)) for part in rows.parts]
            order = np.argsort(np.concatenate([one[0] for one in parts]))
            clusters = np.concatenate([one[1] for one in parts])[order]
            squared = np.concatenate([one[2] for one in parts])[order]
            assert (clusters >= 0).all()
            found.setdefault(most, (clusters, squared, fitted))
            assert (found[most][0] == clusters).all()
            assert (found[most][1] == squared).all()
    assert isinstance(found[50][2], cells.TwoLevelCells)
    assert 180 <= found[50][2].number <= 200
    assert found[50][1].sum() < 1.5 * found[100_000][1].sum()
    everywhere = ((grid.place(x)[:, None] - found[50][2].centroids_KD) ** 2).sum(axis=2)
    assert (everywhere.argmin(axis=1) == found[50][0]).mean() > 0.98  # what eight probes miss


def test_shares_are_by_largest_remainder():
    assert cells.shared_out(10, np.array([1, 1, 0, 8])).tolist() == [1, 1, 0, 8]
    assert cells.shared_out(10, np.array([30, 30, 40])).tolist() == [3, 3, 4]
    assert cells.shared_out(10, np.array([2, 100])).tolist() == [1, 9]
