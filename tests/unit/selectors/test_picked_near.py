"""What lies near each pick, for methods that decide by something else: against all pairs."""

import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.keys import Keys
from rayal.selectors import farthest, picked_near
from rayal.selectors.gsx import GSx
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans import KMeans
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.lcmd import LCMD
from rayal.selectors.limits import Limits
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.picked_near import feature_of, with_nearest
from rayal.selectors.top_k import TopK
from rayal.types import NO_ID


def picks_of(ids):
    return to_picks([Picked(int(one), 0.5, 0.25, "why") for one in ids])


def by_hand(x, known, picked, known_ids):
    """Distances to the nearest labelled row; the nearest of those and of earlier picks."""
    rows = []
    for turn, at in enumerate(picked):
        others = np.concatenate([known, x[picked[:turn]]]).astype(float)
        ids = [*known_ids, *picked[:turn]]
        far = np.sqrt(((others - x[at].astype(float)) ** 2).sum(axis=1))
        to_labelled = far[: len(known)].min(initial=np.inf)
        rows.append(
            (to_labelled, ids[int(far.argmin())] if len(far) else NO_ID, far.min(initial=np.inf))
        )
    return [np.array(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "float64"])
@pytest.mark.parametrize("num_slices", [1, 3, 7])
def test_it_is_the_nearest_of_all_pairs_however_cut(dtype, num_slices, monkeypatch):
    monkeypatch.setattr(picked_near, "_BLOCK_ROWS", 8)
    rng = np.random.default_rng(0)
    x = (8 * rng.standard_normal((400, 5))).astype(dtype)
    x[200:] = x[:200]  # everything twice
    known, picked = x[:7] + np.asarray(1, dtype), rng.permutation(400)[:90]
    rows = cut(np.arange(400), features={"embeds": x}, num_slices=num_slices, seed=1)
    held = labelled(np.arange(900, 907), {"embeds": known}, num_slices=2)
    found = with_nearest(picks_of(picked), rows, held, "embeds").details
    to_labelled, nearest_id, nearest = by_hand(x, known, picked, np.arange(900, 907))
    np.testing.assert_allclose(found["labelled_distance"], to_labelled, rtol=1e-12)
    np.testing.assert_allclose(found["nearest_distance"], nearest, rtol=1e-12)
    assert found["nearest_id"].tolist() == nearest_id.tolist()


@pytest.mark.parametrize(
    "selector",
    [
        KCenter(),
        KCenter(outliers=0.1),
        GSx(),
        KMeansPP(),
        LCMD("embeds"),
        None,
    ],
    ids=repr,
)
def test_of_equally_near_labelled_rows_the_smallest_id_is_named(selector, monkeypatch):
    monkeypatch.setattr(farthest, "_CENTERS", 8)
    rng = np.random.default_rng(0)
    ids = rng.permutation(300)
    x = rng.integers(-2, 3, (300, 2)).astype(np.float32)  # all but 25 are there before
    known, mine = np.arange(60), np.arange(60, 300)
    place = {int(one): at for at, one in enumerate(ids)}
    found = []
    for num_slices, seed in ((1, None), (3, 5), (7, 6)):
        rows = cut(ids[mine], np.ones(240), {"embeds": x[mine]}, num_slices, seed)
        held = labelled(ids[known], {"embeds": x[known]}, num_slices=num_slices, seed=seed)
        if selector is None:
            picks = with_nearest(picks_of(ids[mine][:40]), rows, held, "embeds")
        else:
            picks = selector.select(rows, held, 40, Keys(0, 0))
        found.append(picks.details["nearest_id"].tolist())
    assert found[0] == found[1] == found[2]
    named = 0
    for picked, near in zip(picks.ids.tolist(), found[0], strict=True):
        if near in ids[known]:
            squared = ((x[known] - x[place[picked]]) ** 2).sum(axis=1)
            assert near == ids[known][squared == squared.min()].min()
            named += 1
    assert named > 1


@pytest.mark.parametrize("scale", [1e-180, 1e140])
def test_values_near_the_ends_of_float64_keep_their_distances(scale):
    x = np.random.default_rng(0).standard_normal((50, 4))
    picked = np.arange(20)
    held = labelled([900], {"embeds": x[30:31] * scale})
    rows = cut(np.arange(50), features={"embeds": x * scale})
    found = with_nearest(picks_of(picked), rows, held, "embeds").details
    to_labelled, nearest_id, _ = by_hand(x, x[30:31], picked, [900])
    np.testing.assert_allclose(found["labelled_distance"], to_labelled * scale, rtol=1e-9)
    assert found["nearest_id"].tolist() == nearest_id.tolist()


def test_without_labelled_rows_only_picks_count():
    x = np.arange(10.0)[:, None]
    rows = cut(np.arange(10), features={"embeds": x}, num_slices=2)
    found = with_nearest(picks_of([3, 9, 4]), rows, none_labelled(embeds=x), "embeds").details
    assert "labelled_distance" not in found
    assert found["nearest_id"].tolist() == [NO_ID, 3, 3]
    np.testing.assert_array_equal(found["nearest_distance"], [np.nan, 6.0, 1.0])


def test_what_a_method_said_stays():
    x = np.arange(10.0)[:, None]
    rows = cut(np.arange(10), features={"embeds": x})
    said = to_picks([Picked(i, 0, 0, "", nearest_id=7, nearest_distance=0.5) for i in (1, 2)])
    found = with_nearest(said, rows, labelled([50], {"embeds": x[:1]}), "embeds").details
    assert found["nearest_id"].tolist() == [7, 7]
    assert found["nearest_distance"].tolist() == [0.5, 0.5]
    assert found["labelled_distance"].tolist() == [1.0, 2.0]


def test_too_many_pairs_are_left_out_and_it_is_said(monkeypatch):
    monkeypatch.setattr(picked_near, "_MOST_PAIRS", 10)
    x = np.arange(10.0)[:, None]
    rows = cut(np.arange(10), features={"embeds": x})
    found = with_nearest(picks_of(range(6)), rows, none_labelled(embeds=x), "embeds")
    assert not found.details
    assert found.note == "6 picks are too many to say what is near each"


def test_the_feature_is_the_selectors_or_that_of_near_duplicates():
    assert feature_of(KMeans(feature="vector")) == "vector"
    assert feature_of(TopK()) is None
    assert feature_of(TopK(Limits(near=0.9, feature="vector"))) == "vector"
    assert feature_of(TopK(Limits(duplicates="embeds"))) is None
