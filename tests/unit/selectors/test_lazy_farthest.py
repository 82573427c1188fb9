"""Lazy farthest-first against the plain greedy over all pairs: whatever lies there, however cut."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slices import Slices, cut, labelled, none_labelled

from rayal.errors import ConfigError, ScoringError
from rayal.journal import Journal
from rayal.keys import Keys, hash_u64, salt
from rayal.selectors import farthest, lazy, nearest_center
from rayal.selectors.badge import Badge
from rayal.selectors.codes import check_exact, fit_codes
from rayal.selectors.coverage import Coverage
from rayal.selectors.gsx import GSx
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.log_det import LogDet
from rayal.selectors.pairwise import Pairwise
from rayal.selectors.space import sample_of

KEYS = Keys(2, 0)
KINDS = ("plain", "duplicates", "lattice", "wild norms", "offset", "one value", "spikes")


def rows_of_kind(kind, rng, n, width):
    x = rng.standard_normal((n, width)).astype(np.float32)
    if kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 3), n)]
    elif kind == "lattice":
        x = np.round(2 * x)
    elif kind == "wild norms":
        x *= rng.lognormal(0, 2, (n, 1)).astype(np.float32)
    elif kind == "offset":
        x += 100
    elif kind == "one value":
        x[:] = x[0]
    elif kind == "spikes":
        x[rng.random(n) < 0.05, 0] *= 50
    return x


def by_hand(ids, x, known, budget, weights=None):
    """The plain greedy in float64, every distance a sum over differences; ties by id."""
    x, known = x.astype(np.float64), known.astype(np.float64)
    weights = np.ones(len(ids)) if weights is None else weights
    order = np.argsort(ids)  # so that argmax gives the smallest id
    ids, x, weights = ids[order], x[order], weights[order]

    def squared(center):
        return ((x - center) ** 2).sum(axis=1)

    near = np.full(len(ids), np.inf)
    for center in known:
        near = np.minimum(near, squared(center))
    picked = []
    while len(picked) < min(budget, len(ids)):
        gains = near * weights**2 if len(known) or picked else squared(x.mean(axis=0))
        gains = np.where(np.isin(np.arange(len(ids)), picked), -1.0, gains)
        row = int(gains.argmax())
        picked.append(row)
        near = np.minimum(near, squared(x[row]))
    return ids[picked]


def codes_of(x, known, budget):
    """The integers that mode q works on."""
    every = cut(np.arange(len(x)), features={"embeds": x})
    held = labelled(np.arange(len(known)) + len(x), {"embeds": known})
    sample = sample_of(every, ("embeds",), 0)
    codes, _ = fit_codes("embeds", every, held, sample[0], budget, 1, force=True)
    return codes


@pytest.fixture
def small_pools(monkeypatch):
    """Thresholds, inner pools and blocks of a few rows, so that small worlds meet all of them."""
    for module, name, value in (
        (lazy, "_FEWEST", 3),
        (lazy, "_MOST", 17),
        (lazy, "_AIM", 9),
        (nearest_center, "_INNER", 5),
        (nearest_center, "BLOCK_ROWS", 13),
        (nearest_center, "BLOCK_CENTERS", 7),
        (farthest, "_CENTERS", 4),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("rayal.selectors.plain.MOST_PICKS", 0)  # never the plain way


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


def test_the_choice_of_precision_and_why_is_said():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 32)).astype(np.float32)

    def note(rows, **arguments):
        every = cut(np.arange(3000), features={"embeds": rows}, num_slices=2)
        return KCenter(**arguments).select(every, none_labelled(embeds=rows), 60, KEYS).note

    assert note(x).startswith("mode q, int8: a step is 0.")
    assert note(x, precision="float").startswith("mode f, precision: float; ")
    spiky = x.copy()
    spiky[::100, 0] *= 50
    assert note(spiky).startswith("mode q, int16: ")
    wild = x * rng.lognormal(0, 3, (3000, 1)).astype(np.float32)
    assert note(wild).startswith("mode f, a step is ")
    assert note((20 * x).astype(np.int8)).startswith("mode q, int8 features are their own codes")
    assert note(np.ones_like(x)).startswith("mode f, all rows are equal")


def test_codes_that_are_too_many_to_keep_are_made_anew(monkeypatch):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((900, 6)).astype(np.float32)
    found = []
    for most in (1 << 30, 100):
        monkeypatch.setattr("rayal.selectors.codes._CODES_BYTES", most)
        rows = cut(np.arange(900), features={"embeds": x}, num_slices=3)
        picks = KCenter(precision="integer").select(rows, none_labelled(embeds=x), 150, KEYS)
        found.append(picks.ids.tolist())
        assert (rows.parts[0].cache["codes"] is None) == (most == 100)
    assert found[0] == found[1]


def test_products_of_integers_are_exact_here():
    import torch

    check_exact(torch.device("cpu"))


def test_a_device_that_rounds_is_refused(monkeypatch):
    import torch

    def rounded(*arguments, **more):
        return right(*arguments, **more).bfloat16().float()

    right = torch.addmm
    monkeypatch.setattr(torch, "addmm", rounded)
    with pytest.raises(ScoringError, match="products of integers are not exact on 'cpu'"):
        check_exact(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_gives_the_cpus_picks(kind, monkeypatch):
    import torch

    from rayal.selectors import codes

    rng = np.random.default_rng(9)
    x = rows_of_kind(kind, rng, 20_000, 32)
    rows = cut(np.arange(20_000), features={"embeds": x}, num_slices=3)
    there = KCenter(precision="integer").select(rows, none_labelled(embeds=x), 500, KEYS)
    monkeypatch.setattr(codes, "device_here", lambda: torch.device("cpu"))
    here = KCenter(precision="integer").select(rows, none_labelled(embeds=x), 500, KEYS)
    assert there.ids.tolist() == here.ids.tolist()


class Dying(Slices):
    """Slices whose driver dies at the n-th question."""

    def __init__(self, parts, journal, last):
        super().__init__(parts)
        self.journal, self.left = journal, last

    def each(self, ask, step, *args):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().each(ask, step, *args)


JOURNALLED = [
    (KCenter(precision="integer"), 90),
    (KCenter(precision="float"), 90),
    (KCenter(outliers=0.05, precision="integer"), 90),
    (KCenter(), 40),  # the plain way
    (KCenter(weighted=True), 40),
    (GSx(), 40),
    (Badge(), 90),
    (KMeansPP(), 90),
    (Coverage(num_references=100), 90),
    (LogDet(), 90),
    (Pairwise(num_neighbours=3), 90),
]


@pytest.mark.parametrize(("selector", "budget"), JOURNALLED, ids=repr)
@pytest.mark.parametrize("num_known", [0, 6])
def test_a_driver_that_died_goes_on_with_the_same_picks(
    selector, budget, num_known, tmp_path, small_pools, monkeypatch
):
    monkeypatch.setattr("rayal.selectors.plain.MOST_PICKS", 50)  # 90 picks go the lazy way
    rng = np.random.default_rng(4)
    probs = rng.dirichlet(np.full(3, 0.4), 220).astype(np.float32)
    x = rng.standard_normal((220, 5)).astype(np.float32)
    every = {"embeds": x, "probs": probs}
    known = {name: a[:num_known] for name, a in every.items()}

    def sides():
        rows = cut(np.arange(220), rng.random(220) * 0 + probs[:, 0], every, 3)
        held = labelled(np.arange(900, 900 + num_known), known)
        return rows, held if num_known else none_labelled(**every)

    rows, held = sides()
    steady = selector.select(rows, held, budget, KEYS)
    assert ("a small batch" in steady.note) == (budget == 40)
    asked = len(rows.steps)
    journal = Journal(tmp_path / "picks.jsonl")
    resumed = 0
    for last in np.linspace(1, asked - 1, 9).astype(int):
        rows, held = sides()
        with pytest.raises(KeyboardInterrupt):
            selector.select(Dying(rows.parts, journal, last), held, budget, KEYS)
        lines = journal.path.read_text().count("\n") if journal.path.exists() else 0
        resumed += lines > 1
        with journal.path.open("a") as file:
            file.write('{"picks": [[1, 0.5')  # a line that the kill cut short
        rows, held = sides()
        rows.journal = journal
        again = selector.select(rows, held, budget, KEYS)
        assert again.ids.tolist() == steady.ids.tolist()
        assert again.keys.tobytes() == steady.keys.tobytes()
        assert again.reasons == steady.reasons
        for name, values in steady.details.items():
            np.testing.assert_array_equal(again.details[name], values, err_msg=name)
        if last % 2:
            journal.path.unlink()
        else:  # another selection's journal is written over
            other = Journal(journal.path)
            assert other.begin("something else") == []
    assert resumed >= 3


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
