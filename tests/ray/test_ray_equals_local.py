"""The Ray engine gives the local engine's picks, for every strategy and any number of workers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from passes import stage_for
from runs import STRATEGIES, digest, run

from rayal.engine.local import LocalEngine
from rayal.engine.ray import RayEngine

pytestmark = pytest.mark.ray
BUDGET = 12
NUM_CANDIDATES = 100


@pytest.fixture(scope="module")
def engines(small_ray, class_stage, number_stage):
    """Open engines by (stage, name): local, and Ray with 1, 2 and 4 workers, one in reverse."""
    made = {}
    for stage_name, stage in (("class_stage", class_stage), ("number_stage", number_stage)):
        loop = stage.loop("random")
        for name, engine in (
            ("local", LocalEngine()),
            ("ray-1", RayEngine(num_workers=1, num_cpus=0.25)),
            ("ray-2-reverse", RayEngine(num_workers=2, num_cpus=0.25, reverse=True)),
            ("ray-4", RayEngine(num_workers=4, num_cpus=0.25)),
        ):
            engine.open(stage.pool, loop.predictor, loop.trainer)
            made[stage_name, name] = engine
    yield made
    for engine in made.values():
        engine.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_picks_as_the_local_engine(strategy, engines, request, tmp_path):
    stage_name = stage_for(strategy)
    stage = request.getfixturevalue(stage_name)
    parts = stage.loop(strategy).strategy
    if parts.scorer is not None:  # most rows are dropped on the way, by thresholds of many shards
        parts = replace(parts, num_candidates=NUM_CANDIDATES)
    found = {}
    for (which, name), engine in engines.items():
        if which == stage_name:
            done, picks = stage.select(engine, parts, tmp_path / name, BUDGET)
            found[name] = (done.tallies, picks)
            num_left = stage.pool.num_rows - len(stage.taken.ids)
            assert done.candidates.num_rows == (parts.keep(BUDGET) or num_left)
    tallies, local = found.pop("local")
    assert set(found) == {"ray-1", "ray-2-reverse", "ray-4"}
    for name, (other_tallies, picks) in found.items():
        assert picks.ids.tolist() == local.ids.tolist(), name
        np.testing.assert_array_equal(picks.keys, local.keys)
        np.testing.assert_array_equal(picks.scores, local.scores)
        assert picks.reasons == local.reasons
        assert other_tallies == tallies


WHOLE_RUNS = {
    "badge": ["strategy=badge"],
    "few candidates": ["strategy=cluster_margin", "strategy.num_candidates=60"],
    "dropout draws": [
        "strategy=bald", "predictor.num_draws=4", "model.module.dropout=0.2",
        "strategy.num_candidates=60",
    ],
    "multilabel": ["strategy=power_margin", "model.kind=multilabel", "strategy.num_candidates=60"],
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE_RUNS)
def test_a_whole_run_has_the_local_digest(case, small_ray, class_pool, multilabel_pool, tmp_path):
    pool = multilabel_pool if case == "multilabel" else class_pool
    common = [
        f"pool.path={pool.path}", "model=mlp", "model.module.hidden=[16]", "num_rounds=3",
        "budget=15", "predictor.batch_rows=64", "trainer.min_steps=30", *WHOLE_RUNS[case],
    ]  # fmt: skip
    assert run(*common, f"run_dir={tmp_path / 'local'}") == "done"
    ray = ["engine=ray", "engine.num_workers=2", "engine.num_cpus=0.5"]
    assert run(*common, *ray, f"run_dir={tmp_path / 'ray'}") == "done"
    assert digest(tmp_path / "local") == digest(tmp_path / "ray")
