import numpy as np
import pytest
import torch
from slices import cut, labelled, none_labelled

from rayal.errors import ConfigError, ScoringError
from rayal.keys import Keys, hash_u64, salt, uniform
from rayal.selectors.badge import Badge, class_errors
from rayal.selectors.gradients import Gradients, SparseGradients, top_errors
from rayal.selectors.grid import Grid, fit
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.limits import Limits
from rayal.types import Outputs, tags_of, top_of_probs


def world(seed, num_rows=150, num_known=6, ties=False, width=4, num_classes=3):
    rng = np.random.default_rng(seed)
    n = num_rows + num_known
    if ties:
        probs = np.array([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0], [1.0, 0.0, 0.0]])[
            rng.integers(0, 3, n)
        ]
        embeds = rng.integers(-1, 2, (n, width)) / 2
    else:
        logits = 2 * rng.standard_normal((n, num_classes))
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        embeds = rng.standard_normal((n, width))
    ids = rng.choice(np.arange(-400, max(400, 2 * n)), n, replace=False)
    return ids, {"probs": probs.astype(np.float32), "embeds": embeds.astype(np.float32)}, num_rows


def sides(ids, features, num_rows, num_slices=1, seed=None):
    mine = {name: a[:num_rows] for name, a in features.items()}
    known = {name: a[num_rows:] for name, a in features.items()}
    scores = ids[:num_rows] / 8
    return (
        cut(ids[:num_rows], scores, mine, num_slices, seed),
        labelled(ids[num_rows:], known, num_slices=2),
    )


def textbook(ids, features, num_rows, budget, keys, multilabel=False):
    """D^2 sampling by rejection on gradients of size C x D, one row and one proposal at a time: the
    same random numbers in the same order."""
    probs, embeds = features["probs"].astype(float), features["embeds"].astype(float)
    answer = (probs > 0.5) if multilabel else np.eye(probs.shape[1])[probs.argmax(axis=1)]
    gradients = ((probs - answer)[:, :, None] * embeds[:, None, :]).reshape(len(ids), -1)
    mine, salt_of_draws = ids[:num_rows], keys.stream("badge").salt
    bits = min(20, max(1, num_rows.bit_length() - 6))
    bucket = hash_u64(salt("rayal", "badge", "buckets"), mine) >> np.uint64(64 - bits)
    layout = np.lexsort((mine, bucket))
    known, picked = list(range(num_rows, len(ids))), []
    budget = min(budget, num_rows)

    def near(rows, centers):
        if not centers:
            return np.full(len(rows), np.inf)
        squared = ((gradients[rows][:, None] - gradients[None, centers]) ** 2).sum(axis=2)
        least = squared.min(axis=1)
        least[(least < 1e-12) | np.isin(rows, picked)] = 0.0
        return least

    if not known:
        norms = (gradients[:num_rows] ** 2).sum(axis=1).round(9)
        picked.append(int(np.lexsort((mine, -norms))[0]))
    every = np.arange(num_rows)
    stale = near(every, known + picked)
    shift = 60 - num_rows.bit_length() - np.frexp(max(stale.max(), 5e-324))[1]
    drawn, rate, refused, refreshes, refreshed_at = 0, 1.0, 0, 1, len(picked)
    weights = np.ceil(np.ldexp(stale, shift)).astype(np.int64)
    begun = False
    while len(picked) < budget:
        if begun:
            fraction, exponent = np.frexp(weights.astype(float))
            bins = np.where(weights > 0, 16 * exponent + ((fraction - 0.5) * 32).astype(int), 0)
            order = np.argsort(-bins, kind="stable")
            share = np.cumsum(weights[order]) / weights.sum()
            edge = bins[order][np.searchsorted(share, 0.98)]
            since = len(known) + len(picked) - (0 if refreshes == 1 else len(known) + refreshed_at)
            done, left = len(picked), budget - len(picked)
            waste = (1 / rate - 1) * left * (budget + done) / 2
            heavy = np.flatnonzero(bins >= edge)
            pays = rate < 0.5 and done >= 1.5 * refreshed_at and len(heavy) * since < 2 * waste
            if pays or refused >= 4096:
                rows = heavy if refused < 4096 else every
                stale[rows] = near(rows, known + picked)
                refreshes, refreshed_at = refreshes + 1, done
            stale[picked] = 0.0
            if pays or refused >= 4096:
                weights = np.ceil(np.ldexp(stale, shift)).astype(np.int64)
        begun, total = True, int(weights.sum())
        if total == 0:
            rest = [row for row in np.argsort(mine) if row not in picked]
            return mine[(picked + rest)[:budget]]
        turns = min(512, int(np.ceil(1.5 * (budget - len(picked)) / rate)) + 16)
        below, accepted = np.cumsum(weights[layout]), 0
        for turn in range(drawn, drawn + turns):
            drawn += 1
            target = int(hash_u64(salt_of_draws, np.array([2 * turn]))[0]) * total >> 64
            row = int(layout[np.searchsorted(below, target, side="right")])
            luck = uniform(salt_of_draws, np.array([2 * turn + 1]))[0]
            real = near(np.array([row]), known + picked)[0]
            if luck * weights[row] < np.ceil(np.ldexp(real, shift)):
                picked.append(row)
                accepted += 1
                if len(picked) == budget:
                    break
        rate = max(accepted, 0.5) / turns
        refused = 0 if accepted else refused + turns
    return mine[picked]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 6])
