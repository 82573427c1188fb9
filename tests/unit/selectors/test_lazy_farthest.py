"""Lazy farthest-first against the plain greedy over all pairs: whatever lies there, however cut."""

import numpy as np
import pytest
from farthest_worlds import KINDS, by_hand, rows_of_kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slices import cut, labelled, none_labelled

from rayal.errors import ConfigError, ScoringError
from rayal.keys import Keys, hash_u64, salt
from rayal.selectors import lazy
from rayal.selectors.codes import fit_codes
from rayal.selectors.coverage import Coverage
from rayal.selectors.k_center import KCenter
from rayal.selectors.log_det import LogDet
from rayal.selectors.pairwise import Pairwise
from rayal.selectors.space import sample_of

KEYS = Keys(2, 0)


def codes_of(x, known, budget):
    """The integers that mode q works on."""
    every = cut(np.arange(len(x)), features={"embeds": x})
    held = labelled(np.arange(len(known)) + len(x), {"embeds": known})
    sample = sample_of(every, ("embeds",), 0)
    codes, _ = fit_codes("embeds", every, held, sample[0], budget, 1, force=True)
    return codes


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10_000),
    n=st.integers(1, 160),
    width=st.integers(1, 24),
    num_known=st.sampled_from([0, 1, 9]),
    share=st.floats(0.05, 1.2),
    num_slices=st.sampled_from([1, 3, 7]),
    precision=st.sampled_from(["float", "integer"]),
)
def test_any_rows_give_the_plain_greedys_picks(
    small_pools, kind, seed, n, width, num_known, share, num_slices, precision
):
    rng = np.random.default_rng(seed)
    x = rows_of_kind(kind, rng, n + num_known, width)
    x, known = x[:n], x[n:]
    ids = rng.choice(np.arange(-1000, 1000), n, replace=False)
    budget = max(1, int(share * n))
    rows = cut(ids, features={"embeds": x}, num_slices=num_slices, seed=seed)
    held = labelled(np.arange(2000, 2000 + num_known), {"embeds": known})
    picks = KCenter(precision=precision).select(
        rows, held if num_known else none_labelled(embeds=x), budget, KEYS
    )
    if precision == "integer" and (codes := codes_of(x, known, budget)) is not None:
        exact, there = codes.encode(x), codes.encode(known)
        if not num_known:  # the first pick is farthest from the code of the mean, which is 0
            first = np.lexsort((ids, -(exact.astype(float) ** 2).sum(axis=1)))[0]
            assert picks.ids[0] == ids[first]
            rest = np.arange(n) != first
            then = by_hand(ids[rest], exact[rest], exact[first][None], budget - 1)
            assert picks.ids[1:].tolist() == then.tolist()
            return
    else:
        exact, there = x, known
    assert picks.ids.tolist() == by_hand(ids, exact, there, budget).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_multiply_distances(small_pools, kind):
    rng = np.random.default_rng(5)
    x = rows_of_kind(kind, rng, 150, 4)
    ids, weights = rng.permutation(150), rng.integers(0, 5, 150) / 4
    rows = cut(ids, weights, {"embeds": x[:, :]}, 3)
    known = x[:3] + 0.5
    held = labelled(np.arange(900, 903), {"embeds": known})
    picks = KCenter(precision="float", weighted=True).select(rows, held, 60, KEYS)
    assert picks.ids.tolist() == by_hand(ids, x, known, 60, weights).tolist()


@pytest.mark.parametrize(
    "method",
    [
        KCenter(precision="float"),
        KCenter(precision="integer"),
        KCenter(precision="float", weighted=True),
        Coverage(num_references=60),
        LogDet(),
        Pairwise(num_neighbours=4, beta=0.3),
    ],
    ids=repr,
)
def test_one_slice_may_hold_all_rows_that_count(small_pools, method):
    # Such a slice has more rows above the threshold than it sends.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)) * np.linspace(0.01, 4, 400)[:, None]
    features = {"embeds": x.astype(np.float32)}
    scores = np.linspace(0.1, 1, 400)
    found = [
        method.select(
            cut(np.arange(400), scores, features, num_slices), none_labelled(**features), 120, KEYS
        )
        for num_slices in (1, 20)
    ]
    assert found[0].ids.tolist() == found[1].ids.tolist()
    assert found[0].keys.tobytes() == found[1].keys.tobytes()


