"""Cost budgets: against the relaxed problem, every batch there is, and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from slices import cut, none_labelled

from rayal.errors import ConfigError, ScoringError
from rayal.keys import Keys
from rayal.selectors import price
from rayal.selectors.limits import Limits
from rayal.selectors.quotas import Quotas
from rayal.selectors.top_k import TopK
from rayal.types import tags_of

KEYS = Keys(1, 0)
G = tags_of("g")
FREE = np.array([0, 1, 0])


def pick(limits, ids, scores, features, budget, num_slices=1, seed=None):
    rows = cut(ids, scores, features, num_slices, seed)
    return TopK(limits).select(rows, none_labelled(**features), budget, KEYS)


def relaxed(scores, costs, groups, budget, max_cost, most, least=0):
    """The highest sum of scores where rows may be picked in part: no batch is better. None: there
    is no such batch."""
    codes = np.unique(groups)
    member = (groups[None, :] == codes[:, None]).astype(float)
    sizes = member.sum(1)
    rows = [np.ones(len(scores)), costs, *member, *-member]
    bounds = [budget, max_cost, *np.full(len(codes), most), *-np.minimum(least, sizes)]
    open_rows = [(0.0, float(cost <= max_cost)) for cost in costs]
    found = linprog(-scores, np.array(rows), np.array(bounds), bounds=open_rows, method="highs")
    return -found.fun if found.status == 0 else None


@settings(max_examples=400)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=24
    ),
    budget=st.integers(1, 26),
    max_cost=st.integers(0, 40),
    most=st.sampled_from([1, 2, 5, 99]),
    num_slices=st.sampled_from([1, 3, 7]),
)
def test_the_sum_is_at_most_one_row_below_the_relaxed_one(rows, budget, max_cost, most, num_slices):
    scores, costs, groups = (np.array(column) for column in zip(*rows, strict=True))
    scores, ids = scores / 4.0, np.arange(len(rows)) * 3 - 7
    limits = Limits(cost="cost", max_cost=max_cost, group="g", quota=most, strict=False)
    features = {"cost": costs, G: groups}
    picks = pick(limits, ids, scores, features, budget, num_slices, 2)
    at = np.searchsorted(ids, picks.ids)
    assert costs[at].sum() <= max_cost
    assert len(at) <= budget
    assert np.bincount(groups[at]).max(initial=0) <= most
    best = relaxed(scores, costs, groups, min(budget, len(ids)), max_cost, most)
    dearest = scores[costs <= max_cost].max(initial=0.0)
    assert picks.scores.sum() >= best - dearest - 1e-6 * max(best, 1.0)
    # Nothing that is left would still fit.
    left = np.setdiff1d(np.arange(len(ids)), at)
    counts = np.bincount(groups[at], minlength=3)
    fits = (costs[left] <= max_cost - costs[at].sum()) & (counts[groups[left]] < most)
    assert len(at) == min(budget, len(ids)) or not fits.any()
    one = pick(limits, ids, scores, features, budget)
    assert picks.ids.tolist() == one.ids.tolist()
    assert picks.keys.tolist() == one.keys.tolist()
    assert picks.note == one.note


@settings(max_examples=150)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=20
    ),
    budget=st.integers(1, 20),
    max_cost=st.integers(0, 40),
    least=st.integers(1, 2),
)
def test_what_groups_must_give_is_paid_first(rows, budget, max_cost, least):
    scores, costs, groups = (np.array(column) for column in zip(*rows, strict=True))
    scores, ids = scores / 4.0, np.arange(len(rows))
    sizes = np.bincount(groups, minlength=3)
    limits = Limits(cost="cost", max_cost=max_cost, group="g", least=least)
    target = min(budget, len(ids))
    if (sizes[sizes > 0] < least).any() or least * np.count_nonzero(sizes) > target:
        with pytest.raises(ConfigError, match=r"limits.least asks for"):
            pick(limits, ids, scores, {"cost": costs, G: groups}, budget)
        return
    best = relaxed(scores, costs, groups, target, max_cost, 99, least)
    cheapest = sum(np.sort(costs[groups == g])[:least].sum() for g in np.unique(groups))
    if cheapest > max_cost or any(
        (costs[groups == g] <= max_cost).sum() < least for g in np.unique(groups)
    ):
        with pytest.raises(ConfigError, match=r"least"):
            pick(limits, ids, scores, {"cost": costs, G: groups}, budget)
        return
    assert best is not None
    picks = pick(limits, ids, scores, {"cost": costs, G: groups}, budget)
    assert costs[picks.ids].sum() <= max_cost
    assert (np.diff(picks.keys) <= 0).all()
    counts = np.bincount(groups[picks.ids], minlength=3)
    assert (counts[sizes > 0] >= least).all()
    dearest = scores[costs <= max_cost].max(initial=0.0)
    assert picks.scores.sum() >= best - dearest - 1e-6 * max(best, 1.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distinct", [3, 10_000])
def test_two_thousand_rows_against_the_relaxed_problem_and_a_plain_greedy(seed, distinct):
    rng = np.random.default_rng(seed)
    n, budget = 2_000, 300
    ids, groups = rng.permutation(5_000)[:n], rng.integers(0, 4, n)
    scores = np.round(rng.random(n) * distinct) / distinct
    costs = np.round(0.01 + rng.exponential(0.3, n), 2)  # cents
    features = {"cost": costs, G: groups}
    for max_cost, most in ((25.0, 300), (25.0, 40), (200.0, 300), (1e6, 300)):
        limits = Limits(cost="cost", max_cost=max_cost, group="g", quota=most, strict=False)
        picks = pick(limits, ids, scores, features, budget, 7, seed)
        again = pick(limits, ids, scores, features, budget)
        assert picks.ids.tolist() == again.ids.tolist()
        at = np.array([np.flatnonzero(ids == i)[0] for i in picks.ids])
        best = relaxed(scores, costs, groups, budget, max_cost, most)
        assert costs[at].sum() <= max_cost + 1e-9
        assert best - 1.0 - 1e-6 * best <= picks.scores.sum() <= best + 1e-9
        plain = plain_greedy(scores, costs, groups, budget, max_cost, most)
        assert picks.scores.sum() >= plain - 1e-9
        if max_cost == 25.0:  # money is what is short: weighing it buys far more
            assert picks.scores.sum() > 1.5 * plain


def plain_greedy(scores, costs, groups, budget, max_cost, most):
    """The sum of scores where rows are taken in order of score while the money lasts."""
    counts, left, total, num = np.zeros(9, int), max_cost, 0.0, 0
    for row in np.argsort(-scores, kind="stable"):
        if num < budget and costs[row] <= left and counts[groups[row]] < most:
            counts[groups[row]] += 1
            left, total, num = left - costs[row], total + scores[row], num + 1
    return total


def test_equal_prices_change_places_one_by_one():
    # Ten dear rows or ten cheap ones, or any mixture: at a price of 1 all are worth the same.
    scores = np.repeat([3.0, 2.0], 100)
    costs = np.repeat([2, 1], 100)
    limits = Limits(cost="cost", max_cost=15)
    picks = pick(limits, np.arange(200), scores, {"cost": costs}, 10, 3)
    assert costs[picks.ids].sum() == 15
    assert picks.scores.sum() == 25.0
    assert "15 of 15 spent at a price of 1 a unit" in picks.note


def test_all_that_is_best_is_taken_where_it_costs_too_little_to_matter():
    rng = np.random.default_rng(0)
    scores, costs = rng.random(50), rng.random(50)
    limits = Limits(cost="cost", max_cost=50)
    picks = pick(limits, np.arange(50), scores, {"cost": costs}, 20)
    assert picks.ids.tolist() == np.argsort(-scores)[:20].tolist()
    assert picks.keys.tolist() == picks.scores.tolist()
    assert picks.reasons[0].endswith(f"at a cost of {costs[picks.ids[0]]:.6g}")
    spent = costs[picks.ids].sum()
    assert picks.note == f"money: {spent:.6g} of 50 spent"
    exactly = pick(
        Limits(cost="cost", max_cost=6), np.arange(3), scores[:3], {"cost": np.arange(1, 4)}, 3
    )
    assert (len(exactly.ids), exactly.note) == (3, "money: 6 of 6 spent")


def test_decimals_are_counted_as_they_are_written():
    # In binary ten times 0.1 is more than 1.
    limits = Limits(cost="cost", max_cost=1.0)
    picks = pick(limits, np.arange(12), np.ones(12), {"cost": np.full(12, 0.1)}, 12)
    assert len(picks.ids) == 10
    limits = Limits(cost="cost", max_cost=0.7)
    picks = pick(limits, np.arange(12), np.ones(12), {"cost": np.full(12, 0.07)}, 12)
    assert len(picks.ids) == 10


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_short_floats_are_the_decimals_that_they_are_written_as(dtype):
    for cost, max_cost in ((0.1, 1.0), (0.7, 7.0), (1e-3, 0.01), (19.9, 199.0), (2.0, 20.0)):
        costs = np.full(12, cost, dtype)
        limits = Limits(cost="cost", max_cost=max_cost)
        picks = pick(limits, np.arange(12), np.ones(12), {"cost": costs}, 12)
        assert len(picks.ids) == 10


def test_whole_costs_stay_whole_in_any_float():
    costs = np.array([123_456_792, 16_777_216, 3], np.float32)  # the first is written 1.2345679e+08
    limits = Limits(cost="cost", max_cost=140_234_011)
    picks = pick(limits, np.arange(3), np.ones(3), {"cost": costs}, 3)
    assert len(picks.ids) == 3
    less = Limits(cost="cost", max_cost=140_234_010)
    assert len(pick(less, np.arange(3), np.ones(3), {"cost": costs}, 3).ids) == 2


def test_the_least_money_has_all_its_digits():
    costs = np.array([2.5, 2.5, 4.0]) * 1e-11
    limits = Limits(cost="cost", max_cost=1e-10)
    assert len(pick(limits, np.arange(3), np.ones(3), {"cost": costs}, 3).ids) == 3
    costs[2] = 5.001e-11
    assert len(pick(limits, np.arange(3), np.ones(3), {"cost": costs}, 3).ids) == 2


def test_a_cost_that_nobody_can_pay_is_no_warning(recwarn):
    costs = np.array([1.0, 1e300, 1e308])
    picks = pick(Limits(cost="cost", max_cost=2.0), np.arange(3), np.ones(3), {"cost": costs}, 3)
    assert picks.ids.tolist() == [0]
    assert not [str(one.message) for one in recwarn if "overflow" in str(one.message)]


@pytest.mark.parametrize("max_cost", [10**12, 10**15])
def test_money_in_small_units_does_not_overflow(max_cost):
    costs = np.full(3_000, max_cost // 2_000, np.int64)
    costs[:50] = 2**62
    limits = Limits(cost="cost", max_cost=max_cost)
    picks = pick(limits, np.arange(3_000), np.ones(3_000), {"cost": costs}, 2_500, 3)
    assert len(picks.ids) == 2_000
    assert picks.ids.min() == 50


@pytest.mark.parametrize("num_slices", [1, 3, 7])
def test_the_price_is_the_same_while_slices_search(num_slices, monkeypatch):
    rng = np.random.default_rng(1)
    n = 3_000
    ids, groups = rng.permutation(n), rng.integers(0, 300, n)
    scores, costs = rng.integers(0, 9, n) / 2.0, rng.integers(0, 9, n)
    limits = Limits(cost="cost", max_cost=90, group="g", quota=2)
    features = {"cost": costs, G: groups}
    here = pick(limits, ids, scores, features, 60, num_slices, 3)
    monkeypatch.setattr(price, "_GATHERED", 0)
    there = pick(limits, ids, scores, features, 60, num_slices, 3)
    assert there.ids.tolist() == here.ids.tolist()
    assert there.note == here.note


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), most=st.sampled_from([1, 3, 99]), least=st.integers(0, 1))
def test_rows_that_are_left_out_are_in_no_batch_of_a_price_between(seed, most, least):
    rng = np.random.default_rng(seed)
    n, budget = 60, 12
    ids, groups = np.arange(n), rng.integers(0, 4, n)
    scores, costs = rng.integers(0, 9, n) / 4.0, rng.integers(0, 7, n)
    scores[groups == 3] /= 16.0  # picked only where they must be
    codes = np.arange(4)
    quotas = Quotas(codes, np.full(4, most), np.full(4, least), most)
    limits = Limits(cost="cost", max_cost=1_000, group="g", quota=most, least=least)
    features = {"cost": costs, G: groups}
    search = price._Search(cut(ids, scores, features, 3), limits, quotas, budget, 0)
    unit = limits.steps_a_unit
    low, high = np.sort(rng.exponential(0.4, 2)) / unit
    between = [search.best(p).ids for p in np.linspace(low, high, 9)]
    edges = search.best(high).edges
    search.prune(low, edges)
    kept = search.candidates.part.ids[search.candidates.part.cache["in doubt"]]
    assert set(np.concatenate(between)) <= set(kept)
    assert [search.best(p).ids.tolist() for p in np.linspace(low, high, 9)] == [
        one.tolist() for one in between
    ]
    if most == 1:  # a row that the best of its group always beats is left out
        at_low, at_high = (scores - one * unit * costs for one in (low, high))
        best = np.array([at_high[groups == group].max() for group in groups])
        assert not set(ids[at_low < best - 1e-5]) & set(kept)


@pytest.mark.parametrize("num_slices", [1, 3])
def test_a_row_that_no_batch_can_pay_makes_nothing_dearer(num_slices):
    scores = np.array([1_000.0, *[10.0] * 20, *[1.0] * 20])
    costs = np.array([25.0, *[2.0] * 20, *[0.5] * 20])
    limits = Limits(cost="cost", max_cost=20)
    picks = pick(limits, np.arange(41), scores, {"cost": costs}, 30, num_slices)
    assert (picks.scores.tolist(), costs[picks.ids].sum()) == ([10.0] * 10, 20.0)


def test_of_rows_that_groups_must_give_the_cheapest_are_taken_where_money_asks_for_it():
    scores, costs = np.array([1.0, 0.0, 1.0, 0.0]), np.array([5, 4, 5, 4])
    features = {"cost": costs, G: np.array([1, 1, 2, 2])}
    for max_cost, wanted in ((10, [0, 2]), (9, [0, 3]), (8, [1, 3])):
        limits = Limits(cost="cost", max_cost=max_cost, group="g", least=1)
        picks = pick(limits, np.arange(4), scores, features, 2)
        assert costs[picks.ids].sum() == costs[wanted].sum()
        assert sorted(picks.ids % 2) == sorted(one % 2 for one in wanted)
    limits = Limits(cost="cost", max_cost=7, group="g", least=1)
    with pytest.raises(ConfigError, match=r"cost at least 8, and limits.max_cost is 7"):
        pick(limits, np.arange(4), scores, features, 2)


def test_the_search_ends_one_row_from_the_best_and_no_further():
    def ends(low, high):
        return price._are_neighbours(np.array(low, np.int64), np.array(high, np.int64))

    assert ends([1, 2, 3], [1, 2, 3])
    assert ends([1, 2, 3], [1, 3])
    assert ends([1, 2, 3], [1, 3, 4])
    assert not ends([1, 2, 3], [1])
    assert not ends([1, 2, 3], [1, 4, 5])
    assert not ends([1, 2, 3, 4], [1, 2, 5])


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_costs_that_are_none_are_refused(bad):
    costs = np.array([1.0, bad, 2.0, bad])
    limits = Limits(cost="cost", max_cost=5)
    with pytest.raises(
        ScoringError, match=r"'cost' is negative, NaN or infinite in 2 rows .first sample_id 4"
    ):
        pick(limits, np.array([9, 8, 7, 4]), np.ones(4), {"cost": costs}, 2, 3)
    with pytest.raises(ScoringError, match="'cost' holds 2 numbers a row"):
        pick(limits, np.arange(4), np.ones(4), {"cost": np.ones((4, 2))}, 2)


def test_scores_that_are_no_utilities_are_refused():
    limits = Limits(cost="cost", max_cost=5)
    with pytest.raises(ScoringError, match=r"2 scores are below 0 .first sample_id 3"):
        pick(limits, np.array([5, 3, 4]), np.array([-1.0, -0.5, 1.0]), {"cost": np.ones(3)}, 2, 3)


def test_no_row_that_can_be_paid_is_an_empty_batch_that_says_so():
    limits = Limits(cost="cost", max_cost=5)
    picks = pick(limits, np.arange(3), np.ones(3), {"cost": np.array([6, 7, 8])}, 2, 2)
    assert len(picks.ids) == 0
    assert "limits left 0 of 2 rows to pick" in picks.note
    free = pick(Limits(cost="cost", max_cost=0), np.arange(3), np.ones(3), {"cost": FREE}, 3)
    assert free.ids.tolist() == [0, 2]


def test_what_groups_must_give_may_cost_too_much():
    features = {"cost": np.array([5, 6, 1, 1]), G: np.array([1, 1, 2, 2])}
    limits = Limits(cost="cost", max_cost=6, group="g", least=2)
    with pytest.raises(ConfigError, match=r"least asks for cost at least 13, and .*max_cost is 6"):
        pick(limits, np.arange(4), np.ones(4), features, 4)
    loose = Limits(cost="cost", max_cost=6, group="g", least=2, strict=False)
    picks = pick(loose, np.arange(4), np.ones(4), features, 4)
    assert sorted(picks.ids) == [2, 3]
    assert "least is not met: 0 of 2 rows of group 1" in picks.note


def best_of_all(scores, costs, budget, max_cost):
    sums = [
        scores[list(some)].sum()
        for size in range(budget + 1)
        for some in itertools.combinations(range(len(scores)), size)
        if costs[list(some)].sum() <= max_cost
    ]
    return max(sums)


@pytest.mark.parametrize("seed", range(20))
def test_few_rows_against_every_batch(seed):
    rng = np.random.default_rng(seed)
    scores, costs = rng.random(10), rng.integers(0, 20, 10)
    for budget, max_cost in ((3, 15), (6, 40), (10, 25)):
        limits = Limits(cost="cost", max_cost=max_cost)
        picks = pick(limits, np.arange(10), scores, {"cost": costs}, budget, 3)
        best = best_of_all(scores, costs, budget, max_cost)
        assert best - scores.max() < picks.scores.sum() <= best + 1e-12
