"""The crew: Ray actors that score shards and hold slices, replaced when they die.

What to do next is decided here, on the driver; an actor only carries. An actor has no restarts and
its calls no retries of Ray's own: a lost worker means its shards again elsewhere, counted, so that
a shard that kills whoever touches it ends the run with its name.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rayal.engine.scoring import Scoring, ShardReport, Testing
from rayal.engine.survivors import SliceSpec
from rayal.engine.worker import Worker
from rayal.errors import ConfigError, RayalError, ScoringError
from rayal.pool import Pool, Shard
from rayal.ranking import Cut
from rayal.types import Predictor

MAX_DEATHS_PER_SHARD = 3
_INLINE_BYTES = 65_536  # larger arguments are put into the object store once


class _Carrier:
    """A thin coat on `Worker`."""

    def __init__(self, pool: Pool, predictor: Predictor) -> None:
        self.worker = Worker(pool, predictor)

    def ready(self) -> bool:
        return True

    def pid(self) -> int:
        return os.getpid()

    def score(self, shard: Shard, scoring: Scoring, cut: Cut | None) -> ShardReport:
        return self.worker.score(shard, scoring, cut)

    def test(self, shard: Shard, testing: Testing) -> Any:
        return self.worker.test(shard, testing)

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


class Crew:
    """`num_workers` actors with the same pool and predictor."""

    def __init__(
        self,
        pool: Pool,
        predictor: Predictor,
        num_workers: int,
        num_cpus: float,
        num_gpus: float,
        memory_gib: float | None,
        in_flight: int,
        timeout_s: float,
    ) -> None:
        self.num_workers = num_workers
        self.in_flight = in_flight
        self.timeout_s = timeout_s
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
        self._parts = (ray.put(pool), ray.put(predictor))
        self.actors: list[Any] = []
        self.generation: list[int] = []
        self._starting: dict[Any, int] = {}
        self._ready: set[int] = set()
        for _ in range(num_workers):
            self.actors.append(None)
            self.generation.append(0)
            self._hire(len(self.actors) - 1)

    def _hire(self, index: int) -> None:
        self._ready.discard(index)
        self._starting = {ref: i for ref, i in self._starting.items() if i != index}
        if self.actors[index] is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(self.actors[index])
        self.actors[index] = self._actor_class.remote(*self._parts)
        self.generation[index] += 1
        self._starting[self.actors[index].ready.remote()] = index

    def map_shards(
        self,
        shards: Sequence[Shard],
        method: str,
        arguments: Callable[[Shard], tuple[Any, ...]],
        record: Callable[[Shard, Any], None],
    ) -> None:
        """Runs a method once a shard, whoever dies, and hands every answer to `record`.

        Raises:
            ScoringError: a shard killed its worker three times, or nothing finished in time.
        """
        todo = collections.deque(shards)
        running: dict[Any, tuple[int, Shard]] = {}
        deaths: collections.Counter[int] = collections.Counter()
        last_answer = time.monotonic()
        while todo or running:
            load = collections.Counter(index for index, _ in running.values())
            for index in sorted(self._ready):
                while todo and load[index] < self.in_flight:
                    shard = todo.popleft()
                    call = getattr(self.actors[index], method)
                    running[call.remote(shard, *arguments(shard))] = (index, shard)
                    load[index] += 1
            waited = [*running, *self._starting]
            done, _ = ray.wait(waited, num_returns=1, timeout=min(self.timeout_s, 5.0))
            if not done:
                if time.monotonic() - last_answer > self.timeout_s:
                    raise ScoringError(self._stuck(running, todo))
                continue
            last_answer = time.monotonic()
            for ref in done:
                if ref in self._starting:
                    self._welcome(ref)
                    continue
                if ref not in running:  # its worker was replaced meanwhile
                    continue
                index, shard = running[ref]
                try:
                    answer = ray.get(ref)
                except RayTaskError as error:
                    self._cancel(running)
                    raise _explained(error) from None
                except RayError as error:
                    deaths[shard.index] += 1
                    if deaths[shard.index] >= MAX_DEATHS_PER_SHARD:
                        raise ScoringError(_poison(shard, error)) from error
                    for lost in [r for r, (i, _) in running.items() if i == index]:
                        todo.appendleft(running.pop(lost)[1])
                    self._hire(index)
                    continue
                del running[ref]
                record(shard, answer)

    def wait_ready(self) -> None:
        """Waits until at least one worker is there.

        Raises:
            ConfigError: none started in time, naming what was asked for and what the cluster has.
        """
        deadline = time.monotonic() + self.timeout_s
        while not self._ready:
            done, _ = ray.wait(list(self._starting), num_returns=1, timeout=5.0)
            for ref in done:
                self._welcome(ref)
            if not done and time.monotonic() > deadline:
                raise ScoringError(self._stuck({}, ()))

    def _welcome(self, ref: Any) -> None:
        index = self._starting.pop(ref)
        try:
            ray.get(ref)
        except RayTaskError as error:
            raise _explained(error) from None
        except RayActorError as error:
            raise _not_started(error) from error
        self._ready.add(index)

    def ask(
        self,
        owners: dict[int, list[SliceSpec]],
        journal: Sequence[tuple[Any, ...]],
        asked: dict[int, int],
    ) -> dict[int, Any]:
        """Asks each owner's slices the last question of the journal; gives answers by slice key.

        `asked` says which generation of a worker knows the journal so far. An owner that died is
        replaced and asked the whole journal, which makes its caches again.
        """
        answers: dict[int, Any] = {}
        pending = dict(owners)
        deaths = 0
        while pending:
            calls = {}
            for index, specs in pending.items():
                knows = asked.get(index) == self.generation[index]
                questions = journal[-1:] if knows else list(journal)
                calls[self.actors[index].ask.remote(specs, questions)] = index
            for ref, index in calls.items():
                try:
                    found = ray.get(ref, timeout=self.timeout_s)
                except RayTaskError as error:
                    raise _explained(error) from None
                except RayError as error:
                    deaths += 1
                    if deaths > MAX_DEATHS_PER_SHARD * self.num_workers:
                        raise ScoringError(
                            f"workers died {deaths} times while selecting "
                            f"({type(error).__name__}); give them more memory (engine.memory_gib), "
                            "or lower strategy.num_candidates"
                        ) from error
                    self._hire(index)
                    continue
                asked[index] = self.generation[index]
                answers |= {s.key: a for s, a in zip(pending.pop(index), found, strict=True)}
        return answers

    def forget(self) -> None:
        """Drops the slices that the workers hold."""
        for index in sorted(self._ready):
            with contextlib.suppress(RayError):
                ray.get(self.actors[index].forget.remote(), timeout=self.timeout_s)

    def dismiss(self) -> None:
        """Ends all workers, which gives their CPUs and GPUs back."""
        for actor in self.actors:
            if actor is not None:
                with contextlib.suppress(RayError, ValueError):
                    ray.kill(actor)
        self.actors, self._starting, self._ready = [], {}, set()

    def _cancel(self, running: dict[Any, Any]) -> None:
        for ref in running:
            with contextlib.suppress(RayError, ValueError, TypeError):
                ray.cancel(ref)

    def _stuck(self, running: dict[Any, tuple[int, Shard]], todo: Sequence[Shard]) -> str:
        shards = sorted([s.index for _, s in running.values()] + [s.index for s in todo])
        have, free = ray.cluster_resources(), ray.available_resources()
        return (
            f"nothing finished for {self.timeout_s:.0f} s: {len(self._ready)} of "
            f"{self.num_workers} workers are there, shards {shards[:8]} wait; the cluster has "
            f"{have.get('CPU', 0):g} CPUs ({free.get('CPU', 0):g} free) and "
            f"{have.get('GPU', 0):g} GPUs ({free.get('GPU', 0):g} free); lower engine.num_workers or engine.num_gpus, or raise engine.timeout_s"
        )


def _explained(error: RayTaskError) -> RayalError:
    cause = error.cause
    if isinstance(cause, RayalError):
        return cause
    if missing := _missing_module(str(cause)):
        return _not_importable(missing)
    return ScoringError(f"a worker failed: {type(cause).__name__}: {cause}")


def _missing_module(text: str) -> str:
    found = re.search(r"No module named '[^']+'", text)
    return found.group() if found else ""


def _not_importable(message: str) -> ConfigError:
    return ConfigError(
        f"workers cannot import a module of yours ({message}); name the folder of its package in "
        "engine.py_modules, or install it where the workers run"
    )


def _not_started(error: RayActorError) -> RayalError:
    text = str(error)
    if missing := _missing_module(text):
        return _not_importable(missing)
    return ScoringError(f"a worker could not start: {text.strip().splitlines()[-1]}")


def _poison(shard: Shard, error: RayError) -> str:
    return (
        f"shard {shard.index} ended its worker {MAX_DEATHS_PER_SHARD} times "
        f"({type(error).__name__}); out of memory is the usual cause: lower predictor.batch_rows "
        "(it is part of the answer, so rayal does not do so by itself) or give workers more "
        f"memory, and look at the rows of {shard.path}"
    )


def put_once(arguments: tuple[Any, ...]) -> Any:
    """Gives the arguments, or a reference to them where they are large."""
    size = sum(getattr(argument, "nbytes", 0) for argument in arguments)
    return ray.put(arguments) if size > _INLINE_BYTES else arguments