def test_a_crowd_of_ties_does_not_stop_it(small_pools):
    x = np.zeros((400, 3), np.float32)
    x[:3] = np.eye(3)
    rows = cut(np.arange(400), features={"embeds": x}, num_slices=7, seed=1)
    picks = KCenter().select(rows, none_labelled(embeds=x), 400, KEYS)
    assert sorted(picks.ids) == list(range(400))
    assert picks.ids[4:].tolist() == list(range(4, 400))  # one of the zeros is a center by then
    assert (picks.keys[4:] == 0).all()


@pytest.mark.parametrize("kind", ["plain", "lattice"])
@pytest.mark.parametrize(("num_rows", "width"), [(2_000, 4), (9_000, 2)])
def test_outliers_are_the_farthest_from_half_of_a_sample(kind, num_rows, width):
    rng = np.random.default_rng(6)
    x = rows_of_kind(kind, rng, num_rows + 1, width).astype(float)
    x, known = x[:num_rows], x[num_rows:]
    ids = rng.choice(np.arange(-20_000, 20_000), num_rows, replace=False)
    order = hash_u64(salt("rayal", "outliers", "sample"), ids)
    sampled = np.argsort(order)[:4_096]
    sides = order & np.uint64(1)
    squared = np.empty(num_rows)
    for side in (0, 1):
        others = x[sampled[sides[sampled] != side]]
        mine = np.flatnonzero(sides == side)
        for some in np.array_split(mine, 9):
            squared[some] = ((x[some][:, None] - others[None]) ** 2).sum(axis=2).min(axis=1)
    dropped = int(0.0213 * num_rows)  # 42.6, 191.7
    kept = np.lexsort((ids, squared))[: num_rows - dropped]
    expected = by_hand(ids[kept], x[kept], known, 60)
    for num_slices in (1, 4):
        rows = cut(ids, features={"embeds": x}, num_slices=num_slices, seed=2)
        held = labelled([30_000], {"embeds": known})
        picks = KCenter(outliers=0.0213, precision="float").select(rows, held, 60, KEYS)
        assert picks.ids.tolist() == expected.tolist()
        assert f"{dropped} outlying rows left out" in picks.note


def test_outliers_are_left_out():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 6)).astype(np.float32)
    far = rng.choice(2000, 20, replace=False)
    x[far] *= 40
    for num_slices in (1, 5):
        rows = cut(np.arange(2000), features={"embeds": x}, num_slices=num_slices, seed=3)
        picks = KCenter(outliers=0.01).select(rows, none_labelled(embeds=x), 100, KEYS)
        assert "20 outlying rows left out" in picks.note
        assert not np.isin(picks.ids, far).any()
    every = KCenter().select(rows, none_labelled(embeds=x), 100, KEYS)
    assert np.isin(far, every.ids).all()


def test_what_explains_a_pick_is_said():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((900, 5)).astype(np.float32)
    ids = rng.permutation(900)
    known = x[:4] + 1
    for budget in (30, 200):  # the plain way, and the lazy way
        rows = cut(ids, features={"embeds": x}, num_slices=3)
        held = labelled(np.arange(2000, 2004), {"embeds": known})
        picks = KCenter(precision="float").select(rows, held, budget, KEYS)
        place = {int(i): row for row, i in enumerate(ids)}
        centers, center_ids = list(known.astype(float)), list(range(2000, 2004))
        for turn, sample_id in enumerate(picks.ids.tolist()):
            row = x[place[sample_id]].astype(float)
            far = np.sqrt(((np.array(centers) - row) ** 2).sum(axis=1))
            assert picks.details["nearest_id"][turn] == center_ids[int(far.argmin())]
            np.testing.assert_allclose(picks.details["nearest_distance"][turn], far.min())
            np.testing.assert_allclose(picks.details["labelled_distance"][turn], far[:4].min())
            np.testing.assert_allclose(picks.keys[turn], far.min())
            centers.append(row)
            center_ids.append(sample_id)


