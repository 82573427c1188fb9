"""Greedy methods within limits, against the plain greedy that looks at every open row."""

import numpy as np
import pytest
from slices import cut, labelled, none_labelled

from rayal.errors import ConfigError
from rayal.journal import Journal
from rayal.keys import Keys
from rayal.selectors.badge import Badge
from rayal.selectors.coverage import Coverage
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.limits import Limits
from rayal.selectors.log_det import LogDet
from rayal.selectors.pairwise import Pairwise
from rayal.selectors.survey import survey
from rayal.selectors.top_k import TopK
from rayal.types import tags_of

KEYS = Keys(0, 1)


class World:
    def __init__(self, seed=0, n=300, num_known=5):
        rng = np.random.default_rng(seed)
        self.x = rng.standard_normal((n + num_known, 5)).astype(np.float32)
        twins = rng.choice(n, 60, replace=False)
        self.x[twins[:30]] = self.x[twins[30:]] + 1e-4 * rng.standard_normal((30, 5))
        self.group = rng.integers(0, 4, n + num_known)
        self.cost = rng.integers(1, 9, n + num_known)
        self.scores = rng.random(n)
        self.ids = rng.permutation(3 * (n + num_known))[: n + num_known]
        self.n = n
        self.kind = rng.integers(0, 50, n + num_known)

    def sides(self, num_slices=1, seed=None):
        probs = np.exp(self.x[:, :3])
        probs /= probs.sum(axis=1, keepdims=True)
        every = {"embeds": self.x, "probs": probs, tags_of("group"): self.group, "cost": self.cost}
        every[tags_of("kind")] = self.kind
        mine = {name: a[: self.n] for name, a in every.items()}
        known = {name: a[self.n :] for name, a in every.items()}
        rows = cut(self.ids[: self.n], self.scores, mine, num_slices, seed)
        if self.n == len(self.ids):
            return rows, none_labelled(**every)
        return rows, labelled(self.ids[self.n :], known)


def k_center_by_hand(world, budget, quota=None, max_cost=None, near=None):
    """The farthest open row, every time."""
    x, ids = world.x.astype(float), world.ids
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    known = list(range(world.n, len(ids)))
    picked, counts, spent = [], {}, 0
    while len(picked) < budget:
        far = ((x[: world.n, None] - x[None, known + picked]) ** 2).sum(axis=2)
        gains = far.min(axis=1) if known + picked else ((x - x.mean(axis=0)) ** 2).sum(axis=1)
        is_open = np.ones(world.n, bool)
        is_open[picked] = False
        if quota is not None:
            is_open &= np.array([counts.get(int(g), 0) < quota for g in world.group[: world.n]])
        if max_cost is not None:
            is_open &= world.cost[: world.n] <= max_cost - spent
        if near is not None and known + picked:
            is_open &= (unit[: world.n] @ unit[known + picked].T).max(axis=1) <= near
        if not is_open.any():
            break
        row = max(np.flatnonzero(is_open), key=lambda one: (gains[one], -ids[one]))
        picked.append(int(row))
        counts[int(world.group[row])] = counts.get(int(world.group[row]), 0) + 1
        spent += int(world.cost[row])
    return ids[picked].tolist()


LIMITS = [
    ({"quota": 20}, Limits(group="group", quota=20, strict=False)),
    ({"max_cost": 130}, Limits(cost="cost", max_cost=130)),
    ({"near": 0.9}, Limits(near=0.9)),
    (
        {"quota": 30, "max_cost": 250, "near": 0.95},
        Limits(group="group", quota=30, cost="cost", max_cost=250, near=0.95),
    ),
]


@pytest.mark.parametrize(("hand", "limits"), LIMITS, ids=[str(one[0]) for one in LIMITS])
@pytest.mark.parametrize("num_known", [0, 5])
@pytest.mark.parametrize("budget", [40, 90])  # 40 would go the plain way, which knows no limits
def test_k_center_is_the_plain_greedy_within_limits(hand, limits, num_known, budget):
    for seed in range(2):
        world = World(seed, num_known=num_known)
        selector = KCenter(precision="float", limits=limits)
        for num_slices in (1, 4):
            picks = selector.select(*world.sides(num_slices, 1), budget, KEYS)
            assert picks.ids.tolist() == k_center_by_hand(world, budget, **hand)


GREEDY = [KCenter, LogDet, Coverage, Pairwise]
METHODS = [*GREEDY, Badge, KMeansPP]
EVERY = Limits(group="group", quota=12, cost="cost", max_cost=170, near=0.97)


