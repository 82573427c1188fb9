"""Duplicates and near-duplicates, in the batch and of labelled rows: against the plain greedy."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slices import cut, labelled, none_labelled

from rayal.columns import tags
from rayal.errors import ScoringError
from rayal.keys import Keys
from rayal.selectors import alike, best_within
from rayal.selectors.limits import Limits
from rayal.selectors.top_k import TopK
from rayal.types import tags_of

KEYS = Keys(1, 0)


def pick(limits, ids, scores, features, budget, num_slices=1, seed=None, known=None):
    rows = cut(ids, scores, features, num_slices, seed)
    return TopK(limits).select(rows, known or none_labelled(**features), budget, KEYS)


def cosine(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    length = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y) / length if length else 0.0


def plain(ids, scores, rows, budget, like, known):
    """Row by row in order of score, unless it is like one that is there."""
    picked = []
    for row in np.lexsort((ids, -scores)):
        if len(picked) == budget:
            break
        if not any(like(rows[row], other) for other in [*known, *(rows[p] for p in picked)]):
            picked.append(row)
    return ids[picked].tolist()


@pytest.mark.parametrize("num_slices", [1, 3, 7])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("near", [0.5, 0.9, 0.99])
def test_near_duplicates_equal_the_plain_greedy(num_slices, seed, near, monkeypatch):
    monkeypatch.setattr(alike, "BLOCK_ROWS", 37)
    monkeypatch.setattr("rayal.selectors.room.BLOCK_ROWS", 37)
    monkeypatch.setattr(best_within, "_LEAST_ROWS", 50)
    monkeypatch.setattr(best_within, "_MOST_VECTORS", 120)
    rng = np.random.default_rng(seed)
    n, num_known = 700, 30 * seed
    ids, scores = rng.permutation(n), rng.integers(0, 50, n) / 8
    rows = (rng.standard_normal((n, 6)) * rng.lognormal(0, 3, (n, 1))).astype(np.float32)
    rows[rng.integers(0, n, 90)] = rows[0]
    rows[rng.integers(0, n, 9)] = 0.0
    known_rows = rows[rng.integers(0, n, num_known)] * np.float32(3)
    known = labelled(
        np.arange(n, n + num_known), {"embeds": known_rows}, num_slices=max(1, num_slices - 1)
    )
    limits = Limits(near=near)
    picks = pick(limits, ids, scores, {"embeds": rows}, 150, num_slices, seed, known)
    wanted = plain(ids, scores, rows, 150, lambda x, y: cosine(x, y) > near, known_rows)
    assert picks.ids.tolist() == wanted
    assert "left out " in picks.note


lattice = st.tuples(st.integers(-2, 2), st.integers(-2, 2))


@settings(max_examples=300)
@given(
    rows=st.lists(st.tuples(lattice, st.integers(0, 3)), min_size=1, max_size=25),
    known_rows=st.lists(lattice, max_size=4),
    budget=st.integers(1, 26),
    near=st.sampled_from([None, 0.0, 0.6, 0.8, 0.99]),
    equal=st.booleans(),
    num_slices=st.sampled_from([1, 3, 7]),
)
def test_lattices_whose_cosines_are_the_threshold(
    rows, known_rows, budget, near, equal, num_slices
):
    if near is None and not equal:
        return
    points = np.array([point for point, _ in rows], np.float32)
    scores, ids = np.array([score for _, score in rows]) / 2.0, np.arange(len(rows)) * 2
    known_points = np.array(known_rows, np.float32).reshape(-1, 2)
    known = labelled(np.arange(901, 901 + len(known_rows)), {"embeds": known_points})

    def like(x, y):
        if equal and (x == y).all():
            return True
        # cos > near, squared, in whole numbers: (5, 0) and (3, 4) are at 0.6 and not above it.
        dot, lengths = int(x @ y), int(x @ x) * int(y @ y)
        return (
            near is not None and dot > 0 and dot * dot * 10_000 > round(near * 100) ** 2 * lengths
        )

    limits = Limits(near=near, duplicates="embeds" if equal else None)
    picks = pick(limits, ids, scores, {"embeds": points}, budget, num_slices, 1, known)
    assert picks.ids.tolist() == plain(ids, scores, points, budget, like, known_points)
    one = pick(limits, ids, scores, {"embeds": points}, budget, 1, None, known)
    assert one.note == picks.note


@pytest.mark.parametrize("num_slices", [1, 3])
def test_a_column_of_text_is_never_picked_twice(num_slices):
    rng = np.random.default_rng(0)
    texts = np.array([f"{'the same beginning, ' * 3}{i}" for i in range(40)])
    at = rng.integers(0, 40, 300)
    need = tags_of("text")
    values = tags(pa.table({"text": texts[at]}), "text")
    known = labelled(np.arange(900, 905), {need: tags(pa.table({"text": texts[:5]}), "text")})
    limits = Limits(duplicates="text")
    scores = rng.random(300)
    picks = pick(limits, np.arange(300), scores, {need: values}, 100, num_slices, 0, known)
    wanted = plain(np.arange(300), scores, at, 100, lambda x, y: x == y, range(5))
    assert picks.ids.tolist() == wanted
    assert len(picks.ids) == 35
    assert picks.note.endswith("limits left 35 of 100 rows to pick")


def test_zeros_of_either_sign_are_equal_and_numbers_of_one_column_are_compared():
    need = tags_of("x")
    values = np.array([0.0, -0.0, 1.0, 1.0 + 1e-15])
    picks = pick(Limits(duplicates="x"), np.arange(4), -np.arange(4.0), {need: values}, 4)
    assert picks.ids.tolist() == [0, 2, 3]
    values = np.array([3, 3, 2**62, 2**62 + 1])
    picks = pick(Limits(duplicates="x"), np.arange(4), -np.arange(4.0), {need: values}, 4)
    assert picks.ids.tolist() == [0, 2, 3]


@pytest.mark.parametrize("num_slices", [1, 3, 7])
def test_duplicates_quotas_and_money_together(num_slices):
    rng = np.random.default_rng(7)
    n = 400
    ids, scores = rng.permutation(n), rng.integers(1, 30, n) / 8
    groups, costs = rng.integers(0, 6, n), rng.integers(0, 5, n)
    rows = rng.integers(-1, 2, (n, 3)).astype(np.int8)
    features = {tags_of("g"): groups, "cost": costs, "embeds": rows}
    limits = Limits(group="g", quota=6, cost="cost", max_cost=1_000, duplicates="embeds")
    loose = Limits(group="g", quota=6, cost="cost", max_cost=20, duplicates="embeds", near=0.8)
    picks = pick(limits, ids, scores, features, 40, num_slices, 2)
    order = np.lexsort((ids, -scores))
    given, seen, wanted = np.zeros(6, int), set(), []
    for row in order:
        if given[groups[row]] < 6 and rows[row].tobytes() not in seen:
            given[groups[row]] += 1
            seen.add(rows[row].tobytes())
            wanted.append(int(ids[row]))
    assert picks.ids.tolist() == wanted[:40]
    one, many = (pick(loose, ids, scores, features, 40, k, 2) for k in (1, num_slices))
    assert one.ids.tolist() == many.ids.tolist()
    assert one.note == many.note


def test_values_that_cannot_be_compared_are_refused():
    limits, ids = Limits(near=0.9), np.array([9, 4, 6])
    bad = np.array([[1.0, 2.0], [np.nan, 1.0], [1.0, np.inf]], np.float32)
    with pytest.raises(ScoringError, match=r"'embeds' is NaN or infinite in 2 rows .* sample_id 4"):
        pick(limits, ids, None, {"embeds": bad}, 2, 3)
    good, wide = np.ones((3, 2), np.float32), np.ones((1, 3), np.float32)
    with pytest.raises(ScoringError, match=r"'embeds' is NaN or infinite in 2 rows"):
        pick(limits, ids, None, {"embeds": good}, 2, 1, None, labelled(ids + 20, {"embeds": bad}))
    with pytest.raises(ScoringError, match=r"'embeds' has 2 and 3 numbers a row"):
        pick(limits, ids, None, {"embeds": good}, 2, 1, None, labelled([20], {"embeds": wide}))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_lengths_at_the_ends_of_the_range_change_no_cosine(scale):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 4))
    wild = rows * np.where(np.arange(60) % 2, scale, 1.0)[:, None]
    limits, scores = Limits(near=0.8), rng.random(60)
    tame = pick(limits, np.arange(60), scores, {"embeds": rows}, 30)
    assert pick(limits, np.arange(60), scores, {"embeds": wild}, 30).ids.tolist() == (
        tame.ids.tolist()
    )


def test_cosines_do_not_hang_on_blocks_or_order():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 129)).astype(np.float32)
    rows[1::2] = rows[::2] + 0.3 * rng.standard_normal((150, 129)).astype(np.float32)
    all_points = alike.points(rows)
    exact = np.array([[cosine(x, y) for y in rows[:60]] for x in rows[:60]])
    near_all = alike.near(all_points, all_points, 0.95)
    assert (near_all == near_all.T).all()
    clear = np.abs(exact - 0.95) > 1e-12
    assert (near_all[:60, :60] == (exact > 0.95))[clear].all()
    assert 0 < np.count_nonzero(near_all & ~np.eye(300, dtype=bool)) < 300
    # A threshold that is the very cosine of a pair: rounding decides nothing.
    pairs = [(i, i + 1) for i in range(0, 300, 2)]
    for i, j in pairs[:20]:
        for threshold in (
            exact_cosine(rows[i], rows[j]),
            np.nextafter(exact_cosine(rows[i], rows[j]), 0),
        ):
            whole = alike.near(all_points, all_points, threshold)[i, j]
            for some in ([i, j], [j, i], [i, j, 5, 7], list(range(300))[::-1]):
                part = alike.points(rows[some])
                assert alike.near(part, part, threshold)[some.index(i), some.index(j)] == whole
                assert alike.near(part, part, threshold)[some.index(j), some.index(i)] == whole


def exact_cosine(x, y):
    (x, a), (y, b) = (alike._scaled(row[None]) for row in (x, y))
    return float(np.einsum("pd,pd->p", x, y)[0] / (a * b)[0])
