"""Survivors files, slices and the taken rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from rayal.engine import survivors
from rayal.engine.local import finish_pass
from rayal.engine.scoring import PassState, ShardReport, Tallies
from rayal.engine.survivors import ListedCandidates, Rejected, Rows, SliceSpec, Taken, plan_slices
from rayal.errors import ScoringError
from rayal.ranking import Cut, best_rows, inside, order_key, sketch

_NONE = Rejected.of({})


def _rows(num_rows: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(10_000, num_rows, replace=False)).astype(np.int64)
    features = {
        "embeds": rng.normal(size=(num_rows, 3)).astype(np.float32),
        "draws": rng.normal(size=(num_rows, 2, 4)).astype(np.float32),
    }
    return Rows(ids, rng.integers(0, 5, num_rows) / 4.0, features)


def _report(shard: int, rows: Rows, labelled: Rows) -> ShardReport:
    found = sketch(rows.scores, rows.ids, 10)
    return ShardReport(shard, 50, 48, len(rows.ids), len(labelled.ids), found, (1, 2), 1, (7,))


def test_a_file_gives_back_what_was_written(tmp_path):
    rows, labelled = _rows(20, 0), _rows(3, 1)
    more = {
        **labelled.features,
        "label": np.array([0.0, 1.0, np.nan]),
        "pending": np.array([0, 0, 1], bool),
    }
    labelled = Rows(labelled.ids, labelled.scores, more)
    rejected = Rejected.of({9: "it is null", 7: "x" * 1_000})
    survivors.write(str(tmp_path), _report(4, rows, labelled), rows, labelled, rejected)
    read = survivors.read_rejected(str(tmp_path), 4)
    assert (read.ids.tolist(), read.reasons) == ([7, 9], ("x" * 200, "it is null"))
    for part, expected in (("candidates", rows), ("labelled", labelled)):
        got = SliceSpec(0, str(tmp_path), (4,), part, None).load()
        np.testing.assert_array_equal(got.ids, expected.ids)
        np.testing.assert_array_equal(got.scores, expected.scores)
        for name, array in expected.features.items():
            np.testing.assert_array_equal(got.feature(name), array)
            assert got.feature(name).shape == array.shape
    report = survivors.read_report(str(tmp_path), 4)
    assert report is not None
    assert (report.num_scored, report.rejected, report.class_counts) == (48, (7,), (1, 2))
    np.testing.assert_array_equal(report.sketch.ids, _report(4, rows, labelled).sketch.ids)
    assert survivors.read_report(str(tmp_path), 5) is None


def test_a_slice_holds_the_rows_inside_the_cut_with_ascending_ids(tmp_path):
    parts = [_rows(20, seed) for seed in (2, 3)]
    for shard, rows in enumerate(parts):
        survivors.write(str(tmp_path), _report(shard, rows, _rows(1, 9)), rows, _rows(1, 9), _NONE)
    cut = Cut(int(order_key(np.array([0.5]))[0]), 5_000)
    got = SliceSpec(0, str(tmp_path), (0, 1), "candidates", cut).load()
    ids = np.concatenate([rows.ids[inside(rows.scores, rows.ids, cut)] for rows in parts])
    np.testing.assert_array_equal(got.ids, np.sort(ids))
    assert (got.scores >= 0.5).all()


def test_a_damaged_file_is_named(tmp_path):
    survivors.path_of(str(tmp_path), 0).write_bytes(b"nothing")
    with pytest.raises(ScoringError, match=r"survivors of shard 0 cannot be read .* made anew"):
        SliceSpec(0, str(tmp_path), (0,), "candidates", None).load()


def test_slices_follow_row_counts_and_skip_empty_shards():
    specs = plan_slices([3, 0, 4, 10, 0, 2], "f", "candidates", None, rows_per_slice=6)
    assert [spec.shards for spec in specs] == [(0, 2), (3,), (5,)]
    assert [spec.key for spec in specs] == [0, 1, 2]
    assert [s.shards for s in plan_slices([5, 0], "f", "candidates", None, 100)] == [(0,)]
    assert plan_slices([0, 0], "f", "candidates", None) == []


def test_taken_rows_are_found_by_id(tmp_path):
    taken = Taken(
        np.array([3, 8, 20]), np.array([1.0, np.nan, 0.0]), np.array([False, True, False])
    )
    survivors.write_taken(tmp_path / "taken.arrow", taken)
    got = survivors.read_taken(str(tmp_path / "taken.arrow"))
    at, places = got.find(np.array([8, 4, 20, 99, -1]))
    assert (at.tolist(), places.tolist()) == ([0, 2], [1, 2])
    np.testing.assert_array_equal(got.labels, taken.labels)
    assert got.pending.tolist() == [False, True, False]
    nothing = Taken(np.empty(0, np.int64), np.empty(0), np.empty(0, bool))
    survivors.write_taken(tmp_path / "none.arrow", nothing)
    found = survivors.read_taken(str(tmp_path / "none.arrow")).find(np.array([1]))
    assert [len(one) for one in found] == [0, 0]


def test_a_threshold_on_the_way_never_drops_a_row_of_the_top(tmp_path):
    rng = np.random.default_rng(5)
    ids = rng.permutation(4_000)
    scores = rng.integers(0, 7, 4_000) / 6.0  # ties everywhere
    best = set(ids[best_rows(scores, ids, 300)].tolist())
    state = PassState(300)
    for shard in range(20):
        at = slice(shard * 200, shard * 200 + 200)
        cut = state.cut()
        kept = np.ones(200, bool) if cut is None else inside(scores[at], ids[at], cut)
        assert best & set(ids[at].tolist()) <= set(ids[at][kept].tolist())
        part = sketch(scores[at][kept], ids[at][kept], 300)
        state.record(ShardReport(shard, 200, 200, int(kept.sum()), 0, part))
    assert state.cut() is not None


def test_a_shard_that_was_done_twice_counts_once():
    state = PassState(10)
    report = ShardReport(0, 5, 5, 5, 0, sketch(np.arange(5.0), np.arange(5), 10), (2, 3))
    state.record(report)
    state.record(report)
    assert state.cut() is None  # five rows are known, not ten
    assert Tallies.of(state.reports.values()) == Tallies(5, 5, (2, 3))


def test_a_shard_done_again_after_a_merge_counts_once():
    def report(shard, scores):
        ids = 10 * shard + np.arange(len(scores))
        found = sketch(np.asarray(scores, float), ids, 4)
        return ShardReport(shard, 5, 5, 5, 0, found)

    state = PassState(4)
    state.record(report(0, [9, 8]))
    assert state.cut() is None
    state.record(report(0, [9, 8]))
    assert state.cut() is None
    assert state.last_cut() is None
    state.record(report(1, [7, 6, 5]))
    assert state.cut() == Cut(int(order_key(np.array([6.0]))[0]), 11)
    state.record(report(1, [7, 6, 5]))
    assert state.last_cut() == Cut(int(order_key(np.array([6.0]))[0]), 11)


def test_the_last_cut_knows_every_shard():
    state = PassState(50)
    for shard in range(200):
        ids = 100 * shard + np.arange(100)
        scores = np.full(100, float(shard))
        state.record(ShardReport(shard, 100, 100, 100, 0, sketch(scores, ids, 50)))
        if shard == 198:
            state.cut()
    stale = Cut(int(order_key(np.array([198.0]))[0]), 19_849)
    assert state.cut() == stale  # one shard more is not worth a merge
    assert state.last_cut() == Cut(int(order_key(np.array([199.0]))[0]), 19_949)
    assert PassState(None).last_cut() is None


def test_only_rows_that_may_be_among_the_best_are_asked_for_the_exact_cut(tmp_path):
    """The first of many shards leave all their rows."""
    state = PassState(30)
    asked = []
    for shard in range(8):
        rows = _rows(60, shard)
        rows = Rows(rows.ids + 10_000 * shard, rows.scores + shard, rows.features)
        found = sketch(rows.scores, rows.ids, 30)
        report = ShardReport(shard, 60, 60, 60, 0, found)
        survivors.write(str(tmp_path), report, rows, _rows(1, 9), _NONE)
        state.record(report)

    def listed(specs):
        made = ListedCandidates([spec.load() for spec in specs])
        asked.append(made.num_rows)
        return made

    scoring = SimpleNamespace(keep=30, folder=str(tmp_path))
    done = finish_pass(state, scoring, listed)
    assert done.candidates.num_rows == 30
    assert asked[0] < 60  # of 480
    assert {int(i) // 10_000 for part in done.candidates.slices for i in part.ids} == {7}


@pytest.mark.parametrize("num_taken", [0, 1, 40, 900])
def test_taken_rows_are_found_in_any_batch(num_taken):
    rng = np.random.default_rng(num_taken)
    ids = np.sort(rng.choice(2000, num_taken, replace=False)) - 500
    taken = Taken(ids, np.zeros(num_taken), np.zeros(num_taken, bool))
    place = {sample_id: at for at, sample_id in enumerate(ids.tolist())}
    for batch in (np.arange(-400, -300), rng.permutation(3000) - 700, np.array([5000]), ids[:0]):
        found = dict(zip(*(one.tolist() for one in taken.find(batch)), strict=True))
        expected = {at: place[one] for at, one in enumerate(batch.tolist()) if one in place}
        assert found == expected
        assert list(found) == sorted(found)


@pytest.mark.parametrize("damage", ["cut short", "a changed byte", "an empty file", "no end"])
def test_survivors_that_a_power_cut_damaged_are_made_again(tmp_path, damage):
    rows = Rows(np.arange(50), np.linspace(0, 1, 50), {})
    report = ShardReport(0, 50, 50, 50, 0, sketch(rows.scores, rows.ids, 10))
    survivors.write(str(tmp_path), report, rows, rows, _NONE)
    path = survivors.path_of(str(tmp_path), 0)
    whole = path.read_bytes()
    assert survivors.read_report(str(tmp_path), 0).num_kept == 50
    half = len(whole) // 2
    changed = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
    path.write_bytes(
        {"cut short": whole[:half], "a changed byte": changed, "an empty file": b"",
         "no end": whole[:-10]}[damage]
    )  # fmt: skip
    assert survivors.read_report(str(tmp_path), 0) is None
    survivors.write(str(tmp_path), report, rows, rows, _NONE)
    assert path.read_bytes() == whole