@pytest.mark.parametrize("method", METHODS)
def test_limits_hold_for_every_slicing(method):
    world = World(4)
    arguments = {"num_references": 100} if method is Coverage else {}
    selector = method(limits=EVERY, **arguments)
    first = selector.select(*world.sides(), 60, KEYS)
    place = {int(i): row for row, i in enumerate(world.ids)}
    rows = [place[i] for i in first.ids.tolist()]
    assert np.bincount(world.group[rows]).max() <= 12
    assert world.cost[rows].sum() <= 170
    unit = world.x.astype(float) / np.linalg.norm(world.x.astype(float), axis=1, keepdims=True)
    there = unit[rows + list(range(world.n, len(world.ids)))]
    cosines = there[: len(rows)] @ there.T
    assert (cosines - np.eye(len(rows), len(there))).max() <= 0.97
    for num_slices, seed in ((3, None), (7, 2), (300, 3)):
        again = selector.select(*world.sides(num_slices, seed), 60, KEYS)
        assert again.ids.tolist() == first.ids.tolist()
        assert again.reasons == first.reasons


@pytest.mark.parametrize("method", [*METHODS, TopK])
@pytest.mark.parametrize("num_slices", [1, 4])
def test_no_value_of_a_column_is_picked_twice_or_labelled_already(method, num_slices):
    world = World(4)
    picks = method(limits=Limits(duplicates="kind")).select(*world.sides(num_slices, 1), 60, KEYS)
    kind_of = dict(zip(world.ids.tolist(), world.kind.tolist(), strict=True))
    kinds = [kind_of[i] for i in picks.ids.tolist()]
    left = set(world.kind[: world.n].tolist()) - set(world.kind[world.n :].tolist())
    assert sorted(kinds) == sorted(left)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "limits",
    [Limits(group="group", quotas={0: 0}), Limits(cost="cost", max_cost=8_000)],
    ids=["quota", "money"],
)
def test_rows_that_are_closed_from_the_beginning_are_not_the_first_pick(method, limits):
    world = World(4, num_known=0)
    world.x[world.group == 0] *= 10.0  # and most of what a method likes
    world.scores[world.group == 0] += 10.0
    world.cost[world.group == 0] = 9_000
    picks = method(limits=limits).select(*world.sides(3, 1), 30, KEYS)
    assert len(picks.ids) == 30
    assert not np.isin(picks.ids, world.ids[world.group == 0]).any()


@pytest.mark.parametrize("method", [*METHODS, TopK])
def test_what_groups_must_give_and_duplicates_forbid_is_an_error_of_every_method(method):
    world = World(4)
    bounds = {"group": "group", "least": {0: 51}, "duplicates": "kind"}  # there are 50 kinds
    with pytest.raises(ConfigError, match=r"limits.least is not met: \d+ of 51 rows of group 0;"):
        method(limits=Limits(**bounds)).select(*world.sides(2), 80, KEYS)
    picks = method(limits=Limits(strict=False, **bounds)).select(*world.sides(2), 80, KEYS)
    assert "least is not met: " in picks.note


