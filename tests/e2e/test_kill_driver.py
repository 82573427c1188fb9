"""SIGKILL of the whole process, then the same command again: the same run, ordered once."""

from __future__ import annotations

import collections
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from buckets import Bucket
from commands import Command, left_over, num_steps
from runs import digest, run
from vendor import Vendor

BUDGET = 20
NUM_ROUNDS = 4
FAULTS = str(Path(__file__).parents[1] / "faults")


def _overrides(pool, run_dir: Path | str) -> list[str]:
    return [
        f"pool.path={pool.path}", "model=mlp", "model.module.hidden=[16]",
        f"num_rounds={NUM_ROUNDS}", f"budget={BUDGET}", "predictor.batch_rows=64",
        "trainer.min_steps=30", "strategy=cluster_margin", "strategy.num_candidates=300",
        "strategy.scorer._target_=faults.Slow", "labeler=file_drop", "labeler.columns=all",
        "labeler.rows_per_chunk=8", "poll_s=0.1", f"run_dir={run_dir}",
    ]  # fmt: skip


def _ray(num_workers: int) -> list[str]:
    return [
        "engine=ray", f"engine.num_workers={num_workers}", "engine.num_cpus=0.5",
        "engine.object_store_gib=0.1", f"engine.py_modules=[{FAULTS}]", "engine.timeout_s=120",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(class_pool, tmp_path_factory) -> tuple[str, int]:
    """Digest and number of steps of a run that nobody killed, in this process."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    with Vendor(class_pool, run_dir).at_work(0.01):
        assert run(*_overrides(class_pool, run_dir)) == "done"
    return digest(run_dir), num_steps(run_dir)


def _killed_at(
    moments,
    engines,
    pool,
    tmp_path: Path,
    seed: int,
    orphans: list[psutil.Process],
    run_dir: Path | str | None = None,
) -> tuple[str, Vendor, int]:
    """Kills attempt i once the ledger has `moments[i]` steps and a little time has passed; the last
    attempt is left in peace. Gives digest, vendor and how many kills hit."""
    run_dir = tmp_path / "run" if run_dir is None else run_dir
    vendor, rng = Vendor(pool, tmp_path / "run", seed), np.random.default_rng(seed)
    num_kills = 0
    with vendor.at_work():
        for number, (moment, engine) in enumerate(zip(moments, engines, strict=True)):
            command = Command([*_overrides(pool, run_dir), *engine], tmp_path / f"{number}.log")
            if command.until(lambda least=moment: num_steps(run_dir) >= least):
                time.sleep(rng.uniform(0, 0.5))
            orphans += command.kill()
            num_kills += command.process.returncode == -9
        last = Command([*_overrides(pool, run_dir), *engines[-1]], tmp_path / "last.log")
        assert last.wait() == 0, last.text()
    assert f"{run_dir}: done" in last.text()
    return digest(run_dir), vendor, num_kills


def _check_orders(vendor: Vendor) -> None:
    ordered = vendor.ordered()
    assert len(ordered) == NUM_ROUNDS * BUDGET
    assert collections.Counter(ordered.values()) == {1: NUM_ROUNDS * BUDGET}


@pytest.mark.parametrize("ledger", ["sqlite", "postgres"])
def test_two_kills_of_the_local_engine(ledger, class_pool, undisturbed, tmp_path, request, orphans):
    expected, steps = undisturbed
    moments = [steps // 4, steps // 2]
    there = [] if ledger == "sqlite" else [f"ledger_url={request.getfixturevalue(ledger)}"]
    got, vendor, num_kills = _killed_at(moments, [there, there], class_pool, tmp_path, 5, orphans)
    assert num_kills == 2
    assert got == expected
    _check_orders(vendor)


def _in_a_store(bucket: Bucket, postgres: str, pool, tmp_path: Path) -> tuple[str, list[str]]:
    """Gives a run's folder in a bucket, and the overrides for it: the pool in the bucket, too, the
    ledger in PostgreSQL, and a vendor who works with folders of this machine."""
    there = bucket.take(pool.path, f"{tmp_path.name}/pool")
    boxes = tmp_path / "run" / "labeler"
    places = [f"labeler.{name}={boxes / name}" for name in ("outbox", "inbox")]
    run_dir = f"{bucket.url}/{tmp_path.name}/run"
    return run_dir, [f"pool.path={there}", f"ledger_url={postgres}", *places]


def test_two_kills_with_pool_and_run_in_a_store(
    bucket, postgres, class_pool, undisturbed, tmp_path, orphans
):
    expected, steps = undisturbed
    run_dir, there = _in_a_store(bucket, postgres, class_pool, tmp_path)
    moments = [steps // 4, steps // 2]
    got, vendor, num_kills = _killed_at(
        moments, [there] * 2, class_pool, tmp_path, 6, orphans, run_dir
    )
    assert num_kills == 2
    assert got == expected
    _check_orders(vendor)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("place", ["disk", "store"])
@pytest.mark.parametrize("seed", [0, 1])
def test_ten_kills_of_the_ray_engine(
    seed, place, class_pool, undisturbed, tmp_path, orphans, request
):
    """Five a seed; every attempt may have another number of workers, or the local engine."""
    expected, steps = undisturbed
    rng = np.random.default_rng(seed)
    moments = np.sort(rng.integers(0, steps - 10, 5)).tolist()
    run_dir, there = tmp_path / "run", []
    if place == "store":
        bucket, postgres = (request.getfixturevalue(name) for name in ("bucket", "postgres"))
        run_dir, there = _in_a_store(bucket, postgres, class_pool, tmp_path)
    choices = [_ray(2), _ray(4), _ray(1), [], _ray(2)]
    engines = [[*choices[at], *there] for at in rng.permutation(5)]
    got, vendor, num_kills = _killed_at(
        moments, engines, class_pool, tmp_path, seed, orphans, run_dir
    )
    assert num_kills == 5
    assert got == expected
    _check_orders(vendor)


@pytest.mark.ray
@pytest.mark.parametrize("engine", [[], _ray(2)])
def test_a_terminated_run_says_so_and_goes_on(engine, class_pool, undisturbed, tmp_path):
    run_dir = tmp_path / "run"
    words = [*_overrides(class_pool, run_dir), *engine]
    with Vendor(class_pool, run_dir).at_work():
        command = Command(words, tmp_path / "first.log")
        assert command.until(lambda: num_steps(run_dir) >= 8)
        family = command.family()
        command.process.terminate()
        assert command.wait() == 143
        said = command.text()
        assert said.endswith("terminated; the same command again goes on where it stood\n")
        assert "SIGTERM" not in said
        assert "Traceback" not in said
        assert left_over(family) == []
        assert Command(words, tmp_path / "last.log").wait() == 0
    assert digest(run_dir) == undisturbed[0]
