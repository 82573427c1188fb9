"""The room that greedy methods ask after every pick."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slices import cut, labelled, none_labelled

from rayal.keys import Keys
from rayal.selectors.limits import Limits
from rayal.selectors.quotas import Quotas
from rayal.selectors.room import Room
from rayal.selectors.survey import open_room
from rayal.selectors.top_k import TopK
from rayal.types import tags_of

G = tags_of("g")
TAKEN = -np.inf


def best_open(part, step, limits, gate, taken):
    """What a slice of a greedy method answers: its best row that limits leave open."""
    bounds = np.where(gate.bars(limits, part) | np.isin(part.ids, taken), TAKEN, part.scores)
    if not len(part) or bounds.max() == TAKEN:
        return None
    row = int(np.lexsort((part.ids, -bounds))[0])
    return bounds[row], int(part.ids[row]), limits.carry(part, np.array([row]))


def greedy(rows, known, limits, budget):
    """A method of the kind that lazy greedy serves: one question a pick, one mask a slice."""
    room = open_room(limits, rows, known, budget, 0)
    picked, refused, step = [], [], 1
    while room.left:
        away = np.array([*picked, *refused], np.int64)
        answers = [a for a in rows.each(best_open, step, limits, room.gate, away) if a is not None]
        step += 1
        if not answers:
            break
        _, sample_id, carried = min(answers, key=lambda one: (-one[0], one[1]))
        assert room.admits(carried).all()
        if room.like(carried)[0]:
            refused.append(sample_id)
            continue
        room.take(carried, 0)
        picked.append(sample_id)
    return picked, room


def case(seed, n=200):
    rng = np.random.default_rng(seed)
    features = {
        G: rng.integers(0, 7, n),
        "cost": rng.integers(0, 9, n),
        "embeds": rng.integers(-2, 3, (n, 3)).astype(np.float32),
    }
    return rng.permutation(n), rng.integers(0, 40, n) / 8, features


@pytest.mark.parametrize("num_slices", [1, 3, 7])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(group="g", quota=9),
        Limits(group="g", balance=True),
        Limits(group="g", least=3, quota=20),
        Limits(group="g", shares={1: 1, 2: 2, 3: 1}, strict=False),
        Limits(duplicates="embeds"),
        Limits(near=0.9, group="g", quota=4, strict=False),
    ],
    ids=str,
)
def test_a_greedy_method_under_masks_is_what_top_k_does(limits, num_slices):
    ids, scores, features = case(num_slices)
    known = labelled(np.arange(900, 906), {k: v[:6] for k, v in features.items()}, num_slices=2)
    known.each = lambda ask, step, *args: [ask(part, step, *args) for part in known.parts]
    picked, room = greedy(cut(ids, scores, features, num_slices, 1), known, limits, 40)
    picks = TopK(limits).select(cut(ids, scores, features), known, 40, Keys(1, 0))
    assert picked == picks.ids.tolist()
    assert room.unmet() == []


@pytest.mark.parametrize("num_slices", [1, 3, 7])
def test_money_closes_rows_that_cost_more_than_is_left(num_slices):
    ids, scores, features = case(3)
    limits = Limits(cost="cost", max_cost=50)
    rows = cut(ids, scores, features, num_slices, 1)
    picked, room = greedy(rows, none_labelled(**features), limits, 100)
    left, wanted = 50, []
    for row in np.lexsort((ids, -scores)):
        if features["cost"][row] <= left:
            left -= features["cost"][row]
            wanted.append(int(ids[row]))
    assert picked == wanted[:100]
    assert room.money == left * limits.steps_a_unit


@settings(max_examples=200)
@given(
    groups=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    costs=st.lists(st.integers(0, 5), min_size=30, max_size=30),
    budget=st.integers(1, 30),
    quota=st.integers(0, 6),
    least=st.dictionaries(st.integers(0, 4), st.integers(0, 3), max_size=3),
)
def test_what_is_closed_stays_closed_and_what_must_be_given_is(groups, costs, budget, quota, least):
    n = len(groups)
    least = {group: min(count, quota) for group, count in least.items()}
    features = {G: np.array(groups), "cost": np.array(costs[:n])}
    (part,) = cut(np.arange(n), None, features).parts
    limits = Limits(group="g", quota=quota, least=least, strict=False)
    room = open_room(limits, cut(np.arange(n), None, features), none_labelled(), budget, 0)
    carried = limits.carry(part, np.arange(n))
    barred = room.gate.bars(limits, part)
    for row in range(n):
        admitted = room.admits(carried)
        assert (admitted == ~room.gate.bars(limits, part)).all()
        assert admitted.tolist() == [room.may(g, 0) for g in groups]
        assert not (admitted & barred).any()
        barred = ~admitted
        if admitted[row]:
            room.take(carried, row)
    sizes = np.bincount(groups, minlength=5)
    counts = [room.counts.get(g, 0) for g in range(5)]
    assert all(counts[g] <= min(quota, sizes[g]) for g in range(5))
    assert sum(counts) <= budget
    # Rows came in one order only, so that all were met which the quotas of `room` hold.
    met = dict(zip(room.quotas.codes.tolist(), room.quotas.least.tolist(), strict=True))
    assert all(counts[g] >= count for g, count in met.items())


def test_rows_of_a_pool_are_told_which_are_like_a_pick():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2_500, 3)).astype(np.float32)
    rows[100] = rows[2_400]
    limits = Limits(near=0.99, duplicates="embeds")
    (part,) = cut(np.arange(2_500), None, {"embeds": rows}).parts
    carried = limits.carry(part, np.arange(2_500))
    known = none_labelled(embeds=rows)
    room = open_room(limits, cut(np.arange(2_500), None, {"embeds": rows}), known, 9, 0)
    like = room.like_row(carried, 100)
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1)[:, None]
    assert (like == (unit @ unit[100] > 0.99)).all()
    assert like[100]
    assert like[2_400]
    assert not room.like(carried).any()
    room.take(carried, 100)
    assert (room.like(carried) == like).all()


def test_many_taken_rows_are_remembered_in_blocks():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2_500, 4)).astype(np.float32)
    limits = Limits(near=0.999)
    (part,) = cut(np.arange(2_500), None, {"embeds": rows}).parts
    carried = limits.carry(part, np.arange(2_500))
    room = Room(limits, 3_000, Quotas(*(np.empty(0, np.int64),) * 3, 3_000), {}, none_labelled())
    for row in range(0, 2_500, 2):
        room.take(carried, row)
    assert room.like(carried)[::2].all()
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    wanted = ((unit[1::2] @ unit[::2].T) > 0.999).any(axis=1)
    assert (room.like(carried)[1::2] == wanted).mean() > 0.999
