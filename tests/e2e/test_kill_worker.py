"""SIGKILL of a scoring worker in three rounds of one run: it goes on, and the run is the same."""

from __future__ import annotations

import collections
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from runs import digest, run
from vendor import Vendor

from rayal.places import Place

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
BUDGET = 20
NUM_ROUNDS = 4
FAULTS = str(Path(__file__).parents[1] / "faults")


def _overrides(pool, run_dir: Path | str) -> list[str]:
    return [
        f"pool.path={pool.path}", "model=mlp", "model.module.hidden=[16]",
        f"num_rounds={NUM_ROUNDS}", f"budget={BUDGET}", "predictor.batch_rows=32",
        "trainer.min_steps=30", "strategy=cluster_margin", "strategy.num_candidates=300",
        "strategy.scorer._target_=faults.Slow", "labeler=file_drop", "poll_s=0.1",
        "labeler.columns=all", f"run_dir={run_dir}",
    ]  # fmt: skip


def _num_scored(run_dir: Path | str, t: int) -> int:
    names = [one.name for one in (Place.of(str(run_dir)) / "passes").list()]
    return sum(fnmatch(name, f"r{t:04d}-*/shard-*.arrow") for name in names)


@pytest.mark.parametrize(("seed", "place"), [(0, "disk"), (1, "store")])
def test_three_killed_workers_change_nothing(seed, place, class_pool, tmp_path, request):
    """Of a store: pool and run in a bucket, the ledger in PostgreSQL."""
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    with Vendor(class_pool, whole).at_work(0.01):
        assert run(*_overrides(class_pool, whole)) == "done"
    ray = [
        "engine=ray", "engine.num_workers=2", "engine.num_cpus=0.5", "engine.object_store_gib=0.1",
        f"engine.py_modules=[{FAULTS}]", "engine.timeout_s=120",
    ]  # fmt: skip
    rng = np.random.default_rng(seed)
    vendor = Vendor(class_pool, run_dir, seed)
    if place == "store":
        bucket, postgres = (request.getfixturevalue(name) for name in ("bucket", "postgres"))
        boxes = [f"labeler.{box}={run_dir}/labeler/{box}" for box in ("outbox", "inbox")]
        pool = bucket.take(class_pool.path, "three-workers/pool")
        ray += [f"pool.path={pool}", f"ledger_url={postgres}", *boxes]
        run_dir = f"{bucket.url}/three-workers/run"
        ray.append(f"run_dir={run_dir}")
    command = Command([*_overrides(class_pool, run_dir), *ray], tmp_path / "run.log")
    killed = []
    with vendor.at_work():
        for t in range(1, NUM_ROUNDS):  # the cold start of round 0 needs no model, and no time
            moment = int(rng.integers(1, 3))
            assert command.until(lambda t=t, at=moment: _num_scored(run_dir, t) >= at)
            workers = command.workers()
            victim = workers[int(rng.integers(len(workers)))]
            victim.kill()
            killed.append(victim.pid)
            assert _num_scored(run_dir, t) < len(class_pool.shards)  # it was still scoring
        assert command.wait() == 0, command.text()
    assert len(set(killed)) == 3
    assert digest(run_dir) == digest(whole)
    ordered = vendor.ordered()
    assert collections.Counter(ordered.values()) == {1: NUM_ROUNDS * BUDGET}
