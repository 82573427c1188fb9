"""Quotas, balance and shares: against brute force, and what is refused."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slices import cut, labelled, none_labelled
from test_lost_slices import Losing

from rayal.columns import tags
from rayal.errors import ConfigError, NeedsError, ScoringError
from rayal.keys import Keys
from rayal.selectors import price
from rayal.selectors.limits import Limits
from rayal.selectors.top_k import TopK
from rayal.strategy import Strategy
from rayal.types import PREDICTED_CLASS, tags_of

KEYS = Keys(1, 0)
G = tags_of("g")


def pick(limits, ids, scores, features, budget, num_slices=1, seed=None, known=None):
    rows = cut(ids, scores, features, num_slices, seed)
    return TopK(limits).select(rows, known or none_labelled(**features), budget, KEYS)


@st.composite
def small_cases(draw, most_rows=9):
    """Few rows of few groups, whose scores tie: ids, scores, groups, budget."""
    n = draw(st.integers(0, most_rows))
    ids = np.array(draw(st.permutations(range(-3, most_rows - 3)))[:n], np.int64)
    scores = np.array(draw(st.lists(st.integers(-2, 4), min_size=n, max_size=n))) / 4.0
    groups = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), np.int64)
    return ids, scores, groups, draw(st.integers(0, n + 2))


leasts = st.dictionaries(st.integers(0, 3), st.integers(0, 3), max_size=2)


def at_odds(quota, quotas, least):
    """Whether a group must give more rows than it may."""
    if isinstance(least, dict):
        pairs = [(low, quotas.get(group, quota)) for group, low in least.items()]
    else:
        pairs = [(least or 0, most) for most in (quota, *quotas.values())]
    return any(most is not None and low > most for low, most in pairs)


def plain_quotas(ids, scores, groups, budget, most, least):
    """The textbook: what groups must give, then the best of the rest."""
    order = np.lexsort((ids, -scores)).tolist()
    given = dict.fromkeys(groups.tolist(), 0)
    picked = []
    for row in order:
        if given[groups[row]] < least(groups[row]):
            given[groups[row]] += 1
            picked.append(row)
    for row in order:
        if row not in picked and len(picked) < budget and given[groups[row]] < most(groups[row]):
            given[groups[row]] += 1
            picked.append(row)
    return sorted(picked, key=lambda row: (-scores[row], ids[row]))


def best_sum(scores, groups, budget, most, least):
    """The highest sum of scores of all batches within quotas, by looking at every one."""
    best = None
    for some in itertools.combinations(range(len(scores)), budget):
        counts = np.bincount(groups[list(some)], minlength=4)
        if all(least(g) <= counts[g] <= most(g) for g in range(4)):
            best = max(scores[list(some)].sum(), best if best is not None else -np.inf)
    return best


@settings(max_examples=300)
@given(
    case=small_cases(),
    quota=st.one_of(st.none(), st.integers(0, 4)),
    quotas=st.dictionaries(st.integers(0, 3), st.integers(0, 4), max_size=3),
    least=st.one_of(st.none(), st.integers(0, 2), leasts),
    num_slices=st.sampled_from([1, 3, 7]),
    seed=st.integers(0, 3),
)  # fmt: skip
def test_quotas_give_the_highest_sum_or_say_that_they_cannot_be_met(
    case, quota, quotas, least, num_slices, seed
):
    ids, scores, groups, budget = case
    there = set(groups.tolist())

    def most_of(group):
        return min(quotas.get(group, quota if quota is not None else 99), 99)

    def least_of(group):
        if isinstance(least, dict):
            return least.get(group, 0)
        return (least or 0) if group in there else 0

    if at_odds(quota, quotas, least):
        with pytest.raises(ConfigError, match="more than its quota"):
            Limits(group="g", quota=quota, quotas=quotas, least=least)
        return
    limits = Limits(group="g", quota=quota, quotas=quotas, least=least)
    target = min(budget, len(ids))
    best = best_sum(scores, groups, target, most_of, least_of)
    features = {G: groups}
    if target and set(quotas) - set(groups.tolist()):  # a quota of a group that is not there
        with pytest.raises(ConfigError, match="strict=false"):
            pick(limits, ids, scores, features, budget, num_slices, seed)
        if best is not None:
            limits = Limits(group="g", quota=quota, quotas=quotas, least=least, strict=False)
    if best is None and target:
        with pytest.raises(ConfigError, match=r"strict=false"):
            pick(limits, ids, scores, features, budget, num_slices, seed)
        loose = Limits(group="g", quota=quota, quotas=quotas, least=least, strict=False)
        picks = pick(loose, ids, scores, features, budget, num_slices, seed)
        counts = np.bincount(groups[np.isin(ids, picks.ids)], minlength=4)
        assert all(counts[g] <= most_of(g) for g in range(4))
        capacity = sum(min(most_of(g), int((groups == g).sum())) for g in range(4))
        assert len(picks.ids) == min(target, capacity)
        assert picks.note
        return
    picks = pick(limits, ids, scores, features, budget, num_slices, seed)
    if target:
        assert picks.scores.sum() == best
        rows = plain_quotas(ids, scores, groups, target, most_of, least_of)
        assert picks.ids.tolist() == ids[rows].tolist()
        assert picks.keys.tolist() == scores[rows].tolist()
    else:
        assert len(picks.ids) == 0


def plain_balance(sizes, budget):
    """One row at a time to whoever has got least and has one left, the smaller group first."""
    given = [0] * len(sizes)
    for _ in range(min(budget, sum(sizes))):
        open_groups = [g for g in range(len(sizes)) if given[g] < sizes[g]]
        g = min(open_groups, key=lambda g: (given[g], sizes[g], g))
        given[g] += 1
    return given


@settings(max_examples=200)
@given(case=small_cases(30), num_slices=st.sampled_from([1, 3, 7]))
def test_balance_fills_all_groups_to_one_level(case, num_slices):
    ids, scores, groups, budget = case
    picks = pick(Limits(group="g", balance=True), ids, scores, {G: groups}, budget, num_slices, 5)
    assert len(picks.ids) == min(budget, len(ids))
    sizes = [int((groups == g).sum()) for g in range(4)]
    there = [g for g in range(4) if sizes[g]]
    wanted = plain_balance([sizes[g] for g in there], budget)
    group_of = dict(zip(ids.tolist(), groups.tolist(), strict=True))
    got = [sum(group_of[i] == g for i in picks.ids.tolist()) for g in there]
    assert got == wanted
    for g, count in zip(there, wanted, strict=True):  # of each group the best
        rows = np.flatnonzero(groups == g)
        best = rows[np.lexsort((ids[rows], -scores[rows]))[:count]]
        assert set(ids[best]) <= set(picks.ids)
    assert (np.diff(picks.scores) <= 0).all()


@settings(max_examples=200)
@given(
    case=small_cases(20),
    shares=st.dictionaries(st.integers(0, 5), st.sampled_from([0.1, 0.25, 1, 2, 7]), min_size=1),
    num_slices=st.sampled_from([1, 3, 7]),
)
def test_shares_give_all_they_can_in_proportion(case, shares, num_slices):
    ids, scores, groups, budget = case
    limits = Limits(group="g", shares=shares, strict=False)
    picks = pick(limits, ids, scores, {G: groups}, budget, num_slices, 5)
    sizes = {g: int((groups == g).sum()) for g in shares}
    total = min(budget, len(ids), sum(sizes.values()))
    group_of = dict(zip(ids.tolist(), groups.tolist(), strict=True))
    got = {g: sum(group_of[i] == g for i in picks.ids.tolist()) for g in shares}
    assert len(picks.ids) == sum(got.values()) == total
    # Whoever has rows left has its share of what those with rows left got, up to one row.
    rich = [g for g in shares if got[g] < sizes[g]]
    for g in rich:
        of_rich = sum(got[h] for h in rich) * shares[g] / sum(shares[h] for h in rich)
        assert abs(got[g] - of_rich) < 1 + 1e-9
    if rich:  # and nobody gave all it has whose share was less than that
        level = max((got[g] + 1) / shares[g] for g in rich)
        assert all((sizes[h] - 1) / shares[h] <= level for h in set(shares) - {*rich})


@pytest.mark.parametrize("num_slices", [1, 3, 7])
def test_classes_that_the_model_predicts_are_balanced(num_slices):
    rng = np.random.default_rng(3)
    ids, scores = rng.permutation(400), rng.random(400)
    classes = np.where(rng.random(400) < 0.95, 0, rng.integers(1, 4, 400))
    limits = Limits(group=PREDICTED_CLASS, balance=True)
    assert limits.needs == (PREDICTED_CLASS,)
    picks = pick(limits, ids, scores, {PREDICTED_CLASS: classes}, 60, num_slices, 1)
    counts = np.bincount(classes[np.argsort(ids)[picks.ids]], minlength=4)
    assert counts.tolist() == plain_balance(np.bincount(classes).tolist(), 60)
    assert picks.note.startswith("balance: 4 groups, the largest of ")
    assert "give all they have" in picks.note
    assert picks.reasons[0].startswith(f"rank 1 by score {picks.scores[0]:.6g}, 1 of at most ")


def test_groups_of_text_are_told_by_their_tags_and_named():
    words = np.array(["Zürich" * 7, "Bern", "", "Zürich" * 8], object)
    rng = np.random.default_rng(0)
    at = rng.integers(0, 4, 50)
    features = {G: tags(pa.table({"g": words[at].tolist()}), "g")}
    quotas = {words[0]: 2, "Bern": 3, "Rome": 4}
    limits = Limits(group="g", quotas=quotas, quota=1, strict=False)
    picks = pick(limits, np.arange(50), rng.random(50), features, 7, 3)
    assert np.bincount(at[picks.ids]).tolist() == [2, 3, 1, 1]
    bern = next(r for i, r in zip(picks.ids, picks.reasons, strict=True) if at[i] == 1)
    assert bern.endswith(" of at most 3 of group Bern")
    assert "4 groups met their quota" in picks.note


@pytest.mark.parametrize("num_slices", [1, 3, 7])
@pytest.mark.parametrize("budget", [40, 700])
def test_many_groups_over_slices_equal_one_slice_and_the_plain_way(num_slices, budget, monkeypatch):
    monkeypatch.setattr(
        "rayal.ranking.exact_cut.__kwdefaults__", {"first_step": 0, "gather_rows": 50}
    )
    rng = np.random.default_rng(budget)
    ids = rng.permutation(4_000)[:3_000] - 2_000
    scores = rng.integers(0, 50, 3_000) / 8
    groups = (rng.pareto(0.7, 3_000) * 3).astype(np.int64) % 200 - 100
    limits = Limits(group="g", quota=6, quotas={-100: 90}, least={-99: 4, -98: 2})
    picks = pick(limits, ids, scores, {G: groups}, budget, num_slices, num_slices)
    rows = plain_quotas(
        ids, scores, groups, budget,
        lambda g: 90 if g == -100 else 6, lambda g: {-99: 4, -98: 2}.get(g, 0),
    )  # fmt: skip
    assert picks.ids.tolist() == ids[rows].tolist()


def test_lost_and_repeated_questions_change_nothing():
    rng = np.random.default_rng(5)
    n = 300
    features = {
        G: rng.integers(0, 6, n),
        "cost": rng.integers(0, 9, n),
        "embeds": rng.integers(-2, 3, (n, 3)).astype(np.float32),
    }
    scores = rng.integers(0, 20, n) / 4
    known = labelled(np.arange(900, 920), {k: v[:20] for k, v in features.items()})
    rows = cut(np.arange(n), scores, features, 5)
    for limits in (
        Limits(group="g", quota=12, least=2),
        Limits(cost="cost", max_cost=70, group="g", quota=20),
        Limits(duplicates="embeds", near=0.9, group="g", quota=40, strict=False),
    ):
        steady = TopK(limits).select(rows, known, 40, KEYS)
        shaken = TopK(limits).select(Losing(rows.parts), Losing(known.parts), 40, KEYS)
        assert shaken.ids.tolist() == steady.ids.tolist()
        assert shaken.note == steady.note
        rows, known = (
            cut(np.arange(n), scores, features, 5),
            cut(np.arange(900, 920), None, {k: v[:20] for k, v in features.items()}),
        )


# ------------------------------------------------------------------------------- edges, refusals


def test_empty_slices_one_group_and_a_budget_of_all():
    ids = np.array([5, 3, 9])
    limits = Limits(group="g", balance=True)
    rows = cut(ids, np.array([1.0, 2.0, 2.0]), {G: np.array([7, 7, 7])}, 3)
    rows.parts += cut(np.empty(0, np.int64), None, {G: np.empty((0, 1), np.float32)}, 2).parts
    assert TopK(limits).select(rows, none_labelled(), 3, KEYS).ids.tolist() == [3, 9, 5]
    assert TopK(limits).select(rows, none_labelled(), 99, KEYS).ids.tolist() == [3, 9, 5]
    assert len(TopK(limits).select(rows, none_labelled(), 0, KEYS).ids) == 0
    nothing = cut(np.empty(0, np.int64), None, {G: np.empty((0, 1), np.float32)}, 3)
    assert len(TopK(limits).select(nothing, none_labelled(), 5, KEYS).ids) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"group": "g"}, "limits.group is 'g' and there is no quota"),
        ({"quota": 3}, "limits.group is None and there is limits.quota"),
        ({"group": "embeds", "quota": 3}, "expected 'predicted_class' or a column"),
        ({"group": "sample_id", "quota": 3}, "limits.group is 'sample_id', expected"),
        ({"group": "label", "balance": True}, "neither an output, an id nor a label"),
        ({"cost": "sample_id", "max_cost": 3.0}, "limits.cost is 'sample_id', expected a column"),
        ({"cost": "", "max_cost": 3.0}, "limits.cost is '', expected a column"),
        ({"group": "g", "balance": True, "quota": 3}, "has quota and balance, expected balance"),
        ({"group": "g", "shares": {1: 1}, "least": 3}, "has least and shares, expected shares"),
        ({"group": "g", "quota": -1}, "limits.quota is -1, expected a count from 0 on"),
        ({"group": "g", "quota": True}, "limits.quota is True"),
        ({"group": "g", "quota": {1: 2}}, "limits.quota is {1: 2}, expected a count from 0 on"),
        ({"group": "g", "quotas": 5}, "limits.quotas is 5, expected one for each group"),
        ({"group": "g", "shares": [1, 2]}, "limits.shares is [1, 2], expected one for each group"),
        ({"group": "g", "shares": {1: True}}, "limits.shares is True for group 1"),
        ({"group": "g", "quotas": {"a": 1.5}}, "limits.quotas is 1.5 for group 'a'"),
        ({"group": "g", "quotas": {2.5: 1}}, "limits.quotas is 1 for group 2.5"),
        ({"group": "g", "shares": {"a": 0}}, "limits.shares is 0 for group 'a', expected a share"),
        ({"group": "g", "quota": 2, "least": 3}, "limits.least is 3, more than its quota, 2"),
        ({"group": "g", "quotas": {1: 2}, "least": {1: 3}}, "least of group 1 is 3, more than"),
        ({"cost": "cost"}, "expected both or neither"),
        ({"max_cost": 3.0}, "expected both or neither"),
        ({"cost": "cost", "max_cost": -1}, "limits.max_cost is -1"),
        ({"cost": "cost", "max_cost": 1e-11}, "expected 0, or a number from 1e-10 to 1e+15"),
        ({"cost": "cost", "max_cost": 2e15}, "limits.max_cost is 2000000000000000.0, expected 0,"),
        ({"cost": "cost", "max_cost": float("nan")}, "limits.max_cost is nan"),
        ({"near": 1.0}, "limits.near is 1.0, expected a cosine"),
        ({"near": 0.9, "feature": "label"}, "Limits.feature is 'label'"),
        ({"duplicates": "sample_id"}, "Limits.feature is 'sample_id'"),
        ({}, "limits says nothing"),
    ],
)  # fmt: skip
def test_limits_that_cannot_mean_anything_are_refused(arguments, problem):
    with pytest.raises(ConfigError) as error:
        Limits(**arguments)
    assert problem in str(error.value)


def test_quotas_that_cannot_be_met_are_named():
    features = {G: np.array([1, 1, 2, 2, 2])}
    ids, scores = np.arange(5), np.arange(5.0)
    for limits, budget, problem in (
        (
            Limits(group="g", quota=1),
            3,
            "limits on g leave room for 2 rows, and 3 are to be picked",
        ),
        (Limits(group="g", least=3), 5, "asks for 3 rows of group 1, and 2 candidates are of it"),
        (Limits(group="g", least=2), 3, "asks for 4 rows in all, and 3 are picked"),
        (Limits(group="g", least={7: 1}), 3, "asks for 1 rows of group 7, and 0 candidates"),
        (Limits(group="g", shares={1: 1}), 3, "limits on g leave room for 2 rows"),
    ):
        with pytest.raises(ConfigError, match=problem):
            pick(limits, ids, scores, features, budget)
    loose = Limits(group="g", least=3, strict=False)
    assert "2 candidates are of it" in pick(loose, ids, scores, features, 5).note


@pytest.mark.parametrize("num_slices", [1, 3])
@pytest.mark.parametrize(
    "bounds",
    [
        {"quotas": {"ant": 2, "cta": 3}},
        {"quotas": {"ant": 2, "cta": 3}, "quota": 1, "least": 1},
        {"quotas": {"cta": 3}, "least": {"ant": 1, "cta": 0}},
        {"shares": {"ant": 2, "cta": 1}},
    ],
    ids=str,
)
def test_groups_that_no_candidate_has_are_named(bounds, num_slices):
    features = {G: tags(pa.table({"g": ["ant", "bee", "ant", "cat", "ant"]}), "g")}
    ids, scores = np.arange(5), np.arange(5.0)
    said = "limits name groups that no candidate has: cta"
    nowhere = "limits name groups that no row has: cta;.* limits.strict=false"
    with pytest.raises(ConfigError, match=nowhere):
        pick(Limits(group="g", **bounds), ids, scores, features, 2, num_slices)
    loose = Limits(group="g", strict=False, **bounds)
    assert said in pick(loose, ids, scores, features, 2, num_slices).note
    numbers = {G: np.array([1, 2, 1, 3, 1])}
    with pytest.raises(ConfigError, match="no row has: 7, 8;"):
        pick(Limits(group="g", quotas={1: 1, 7: 2, 8: 0}), ids, scores, numbers, 2, num_slices)


def test_groups_that_are_used_up_or_not_predicted_now_are_no_error():
    ids, scores = np.arange(5), np.arange(5.0)
    names = pa.table({"g": ["ant", "bee", "ant", "cat", "ant"]})
    rows = cut(ids, scores, {G: tags(names, "g")}, 2)
    known = labelled([50, 51], {G: tags(pa.table({"g": ["dog", "ant"]}), "g")})
    limits = Limits(group="g", quotas={"ant": 2, "dog": 1})
    picks = TopK(limits).select(rows, known, 3, KEYS)
    assert picks.ids.tolist() == [4, 3, 2]
    assert "no candidate has: dog" in picks.note
    probs = np.array([[0.6, 0.4, 0.0]] * 5, np.float32)
    rows = cut(ids, scores, {"probs": probs, "predicted_class": np.zeros(5, np.int64)}, 2)
    limits = Limits(group="predicted_class", quotas={0: 2, 2: 1})
    assert TopK(limits).select(rows, none_labelled(probs=probs), 2, KEYS).ids.tolist() == [4, 3]


@pytest.mark.parametrize("num_slices", [1, 3])
def test_predicted_classes_go_by_their_names(num_slices):
    rng = np.random.default_rng(4)
    features = {PREDICTED_CLASS: rng.integers(0, 4, 90)}
    by_place = Limits(group=PREDICTED_CLASS, quotas={0: 3, 2: 0}, least={3: 12}, quota=20)
    by_name = Limits(
        group=PREDICTED_CLASS, quotas={"cat": 3, "ant": 0}, least={"dog": 12}, quota=20,
        classes=("cat", "bee", "ant", "dog"),
    )  # fmt: skip
    world = np.arange(90), rng.random(90), features, 30, num_slices, 1
    picks, same = pick(by_name, *world), pick(by_place, *world)
    assert picks.ids.tolist() == same.ids.tolist()
    counts = np.bincount(features[PREDICTED_CLASS][picks.ids], minlength=4)
    assert (counts[0], counts[2]) == (3, 0)
    assert counts[3] >= 12
    assert "1 groups met their quota (cat)" in picks.note
    assert any(one.endswith(" of at least 12 of group dog") for one in picks.reasons)
    assert any(one.endswith(" of at most 20 of group bee") for one in picks.reasons)
    shares = Limits(group=PREDICTED_CLASS, shares={"bee": 2, "cat": 1}, classes=by_name.classes)
    counts = np.bincount(features[PREDICTED_CLASS][pick(shares, *world).ids], minlength=4)
    assert counts.tolist() == [10, 20, 0, 0]


@pytest.mark.parametrize("classes", [(5, 1, 3), ("5", "1", "3")])
def test_classes_called_by_numbers_go_by_these_numbers(classes):
    features = {PREDICTED_CLASS: np.array([0, 0, 1, 1, 2, 2])}
    limits = Limits(group=PREDICTED_CLASS, quotas={1: 0, "5": 1}, classes=classes)
    picks = pick(limits, np.arange(6), np.arange(6.0), features, 3)
    assert picks.ids.tolist() == [5, 4, 1]
    with pytest.raises(ConfigError, match="that are no class: 0; the classes are 5, 1, 3: correct"):
        Limits(group=PREDICTED_CLASS, quotas={0: 1}, classes=classes)
    loose = Limits(group=PREDICTED_CLASS, quotas={0: 0}, classes=classes, strict=False)
    picks = pick(loose, np.arange(6), np.arange(6.0), features, 6)
    assert len(picks.ids) == 6
    assert picks.note == "limits name groups that no candidate has: 0"


def test_names_of_classes_that_nobody_knows_are_refused():
    features = {PREDICTED_CLASS: np.array([0, 0, 1])}
    for bounds in ({"quotas": {"cat": 1}}, {"least": {"cat": 1}}, {"shares": {"cat": 1, 0: 1}}):
        limits = Limits(group=PREDICTED_CLASS, **bounds)
        with pytest.raises(ConfigError, match="no class: cat; classes are numbered from 0 on"):
            pick(limits, np.arange(3), None, features, 2)
    loose = Limits(group=PREDICTED_CLASS, quotas={"cat": 1}, strict=False)
    note = pick(loose, np.arange(3), None, features, 2).note
    assert note == "limits name groups that no candidate has: cat"


def test_values_that_are_no_groups_are_refused():
    limits, ids = Limits(group="g", quota=1), np.array([40, 30, 20])
    with pytest.raises(ScoringError, match=r"'g' is no whole number in 2 rows .first sample_id 20"):
        pick(limits, ids, None, {G: np.array([1.0, 0.5, np.nan])}, 2, 3)
    with pytest.raises(ScoringError, match=r"'g' is no whole number in 1 rows .first sample_id 40"):
        pick(limits, ids, None, {G: np.array([2.0**53, 0.0, 1.0])}, 2)  # 2^53 + 1 would be it, too
    assert len(pick(limits, ids, None, {G: np.array([1.0, -2.0, 2.0])}, 3).ids) == 3
    with pytest.raises(ScoringError, match="'g' holds 2 numbers a row, expected one"):
        pick(limits, ids, None, {G: np.ones((3, 2))}, 2)
    with pytest.raises(NeedsError, match="carries no 'tags of g'"):
        pick(limits, ids, None, {}, 2)
    with pytest.raises(ScoringError, match=r"the score is NaN or infinite in 1 rows"):
        pick(limits, ids, np.array([1.0, np.nan, 2.0]), {G: np.arange(3)}, 2)


def test_limits_say_what_they_need_and_which_labels_they_are_for():
    limits = Limits(group="g", quota=3, cost="price", max_cost=4, duplicates="text", near=0.9)
    assert limits.needs == (G, "price", tags_of("text"), "embeds")
    assert Limits(duplicates="embeds", near=0.9).needs == ("embeds",)
    assert TopK().needs == ()
    assert TopK().takes_best
    assert not TopK(limits).takes_best
    by_class = Strategy(TopK(Limits(group=PREDICTED_CLASS, quota=3)))
    assert by_class.for_kind("class") == by_class
    with pytest.raises(ConfigError, match=r"^Limits is for labels of kind class or multilabel"):
        by_class.for_kind("number")


def test_all_rows_are_candidates_where_any_score_may_be_picked():
    from rayal.scorers.margin import Margin

    assert Strategy(TopK(Limits(group="g", quota=3)), Margin()).keep(10) is None
    assert Strategy(TopK(Limits(cost="c", max_cost=3)), Margin()).keep(10) is None
    assert Strategy(TopK(Limits(near=0.9)), Margin()).keep(10) == 100_000
    assert Strategy(TopK(Limits(group="g", quota=3)), Margin(), 50).keep(10) == 50


def test_the_price_module_is_what_money_asks():
    assert price.total(np.array([2**62, 2**62, 2**62 + 1])) == 3 * 2**62 + 1
