"""D^2 sampling against a loop that knows no stale weights, and plain versions of 2,000 rows."""

import numpy as np
import pytest
from slices import cut, labelled, none_labelled
from test_badge import sides, textbook, world
from test_clusters import World, round_robin

from rayal.keys import Keys
from rayal.neighbors import train_kmeans
from rayal.selectors.badge import Badge
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.kmeans import KMeans
from rayal.selectors.kmeans_pp import KMeansPP

NUM_SEEDS, BUDGET = 250, 60


def tight_clusters(seed=7, num_rows=600, width=4):
    rng = np.random.default_rng(seed)
    rows = 6 * rng.normal(size=(40, width))[rng.integers(0, 40, num_rows)]
    rows += rng.normal(0, 0.05, (num_rows, width))
    sure = rng.random((num_rows, 1)) < 0.5
    probs = np.where(sure, [[0.01, 0.98, 0.01]], [[0.5, 0.3, 0.2]])
    return rows.astype(np.float32), probs.astype(np.float32)


def plain_draws(points, budget, rng, first, known):
    """Rows drawn in proportion to D^2, which is all brought up to date after every pick."""
    near = np.full(len(points), np.inf)
    for row in known:
        near = np.minimum(near, ((points - points[row]) ** 2).sum(axis=1))
    picked, left = [], np.ones(len(points), bool)
    left[known] = False
    while len(picked) < budget:
        if picked or len(known):
            chances = np.where(left, near, 0.0)
            row = int(rng.choice(len(points), p=chances / chances.sum()))
        else:
            row = int(rng.integers(len(points))) if first is None else first
        picked.append(row)
        left[row] = False
        near = np.minimum(near, ((points - points[row]) ** 2).sum(axis=1))
    return picked


def potentials(points, picked, known):
    """What squared distance is left after a third, two thirds and all of the picks."""
    near = np.full(len(points), np.inf)
    found = []
    for rank, row in enumerate([*known, *picked], start=1 - len(known)):
        near = np.minimum(near, ((points - points[row]) ** 2).sum(axis=1))
        if rank in (20, 40, 60):
            found.append(near.sum())
    return found


def ks_distance(some, others):
    values = np.sort(np.concatenate([some, others]))
    below = [
        np.searchsorted(np.sort(one), values, side="right") / len(one) for one in (some, others)
    ]
    return np.abs(below[0] - below[1]).max()


@pytest.mark.parametrize("num_known", [0, 5])
@pytest.mark.parametrize("kind", ["badge", "kmeans_pp q", "kmeans_pp f"])
def test_draws_have_the_law_of_the_plain_loop_across_refreshes(kind, num_known):
    rows, probs = tight_clusters()
    points, first = rows.astype(float), None
    if kind == "badge":
        errors = probs - np.eye(3)[probs.argmax(axis=1)]
        points = (errors[:, :, None] * points[:, None]).reshape(len(rows), -1)
        first = int((points**2).sum(axis=1).argmax())
    selector = {
        "badge": Badge(),
        "kmeans_pp q": KMeansPP(precision="integer"),
        "kmeans_pp f": KMeansPP(precision="float"),
    }[kind]
    features = {"embeds": rows, "probs": probs}
    n = len(rows) - num_known
    known = list(range(n, len(rows)))
    mine, theirs = (
        {name: a[part] for name, a in features.items()} for part in (slice(n), slice(n, None))
    )
    ours, plain, num_refreshes = [], [], 0
    rng = np.random.default_rng(1)
    for seed in range(NUM_SEEDS):
        held = labelled(np.array(known), theirs) if known else none_labelled(**mine)
        picks = selector.select(cut(np.arange(n), None, mine, 2), held, BUDGET, Keys(seed, 0))
        ours.append(potentials(points, picks.ids, known))
        num_refreshes += int(picks.note.split(" refreshes")[0].split()[-1])
        plain.append(potentials(points, plain_draws(points, BUDGET, rng, first, known), known))
    assert num_refreshes > 1.5 * NUM_SEEDS
    for some, others in zip(np.transpose(ours), np.transpose(plain), strict=True):
        assert ks_distance(some, others) < 1.95 * np.sqrt(2 / NUM_SEEDS)  # p = 0.001


@pytest.mark.parametrize("num_known", [0, 6])
def test_multilabel_badge_is_its_plain_version(num_known):
    made = world(1, num_rows=2000, num_known=num_known)
    made[1]["probs"][:] = np.random.default_rng(0).random(made[1]["probs"].shape)
    picks = Badge(multilabel=True).select(*sides(*made, 3), 60, Keys(1, 1))
    assert (picks.ids == textbook(*made, 60, Keys(1, 1), multilabel=True)).all()


class Large(World):
    """2,000 rows and 40 labelled ones, in groups."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        centers = rng.standard_normal((25, 5)) * 4
        rows = centers[rng.integers(0, 25, 2040)] + 0.5 * rng.standard_normal((2040, 5))
        self.ids = rng.permutation(5000)[:2040]
        self.embeds, self.scores, self.n = rows.astype(np.float32), rng.random(2000), 2000

    def nearest(self, num_clusters, name, among):
        """Everybody's nearest centroid of the keyed sample of 64 rows a cluster, and how far."""
        keys = Keys(3, 2)
        rows = np.argsort(self.ids[:among])
        draws = keys.stream(f"{name} sample").uniform(self.ids[rows])
        chosen = rows[np.sort(np.argsort(draws, kind="stable")[: 64 * num_clusters])]
        found = train_kmeans(self.embeds[chosen], num_clusters, keys.stream(name).seed())
        far = ((self.embeds[:, None].astype(float) - found[None]) ** 2).sum(axis=2)
        return far.argmin(axis=1), np.sqrt(far.min(axis=1))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("num_clusters", [12, 50])
def test_cluster_margin_is_its_plain_version(seed, num_clusters):
    rows = Large(seed)
    picks = ClusterMargin(num_clusters=num_clusters).select(*rows.sides(3, 1), 120, Keys(3, 2))
    clusters, _ = rows.nearest(num_clusters, "cluster_margin", rows.n)
    expected = round_robin(clusters, rows.n, rows.ids, rows.scores, 120, True)
    assert picks.ids.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("max_clusters", [15, 4096])
def test_kmeans_is_its_plain_version(seed, max_clusters):
    rows = Large(seed)
    picks = KMeans(max_clusters=max_clusters).select(*rows.sides(3, 1), 60, Keys(3, 2))
    number = min(60 + 40, max_clusters)
    clusters, distances = rows.nearest(number, "kmeans", len(rows.ids))
    expected = round_robin(clusters, rows.n, rows.ids, -distances, 60, False)
    place = {i: row for row, i in enumerate(rows.ids.tolist())}
    mine = [place[i] for i in picks.ids.tolist()]
    theirs = [place[i] for i in expected.tolist()]
    assert (clusters[mine] == clusters[theirs]).all()
    # The two rows of a cluster of two are equally near to their mean, so that rounding decides.
    halves = np.bincount(clusters)[clusters[mine]] == 2
    assert ((picks.ids == expected) | halves).all()
    np.testing.assert_allclose(picks.keys, distances[theirs], rtol=1e-4)
