import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.errors import ScoringError
from rayal.keys import Keys, hash_u64, salt
from rayal.selectors.badge import Badge


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
    ids = rng.choice(np.arange(-400, 400), n, replace=False)
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
    """D^2 sampling on gradients of size C x D, by the same numbers laid out in the same order."""
    probs, embeds = features["probs"].astype(float), features["embeds"].astype(float)
    answer = np.round(probs) if multilabel else np.eye(probs.shape[1])[probs.argmax(axis=1)]
    gradients = ((probs - answer)[:, :, None] * embeds[:, None, :]).reshape(len(ids), -1)
    bits = max(1, num_rows.bit_length() // 2)
    bucket = hash_u64(salt("rayal", "badge", "buckets"), ids[:num_rows]) >> np.uint64(64 - bits)
    layout = np.lexsort((ids[:num_rows], bucket))
    known, picked = list(range(num_rows, len(ids))), []
    for _ in range(min(budget, num_rows)):
        if known:
            squared = ((gradients[:num_rows, None] - gradients[None, known]) ** 2).sum(axis=2)
            weight = squared.min(axis=1)
            weight[weight < 1e-12] = 0.0
            if weight.sum() == 0.0:
                rest = [row for row in np.argsort(ids[:num_rows]) if row not in picked]
                return ids[(picked + rest)[:budget]]
            number = hash_u64(keys.stream("badge").salt, np.array([len(known)]))[0]
            below = np.cumsum(weight[layout])
            row = layout[np.searchsorted(below, float(number) / 2**64 * below[-1], side="right")]
        else:
            norms = (gradients[:num_rows] ** 2).sum(axis=1).round(9)
            row = np.lexsort((ids[:num_rows], -norms))[0]
        known.append(row)
        picked.append(row)
    return ids[picked]


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
