import numpy as np
import pytest
from slices import cut as cut_slices

from rayal.ranking import (
    Cut,
    Sketch,
    Threshold,
    best_rows,
    cut_at,
    exact_cut,
    inside,
    order_key,
    sketch,
    threshold,
    top,
)


def rows(seed, n, num_values):
    """Scores with ties (and both zeros) under shuffled ids, some of them negative."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(-num_values, num_values + 1, n) / num_values * rng.choice([1.0, -1.0], n)
    ids = rng.choice(np.arange(-3 * n, 3 * n), n, replace=False).astype(np.int64)
    return scores, ids


def textbook(scores, ids):
    return np.lexsort((ids, -scores))


def test_order_key_sorts_as_scores_do():
    scores = np.array([-np.finfo(float).max, -1.5, -5e-324, -0.0, 5e-324, 1.0, 1.0 + 2**-52, 1e308])
    keys = order_key(scores)
    assert keys.dtype == np.uint64
    assert (np.diff(keys.astype(object)) > 0).all()
    assert order_key(np.array([-0.0])) == order_key(np.array([0.0]))
    noise = np.random.default_rng(0).standard_normal(1000)
    assert (np.argsort(order_key(noise)) == np.argsort(noise)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_without_a_rank_are_refused(bad):
    with pytest.raises(ValueError, match=r"1 of 3 scores are not finite \(first at row 1: "):
        order_key(np.array([0.0, bad, 1.0]))
    with pytest.raises(ValueError, match="not finite"):
        top(cut_slices(np.arange(3), np.array([0.0, bad, 1.0])), 1)


def test_inside_cuts_ties_by_id():
    scores, ids = np.array([2.0, 1.0, 1.0, 1.0, 0.0]), np.array([9, -4, 5, 7, 1])
    cut = Cut(int(order_key(np.array([1.0]))[0]), 5)
    assert inside(scores, ids, cut).tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("num_values", [1, 3, 10**6])
@pytest.mark.parametrize("keep", [0, 1, 17, 99, 100, 500])
def test_best_rows(num_values, keep):
    scores, ids = rows(1, 100, num_values)
    assert (best_rows(scores, ids, keep) == textbook(scores, ids)[:keep]).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_values", [1, 2, 20, 10**6])
@pytest.mark.parametrize("num_ranks", [1, 4, 256])
def test_threshold_never_drops_a_top_row(seed, num_values, num_ranks):
    rng = np.random.default_rng(seed)
    scores, ids = rows(seed, 3000, num_values)
    owner = rng.integers(0, 5, 3000)
    for keep in (1, 7, 300, 2999):
        sketches = []
        for shard in range(5):
            mine = owner == shard
            sketches.append(sketch(scores[mine], ids[mine], keep, num_ranks))
            seen = owner <= shard
            cut = threshold(sketches, keep)
            if cut is None:
                assert sum(part.counts.sum() for part in sketches) < keep
                continue
            best = np.flatnonzero(seen)[textbook(scores[seen], ids[seen])[:keep]]
            assert inside(scores[best], ids[best], cut).all()
            if num_ranks == 256:  # and it is tight: a rank of slack a shard
                kept = inside(scores[seen], ids[seen], cut).sum()
                assert kept <= keep + 5 * (keep // 256 + 1)


@pytest.mark.parametrize("num_values", [1, 20, 10**6])
@pytest.mark.parametrize("keep", [1, 40, 1500, 2999, 4000])
def test_parts_added_one_by_one_give_the_cut_of_all(num_values, keep):
    scores, ids = rows(7, 3000, num_values)
    owner = np.random.default_rng(1).integers(0, 30, 3000)
    sketches = [sketch(scores[owner == s], ids[owner == s], keep) for s in range(30)]
    found = Threshold(keep)
    for lo, hi in ((0, 1), (1, 1), (1, 4), (4, 29), (29, 30)):
        found.add(sketches[lo:hi])
        assert found.cut == threshold(sketches[:hi], keep)
        if found.cut is not None:  # what cannot be the edge any more is let go
            assert sum(len(part.keys) for part in found._above) <= keep


def test_ties_do_not_flood_the_threshold():
    ids = np.random.default_rng(0).permutation(10_000)
    parts = [sketch(np.zeros(2500), ids[lo : lo + 2500], 500) for lo in range(0, 10_000, 2500)]
    cut = threshold(parts, 500)
    assert 500 <= inside(np.zeros(10_000), ids, cut).sum() < 520


def test_sketch_entries_count_rows():
    scores, ids = rows(3, 1000, 30)
    part = sketch(scores, ids, 700, num_ranks=64)
    assert len(part.keys) <= 64
    assert part.counts.sum() == 700
    for j, at_or_above in enumerate(np.cumsum(part.counts)):
        assert inside(scores, ids, Cut(int(part.keys[j]), int(part.ids[j]))).sum() == at_or_above
    again = Sketch.from_json(part.to_json())
    assert all((getattr(again, n) == getattr(part, n)).all() for n in ("keys", "ids", "counts"))
    assert again.keys.dtype == np.uint64


def test_sketches_of_nothing_say_nothing():
    empty = sketch(np.empty(0), np.empty(0, np.int64), 10)
    assert threshold([], 1) is None
    assert threshold([empty], 1) is None
    assert threshold([empty, sketch(np.ones(3), np.arange(3), 10)], 4) is None


@pytest.mark.parametrize("num_slices", [1, 3, 16])
@pytest.mark.parametrize("num_values", [1, 4, 10**6])
@pytest.mark.parametrize("gather_rows", [0, 50, 500_000])
def test_exact_cut_and_top_match_a_sort(num_slices, num_values, gather_rows):
    scores, ids = rows(num_slices, 2000, num_values)
    order = textbook(scores, ids)
    for keep in (1, 2, 333, 1999):
        slices = cut_slices(ids, scores, num_slices=num_slices, seed=1)
        cut = exact_cut(slices, keep, gather_rows=gather_rows)
        assert set(ids[inside(scores, ids, cut)]) == set(ids[order[:keep]])
        slices = cut_slices(ids, scores, num_slices=num_slices, seed=2)
        top_ids, top_scores = top(slices, keep, gather_rows=gather_rows)
        assert (top_ids == ids[order[:keep]]).all()
        assert (top_scores == scores[order[:keep]]).all()


@pytest.mark.parametrize("gather_rows", [0, 500_000])
def test_top_of_fewer_rows_than_asked_for(gather_rows):
    scores, ids = rows(5, 20, 3)
    order = textbook(scores, ids)
    slices = cut_slices(ids, scores, num_slices=30)  # some slices are empty
    assert (top(slices, 50, gather_rows=gather_rows)[0] == ids[order]).all()
    assert exact_cut(slices, 20) is None
    assert len(top(slices, 0)[0]) == 0
    assert len(top(cut_slices(np.empty(0, np.int64)), 5)[0]) == 0
    with pytest.raises(ValueError, match="keep is 0, expected at least 1"):
        exact_cut(slices, 0)


def test_id_ranges_at_the_ends_of_int64():
    ends = np.array([-(2**63), -1, 0, 2**63 - 1])
    slices = cut_slices(ends, np.zeros(4), num_slices=2)
    assert exact_cut(slices, 3, gather_rows=0).last_id == 0
    assert exact_cut(cut_slices(ends, np.zeros(4)), 1, gather_rows=0).last_id == -(2**63)


@pytest.mark.parametrize("num_values", [1, 3, 10**6])
def test_cut_at_is_the_exact_cut_of_one_part(num_values):
    scores, ids = rows(7, 500, num_values)
    scores = np.where(scores == scores.min(), -0.0, scores - scores.mean())
    for keep in (1, 2, 250, 499):
        assert cut_at(scores, ids, keep) == exact_cut(cut_slices(ids, scores), keep)
    assert inside(scores, ids, cut_at(scores, ids, 500)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_a_cut_of_scores_that_are_not_finite_is_refused(bad, keep):
    scores, ids = np.array([1.0, bad, 2.0, 3.0, 0.5]), np.arange(5)
    for find in (
        lambda: cut_at(scores, ids, keep),
        lambda: exact_cut(cut_slices(ids, scores), keep),
    ):
        with pytest.raises(ValueError, match=r"1 of 5 scores are not finite \(first at row 1: "):
            find()


def test_a_histogram_of_few_rows_travels_in_few_bytes():
    """10,000 slices sent 5 GB, whatever they held."""
    scores, ids = rows(3, 4_000, 10**6)
    slices = cut_slices(ids, scores, num_slices=40)
    sent_bytes = []

    class Weighed:
        num_rows = slices.num_rows

        def each(self, ask, step, *args):
            answers = slices.each(ask, step, *args)
            sent_bytes.append(
                sum(part.nbytes for one in answers if isinstance(one, tuple) for part in one)
            )
            return answers

    assert exact_cut(Weighed(), 1_000, gather_rows=0) == exact_cut(slices, 1_000)
    assert 0 < max(sent_bytes) <= 6 * 4_000