def test_picks_are_those_of_whole_gradients(seed, ties, num_known):
    made = world(seed, num_known=num_known, ties=ties)
    keys = Keys(seed, 1)
    picks = Badge().select(*sides(*made), 50, keys)
    assert (picks.ids == textbook(*made, 50, keys)).all()
    assert (picks.scores == picks.ids / 8).all()


def test_multilabel_takes_each_label_by_itself():
    made = world(1)
    made[1]["probs"][:] = np.random.default_rng(0).random(made[1]["probs"].shape)
    picks = Badge(multilabel=True).select(*sides(*made), 40, Keys(1, 1))
    assert (picks.ids == textbook(*made, 40, Keys(1, 1), multilabel=True)).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_known", [0, 6])
def test_no_slicing_changes_a_draw(ties, num_known):
    made = world(3, num_known=num_known, ties=ties)
    first = Badge().select(*sides(*made), 80, Keys(5, 0))
    for num_slices, seed in ((3, None), (7, None), (3, 1), (160, 2)):
        again = Badge().select(*sides(*made, num_slices, seed), 80, Keys(5, 0))
        assert (again.ids == first.ids).all()
        assert again.keys.tobytes() == first.keys.tobytes()
        assert again.reasons == first.reasons


def test_the_law_of_two_draws():
    # Features on a line with gradients 3, 1, 2, 0 (probs all alike): the first is picked for its
    # norm; the others are drawn with D^2 = 4, 1, 9, then with what is left of it.
    values = np.array([3.0, 1.0, 2.0, 0.0], np.float32)
    features = {"probs": np.full((4, 2), 0.5, np.float32), "embeds": values[:, None]}
    counts = {}
    for seed in range(3000):
        picks = Badge().select(*sides(np.arange(4), features, 4), 3, Keys(seed, 0)).ids
        assert picks[0] == 0
        pair = tuple(picks[1:].tolist())
        counts[pair] = counts.get(pair, 0) + 1
    law = {
        (1, 2): 4 / 14 * 1 / 2, (1, 3): 4 / 14 * 1 / 2,
        (2, 1): 1 / 14 * 1 / 5, (2, 3): 1 / 14 * 4 / 5,
        (3, 1): 9 / 14 * 1 / 2, (3, 2): 9 / 14 * 1 / 2,
    }  # fmt: skip
    assert set(counts) <= set(law)
    chi2 = sum((counts.get(p, 0) - 3000 * q) ** 2 / (3000 * q) for p, q in law.items())
    assert chi2 < 20.5  # 5 degrees of freedom: p = 0.001


