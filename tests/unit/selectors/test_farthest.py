import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.errors import NeedsError
from rayal.keys import Keys
from rayal.selectors.gsx import GSx
from rayal.selectors.gsy import GSy
from rayal.selectors.igs import IGS
from rayal.selectors.k_center import KCenter

KEYS = Keys(1, 0)
EVERY = [KCenter(), GSx(), GSy(), IGS()]


class World:
    """Candidates and labelled rows, and the textbook greedy over all their pairs."""

    def __init__(self, seed, ties, num_rows=120, num_known=9, num_pending=4):
        rng = np.random.default_rng(seed)
        draw = (lambda *s: rng.integers(-2, 3, s) / 2) if ties else (lambda *s: rng.normal(size=s))
        n, k = num_rows, num_known + num_pending
        self.ids = rng.choice(np.arange(-500, 500), n + k, replace=False)
        self.embeds = draw(n + k, 3).astype(np.float32)
        self.preds = draw(n + k, 1).astype(np.float32)
        self.label = draw(k).astype(np.float64)
        self.label[num_known:] = np.nan
        self.scores = rng.random(n)
        self.n = n

    def sides(self, num_slices=1, seed=None):
        features = {"embeds": self.embeds, "preds": self.preds}
        mine = {name: a[: self.n] for name, a in features.items()}
        known = {name: a[self.n :] for name, a in features.items()}
        return (
            cut(self.ids[: self.n], self.scores, mine, num_slices, seed),
            labelled(self.ids[self.n :], known, self.label, num_slices=min(num_slices, 2)),
        )

    def distances(self, method):
        """(N, N + L) distances between candidates and what may be known, by the papers."""
        x, f = self.embeds.astype(float), self.preds[:, 0].astype(float)
        y = f.copy()
        y[self.n :] = np.where(np.isnan(self.label), f[self.n :], self.label)
        dx = np.sqrt(((x[: self.n, None] - x[None]) ** 2).sum(axis=2))
        dy = np.abs(f[: self.n, None] - y[None])
        return {KCenter: dx, GSx: dx, GSy: dy, IGS: dx * dy}[method]

    def textbook(self, method, budget):
        far = self.distances(method)
        known, left = list(range(self.n, len(self.ids))), list(range(self.n))
        picked, keys = [], []
        for _ in range(min(budget, self.n)):
            if known:
                near = far[:, known].min(axis=1)
            else:
                on = self.preds if method is GSy else self.embeds
                off = np.sqrt(((on[: self.n] - on[: self.n].mean(axis=0, dtype=float)) ** 2).sum(1))
                near = off if method is KCenter else -off
            best = max(left, key=lambda row: (round(near[row], 9), -self.ids[row]))
            keys.append(abs(near[best]))
            picked.append(best)
            known.append(best)
            left.remove(best)
        return self.ids[picked], np.array(keys)


@pytest.mark.parametrize("method", [KCenter, GSx, GSy, IGS])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 9])
@pytest.mark.parametrize("seed", range(5))
def test_picks_are_the_textbooks(method, ties, num_known, seed):
    world = World(seed, ties, num_known=num_known, num_pending=4 if num_known else 0)
    picks = method().select(*world.sides(), 40, KEYS)
    ids, keys = world.textbook(method, 40)
    assert (picks.ids == ids).all()
    np.testing.assert_allclose(picks.keys, keys, rtol=1e-5, atol=1e-6)
    score = dict(zip(world.ids[: world.n], world.scores, strict=True))
    assert picks.scores.tolist() == [score[i] for i in picks.ids]


@pytest.mark.parametrize("selector", EVERY, ids=repr)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 9])
def test_no_slicing_changes_a_pick_or_a_key(selector, ties, num_known):
    world = World(11, ties, num_known=num_known, num_pending=0)
    first = selector.select(*world.sides(), 60, KEYS)
    for num_slices, seed in ((3, None), (7, None), (3, 1), (150, 2)):
        again = selector.select(*world.sides(num_slices, seed), 60, KEYS)
        assert (again.ids == first.ids).all()
        assert again.keys.tobytes() == first.keys.tobytes()
        assert again.reasons == first.reasons


@pytest.mark.parametrize("selector", EVERY, ids=repr)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 5])
def test_pending_rows_are_picks_already(selector, ties, num_known):
    world = World(7, ties, num_known=num_known, num_pending=0)
    both = selector.select(*world.sides(), 30, KEYS).ids
    first = selector.select(*world.sides(), 12, KEYS).ids
    gone = np.isin(world.ids, first)
    place = np.concatenate([np.flatnonzero(~gone[: world.n]), np.flatnonzero(gone)])
    rest = World(7, ties, num_known=num_known, num_pending=0)
    order = np.concatenate([place, np.arange(world.n, len(world.ids))])
    rest.ids, rest.embeds, rest.preds = world.ids[order], world.embeds[order], world.preds[order]
    rest.n, rest.scores = world.n - 12, np.zeros(world.n - 12)
    rest.label = np.concatenate([np.full(12, np.nan), world.label])
    then = selector.select(*rest.sides(2), 18, KEYS).ids
    assert (np.concatenate([first, then]) == both).all()


@pytest.mark.parametrize("selector", EVERY, ids=repr)
def test_small_worlds(selector):
    world = World(3, False, num_rows=6, num_known=3, num_pending=0)
    assert sorted(selector.select(*world.sides(9), 100, KEYS).ids) == sorted(world.ids[:6])
    assert len(selector.select(*world.sides(), 0, KEYS).ids) == 0
    nobody = World(3, False, num_rows=0, num_known=3, num_pending=0)
    assert len(selector.select(*nobody.sides(2), 5, KEYS).ids) == 0


@pytest.mark.parametrize("selector", EVERY, ids=repr)
@pytest.mark.parametrize("num_known", [0, 2])
def test_equal_rows_are_all_picked_by_id(selector, num_known):
    world = World(3, False, num_rows=10, num_known=num_known, num_pending=0)
    world.embeds[:], world.preds[:] = 0.25, 0.5
    picks = selector.select(*world.sides(3), 10, KEYS)
    assert picks.ids.tolist() == sorted(world.ids[:10])


def test_k_center_of_a_pool_column():
    column = np.array([0, 9, 4, 5], np.int8)
    rows = cut(np.arange(4), features={"age": column})
    known = labelled(np.array([10]), {"age": np.array([1], np.int8)}, label=np.zeros(1))
    picks = KCenter(feature="age").select(rows, known, 2, KEYS)
    assert KCenter(feature="age").needs == ("age",)
    assert picks.ids.tolist() == [1, 3]
    assert picks.keys.tolist() == [8.0, 4.0]
    assert picks.reasons[1] == (
        "rank 2: distance to the nearest labelled or picked row is 4, the largest left"
    )


def test_a_feature_that_is_not_there_is_named():
    with pytest.raises(NeedsError, match="slice 0 carries no 'embeds'"):
        KCenter().select(cut(np.arange(3)), none_labelled(), 1, KEYS)
