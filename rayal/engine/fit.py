"""Training under Ray Train: the same `fit_rank` as everywhere, in a group that Ray places."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from rayal import copies
from rayal.engine.local import fit_rank
from rayal.engine.scoring import Fitting
from rayal.engine.worker import set_num_threads
from rayal.errors import RayalError, TrainingError
from rayal.places.opened import filesystem
from rayal.storage import remove_folder
from rayal.types import Checkpoint, Trainer, from_record, to_record


class Rank:
    """A rank of a Ray Train worker group."""

    def __init__(self) -> None:
        from ray.train.torch import get_device

        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.size: int = context.get_world_size()
        self.device: str = str(get_device())


def missing_resources(trainer: Trainer) -> dict[str, float]:
    """Gives what the training asks for and the cluster has not free, by resource."""
    asked = {"CPU": float(trainer.num_workers)}
    if trainer.use_gpu:
        asked["GPU"] = float(trainer.num_workers)
    free = ray.available_resources()
    return {name: need for name, need in asked.items() if free.get(name, 0.0) < need}


def fit_group(fitting: Fitting, timeout_s: float) -> Checkpoint:
    """Fits with `trainer.num_workers` ranks and gives the checkpoint that rank 0 left.

    Raises:
        TrainingError: the cluster has no room for the group, or a rank failed for good.
    """
    _wait_for_room(fitting.trainer, min(timeout_s, 60.0))
    attempt = uuid.uuid4().hex[:8]  # a run name that was used resumes, and trains nothing
    beside = Path(fitting.out_path).parent / "ray-train"
    trainer = TorchTrainer(
        _train_loop,
        train_loop_config={"fitting": fitting},
        scaling_config=ScalingConfig(
            num_workers=fitting.trainer.num_workers, use_gpu=fitting.trainer.use_gpu
        ),
        torch_config=TorchConfig(backend="nccl" if fitting.trainer.use_gpu else "gloo"),
        run_config=RunConfig(
            name=f"{Path(fitting.out_path).name}-{attempt}",
            **_storage(beside),
            # Ray Train tries for a minute to start the group, and without a limit for ever: where
            # a node was lost meanwhile, that is a silent hang.
            failure_config=FailureConfig(
                max_failures=2, controller_failure_limit=max(1, int(timeout_s // 60))
            ),
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:  # Ray Train wraps what a rank raised in several layers
        raise _explained(error) from error
    finally:
        remove_folder(beside)
    return from_record(result.return_value)


def _train_loop(config: dict[str, Any]) -> dict[str, Any]:
    fitting: Fitting = config["fitting"]
    set_num_threads(getattr(fitting.trainer, "num_threads", 1))
    return to_record(fit_rank(fitting, Rank()))


def _wait_for_room(trainer: Trainer, timeout_s: float) -> None:
    # Ray Train would reschedule for ever, without a word.
    deadline = time.monotonic() + timeout_s
    while missing := missing_resources(trainer):
        if time.monotonic() > deadline:
            have = ray.cluster_resources()
            wants = ", ".join(f"{need:g} {name}" for name, need in missing.items())
            has = ", ".join(f"{have.get(name, 0):g} {name}" for name in missing)
            raise TrainingError(
                f"training with trainer.num_workers={trainer.num_workers} needs {wants} free, the "
                f"cluster has {has} in all and they stayed taken for {timeout_s:.0f} s; lower "
                "trainer.num_workers, or free the cluster"
            )
        time.sleep(0.2)


def _explained(error: BaseException) -> RayalError:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RayalError):
            return seen
        failures = getattr(seen, "worker_failures", None) or {}
        for failure in failures.values():
            inner = getattr(failure, "cause", failure)
            if isinstance(inner, RayalError):
                return inner
        seen = getattr(seen, "cause", None) or seen.__cause__
    first = str(error).strip().splitlines()
    return TrainingError(
        f"training failed: {first[0] if first else type(error).__name__}; the round starts again "
        "from its snapshot with the same command"
    )


def _storage(folder: Path) -> dict[str, Any]:
    """Gives where Ray Train notes how far it is: of a run in a store there, where all nodes see it;
    credentials are those of each process's environment."""
    place = copies.origin(folder)
    if place is None:
        return {"storage_path": str(folder)}
    opened, path = filesystem(place.url)
    return {"storage_path": path, "storage_filesystem": opened}


__all__ = ["Rank", "fit_group", "missing_resources"]
