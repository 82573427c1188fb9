"""The law of k-means++ and what is logged of its first pick."""

import itertools

import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.keys import Keys
from rayal.selectors import d_squared
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.limits import Limits
from rayal.types import tags_of


def squared_distances(rows):
    return ((rows[:, None] - rows[None]) ** 2).sum(axis=2)


def law_of_pairs(rows, num_known=0):
    """The chance of every ordered pair of rows; the last `num_known` rows are labelled."""
    far, n = squared_distances(rows), len(rows) - num_known
    law = {}
    for first, second in itertools.permutations(range(n), 2):
        near = far[n:].min(axis=0)[:n] if num_known else np.ones(n)
        chance = near[first] / near.sum()
        near = np.minimum(near, far[first, :n]) if num_known else far[first, :n]
        law[first, second] = chance * near[second] / near.sum()
    return law


# Ids that are the same small numbers as the counters of proposals once chose the second row, too.
@pytest.mark.parametrize("first_id", [0, 1, 10**6])
@pytest.mark.parametrize("num_known", [0, 2])
def test_pairs_have_the_law_of_kmeans_pp(first_id, num_known):
    rows = np.random.default_rng(5).normal(size=(6 + num_known, 2)).astype(np.float32)
    features, ids = {"embeds": rows[:6]}, first_id + np.arange(6)
    counts = dict.fromkeys(itertools.permutations(range(6), 2), 0)
    num_seeds = 1500
    for seed in range(num_seeds):
        known = (
            labelled(np.arange(-num_known, 0), {"embeds": rows[6:]})
            if num_known
            else none_labelled(**features)
        )
        rows_of = cut(ids, features=features, num_slices=2)
        picks = KMeansPP(precision="float").select(rows_of, known, 2, Keys(seed, 0))
        counts[tuple((picks.ids - first_id).tolist())] += 1
    law = law_of_pairs(rows.astype(float), num_known)
    assert sum(law.values()) == pytest.approx(1.0)
    chi2 = sum((counts[p] - num_seeds * q) ** 2 / (num_seeds * q) for p, q in law.items())
    assert chi2 < 58.3  # 29 degrees of freedom: p = 0.001


def test_weights_of_a_few_bits_do_not_change_the_law(monkeypatch):
    """Of 1e9 rows the largest weight has 30 bits, and near rows may have one."""
    monkeypatch.setattr(d_squared, "_WEIGHT_BITS", 7)  # of eight rows the largest has three
    rows = np.random.default_rng(5).normal(size=(8, 2)) * [[1], [1], [1], [0.1], [3], [9], [1], [1]]
    counts = dict.fromkeys(itertools.permutations(range(6), 2), 0)
    num_seeds = 3_000
    for seed in range(num_seeds):
        picks = KMeansPP(precision="float").select(
            cut(np.arange(6), features={"embeds": rows[:6]}, num_slices=2),
            labelled(np.arange(-2, 0), {"embeds": rows[6:]}),
            2,
            Keys(seed, 0),
        )
        counts[tuple(picks.ids.tolist())] += 1
    law = law_of_pairs(rows, 2)
    likely = {pair: chance for pair, chance in law.items() if chance * num_seeds > 5}
    found = sum(counts[pair] for pair in likely)
    assert abs(found - num_seeds * sum(likely.values())) < 40
    chi2 = sum((counts[p] - num_seeds * q) ** 2 / (num_seeds * q) for p, q in likely.items())
    assert chi2 < 2.5 * len(likely)  # about 20 pairs: p < 0.0005
    assert len(likely) > 15


@pytest.mark.parametrize("far", [1e3, 1e8, 1e12])
def test_the_law_holds_beside_a_far_row(far):
    """Once it is picked, weights must tell apart rows that are all near beside it."""
    rows = np.random.default_rng(2).normal(size=(14, 2)) * np.linspace(0.2, 3, 14)[:, None]
    rows[0], rows[13] = [far, 0], [0, 0]
    counts, num_seeds = np.zeros(13), 1_200
    for seed in range(num_seeds):
        picks = KMeansPP(precision="float").select(
            cut(np.arange(13), features={"embeds": rows[:13]}, num_slices=2),
            labelled([99], {"embeds": rows[13:]}),
            2,
            Keys(seed, 0),
        )
        if picks.ids[0] == 0:
            counts[picks.ids[1]] += 1
    law = np.square(rows[:13]).sum(axis=1)
    law[0] = 0.0
    expected = counts.sum() * law[1:] / law.sum()
    assert counts.sum() > 0.98 * num_seeds
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 31.3  # 11 degrees: p = 0.001


@pytest.mark.parametrize("num_slices", [1, 3])
def test_the_first_pick_is_a_uniform_draw_and_says_so(num_slices):
    rows = np.random.default_rng(1).normal(size=(40, 3))
    features = {"embeds": rows, tags_of("group"): np.arange(40) % 4}
    known = none_labelled(**features)
    picks = KMeansPP().select(cut(np.arange(40), None, features, num_slices), known, 5, Keys(3, 0))
    assert picks.keys[0] == 0.0
    assert picks.probabilities[0] == pytest.approx(1 / 40)
    assert picks.reasons[0] == "rank 1: nothing is labelled yet, and it is drawn uniformly"
    # Of the rows that limits leave.
    limits = Limits(group="group", quotas={1: 0})
    rows_of, known = cut(np.arange(40), None, features, num_slices), none_labelled(**features)
    picks = KMeansPP(limits=limits).select(rows_of, known, 5, Keys(3, 0))
    assert picks.probabilities[0] == pytest.approx(1 / 30)
    assert 1 not in picks.ids % 4


def test_the_first_pick_is_every_row_alike_often():
    rows = np.random.default_rng(1).normal(size=(10, 2))
    features, counts = {"embeds": rows}, np.zeros(10)
    for seed in range(1000):
        picks = KMeansPP().select(
            cut(np.arange(10), features=features), none_labelled(**features), 1, Keys(seed, 0)
        )
        counts[picks.ids[0]] += 1
    assert ((counts - 100) ** 2 / 100).sum() < 27.9  # 9 degrees of freedom: p = 0.001


@pytest.mark.parametrize("num_known", [0, 20])
def test_the_nearest_row_of_a_draw_is_named(num_known):
    rows = np.random.default_rng(4).normal(size=(200, 2))
    n = 200 - num_known
    known = (
        labelled(np.arange(n, 200), {"embeds": rows[n:]})
        if num_known
        else none_labelled(embeds=rows)
    )
    rows_of = cut(np.arange(n), features={"embeds": rows[:n]}, num_slices=3)
    picks = KMeansPP(precision="float").select(rows_of, known, 80, Keys(1, 0))
    there = list(range(n, 200))
    for rank, sample_id in enumerate(picks.ids.tolist()):
        if there:
            apart = np.linalg.norm(rows[there] - rows[sample_id], axis=1)
            assert picks.details["nearest_id"][rank] == there[int(apart.argmin())]
            assert picks.details["nearest_distance"][rank] == pytest.approx(apart.min(), rel=1e-5)
        there.append(sample_id)
