"""Every strategy in conf/ through its Protocols."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from passes import stage_for
from runs import STRATEGIES

from rayal.engine import survivors
from rayal.engine.local import LocalEngine

BUDGET = 12


def _engine(stage, loop, reverse=False):
    engine = LocalEngine(reverse)
    engine.open(stage.pool, loop.predictor, loop.trainer)
    return engine


@pytest.mark.parametrize("name", STRATEGIES)
def test_picks_are_a_set_of_candidates_and_a_function_of_the_keys(name, request, tmp_path):
    stage = request.getfixturevalue(stage_for(name))
    loop = stage.loop(name)
    done, picks = stage.select(_engine(stage, loop), loop.strategy, tmp_path / "a", BUDGET)

    assert picks.ids.dtype == np.int64
    assert len(set(picks.ids.tolist())) == BUDGET
    assert not np.isin(picks.ids, stage.taken.ids).any()
    candidates = np.concatenate([one.ids for one in done.candidates.slices])
    assert np.isin(picks.ids, candidates).all()
    num_left = stage.pool.num_rows - len(stage.taken.ids)
    if loop.strategy.restriction is not None:
        assert BUDGET < len(candidates) < num_left
    else:
        assert len(candidates) == num_left
    for array in (picks.scores, picks.keys, picks.probabilities):
        assert array.dtype == np.float64
        assert array.shape == (BUDGET,)
    assert np.isfinite(picks.scores).all()
    assert np.isfinite(picks.keys).all()
    assert all(picks.reasons)
    assert len(picks.reasons) == BUDGET
    scores = {
        int(i): s
        for one in done.candidates.slices
        for i, s in zip(one.ids, one.scores, strict=True)
    }
    assert [scores[int(i)] for i in picks.ids] == picks.scores.tolist()

    again = stage.select(_engine(stage, loop, True), loop.strategy, tmp_path / "b", BUDGET)[1]
    np.testing.assert_array_equal(picks.ids, again.ids)  # shards in reverse: the same
    np.testing.assert_array_equal(picks.keys, again.keys)


@pytest.mark.parametrize("name", STRATEGIES)
def test_how_rows_are_sliced_does_not_matter(name, request, tmp_path, monkeypatch):
    stage = request.getfixturevalue(stage_for(name))
    loop = stage.loop(name)
    found = []
    for place, rows_per_slice in enumerate((1, 300, 65_536)):
        monkeypatch.setattr(survivors.plan_slices, "__defaults__", (rows_per_slice,))
        engine = _engine(stage, loop)
        done, picks = stage.select(engine, loop.strategy, tmp_path / str(place), BUDGET)
        found.append((len(done.candidates.slices), picks.ids.tolist()))
    counts = [num_slices for num_slices, _ in found]
    assert counts[0] == len(stage.pool.shards) > counts[1] > counts[2] == 1
    assert found[0][1] == found[1][1] == found[2][1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_few_candidates_are_the_best_scored_rows_of_all(name, request, tmp_path):
    stage = request.getfixturevalue(stage_for(name))
    loop = stage.loop(name)
    if loop.strategy.scorer is None:
        pytest.skip("every row is a candidate where nothing scores")
    engine = _engine(stage, loop)
    every = stage.select(engine, loop.strategy, tmp_path / "all", BUDGET)[0].candidates.slices
    ids = np.concatenate([one.ids for one in every])
    scores = np.concatenate([one.scores for one in every])
    few = replace(loop.strategy, num_candidates=70)
    kept = stage.select(engine, few, tmp_path / "few", BUDGET)[0].candidates.slices
    best = ids[np.lexsort((ids, -scores))[:70]]
    assert sorted(np.concatenate([one.ids for one in kept])) == sorted(best)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_budget_above_the_candidates_takes_them_all(name, request, tmp_path):
    stage = request.getfixturevalue(stage_for(name))
    loop = stage.loop(name)
    num_left = stage.pool.num_rows - len(stage.taken.ids)
    _, picks = stage.select(_engine(stage, loop), loop.strategy, tmp_path, num_left + 5)
    limits = getattr(loop.strategy.selector, "limits", None)
    if limits is not None and limits.compared:  # rows like others are left out
        assert BUDGET < len(picks.ids) < num_left
        assert f"{len(picks.ids)} of {num_left} rows" in picks.note
        return
    assert len(picks.ids) == num_left
