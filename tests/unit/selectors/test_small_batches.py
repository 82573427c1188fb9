"""Batches of few picks, by one pass a pick: the picks of the lazy way, and of the plain greedy."""

import numpy as np
import pytest
from farthest_worlds import KINDS, by_hand, rows_of_kind
from slices import cut, labelled, none_labelled

from rayal.keys import Keys
from rayal.selectors.gsx import GSx
from rayal.selectors.k_center import KCenter

KEYS = Keys(2, 0)


def test_the_plain_way_and_the_lazy_way_agree(monkeypatch):
    rng = np.random.default_rng(1)
    for kind in KINDS:
        x = rows_of_kind(kind, rng, 3000, 7)
        weights = rng.random(3000)
        for selector in (KCenter(), GSx(), KCenter(weighted=True)):
            rows = cut(np.arange(3000), weights, {"embeds": x}, 3)
            few = selector.select(rows, none_labelled(embeds=x), 40, KEYS)
            assert "a small batch" in few.note or kind in ("one value",)
            with monkeypatch.context() as patch:
                patch.setattr("rayal.selectors.plain.MOST_PICKS", 0)
                patch.setattr("rayal.selectors.farthest.fit_codes", lambda *a: (None, "none"))
                many = selector.select(rows, none_labelled(embeds=x), 40, KEYS)
            assert few.ids.tolist() == many.ids.tolist()
            np.testing.assert_allclose(few.keys, many.keys, rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_known", [0, 4])
def test_the_plain_way_is_exact_far_from_0(weighted, num_known):
    # Squared norms of 5e8 in float32: rounding is larger than the distances between the rows.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400 + num_known, 5)) + 1e4
    x, known = x[:400], x[400:]
    weights = rng.random(400) * 1000 if weighted else np.ones(400)
    rows = cut(np.arange(400), weights, {"embeds": x}, 2)
    held = labelled(np.arange(900, 900 + num_known), {"embeds": known})
    method = KCenter(precision="float", weighted=weighted)
    picks = method.select(rows, held if num_known else none_labelled(embeds=x), 40, KEYS)
    assert "a small batch" in picks.note
    assert picks.ids.tolist() == by_hand(np.arange(400), x, known, 40, weights).tolist()


def test_the_plain_way_takes_ties_by_id_among_more_rows_than_it_measures_at_a_time():
    x = np.ones((5_000, 2), np.float32)
    held = labelled(np.array([9_000]), {"embeds": np.zeros((1, 2), np.float32)})
    ids = np.arange(5_000) * 3 - 7_000
    picks = KCenter().select(cut(ids, features={"embeds": x}), held, 5, KEYS)
    assert "a small batch" in picks.note
    assert picks.ids.tolist() == ids[:5].tolist()