def test_equal_rows_come_last_by_id():
    ids, features, n = world(2, num_rows=12, num_known=0)
    for array in features.values():
        array[4:] = array[3]
    picks = Badge().select(*sides(ids, features, n, 3), 12, Keys(0, 0))
    assert sorted(picks.ids) == sorted(ids)
    assert picks.ids[4:].tolist() == sorted(picks.ids[4:])
    assert (picks.keys[:4] > 0).all()
    assert (picks.keys[4:] == 0).all()
    assert "the gradient of a labelled or picked one" in picks.reasons[-1]
    assert "drawn with chance" in picks.reasons[2]


def test_a_sure_model_still_gives_a_batch():
    ids, features, n = world(2, num_rows=12, num_known=3)
    features["probs"][:] = [1.0, 0.0, 0.0]
    picks = Badge().select(*sides(ids, features, n, 3), 5, Keys(0, 0))
    assert picks.ids.tolist() == sorted(ids[:12])[:5]


def test_small_worlds():
    made = world(4, num_rows=5, num_known=2)
    assert sorted(Badge().select(*sides(*made, 9), 50, Keys(0, 0)).ids) == sorted(made[0][:5])
    assert len(Badge().select(*sides(*made), 0, Keys(0, 0)).ids) == 0
    nobody = world(4, num_rows=0, num_known=2)
    assert len(Badge().select(*sides(*nobody), 3, Keys(0, 0)).ids) == 0
    one = world(4, num_rows=1, num_known=0)
    assert Badge().select(*sides(*one), 3, Keys(0, 0)).ids.tolist() == one[0].tolist()


@pytest.mark.parametrize("name", ["probs", "embeds"])
def test_bad_numbers_are_named(name):
    ids, features, n = world(5, num_known=0)
    features[name][7, 1] = np.nan
    with pytest.raises(ScoringError, match=rf"'{name}' of 1 rows .* \(first sample_id {ids[7]}\)"):
        Badge().select(*sides(ids, features, n, 2), 5, Keys(0, 0))


def test_none_labelled_needs_no_slices():
    ids, features, n = world(6, num_known=0)
    picks = Badge().select(sides(ids, features, n)[0], none_labelled(**features), 4, Keys(0, 0))
    assert len(picks.ids) == 4


def test_refreshes_change_no_law_that_the_textbook_has():
    made = world(8, num_rows=2000, num_known=3)
    centers = 6 * np.random.default_rng(0).standard_normal((30, 4))
    made[1]["embeds"] *= 0.05  # tight clusters: once each has a pick, stale weights are far off
    made[1]["embeds"] += centers[np.random.default_rng(1).integers(0, 30, 2003)].astype(np.float32)
    made[1]["probs"][:] = [0.5, 0.3, 0.2]
    picks = Badge().select(*sides(*made, 3), 300, Keys(2, 0))
    assert int(picks.note.split(" refreshes")[0].split()[-1]) > 1
    assert (picks.ids == textbook(*made, 300, Keys(2, 0))).all()
    assert ((picks.probabilities > 0) & (picks.probabilities <= 1)).all()


def test_the_probability_is_that_of_the_draw():
    # Drawn many times, the mean of 1 / probability of the second pick counts the rows it is among.
    values = np.array([3.0, 1.0, 2.0, 0.5], np.float32)
    features = {"probs": np.full((4, 2), 0.5, np.float32), "embeds": values[:, None]}
    inverse = []
    for seed in range(2000):
        picks = Badge().select(*sides(np.arange(4), features, 4), 2, Keys(seed, 0))
        assert np.isnan(picks.probabilities[0])  # picked for its norm, not drawn
        inverse.append(1.0 / picks.probabilities[1])
    assert abs(np.mean(inverse) - 3) < 0.15