@pytest.mark.parametrize("precision", ["integer", "float"])
def test_what_explains_a_pick_is_right_after_many_rounds_however_cut(precision, monkeypatch):
    for name, value in (("_FEWEST", 64), ("_AIM", 256), ("_MOST", 1_024)):
        monkeypatch.setattr(lazy, name, value)
    rng = np.random.default_rng(5)
    middles = 3 * rng.standard_normal((60, 6))
    x = (middles[rng.integers(0, 60, 12_000)] + rng.standard_normal((12_000, 6))).astype(np.float32)
    known = x[:200] + np.float32(0.01)
    found = []
    for num_slices in (1, 3):
        rows = cut(np.arange(12_000), features={"embeds": x}, num_slices=num_slices)
        held = labelled(np.arange(20_000, 20_200), {"embeds": known})
        picks = KCenter(precision=precision).select(rows, held, 1_500, KEYS)
        assert said_rounds(picks.note) >= 5
        found.append(picks)
        far = np.sqrt(((x[picks.ids, None].astype(float) - known) ** 2).sum(axis=2)).min(axis=1)
        rounding = 0.2 if precision == "integer" else 1e-6
        np.testing.assert_allclose(picks.details["labelled_distance"], far, atol=rounding)
    assert found[0].ids.tolist() == found[1].ids.tolist()
    for name, values in found[0].details.items():
        np.testing.assert_array_equal(values, found[1].details[name], err_msg=name)


def said_rounds(note):
    return int(note.split(" rounds")[0].split()[-1])


@pytest.mark.parametrize("budget", [40, 60])
def test_rows_of_weight_0_come_last_by_id_even_if_one_was_first(budget):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    weights = rng.random(60)
    weights[((x - x.mean(axis=0)) ** 2).sum(axis=1).argmax()] = 0.0  # the first pick has no weight
    weights[rng.permutation(60)[:35]] = 0.0
    rows = cut(np.arange(60), weights, {"embeds": x}, 3)
    method = KCenter(weighted=True, precision="float")
    picks = method.select(rows, none_labelled(embeds=x), budget, KEYS)
    wanted = by_hand(np.arange(60), x, np.empty((0, 4)), budget, weights)
    assert picks.ids.tolist() == wanted.tolist()


@pytest.mark.parametrize("scale", [1e160, 1e-170])
def test_weights_whose_squares_are_lost_are_refused(scale):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 4)).astype(np.float32)
    for budget in (10, 60):
        rows = cut(np.arange(200), rng.random(200) * scale, {"embeds": x}, 3)
        with pytest.raises(ScoringError, match=r"the largest score is .* scale the scores"):
            KCenter(weighted=True).select(rows, none_labelled(embeds=x), budget, KEYS)


def test_a_crowd_that_rounding_cannot_tell_apart_does_not_stop_the_greedy():
    # Blank images: their bounds lie above all their gains, and more of them than a round looks at.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16_000, 8))
    x[:10_000] = x[0] + 1e-4 * rng.standard_normal((10_000, 8))
    x = rng.permutation(x).astype(np.float32)
    rows = cut(np.arange(16_000), features={"embeds": x}, num_slices=3)
    method = Coverage(kernel="cosine", num_references=256)
    picks = method.select(rows, none_labelled(embeds=x), 40, KEYS)
    assert len(picks.ids) == 40
    assert said_rounds(picks.note) < 40
    assert (np.diff(picks.keys) <= 0).all()


def test_bounds_that_are_no_numbers_are_refused():
    with pytest.raises(ScoringError, match="gains of 1 of 3 rows are no numbers"):
        lazy.sketch(np.array([1.0, np.nan, 2.0]))


@pytest.mark.parametrize("outliers", [-0.1, 1.0])
def test_a_share_of_outliers_is_a_share(outliers):
    with pytest.raises(ConfigError, match="expected a share of the candidates"):
        KCenter(outliers=outliers)


def test_weights_below_0_are_refused():
    x = np.random.default_rng(0).standard_normal((90, 3)).astype(np.float32)
    scores = np.ones(90)
    scores[70] = -0.5
    for budget in (10, 80):
        rows = cut(np.arange(90), scores, {"embeds": x}, 2)
        with pytest.raises(ScoringError, match=r"first sample_id 70: -0.5"):
            KCenter(weighted=True).select(rows, none_labelled(embeds=x), budget, KEYS)
