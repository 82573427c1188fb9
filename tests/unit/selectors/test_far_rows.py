"""Rows far from 0, and a few rows far from the others: what counts is how the rest lie."""

import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.keys import Keys
from rayal.neighbors import train_kmeans
from rayal.selectors.badge import Badge
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.grid import Grid, fit
from rayal.selectors.gsx import GSx
from rayal.selectors.gsy import GSy
from rayal.selectors.igs import IGS
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans import KMeans

KEYS = Keys(4, 1)
GREEDY = [KCenter(precision="float"), GSx(precision="float"), GSy(), IGS()]
EVERY = [*GREEDY, KMeans(), ClusterMargin()]
NUM_ROWS, NUM_KNOWN = 400, 12


class World:
    """Rows in steps of 1/16, so that moving them far is exact."""

    def __init__(self, seed=0, num_known=NUM_KNOWN, width=5):
        rng = np.random.default_rng(seed)
        n = NUM_ROWS + num_known
        centers = rng.integers(-90, 90, (9, width))
        self.embeds = centers[rng.integers(0, 9, n)] + rng.integers(-160, 161, (n, width)) / 16
        self.preds = rng.integers(-800, 800, (n, 1)) / 16
        self.label = rng.integers(-800, 800, num_known) / 16
        self.label[::3] = np.nan
        self.scores = rng.random(NUM_ROWS)
        self.ids = rng.choice(np.arange(3, 900), n, replace=False)

    def select(self, selector, budget=60, num_slices=3, seed=None, dtype=np.float64):
        features = {"embeds": self.embeds.astype(dtype), "preds": self.preds.astype(dtype)}
        mine = {name: a[:NUM_ROWS] for name, a in features.items()}
        known = {name: a[NUM_ROWS:] for name, a in features.items()}
        return selector.select(
            cut(self.ids[:NUM_ROWS], self.scores, mine, num_slices, seed),
            labelled(self.ids[NUM_ROWS:], known, self.label),
            budget,
            KEYS,
        )

    def move(self, offset):
        self.embeds, self.preds, self.label = (
            a + offset for a in (self.embeds, self.preds, self.label)
        )

    def textbook(self, selector, budget):
        """The greedy in 64 bits of mantissa, over all pairs."""
        x, f = self.embeds.astype(np.longdouble), self.preds[:, 0].astype(np.longdouble)
        y = f.copy()
        y[NUM_ROWS:] = np.where(np.isnan(self.label), f[NUM_ROWS:], self.label)
        dy = np.abs(f[:NUM_ROWS, None] - y)
        if isinstance(selector, GSy):
            far = dy
        else:
            far = np.sqrt(((x[:NUM_ROWS, None] - x) ** 2).sum(axis=2))
            far = far * dy if isinstance(selector, IGS) else far
        near, picked, keys = far[:, NUM_ROWS:].min(axis=1, initial=np.inf), [], []
        if len(y) == NUM_ROWS:
            on = (self.preds if isinstance(selector, GSy) else x)[:NUM_ROWS].astype(np.longdouble)
            near = ((on - on.mean(axis=0)) ** 2).sum(axis=1)
            near = near if isinstance(selector, KCenter) else -near
        while len(picked) < budget:
            best = max(
                (row for row in range(NUM_ROWS) if row not in picked),
                key=lambda row: (near[row], -self.ids[row]),
            )
            keys.append(float(near[best]))
            first = not picked and len(y) == NUM_ROWS
            near = far[:, best] if first else np.minimum(near, far[:, best])
            picked.append(best)
        return self.ids[picked], np.array(keys)


@pytest.mark.parametrize("selector", EVERY, ids=repr)
@pytest.mark.parametrize("offset", [1e6, -1e8, 1e9])
@pytest.mark.parametrize("num_known", [0, NUM_KNOWN])
def test_where_all_rows_lie_changes_no_pick(selector, offset, num_known):
    world = World(num_known=num_known)
    here = world.select(selector)
    world.move(offset)
    there = world.select(selector)
    assert (there.ids == here.ids).all()
    np.testing.assert_allclose(there.keys, here.keys, rtol=1e-5)
    clear = [reason for reason, key in zip(there.reasons, there.keys, strict=True) if key > 0.1]
    assert not any("give or take" in reason for reason in clear)


@pytest.mark.parametrize("selector", GREEDY, ids=repr)
@pytest.mark.parametrize(("dtype", "offset"), [(np.float32, 5e5), (np.int64, 1 << 40)])
def test_so_do_float32_and_integers(selector, dtype, offset):
    world = World()
    world.embeds, world.preds = np.rint(16 * world.embeds), np.rint(16 * world.preds)
    here = world.select(selector, dtype=dtype)
    world.move(offset)
    there = world.select(selector, dtype=dtype)
    assert (there.ids == here.ids).all()
    assert (there.keys == here.keys).all()


def test_small_integers_are_all_told_apart():
    column = np.array([127, 120, 121, 126, 124], np.int8)
    rows = cut(np.arange(5), features={"age": column}, num_slices=2)
    picks = KCenter("age").select(rows, none_labelled(age=column), 5, KEYS)
    assert picks.ids.tolist() == [1, 0, 4, 2, 3]
    assert picks.keys[1:].tolist() == [7.0, 3.0, 1.0, 1.0]