def with_all_classes_and_the_likeliest(ids, features, n, budget):
    outputs = Outputs(torch.arange(len(ids)), {"probs": torch.from_numpy(features["probs"])})
    features[top_of_probs(12)] = outputs[top_of_probs(12)].numpy()
    whole = Badge().select(*sides(ids, features, n, 3), budget, Keys(1, 0))
    top = Badge(top_classes=12).select(*sides(ids, features, n, 3), budget, Keys(1, 0))
    assert (top.ids == whole.ids).all()
    return whole, top


def test_all_classes_as_the_likeliest_ones_change_no_draw():
    ids, features, n = world(9, num_rows=300, num_known=5, num_classes=12)
    whole, top = with_all_classes_and_the_likeliest(ids, features, n, 80)
    np.testing.assert_allclose(top.keys, whole.keys, rtol=1e-6)


def test_more_centers_than_a_block_of_few_classes_holds():
    ids, features, n = world(9, num_rows=200, num_known=200, num_classes=12)
    whole, top = with_all_classes_and_the_likeliest(ids, features, n, 60)
    assert (top.details["nearest_id"] == whole.details["nearest_id"]).all()


def test_the_likeliest_of_many_classes_are_enough():
    ids, features, n = world(9, num_rows=300, num_known=5, num_classes=400)
    outputs = Outputs(torch.arange(len(ids)), {"probs": torch.from_numpy(features["probs"])})
    features[top_of_probs(7)] = outputs[top_of_probs(7)].numpy()
    features = {name: a for name, a in features.items() if name != "probs"}
    first = Badge(top_classes=7).select(*sides(ids, features, n), 80, Keys(1, 0))
    for num_slices, seed in ((3, None), (300, 2)):
        again = Badge(top_classes=7).select(
            *sides(ids, features, n, num_slices, seed), 80, Keys(1, 0)
        )
        assert (again.ids == first.ids).all()
        assert again.keys.tobytes() == first.keys.tobytes()
    classes, probs = features[top_of_probs(7)][:, :7], features[top_of_probs(7)][:, 7:]
    gradients = np.zeros((len(ids), 400, 4))
    errors = probs - np.eye(7)[0]
    rows = np.arange(len(ids))[:, None]
    gradients[rows, classes.astype(int)] = errors[:, :, None] * features["embeds"][:, None]
    known = list(range(n, len(ids)))
    place = {int(i): row for row, i in enumerate(ids)}
    for pick, key in zip(first.ids.tolist(), first.keys, strict=True):
        squared = ((gradients[place[pick]] - gradients[known]) ** 2).sum(axis=(1, 2)).min()
        np.testing.assert_allclose(key, squared, rtol=1e-5, atol=1e-9)
        known.append(place[pick])


def test_top_classes_are_for_rows_of_one_class():
    with pytest.raises(ConfigError, match="for multi-label rows"):
        Badge(multilabel=True, top_classes=5)
    with pytest.raises(ConfigError, match="whole number of at least 1"):
        Badge(top_classes=0)


