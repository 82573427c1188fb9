"""A whole run of every strategy has one digest: local, in reverse, on 1, 2 and 4 workers."""

from __future__ import annotations

import pytest
from runs import FOR_NUMBERS, STRATEGIES, digest, plain_config, run

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ENGINES = {
    "reverse": ["+engine.reverse=true"],
    "ray-1": ["engine=ray", "engine.num_workers=1", "engine.num_cpus=0.25"],
    "ray-2": ["engine=ray", "engine.num_workers=2", "engine.num_cpus=0.25"],
    "ray-4": ["engine=ray", "engine.num_workers=4", "engine.num_cpus=0.25"],
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_engine_gives_the_local_digest(
    strategy, small_ray, class_pool, number_pool, tmp_path
):
    pool = number_pool if strategy in FOR_NUMBERS else class_pool
    kind = ["model.kind=number", "model.transform.column=features"]
    # Most rows are dropped on the way, by thresholds of many shards.
    config = plain_config(f"strategy={strategy}", f"pool.path={pool.path}")
    scored = "scorer" in config["strategy"]
    few = ["strategy.num_candidates=100"] if scored else []
    common = [
        f"pool.path={pool.path}", "model=mlp", "model.module.hidden=[16]", "num_rounds=3",
        "budget=12", "predictor.batch_rows=64", "trainer.min_steps=20", "trainer.num_members=3",
        f"strategy={strategy}", *few, *(kind if strategy in FOR_NUMBERS else []),
    ]  # fmt: skip
    assert run(*common, f"run_dir={tmp_path / 'local'}") == "done"
    expected = digest(tmp_path / "local")
    for name, engine in ENGINES.items():
        assert run(*common, *engine, f"run_dir={tmp_path / name}") == "done"
        assert digest(tmp_path / name) == expected, name
