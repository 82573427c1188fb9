import itertools

import numpy as np
import pytest
from class_worlds import World
from slices import none_labelled

from rayal.keys import Keys
from rayal.selectors.direct import distinct
from rayal.selectors.galaxy import Galaxy

KEYS = Keys(3, 2)


def textbook(world, budget):
    """Every line as one list of rows, labelled ones among them; the next pick by looking at all."""
    left, picked = np.arange(world.n), []
    for k, share in world.shares(budget):
        margins = world.margins(k)
        rows, positive = world.positive(k)
        said = dict(zip(rows.tolist(), positive.tolist(), strict=True))
        said.update({row: bool(margins[row] > 0) for row in picked})
        line = world.line(k, np.concatenate([left, list(said)]).astype(int)).tolist()
        before, new = dict(said), []
        ends = [row for row in line if row in said]
        pairs = [(one, two) for one, two in itertools.pairwise(ends) if said[one] != said[two]]
        free = [row for row in line if row not in before]
        while pairs and len(new) < share:
            stretches = []
            for one, two in pairs:
                between = [
                    row for row in line[line.index(one) + 1 : line.index(two)] if row not in said
                ]
                stretches.append((len(between), between))
            open_ones = [one for one in stretches if one[0]]
            if not open_ones:
                break
            length, between = min(open_ones, key=lambda one: (one[0], line.index(one[1][0])))
            middle = between[(length - 1) // 2]
            at = stretches.index((length, between))
            one, two = pairs[at]
            said[middle] = bool(margins[middle] > 0)
            pairs[at] = (one, middle) if said[middle] != said[one] else (middle, two)
            new.append(middle)
        if not pairs:
            ranks = distinct(share, len(free), KEYS.stream(f"galaxy {k}"))
            new = [free[rank] for rank in ranks]
        places = []
        for one, _ in pairs:
            at = line.index(one)
            places.append(sum(row not in before for row in line[: at + 1]))
        ranked = []
        for place in places:
            for rank, row in enumerate(free):
                is_below = rank >= place
                distance = rank - place + 1 if is_below else place - rank
                ranked.append((distance, is_below, rank, row))
        for *_, row in sorted(ranked):
            if len(new) < share and row not in new:
                new.append(row)
        picked += new
        left = np.setdiff1d(left, new)
    return world.ids[picked], world.scores[picked]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 1, 25])
@pytest.mark.parametrize("multilabel", [False, True])
def test_galaxy_is_the_plain_algorithm(seed, ties, num_known, multilabel):
    world = World(seed, n=150, ties=ties, num_known=num_known, multilabel=multilabel)
    for budget in (1, 3, 50, 149, 200):
        picks = Galaxy(multilabel).select(*world.sides(3, seed), budget, KEYS)
        ids, scores = textbook(world, budget)
        assert (picks.ids == ids).all()
        assert (picks.scores == scores).all()


def test_two_thousand_rows_of_ten_classes():
    world = World(2, n=2_000, num_known=100, num_classes=10)
    expected = textbook(world, 120)[0]
    for num_slices in (1, 3, 7):
        picks = Galaxy().select(*world.sides(num_slices, 4), 120, KEYS)
        assert (picks.ids == expected).all()


@pytest.mark.parametrize("ties", [False, True])
def test_no_slicing_changes_a_pick(ties):
    world = World(8, ties=ties)
    first = Galaxy().select(*world.sides(), 60, KEYS)
    for num_slices, seed in ((3, None), (7, None), (3, 1), (350, 2)):
        again = Galaxy().select(*world.sides(num_slices, seed, 3), 60, KEYS)
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
    budget = int(rng.integers(1, 50))
    sides = world.sides(int(rng.integers(1, 9)), round_of)
    picks = Galaxy(world.multilabel).select(*sides, budget, KEYS)
    assert (picks.ids == textbook(world, budget)[0]).all()
    assert len(picks.ids) == min(budget, world.n)


def test_a_clean_line_is_bisected_to_where_the_model_changes_its_mind():
    world = World(1, n=2_000, num_known=2, num_classes=2)
    world.probs[:2_000, 0] = np.linspace(0.999, 0.001, 2_000)
    world.probs[2_000:, 0] = 1.0, 0.0
    world.probs[:, 1] = 1.0 - world.probs[:, 0]
    world.label[:], world.pending[:] = [0, 1], False
    picks = Galaxy().select(*world.sides(3), 60, KEYS)
    margins = world.margins(0)[np.isin(world.ids, picks.ids)]
    assert (np.abs(margins) < 0.03).sum() > 45
    assert picks.reasons[0].endswith("amid 2000 rows between unlike labels")
    assert picks.reasons[29].endswith("where labels change")


def test_nothing_to_pick():
    assert len(Galaxy().select(*World(1).sides(), 0, KEYS).ids) == 0
    none = none_labelled(probs=np.zeros((0, 3), np.float32))
    assert len(Galaxy().select(none, none, 5, KEYS).ids) == 0