def test_what_few_classes_leave_out_of_a_distance_is_bounded():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 30)) * 1.5
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # Where one row leaves out a class that another is sure of, the error is linear in the mass.
    probs[0], probs[1] = np.eye(30)[0] / 2 + np.eye(30)[1] / 2, 0.0
    probs[1, [0, 2, 3]] = 0.1, 0.6, 0.3
    embeds = rng.normal(size=(60, 4))
    embeds[:2] = 1.0
    places = np.argsort(-probs, axis=1, kind="stable")[:, :2]
    kept = np.take_along_axis(probs, places, axis=1)
    features = {"probs": probs, "embeds": embeds, "top": np.concatenate([places, kept], axis=1)}
    rows = np.arange(60)

    def distances(kind, name, errors):
        part = cut(rows, None, features)
        grids = Grid(name, of=errors, moves=False), Grid("embeds", moves=False)
        space = kind(fit(grids, part, none_labelled(**features)))
        points = space.rows(part.parts[0], rows)
        found = [space.nearest(points, space.take(points, np.array([row])))[1] for row in rows]
        return np.array(found) * space.squared_unit()

    wrong = np.abs(
        distances(Gradients, "probs", class_errors) - distances(SparseGradients, "top", top_errors)
    )
    out, dots = 1.0 - kept.sum(axis=1), embeds @ embeds.T
    squares = out**2 * np.diag(dots)
    bound = squares[:, None] + squares + 2 * (out[:, None] + out) * np.abs(dots)
    assert (wrong <= bound + 1e-6).all()
    assert wrong[0, 1] > 5 * (squares[0] + squares[1])  # the squares alone are no bound


@pytest.mark.parametrize("num_slices", [1, 3])
def test_the_note_says_how_much_probability_is_left_out(num_slices):
    ids, features, n = world(9, num_rows=50, num_known=5, num_classes=40)
    outputs = Outputs(torch.arange(len(ids)), {"probs": torch.from_numpy(features["probs"])})
    features[top_of_probs(6)] = outputs[top_of_probs(6)].numpy()
    most = 1.0 - np.sort(features["probs"], axis=1)[:, -6:].sum(axis=1).min()
    picks = Badge(top_classes=6).select(*sides(ids, features, n, num_slices), 9, Keys(1, 0))
    said = "the 6 likeliest classes of a row, which leave out at most "
    assert picks.note.startswith(said)
    assert float(picks.note[len(said) :].split()[0]) == pytest.approx(most, rel=1e-2)


GROUP = tags_of("group")


def in_groups(num_rows, num_uncertain, num_groups=3, seed=0):
    """One-hot probabilities but for a few rows: no other row has any gradient."""
    rng = np.random.default_rng(seed)
    probs = np.eye(4, dtype=np.float32)[rng.integers(0, 4, num_rows)]
    probs[:num_uncertain] = [0.4, 0.3, 0.2, 0.1]
    ids = rng.choice(10**6, num_rows, replace=False)
    embeds = rng.standard_normal((num_rows, 5)).astype(np.float32)
    return ids, {"probs": probs, "embeds": embeds, GROUP: rng.integers(0, num_groups, num_rows)}


@pytest.mark.parametrize("num_uncertain", [0, 5])
@pytest.mark.parametrize("num_slices", [1, 3, 40])
@pytest.mark.parametrize("num_known", [0, 4])
def test_limits_leave_no_batch_short_of_rows_without_distance(num_uncertain, num_slices, num_known):
    ids, features = in_groups(600, num_uncertain)
    limits = Limits(group="group", quota=100)
    world_of = ids, features, 600 - num_known
    picks = Badge(limits=limits).select(*sides(*world_of, num_slices), 20, Keys(0, 0))
    plain = Badge().select(*sides(*world_of), 20, Keys(0, 0))
    assert len(picks.ids) == len(set(picks.ids.tolist())) == 20
    assert picks.ids.tolist() == plain.ids.tolist()  # the limits bind nobody
    assert "every row left has" in picks.reasons[-1]


