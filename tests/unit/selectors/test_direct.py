import numpy as np
import pytest
from class_worlds import World
from slices import none_labelled

from rayal.errors import ConfigError
from rayal.keys import Keys
from rayal.selectors.direct import Direct, distinct, nearest_ranks

KEYS = Keys(3, 2)


def textbook(world, budget, explore=0.0):
    """Every line as one list, the threshold by trying every cut, the share row by row."""
    left, picked = np.arange(world.n), []
    for k, share in world.shares(budget):
        margins, line = world.margins(k), world.line(k, left)
        rows, positive = world.positive(k)
        is_positive = dict(zip(rows.tolist(), positive.tolist(), strict=True))
        known = world.line(k, rows).tolist()
        errors = [
            sum(not is_positive[row] for row in known[:cut])
            + sum(is_positive[row] for row in known[cut:])
            for cut in range(len(known) + 1)
        ]
        best = errors.index(min(errors))
        if not known:
            place = sum(margins[row] > 0 for row in line)
        elif best == 0:
            place = 0
        elif best == len(known):
            place = len(line)
        elif margins[known[best - 1]] == margins[known[best]]:
            edge = (-margins[known[best]], world.ids[known[best]])
            place = sum((-margins[row], world.ids[row]) < edge for row in line)
        else:
            middle = (margins[known[best - 1]] + margins[known[best]]) / 2
            place = sum(margins[row] > middle for row in line)
        drawn = []
        if explore:
            first = next((j for j, row in enumerate(known) if not is_positive[row]), len(known))
            last = next((j for j, row in enumerate(known[::-1]) if is_positive[row]), len(known))
            both = world.line(k, np.concatenate([line, known]).astype(int)).tolist()
            low = both.index(known[first - 1]) + 1 if first else 0
            high = both.index(known[len(known) - last]) if last else len(both)
            where = [row for row in both[low:high] if row < world.n]
            start = line.tolist().index(where[0]) if where else 0
            num_drawn = min(int(explore * share), len(where))
            drawn = distinct(num_drawn, len(where), KEYS.stream(f"direct {k}")) + start
        above = [rank for rank in range(place - 1, -1, -1) if rank not in drawn]
        below = [rank for rank in range(place, len(line)) if rank not in drawn]
        near = []
        while len(near) < share - len(drawn):
            for side in (above, below):
                if side and len(near) < share - len(drawn):
                    near.append(side.pop(0))
        chosen = line[[*near, *drawn]]
        picked += chosen.tolist()
        left = np.setdiff1d(left, chosen)
    return world.ids[picked], world.scores[picked]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 1, 25])
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("explore", [0.0, 0.5])
def test_direct_is_the_plain_algorithm(seed, ties, num_known, multilabel, explore):
    world = World(seed, ties=ties, num_known=num_known, multilabel=multilabel)
    for budget in (1, 3, 50, 299, 400):
        selector = Direct(explore, multilabel)
        picks = selector.select(*world.sides(3, seed), budget, KEYS)
        ids, scores = textbook(world, budget, explore)
        assert (picks.ids == ids).all()
        assert (picks.scores == scores).all()


@pytest.mark.parametrize("seed", range(2))
def test_two_thousand_rows_of_ten_classes(seed):
    world = World(seed, n=2_000, num_known=150, num_classes=10)
    for num_slices in (1, 3, 7):
        picks = Direct().select(*world.sides(num_slices, seed), 200, KEYS)
        assert (picks.ids == textbook(world, 200)[0]).all()


@pytest.mark.parametrize("explore", [0.0, 0.5])
@pytest.mark.parametrize("ties", [False, True])
def test_no_slicing_changes_a_pick(explore, ties):
    world = World(8, ties=ties)
    first = Direct(explore).select(*world.sides(), 60, KEYS)
    for num_slices, seed in ((3, None), (7, None), (3, 1), (350, 2)):
        again = Direct(explore).select(*world.sides(num_slices, seed, 3), 60, KEYS)
        assert (again.ids == first.ids).all()
        assert again.keys.tobytes() == first.keys.tobytes()
        assert again.reasons == first.reasons


@pytest.mark.parametrize("round_of", range(60))
def test_fuzz(round_of):
    rng = np.random.default_rng(round_of)
    world = World(
        round_of,
        n=int(rng.integers(1, 40)),
        num_known=int(rng.integers(0, 12)),
        num_classes=int(rng.integers(2, 6)),
        ties=bool(rng.integers(2)),
        multilabel=bool(rng.integers(2)),
    )
    budget, explore = int(rng.integers(1, 50)), float(rng.choice([0.0, 0.3, 1.0]))
    sides = world.sides(int(rng.integers(1, 9)), round_of)
    picks = Direct(explore, world.multilabel).select(*sides, budget, KEYS)
    assert (picks.ids == textbook(world, budget, explore)[0]).all()
    assert len(picks.ids) == min(budget, world.n)


def test_a_class_without_labels_gets_the_rows_most_like_it():
    world = World(5)
    world.label[world.label == 3] = 0
    picks = Direct().select(*world.sides(4), 40, KEYS)
    assert world.rarest_first()[0] == 3
    assert picks.ids[:10].tolist() == world.ids[world.line(3, np.arange(world.n))[:10]].tolist()
    assert "for class 3, 1 below its threshold above all rows (0 of" in picks.reasons[0]


def test_drawn_numbers_are_distinct_and_uniform():
    counts = np.zeros(9)
    for seed in range(4_000):
        drawn = distinct(4, 9, Keys(seed, 0).stream("test"))
        assert len(set(drawn.tolist())) == 4
        counts[drawn] += 1
    expected = 4_000 * 4 / 9
    assert ((counts - expected) ** 2 / expected).sum() < 26.1  # chi-square, 8 degrees, p = .001
    assert distinct(5, 5, KEYS.stream("all")).tolist() == [0, 1, 2, 3, 4]
    assert len(distinct(0, 5, KEYS.stream("none"))) == 0


def test_nearest_ranks_alternate_and_go_on_where_one_side_ends():
    none = np.empty(0, np.int64)
    assert nearest_ranks(3, 9, 5, none).tolist() == [2, 3, 1, 4, 0]
    assert nearest_ranks(1, 9, 5, none).tolist() == [0, 1, 2, 3, 4]
    assert nearest_ranks(9, 9, 3, np.array([8])).tolist() == [7, 6, 5]
    assert nearest_ranks(0, 2, 5, none).tolist() == [0, 1]


def test_nothing_to_pick_and_bad_shares():
    world = World(1)
    assert len(Direct().select(*world.sides(), 0, KEYS).ids) == 0
    none = none_labelled(probs=np.zeros((0, 3), np.float32))
    assert len(Direct().select(none, none, 5, KEYS).ids) == 0
    for share in (-0.1, 1.1, True, float("nan")):
        with pytest.raises(ConfigError, match=r"Direct.explore is .*from 0 to 1"):
            Direct(share)
