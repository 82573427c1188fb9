"""Ray's actors as a transport. An actor has no restarts and its calls no retries of Ray's own: what
a lost worker means is the crew's to decide.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from rayal.engine.embedding import Embedded, Embedding
from rayal.engine.scoring import Rehearsal, Scoring, ShardReport, Testing
from rayal.engine.survivors import SliceSpec
from rayal.engine.transport import NoAnswer, WorkerLost, WorkerRaised
from rayal.engine.worker import Worker
from rayal.pool import Pool, Shard
from rayal.ranking import Cut
from rayal.types import Predictor


class _Carrier:
    """A thin coat on `Worker`."""

    def __init__(self, pool: Pool, predictor: Predictor, proxy: Predictor | None) -> None:
        self.worker = Worker(pool, predictor, proxy)

    def ready(self) -> bool:
        return True

    def pid(self) -> int:
        return os.getpid()

    def rehearse(self, shard: Shard, rehearsal: Rehearsal) -> None:
        self.worker.rehearse(shard, rehearsal)

    def score(self, shard: Shard, scoring: Scoring, cut: Cut | None) -> ShardReport:
        return self.worker.score(shard, scoring, cut)

    def test(self, shard: Shard, testing: Testing) -> Any:
        return self.worker.test(shard, testing)

    def probe(self, shard: Shard, scoring: Scoring) -> Any:
        return self.worker.probe(shard, scoring)

    def inputs(self, shard: Shard, number: int) -> Any:
        return self.worker.inputs(shard, number)

    def measure(self, shard: Shard, embedding: Embedding) -> Any:
        return self.worker.measure(shard, embedding)

    def embed(self, shard: Shard, embedding: Embedding) -> Embedded:
        return self.worker.embed(shard, embedding)

    def ask(self, specs: Sequence[SliceSpec], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Asks in turn (a journal for a new owner); gives the answers to the last."""
        answers: list[Any] = []
        for ask, step, args in calls:
            if isinstance(args, ray.ObjectRef):
                args = ray.get(args)
            answers = self.worker.ask(specs, ask, step, *args)
        return answers

    def forget(self) -> None:
        self.worker.forget()


class Actors:
    """A transport whose workers are actors with the same pool and predictor."""

    def __init__(
        self,
        pool: Pool,
        predictor: Predictor,
        num_cpus: float,
        num_gpus: float,
        memory_gib: float | None,
        proxy: Predictor | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if memory_gib is not None:
            options["memory"] = int(memory_gib * 2**30)
        self._actor_class = ray.remote(**options)(_Carrier)
        # Held by the driver: large constructor arguments by value break what Ray does on node loss.
        self._parts = (ray.put(pool), ray.put(predictor), ray.put(proxy))

    def hire(self) -> Any:
        """Starts an actor."""
        return self._actor_class.remote(*self._parts)

    def end(self, worker: Any) -> None:
        """Kills an actor."""
        with contextlib.suppress(RayError, ValueError):
            ray.kill(worker)

    def call(self, worker: Any, method: str, *arguments: Any) -> Any:
        """Calls a method of `_Carrier`."""
        return getattr(worker, method).remote(*arguments)

    def wait(self, calls: Sequence[Any], timeout_s: float) -> list[Any]:
        """Gives calls that have a result."""
        done, _ = ray.wait(list(calls), num_returns=1, timeout=timeout_s)
        return done

    def result(self, call: Any, timeout_s: float | None = None) -> Any:
        """Gives the result of a call."""
        try:
            return ray.get(call, timeout=timeout_s)
        except RayTaskError as error:
            raise WorkerRaised(error.cause) from error
        except GetTimeoutError as error:
            raise NoAnswer from error
        except RayError as error:
            raise WorkerLost(type(error).__name__, str(error), _will_not_start(error)) from error

    def cancel(self, calls: Iterable[Any]) -> None:
        """Takes calls back as far as they have not begun."""
        for call in calls:
            with contextlib.suppress(RayError, ValueError, TypeError):
                ray.cancel(call)

    def put(self, thing: Any) -> Any:
        """Gives a reference to a thing in the object store."""
        return ray.put(thing)

    def now_s(self) -> float:
        """Gives seconds of a clock that never goes back."""
        return time.monotonic()

    def room(self) -> str:
        """Says how many CPUs and GPUs the cluster has."""
        have, free = ray.cluster_resources(), ray.available_resources()
        return (
            f"the cluster has {have.get('CPU', 0):g} CPUs ({free.get('CPU', 0):g} free) and "
            f"{have.get('GPU', 0):g} GPUs ({free.get('GPU', 0):g} free)"
        )


def _will_not_start(error: RayError) -> bool:
    """Whether another try would end alike: not the loss of a process, but what it was told."""
    return not isinstance(error, RayActorError) or "creation task" in str(error)