@pytest.mark.parametrize("num_slices", [1, 7])
@pytest.mark.parametrize("kind", ["badge", "kmeans_pp"])
def test_rows_without_distance_are_taken_as_far_as_limits_admit(num_slices, kind):
    ids, features = in_groups(6000, 5)
    features["embeds"][5:] = 0.0
    place = {i: row for row, i in enumerate(ids.tolist())}

    def select(limits, budget):
        selector = (Badge if kind == "badge" else KMeansPP)(limits=limits)
        return selector.select(*sides(ids, features, 6000, num_slices), budget, Keys(2, 0))

    def groups_of(picks):
        return np.bincount([features[GROUP][place[i]] for i in picks.ids.tolist()], minlength=3)

    picks = select(Limits(group="group", quota=100, strict=False), 1000)
    assert groups_of(picks).tolist() == [100, 100, 100]
    assert "limits left 300 of 1000 rows to pick" in picks.note
    assert picks.ids[10:].tolist() == sorted(picks.ids[10:].tolist())
    assert (picks.keys[10:] == 0.0).all()
    picks = select(Limits(group="group", quotas={0: 3}, least={2: 40}), 60)
    assert len(picks.ids) == 60
    assert groups_of(picks)[0] <= 3
    assert groups_of(picks)[2] >= 40
    picks = select(Limits(duplicates="embeds"), 60)
    assert len(picks.ids) == 6  # five rows of their own, and 0 once
    assert "limits left 6 of 60" in picks.note


@pytest.mark.parametrize("num_slices", [1, 3])
def test_the_first_pick_is_of_rows_that_limits_leave(num_slices):
    ids, features = in_groups(60, 60)
    features["embeds"][5] *= 9
    features[GROUP][5] = 2
    closed = Badge(limits=Limits(group="group", quotas={2: 0}))
    picks = closed.select(*sides(ids, features, 60, num_slices), 9, Keys(0, 0))
    rows = [ids.tolist().index(i) for i in picks.ids.tolist()]
    norms = np.linalg.norm(features["embeds"], axis=1)  # probs are all alike
    assert rows[0] == np.where(features[GROUP] == 2, 0.0, norms).argmax()
    assert (features[GROUP][rows] != 2).all()


@pytest.mark.parametrize(("num_slices", "seed"), [(2, None), (2, 1), (3, 2)])
def test_more_rows_without_distance_than_a_slice_offers_at_a_time(num_slices, seed):
    ids, features = in_groups(4200, 5, num_groups=2)
    badge = Badge(limits=Limits(group="group", quota=1500))
    picks = badge.select(*sides(ids, features, 4200, num_slices, seed), 2600, Keys(0, 0))
    one = badge.select(*sides(ids, features, 4200), 2600, Keys(0, 0))
    assert picks.ids.tolist() == one.ids.tolist()
    assert len(set(picks.ids.tolist())) == 2600
    # Five with a gradient and one without, which is as far from them as any, are drawn.
    assert picks.ids[6:].tolist() == sorted(picks.ids[6:].tolist())


@pytest.mark.parametrize("side", ["embeds", "probs"])
@pytest.mark.parametrize("far", [1e6, 1e9])
def test_a_row_far_longer_than_the_others_takes_no_bits_from_them(far, side):
    ids, features, num_rows = world(3, num_rows=120, num_known=0)
    features = {name: values.astype(float) for name, values in features.items()}
    if side == "embeds":
        features["embeds"][7] *= far
    else:  # all others are sure of their answer
        answers = features["probs"].argmax(axis=1)
        features["probs"] = np.eye(3)[answers] * (1 - 2 / far) + features["probs"] / far
        features["probs"][7] = [0.5, 0.25, 0.25]
    picks = Badge().select(*sides(ids, features, num_rows, 3), 40, Keys(1, 0))
    errors = class_errors(features["probs"].copy())
    gradients = (errors[:, :, None] * features["embeds"][:, None]).reshape(num_rows, -1)
    place = {int(one): at for at, one in enumerate(ids)}
    near = np.full(num_rows, np.inf)
    for turn, (sample_id, key, chance) in enumerate(
        zip(picks.ids.tolist(), picks.keys, picks.probabilities, strict=True)
    ):
        at = place[sample_id]
        if turn:
            assert key == pytest.approx(near[at], rel=1e-4)
            assert chance == pytest.approx(near[at] / near.sum(), rel=1e-4)
        near = np.minimum(near, ((gradients - gradients[at]) ** 2).sum(axis=1))
        near[at] = 0.0