def lengthen(world, factor):
    """One row of either side goes far out."""
    world.embeds[17] *= factor
    world.embeds[NUM_ROWS:][:1] *= factor
    world.preds[17] *= factor


def apart(world, factor):
    """Five groups of rows, far from each other and from 0."""
    world.embeds += (
        factor * np.random.default_rng(5).standard_normal((5, 5))[np.arange(len(world.ids)) % 5]
    )


@pytest.mark.parametrize("selector", GREEDY, ids=repr)
@pytest.mark.parametrize("num_known", [0, NUM_KNOWN])
@pytest.mark.parametrize(
    ("spoil", "factor"), [(lengthen, 1e4), (lengthen, 1e6), (lengthen, 1e8), (apart, 1e6)]
)
def test_a_few_far_rows_take_no_resolution_from_the_others(selector, num_known, spoil, factor):
    world = World(num_known=num_known)
    spoil(world, factor)
    world.embeds += np.random.default_rng(1).random(world.embeds.shape) / 64  # no ties
    world.preds += np.random.default_rng(2).random(world.preds.shape) / 64
    picks = world.select(selector, 120)
    ids, keys = world.textbook(selector, 120)
    assert (picks.ids == ids).all()
    from_first = 0 if num_known else 1
    np.testing.assert_allclose(picks.keys[from_first:], keys[from_first:], rtol=1e-5)


@pytest.mark.parametrize("selector", EVERY, ids=repr)
@pytest.mark.parametrize("spoil", [lengthen, apart, World.move])
def test_no_slicing_changes_a_pick_or_a_key(selector, spoil):
    world = World()
    spoil(world, 1e7 + 1 / 3)
    first = world.select(selector, num_slices=1)
    for num_slices, seed in ((3, None), (7, 1), (500, 2)):
        again = world.select(selector, num_slices=num_slices, seed=seed)
        assert (again.ids == first.ids).all()
        assert again.keys.tobytes() == first.keys.tobytes()
        assert again.reasons == first.reasons


def test_kmeans_is_nearest_to_centroid_beside_a_far_row():
    world = World()
    world.embeds[17] *= 1e6
    picks = world.select(KMeans(max_clusters=10), 40)
    sample = world.embeds[np.argsort(world.ids)].astype(np.float32)
    centroids = train_kmeans(sample, 10, KEYS.stream("kmeans").seed()).astype(float)
    far = np.sqrt(((world.embeds[:, None] - centroids) ** 2).sum(axis=2))
    clusters, near = far.argmin(axis=1), far.min(axis=1)
    rows = [world.ids.tolist().index(i) for i in picks.ids]
    np.testing.assert_allclose(picks.keys, near[rows], rtol=1e-5)
    for cluster in range(10):
        members = np.flatnonzero(clusters[:NUM_ROWS] == cluster)
        mine = [row for row in rows if clusters[row] == cluster]
        assert mine == members[np.argsort(near[members])][: len(mine)].tolist()


@pytest.mark.parametrize("selector", GREEDY, ids=repr)
def test_not_even_a_row_at_1e15_takes_resolution(selector):
    world = World()
    world.embeds[17] = 1e15
    world.preds[17] = 1e15
    picks = world.select(selector, 200)
    ids, _ = world.textbook(selector, 200)
    assert picks.ids[0] == world.ids[17]
    assert (picks.ids == ids).all()


def test_a_grid_stays_at_zero_where_moving_wins_little():
    rng = np.random.default_rng(0)
    for offset, moves in ((0.0, False), (4.0, False), (1e4, True)):
        plain = rng.standard_normal((300, 6)) + offset
        rows = cut(np.arange(300), features={"embeds": plain}, num_slices=2)
        (grid,) = fit((Grid("embeds"),), rows, none_labelled(embeds=plain))
        assert (grid.origin is not None) == moves
        assert not grid.fine
        assert 2**23 <= np.abs(grid.place(plain)).max() <= 2**25


def test_gradients_keep_their_origin():
    rng = np.random.default_rng(0)
    every = {"embeds": rng.random((90, 3)) + 1e6, "probs": rng.dirichlet(np.ones(3), 90)}
    rows = cut(np.arange(90), features=every)
    longest = np.argmax(
        ((every["probs"] - np.eye(3)[every["probs"].argmax(axis=1)]) ** 2).sum(axis=1)
    )
    assert Badge().select(rows, none_labelled(**every), 1, KEYS).ids.tolist() == [longest]


@pytest.mark.parametrize("selector", EVERY, ids=repr)
@pytest.mark.parametrize("size", [2.0**-150, 2.0**120, 2.0**480])
def test_size_alone_changes_nothing(selector, size):
    world = World()
    here = world.select(selector)
    world.embeds, world.preds, world.label = (
        a * size for a in (world.embeds, world.preds, world.label)
    )
    assert (world.select(selector).ids == here.ids).all()