@pytest.mark.parametrize("method", METHODS)
def test_wide_limits_change_no_pick(method):
    world = World(5)
    wide = Limits(group="group", quota=1000, cost="cost", max_cost=10**6, near=1 - 1e-13)
    arguments = {"num_references": 100} if method is Coverage else {"precision": "float"}
    arguments = {} if method in (LogDet, Badge) else arguments
    plain = method(**arguments).select(*world.sides(2), 70, KEYS)
    within = method(limits=wide, **arguments).select(*world.sides(2), 70, KEYS)
    assert within.ids.tolist() == plain.ids.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_it_goes_on_from_the_journal(method, tmp_path):
    world = World(6)
    arguments = {"num_references": 100} if method is Coverage else {}
    selector = method(limits=EVERY, **arguments)
    rows, held = world.sides(3)
    steady = selector.select(rows, held, 50, KEYS)
    rows, held = world.sides(3)
    rows.journal = Journal(tmp_path / "picks.jsonl")
    selector.select(rows, held, 50, KEYS)
    lines = rows.journal.path.read_text().splitlines(keepends=True)
    rows.journal.path.write_text("".join(lines[: max(2, len(lines) // 2)]))
    rows, held = world.sides(3)
    rows.journal = Journal(tmp_path / "picks.jsonl")
    again = selector.select(rows, held, 50, KEYS)
    assert again.ids.tolist() == steady.ids.tolist()
    assert again.reasons == steady.reasons


def test_quotas_that_cannot_be_met_are_said():
    world = World(7)
    limits = Limits(group="group", least={9: 5})
    with pytest.raises(ConfigError, match="limits"):
        KCenter(limits=limits).select(*world.sides(2), 60, KEYS)


@pytest.mark.parametrize("method", [*METHODS, TopK])
@pytest.mark.parametrize("num_slices", [1, 4])
@pytest.mark.parametrize(
    ("bounds", "num_rows"),
    [({"quota": 2}, 8), ({"quotas": {0: 3, 1: 0}, "quota": 4}, 11), ({"shares": {0: 1}}, None)],
    ids=str,
)
def test_quotas_that_allow_too_few_rows_are_an_error_of_every_method(
    method, num_slices, bounds, num_rows, tmp_path
):
    world = World(7)
    num_rows = num_rows or int((world.group[: world.n] == 0).sum())
    rows, known = world.sides(num_slices)
    rows.journal = Journal(tmp_path / "picks.jsonl")
    said = f"limits on group leave room for {num_rows} rows, and {num_rows + 1} are to be picked"
    with pytest.raises(ConfigError, match=said):
        method(limits=Limits(group="group", **bounds)).select(rows, known, num_rows + 1, KEYS)
    assert not rows.journal.path.exists()  # it is known before a row is picked
    full = method(limits=Limits(group="group", **bounds))
    assert len(full.select(*world.sides(num_slices), num_rows, KEYS).ids) == num_rows
    loose = method(limits=Limits(group="group", strict=False, **bounds))
    few = loose.select(*world.sides(num_slices), num_rows + 1, KEYS)
    assert len(few.ids) == num_rows
    assert f"limits left {num_rows} of {num_rows + 1} rows to pick" in few.note


@pytest.mark.parametrize("method", [*METHODS, TopK])
def test_money_that_ends_before_the_quotas_do_is_no_error(method):
    world = World(7)
    poor = method(limits=Limits(group="group", quota=12, cost="cost", max_cost=60))
    picks = poor.select(*world.sides(2), 60, KEYS)
    assert f"limits left {len(picks.ids)} of 60 rows to pick" in picks.note
    rich = method(limits=Limits(group="group", quota=12, cost="cost", max_cost=6_000))
    with pytest.raises(ConfigError, match="leave room for 48 rows, and 60 are to be picked"):
        rich.select(*world.sides(2), 60, KEYS)


def test_groups_travel_only_where_a_slice_leaves_no_room_for_the_budget():
    world = World(7)
    part = world.sides()[0].parts[0]
    limits = Limits(group="group", quota=12)
    assert survey(part, 0, limits, 49).sizes.sum() == world.n
    assert survey(part, 0, limits, 48).is_enough
    assert not len(survey(part, 0, limits, 48).codes)
    assert not len(survey(part, 0, limits, None).codes)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_known", [0, 5])
def test_limits_may_leave_nothing_to_pick(method, num_known):
    limits = Limits(group="group", quotas=dict.fromkeys(range(4), 0), strict=False)
    picks = method(limits=limits).select(*World(8, num_known=num_known).sides(3), 9, KEYS)
    assert len(picks.ids) == 0
    assert "limits left 0 of 9 rows to pick" in picks.note


@pytest.mark.parametrize("method", [Badge, KMeansPP])
@pytest.mark.parametrize("num_known", [0, 12])
def test_draws_of_one_batch_are_not_alike(method, num_known):
    """Rows of 60 directions: far from each other, and no two of one may be picked."""
    rng = np.random.default_rng(0)
    world = World(9, n=600, num_known=num_known)
    of, directions = rng.integers(0, 60, 600 + num_known), rng.standard_normal((60, 5))
    world.x = (directions[of] * rng.lognormal(0, 1.5, (len(of), 1))).astype(np.float32)
    of_id = dict(zip(world.ids.tolist(), of.tolist(), strict=True))
    for seed in range(3):
        picks = method(limits=Limits(near=0.9999)).select(*world.sides(3), 40, Keys(seed, 0))
        there = [of_id[i] for i in [*picks.ids.tolist(), *world.ids[600:].tolist()]]
        drawn = len(picks.ids)
        assert len(set(there[:drawn])) == drawn == 40
        assert not set(there[:drawn]) & set(there[drawn:])
