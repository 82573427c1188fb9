import numpy as np
import pytest
from slices import Slices, cut, labelled, none_labelled

from rayal.errors import NeedsError, ScoringError
from rayal.keys import Keys
from rayal.selectors.badge import Badge
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.grid import Grid, fit, labelled_centers, squared_norms
from rayal.selectors.gsx import GSx
from rayal.selectors.igs import IGS
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans import KMeans
from rayal.selectors.nearest import squared_distances
from rayal.types import Slice


@pytest.mark.parametrize("size", [1e-6, 1.0, 3e7])
@pytest.mark.parametrize("width", [1, 7, 300])
def test_distances_are_exact_integers_whatever_the_blocks(size, width):
    rng = np.random.default_rng(width)
    plain = (rng.standard_normal((500, width)) * size).astype(np.float32)
    rows = cut(np.arange(500), features={"embeds": plain})
    (grid,) = fit((Grid("embeds"),), rows, none_labelled(embeds=plain))
    places = grid.place(plain)
    assert np.abs(places / grid.scale - plain).max() <= 0.5 / grid.scale
    assert 2**24 <= np.sqrt(squared_norms(places).max()) <= 2**25.01
    integers = places.astype(np.int64)
    expected = ((integers[:, None] - integers[None, :9]) ** 2).sum(axis=2)
    assert (squared_distances(places, places[:9]) == expected).all()
    parts = [squared_distances(places[lo : lo + 3], places[:9]) for lo in range(0, 500, 3)]
    assert (np.concatenate(parts) == expected).all()
    assert squared_distances(places, places[:9]).max() < 2**53


def test_norms_of_a_row_have_the_same_bits_in_any_block():
    rows = np.random.default_rng(0).standard_normal((200, 129))
    whole = squared_norms(rows)
    for size in (1, 2, 5, 64):
        parts = [squared_norms(rows[lo : lo + size]) for lo in range(0, 200, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_scale_does_not_depend_on_slices():
    plain = np.random.default_rng(1).standard_normal((90, 5)).astype(np.float32)
    none = none_labelled(embeds=plain)
    scales = {
        fit((Grid("embeds"),), cut(np.arange(90), None, {"embeds": plain}, n), none)[0].scale
        for n in (1, 4, 100)
    }
    assert len(scales) == 1
    zeros = cut(np.arange(3), features={"embeds": np.zeros((3, 2))})
    assert fit((Grid("embeds"),), zeros, none)[0].scale > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_rows_that_are_nowhere_are_named(bad):
    plain = np.ones((20, 3))
    plain[[4, 11], 1] = bad
    rows = cut(np.arange(20) + 100, features={"embeds": plain}, num_slices=3)
    with pytest.raises(ScoringError, match=r"'embeds' of 2 rows .* \(first sample_id 104\)"):
        fit((Grid("embeds"),), rows, none_labelled(embeds=plain))


def test_a_row_that_is_nowhere_among_the_labelled_is_named_too():
    plain = np.ones((4, 1))
    known = labelled(np.arange(4), {"preds": plain}, label=np.array([1.0, 2.0, np.inf, np.nan]))
    none = none_labelled(preds=plain)
    with pytest.raises(ScoringError, match=r"'preds' of 1 rows .* \(first sample_id 2\)"):
        fit((Grid("preds", answered=True),), none, known)


def test_labelled_centers_stand_at_their_label_unless_pending():
    preds = np.array([[1.0], [2.0], [3.0], [4.0]])
    label = np.array([10.0, 20.0, 30.0, np.nan])
    pending = np.array([False, False, True, True])
    known = labelled(np.arange(4), {"preds": preds}, label, pending, num_slices=2)
    centers = list(labelled_centers(known, (Grid("preds", answered=True), Grid("preds"))))
    assert centers[0][0][:, 0].tolist() == [10.0, 20.0, 3.0, 4.0]
    assert centers[0][1][:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_labelled_centers_come_in_blocks_and_all_of_them():
    rows = np.arange(3000.0)[:, None]
    known = labelled(np.arange(3000), {"embeds": rows}, num_slices=2)
    sent = [block[0][:, 0] for block in labelled_centers(known, (Grid("embeds"),))]
    assert [len(block) for block in sent] == [2048, 952]
    assert sorted(np.concatenate(sent)) == rows[:, 0].tolist()


def test_labels_of_another_width_are_refused():
    known = labelled(np.arange(2), {"preds": np.ones((2, 3))}, label=np.ones(2))
    with pytest.raises(NeedsError, match=r"labels have shape \(1,\) a row, 'preds' \(3,\)"):
        list(labelled_centers(known, (Grid("preds", answered=True),)))


@pytest.mark.parametrize("selector", [KCenter(), GSx(), IGS(), Badge(), ClusterMargin(), KMeans()])
def test_empty_slices_need_no_features(selector):
    rng = np.random.default_rng(2)
    every = {"embeds": rng.random((30, 3)), "preds": rng.random((30, 1)), "probs": np.eye(30)}
    rows = cut(np.arange(30), features=every, num_slices=3)
    expected = selector.select(rows, none_labelled(**every), 12, Keys(0, 0)).ids
    rows.parts.insert(1, Slice(9, np.empty(0, np.int64), np.empty(0), {}))
    assert (selector.select(rows, none_labelled(), 12, Keys(0, 0)).ids == expected).all()
    assert (selector.select(rows, Slices([]), 12, Keys(0, 0)).ids == expected).all()
