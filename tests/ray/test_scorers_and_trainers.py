"""Scorers make room for trainers: neither waits for the other, and the answer is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command
from nodes import two_nodes
from runs import digest, run

from rayal.engine import fit
from rayal.errors import TrainingError

pytestmark = pytest.mark.ray


def _overrides(pool, run_dir: Path, num_rounds: int) -> list[str]:
    return [
        f"pool.path={pool.path}", "model=mlp", "model.module.hidden=[16]",
        f"num_rounds={num_rounds}", "budget=40", "predictor.batch_rows=64", "strategy=margin",
        "trainer.num_workers=2", "trainer.epochs=2", "trainer.min_steps=8",
        "trainer.rows_per_step=10", f"run_dir={run_dir}",
    ]  # fmt: skip


def test_ray_train_gives_the_local_groups_model(small_ray, class_pool, tmp_path):
    """Two scorers take five of six CPUs, and go before two ranks train."""
    assert run(*_overrides(class_pool, tmp_path / "local", 1)) == "done"
    ray = ["engine=ray", "engine.num_workers=2", "engine.num_cpus=2.5", "engine.timeout_s=120"]
    assert run(*_overrides(class_pool, tmp_path / "ray", 1), *ray) == "done"
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_scorers_and_two_trainers_on_two_cpus_do_not_hang(class_pool, tmp_path):
    assert run(*_overrides(class_pool, tmp_path / "local", 3)) == "done"
    with two_nodes(1, tmp_path / "nodes.log") as nodes:
        ray = [
            "engine=ray", f"engine.address={nodes.address}", "engine.num_workers=4",
            "engine.num_cpus=0.5", "engine.timeout_s=120",
        ]  # fmt: skip
        overrides = [*_overrides(class_pool, tmp_path / "ray", 3), *ray]
        command = Command(overrides, tmp_path / "run.log")
        assert command.wait() == 0, command.text()
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")


@pytest.mark.slow
def test_a_training_that_loses_its_room_ends_with_a_line(
    small_ray, class_pool, tmp_path, monkeypatch
):
    """The room was there when it was looked for, and is gone when the group starts."""
    monkeypatch.setattr(fit, "_wait_for_room", lambda trainer, timeout_s: None)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
    ray = ["engine=ray", "engine.num_workers=1", "engine.num_cpus=0.25", "engine.timeout_s=60"]
    wide = "trainer.num_workers=20"  # of six CPUs
    with pytest.raises(TrainingError, match=r"training failed.*the same command"):
        run(*_overrides(class_pool, tmp_path, 1), wide, *ray)
