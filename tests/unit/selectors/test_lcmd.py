import json
import math

import numpy as np
import pytest
import torch
from slices import Slices, cut, labelled, none_labelled

from rayal.errors import ConfigError, NeedsError, ScoringError
from rayal.journal import Journal
from rayal.keys import Keys
from rayal.selectors import clusters, lcmd
from rayal.selectors.cluster_sizes import Sizes, limbs
from rayal.selectors.farthest import fit_space
from rayal.selectors.lcmd import LCMD
from rayal.selectors.space import sample_of
from rayal.types import Slice

KEYS = Keys(1, 0)
KINDS = ("gauss", "clusters", "lattice", "duplicates", "far", "offset", "speck", "int8")


class World:
    """Candidates and labelled rows of some kind, and the plain method over all their pairs."""

    def __init__(self, kind, seed, num_rows=300, num_known=9, width=4):
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        n = num_rows + num_known
        rows = rng.standard_normal((n, width))
        if kind == "clusters":
            rows = 9.0 * rng.standard_normal((8, width))[rng.integers(0, 8, n)] + rows
        elif kind == "lattice":
            rows = rng.integers(-2, 3, (n, width)) / 2.0
        elif kind == "duplicates":
            rows = rows[rng.integers(0, max(1, n // 5), n)]
        elif kind == "far":
            rows *= np.exp(4.0 * rng.standard_normal((n, 1)))
        elif kind == "offset":
            rows += 1e6
        elif kind == "speck":  # most rows lie in one, whose clusters have sizes all the same
            rows[rng.random(n) < 0.95] *= 1e-9
        self.rows = rows.astype(np.float64 if kind in ("offset", "speck") else np.float32)
        if kind == "int8":
            self.rows = np.rint(12.0 * rows).clip(-127, 127).astype(np.int8)
        self.ids = rng.choice(np.arange(-5 * n, 5 * n), n, replace=False)
        self.label = rng.standard_normal(num_known)
        self.label[::3] = np.nan
        self.scores = rng.random(num_rows)
        self.n = num_rows

    def sides(self, num_slices=1, seed=None, known_slices=1):
        mine, known = self.rows[: self.n], self.rows[self.n :]
        side = labelled(self.ids[self.n :], {"embeds": known}, self.label).parts[0]
        return (
            cut(self.ids[: self.n], self.scores, {"embeds": mine}, num_slices, seed),
            cut(side.ids, None, side.features, known_slices, known_slices),  # dealt: not in order
        )

    def plain(self, budget, first=None, of=lambda rows: rows.astype(np.float64)):
        """Gives ids, distances and centers; `first` is picked where nothing is labelled."""
        rows, ids = of(self.rows), self.ids
        known = self.n + np.argsort(ids[self.n :])
        centers, near, owner = [], np.full(self.n, np.inf), np.full(self.n, -1)
        left = np.ones(self.n, bool)
        picked = []

        def add(row):
            centers.append(row)
            squared = np.square(rows[: self.n] - rows[row]).sum(axis=1)
            closer = squared < near
            near[closer], owner[closer] = squared[closer], len(centers) - 1

        for row in known:
            add(row)
        for _ in range(min(budget, self.n)):
            if not centers:
                best, told = int(np.flatnonzero(ids[: self.n] == first)[0]), (math.nan, None)
            else:
                there = np.unique(owner[left])
                sizes = [math.fsum(near[left & (owner == one)]) for one in there]
                largest = there[int(np.argmax(sizes))]  # the first of equals
                mine = np.flatnonzero(left & (owner == largest))
                best = max(mine, key=lambda row: (near[row], -ids[row]))
                told = math.sqrt(near[best]), ids[centers[largest]]
            picked.append((ids[best], *told))
            left[best] = False
            add(best)
        return picked


def select(world, budget, *how, selector=None):
    return (selector or LCMD(precision="float")).select(*world.sides(*how), budget, KEYS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_known", [0, 9])
@pytest.mark.parametrize("seed", range(4))
def test_picks_are_those_of_the_plain_method(kind, num_known, seed):
    world = World(kind, seed, num_known=num_known)
    picks = select(world, 80)
    first = picks.ids[0]
    plain = world.plain(80, first)
    assert picks.ids.tolist() == [one[0] for one in plain]
    assert picks.note.startswith("mode f")
    after = slice(0 if num_known else 1, None)
    np.testing.assert_allclose(
        picks.keys[after], [one[1] for one in plain][after], rtol=1e-6, atol=1e-12
    )
    assert picks.details["nearest_id"].tolist()[after] == [one[2] for one in plain][after]
    score = dict(zip(world.ids[: world.n], world.scores, strict=True))
    assert picks.scores.tolist() == [score[i] for i in picks.ids]


@pytest.mark.parametrize("seed", range(2))
def test_picks_are_those_of_the_plain_method_on_2000_rows(seed):
    world = World("clusters", seed, num_rows=2_000, num_known=40, width=16)
    assert select(world, 150, 3, 1).ids.tolist() == [one[0] for one in world.plain(150)]


@pytest.mark.parametrize("kind", ["gauss", "clusters", "int8"])
@pytest.mark.parametrize("num_known", [0, 30])
def test_on_integers_picks_are_those_of_the_plain_method_on_the_same_integers(kind, num_known):
    world = World(kind, 5, num_rows=600, num_known=num_known)
    rows, known = world.sides()
    names = (("embeds",), (False,))
    space, note = fit_space(*names, rows, known, sample_of(rows, ("embeds",), 0), 90, None)
    assert note.startswith("mode q")
    picks = select(world, 90, selector=LCMD())
    plain = world.plain(90, picks.ids[0], lambda values: space.encode(values).astype(np.float64))
    assert picks.ids.tolist() == [one[0] for one in plain]
    assert picks.note.startswith(note)


@pytest.mark.parametrize("kind", ["clusters", "lattice"])
def test_labelled_rows_may_come_in_many_blocks(kind, monkeypatch):
    world = World(kind, 8, num_known=40)
    monkeypatch.setattr("rayal.selectors.farthest._CENTERS", 3)
    monkeypatch.setattr(lcmd, "BLOCK_CENTERS", 2)
    assert select(world, 50, 2, 0, 4).ids.tolist() == [one[0] for one in world.plain(50)]


def test_without_labelled_rows_the_first_is_the_farthest_from_the_mean():
    world = World("clusters", 3, num_known=0)
    picks = select(world, 2)
    rows = world.rows[: world.n].astype(np.float64)
    off = np.square(rows - rows.mean(axis=0)).sum(axis=1)
    assert picks.ids[0] == world.ids[: world.n][off.argmax()]
    assert picks.keys[0] == pytest.approx(math.sqrt(off.max()))
    assert picks.reasons[0].startswith("rank 1: nothing is labelled yet, and it is farthest")
    assert picks.details["nearest_id"][1] == picks.ids[0]
    assert "labelled_distance" not in picks.details


@pytest.mark.parametrize("selector", [LCMD(), LCMD(precision="float")], ids=repr)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_known", [0, 9])
def test_no_slicing_and_no_order_changes_a_pick(selector, kind, num_known):
    world = World(kind, 11, num_known=num_known)
    first = select(world, 60, selector=selector)
    for how in ((3, None, 2), (7, None, 3), (3, 1, 9)):
        again = select(world, 60, *how, selector=selector)
        assert again.ids.tolist() == first.ids.tolist()
        assert again.keys.tobytes() == first.keys.tobytes()
        assert again.reasons == first.reasons
        for name, values in first.details.items():
            assert again.details[name].tobytes() == values.tobytes()
    order = np.random.default_rng(3).permutation(world.n)
    for array in (world.ids, world.rows, world.scores):
        array[: world.n] = array[: world.n][order]
    back = np.arange(world.n, len(world.ids))[::-1].copy()  # labelled rows, too, and their labels
    world.ids[world.n :], world.rows[world.n :] = world.ids[back], world.rows[back]
    world.label = world.label[::-1]
    assert select(world, 60, 2, 5, selector=selector).ids.tolist() == first.ids.tolist()


def test_many_small_worlds():
    rng = np.random.default_rng(0)
    for turn in range(84):
        kind = KINDS[turn % len(KINDS)]
        num_rows, num_known = int(rng.integers(1, 40)), int(rng.integers(0, 6))
        world = World(kind, turn, num_rows, num_known, width=int(rng.integers(1, 5)))
        budget = int(rng.integers(1, num_rows + 3))
        how = int(rng.integers(1, 9)), turn, int(rng.integers(1, 4))
        picks = select(world, budget, *how)
        plain = world.plain(budget, picks.ids[0])
        assert picks.ids.tolist() == [one[0] for one in plain], (turn, kind)
        whole = select(world, budget, selector=LCMD())
        assert select(world, budget, *how, selector=LCMD()).ids.tolist() == whole.ids.tolist()


@pytest.mark.parametrize("num_known", [0, 5])
def test_pending_rows_are_picks_already(num_known):
    world = World("clusters", 7, num_known=num_known)
    both = select(world, 30).ids
    gone = np.isin(world.ids, both[:12])
    order = np.concatenate([np.flatnonzero(~gone[: world.n]), np.flatnonzero(gone)])
    order = np.concatenate([order, np.arange(world.n, len(world.ids))])
    world.ids, world.rows = world.ids[order], world.rows[order]
    world.n, world.scores = world.n - 12, np.zeros(world.n - 12)
    world.label = np.concatenate([np.full(12, np.nan), world.label])
    assert select(world, 18, 2).ids.tolist() == both[12:].tolist()


def test_the_largest_cluster_is_not_that_of_the_farthest_row():
    """Where k-center takes the outlier, the crowd that is worst covered comes first."""
    crowd = np.stack([np.linspace(1.0, 2.0, 100), np.zeros(100)], axis=1)
    rows = np.concatenate([crowd, [[100.0, 3.0]]]).astype(np.float32)
    known = np.array([[0.0, 0.0], [100.0, 0.0]], np.float32)
    picks = LCMD(precision="float").select(
        cut(np.arange(101), features={"embeds": rows}),
        labelled(np.array([500, 501]), {"embeds": known}),
        2,
        KEYS,
    )
    assert picks.ids.tolist() == [99, 1]  # 0 is as near to the labelled row as to 99
    assert picks.details["cluster"].tolist() == [0, 2]
    assert picks.details["nearest_id"].tolist() == [500, 99]
    np.testing.assert_allclose(picks.details["labelled_distance"], [2.0, crowd[1, 0]])
    size = np.square(crowd[:, 0]).sum()
    assert picks.reasons[0] == (
        "rank 1: 2 from its center, farthest of the largest cluster (100 rows, squared distances "
        f"{size:.6g})"
    )


def test_equal_rows_are_all_picked_by_id():
    world = World("gauss", 3, num_rows=10, num_known=2)
    world.rows[:] = 0.25
    picks = select(world, 10, 3)
    assert picks.ids.tolist() == sorted(world.ids[:10])
    none = World("gauss", 3, num_rows=10, num_known=0)
    none.rows[:] = 0.25
    assert select(none, 12, 4).ids.tolist() == sorted(none.ids[:10])


def test_small_worlds():
    world = World("gauss", 3, num_rows=6, num_known=3)
    assert sorted(select(world, 100, 9).ids) == sorted(world.ids[:6])
    assert len(select(world, 0).ids) == 0
    assert len(select(World("gauss", 3, num_rows=0, num_known=3), 5, 2).ids) == 0
    assert len(select(World("gauss", 3, num_rows=1, num_known=0), 1).ids) == 1


@pytest.mark.parametrize("selector", [LCMD(), LCMD(precision="float")], ids=repr)
def test_an_empty_slice_may_carry_no_features(selector):
    world = World("clusters", 3)
    first = selector.select(*world.sides(2), 20, KEYS)
    rows, known = world.sides(2)
    nothing = Slice(2, np.empty(0, np.int64), np.empty(0), {})
    again = selector.select(Slices([nothing, *rows.parts]), known, 20, KEYS)
    assert again.ids.tolist() == first.ids.tolist()


@pytest.mark.parametrize("selector", [LCMD(), LCMD(precision="float")], ids=repr)
@pytest.mark.parametrize("num_known", [0, 9])
@pytest.mark.parametrize("lines", [1, 2, 17, 60])
def test_a_driver_that_died_goes_on_where_it_stood(selector, num_known, lines, tmp_path):
    world = World("lattice" if selector.precision else "clusters", 2, num_known=num_known)
    path = tmp_path / "picks.jsonl"

    def run(num_slices):
        rows, known = world.sides(num_slices, known_slices=2)
        rows.journal = Journal(path)
        return selector.select(rows, known, 60, KEYS)

    whole = run(3)
    written = path.read_text().splitlines(keepends=True)
    assert len(written) == 61
    path.write_text("".join(written[: 1 + lines]) + '{"picks": [[1')  # cut in mid-line
    again = run(5)
    assert again.ids.tolist() == whole.ids.tolist()
    assert again.keys.tobytes() == whole.keys.tobytes()
    assert again.reasons == whole.reasons
    for name, values in whole.details.items():
        assert again.details[name].tobytes() == values.tobytes()
    assert path.read_text().splitlines(keepends=True) == written
    other = LCMD(precision="integer" if selector.precision else "float")
    rows, known = world.sides(2)
    rows.journal = Journal(path)
    other.select(rows, known, 5, KEYS)  # another selection's journal is written over
    assert len(path.read_text().splitlines()) == 6
    assert json.loads(path.read_text().splitlines()[0])[0] == repr(other)


def test_clusters_that_a_pick_cannot_reach_are_not_measured(monkeypatch):
    world = World("clusters", 0, num_rows=2_000, num_known=20, width=8)
    few = select(world, 200)
    assert int(few.note.split("; ")[-1].split()[0].replace(",", "")) < 0.5 * 2_000 * 220
    form = clusters.Clusters.form

    def blind(self, taken, most):
        change = form(self, taken, most)
        self.reach = np.inf  # every cluster is looked at
        return change

    monkeypatch.setattr(clusters.Clusters, "form", blind)
    every = select(world, 200)
    assert every.ids.tolist() == few.ids.tolist()
    assert every.keys.tobytes() == few.keys.tobytes()


@pytest.mark.parametrize("selector", [LCMD(), LCMD(precision="float")], ids=repr)
@pytest.mark.parametrize("kind", ["clusters", "offset", "far"])
def test_all_rows_at_once_or_those_in_reach_are_the_same(selector, kind, monkeypatch):
    world = World(kind, 6, num_rows=1_000)
    first = select(world, 100, 2, selector=selector)
    for share in (-1.0, 2.0):
        monkeypatch.setattr(clusters, "_DENSE", share)
        again = select(world, 100, 2, selector=selector)
        assert again.ids.tolist() == first.ids.tolist()
        assert again.keys.tobytes() == first.keys.tobytes()


@pytest.mark.parametrize("power", [-480, -60, -20, 20, 60, 480])
@pytest.mark.parametrize("kind", ["clusters", "lattice"])
def test_units_change_no_pick(kind, power):
    """Squares of such numbers do not fit float32."""
    world = World(kind, 1)
    world.rows = world.rows.astype(np.float64)
    first = select(world, 60)
    world.rows *= 2.0**power
    again = select(world, 60, 3)
    assert again.ids.tolist() == first.ids.tolist()
    assert (again.keys == first.keys * 2.0**power).all()


@pytest.mark.parametrize("dtype", [np.float16, np.int16, np.int32, np.float64])
@pytest.mark.parametrize("layout", ["plain", "by column", "mapped"])
def test_features_may_lie_in_any_form(dtype, layout, tmp_path):
    world = World("lattice", 4)
    world.rows = (world.rows * 6).astype(dtype)
    plain = [one[0] for one in world.plain(40)]
    for selector in (LCMD(precision="float"), LCMD(precision="integer")):
        rows, known = world.sides(2)
        for part in rows.parts:
            values = part.features["embeds"]
            if layout == "by column":
                values = np.asfortranarray(values)
            elif layout == "mapped":
                np.save(tmp_path / "rows.npy", values)
                values = np.load(tmp_path / "rows.npy", mmap_mode="r")
                (tmp_path / "rows.npy").unlink()
            part.features = {"embeds": values}
        picks = selector.select(rows, known, 40, KEYS)
        if selector.precision == "float":
            assert picks.ids.tolist() == plain
        else:
            assert picks.ids.tolist() == select(world, 40, selector=selector).ids.tolist()


@pytest.mark.parametrize("watched", [1, 1_000])
def test_what_is_watched_changes_no_pick(watched, monkeypatch):
    world = World("gauss", 4)
    first = select(world, 100, 3)
    monkeypatch.setattr(lcmd, "_WATCHED", watched)
    again = select(world, 100, 3)
    assert again.ids.tolist() == first.ids.tolist()
    assert again.reasons == first.reasons


def test_one_question_a_pick_is_the_rule():
    world = World("clusters", 1, num_rows=1_000, num_known=10)
    rows, known = world.sides(3)
    LCMD(precision="float").select(rows, known, 200, KEYS)
    assert len(rows.steps) < 200 + 40


def test_sums_are_exact():
    rng = np.random.default_rng(0)
    squared = 4.0 * rng.random(1_000) ** 12
    sizes = Sizes(3, 4)
    cut_up = np.stack(limbs(squared, 4), axis=1)
    back = [sum(int(one) << (26 * (3 - j)) for j, one in enumerate(row)) for row in cut_up]
    exact = [int(math.ldexp(one, 101)) for one in squared]  # to 2^-101
    assert back == exact
    for order in (slice(None), slice(None, None, -1)):
        sums = cut_up[order].astype(np.int64)
        for at in range(0, 1_000, 7):
            few = sums[at : at + 7]
            sizes.learn([clusters.Change(np.array([1]), few.sum(0)[None], np.array([len(few)]))])
    assert sizes.size(1) == pytest.approx(2.0 * math.fsum(squared), rel=1e-15)
    assert sizes.counts.tolist() == [0, 2_000, 0]
    one_more = np.zeros((1, 4), np.int64)
    total = sizes._limbs[1:2].copy()
    one_more[0, 3] = 1
    sizes.learn([clusters.Change(np.array([0]), total, np.array([1]))])
    assert sizes.largest() == 0  # of equals the first
    sizes.learn([clusters.Change(np.array([2]), total + one_more, np.array([1]))])
    assert sizes.largest() == 2  # larger by 2^-101
    sizes.learn([clusters.Change(np.array([2]), -total - one_more, np.array([-1]))])
    assert sizes.largest() == 0
    assert sizes.watched(9).tolist() == [0, 1]


def test_sizes_are_compared_by_their_sums_and_not_by_the_limbs_of_their_parts():
    half = 2.0**-24  # of the last bit of the first limb: two of them carry into it

    def largest_of(*sizes):
        driver = Sizes(2, 4)
        for cluster, squared in enumerate(sizes):
            sums = np.stack(limbs(np.array(squared), 4), axis=1).astype(np.int64).sum(axis=0)
            change = clusters.Change(np.array([cluster]), sums[None], np.array([len(squared)]))
            driver.learn([change])
        return driver.largest()

    assert largest_of([1.0 + half, 1.0 + half], [1.0 + 2 * half, 1.0]) == 0  # of equals the first
    assert largest_of([1.0 + 2 * half, 1.0], [1.0 + half, 1.0 + half]) == 0
    assert largest_of([1.0 + 2 * half, 1.0], [1.0 + half, 1.0 + half, 2.0**-60]) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("num_known", [0, 30])
def test_a_gpu_gives_the_picks_of_the_cpu(num_known, monkeypatch):
    world = World("clusters", 5, num_rows=2_000, num_known=num_known, width=16)
    on_gpu = select(world, 90, 3, selector=LCMD(precision="integer"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = select(world, 90, 3, selector=LCMD(precision="integer"))
    assert on_gpu.ids.tolist() == on_cpu.ids.tolist()
    assert on_gpu.keys.tobytes() == on_cpu.keys.tobytes()


def test_bad_features_and_arguments_are_refused():
    world = World("gauss", 0, num_rows=20)
    world.rows[3, 1] = np.nan
    for selector in (LCMD(), LCMD(precision="float")):
        with pytest.raises(ScoringError, match=r"'embeds' of .* rows holds NaN"):
            select(world, 3, 2, selector=selector)
    with pytest.raises(NeedsError, match="slice 0 carries no 'embeds'"):
        LCMD().select(cut(np.arange(3)), none_labelled(), 1, KEYS)
    with pytest.raises(ConfigError, match=r"LCMD\.feature is 'label'"):
        LCMD(feature="label")
    with pytest.raises(ConfigError, match=r"LCMD\.precision is 'double'"):
        LCMD(precision="double")
    assert LCMD(feature="grads").needs == ("grads",)


def test_a_column_of_numbers_is_a_feature():
    column = np.array([0, 9, 4, 5], np.int8)
    rows = cut(np.arange(4), features={"age": column}, num_slices=2)
    known = labelled(np.array([10]), {"age": np.array([1], np.int8)}, label=np.zeros(1))
    picks = LCMD(feature="age").select(rows, known, 2, KEYS)
    assert picks.ids.tolist() == [1, 3]
    assert picks.keys.tolist() == [8.0, 4.0]
