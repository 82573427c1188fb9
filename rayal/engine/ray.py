"""The Ray engine: the local engine's answer from many workers, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rayal import metrics
from rayal.engine import launch
from rayal.engine.crew import Crew
from rayal.engine.crewed import score_by
from rayal.engine.local import fit_rank
from rayal.engine.scoring import Fitting, Pass, Rehearsal, Scoring, Testing
from rayal.errors import ConfigError
from rayal.pool import Pool, Shard
from rayal.strategy import Proxy
from rayal.trainers.group import Alone
from rayal.types import Checkpoint, Ids, Predictor, Trainer


class RayEngine:
    """`num_workers` actors score; Ray Train trains. Nothing here can change an answer."""

    def __init__(
        self,
        num_workers: int = 2,
        num_cpus: float = 1,
        num_gpus: float = 0,
        address: str = "local",
        memory_gib: float | None = None,
        in_flight: int = 2,
        timeout_s: float = 1800.0,
        object_store_gib: float = 0.5,
        py_modules: Sequence[str] = (),
        reverse: bool = False,
    ) -> None:
        for name, value in (("num_workers", num_workers), ("in_flight", in_flight)):
            if value < 1:
                raise ConfigError(f"engine.{name} is {value}, expected 1 or more")
        for name, size in (
            ("num_cpus", num_cpus),
            ("timeout_s", timeout_s),
            ("object_store_gib", object_store_gib),
            ("memory_gib", 1 if memory_gib is None else memory_gib),
        ):
            if not size > 0:
                raise ConfigError(f"engine.{name} is {size}, expected more than 0")
        if num_gpus < 0:
            raise ConfigError(f"engine.num_gpus is {num_gpus}, expected 0 or more")
        self.num_workers = num_workers
        self.num_cpus = num_cpus
        self.num_gpus = num_gpus
        self.address = address
        self.memory_gib = memory_gib
        self.in_flight = in_flight
        self.timeout_s = timeout_s
        self.object_store_gib = object_store_gib
        self.py_modules = tuple(py_modules)
        self.reverse = reverse
        self._crew: Crew | None = None
        self._started = False

    def open(
        self,
        pool: Pool,
        predictor: Predictor,
        trainer: Trainer | None,
        proxy: Proxy | None = None,
    ) -> None:
        """Starts or joins Ray; workers start with the first pass."""
        self.pool, self.predictor = pool, predictor
        self.proxy = None if proxy is None else proxy.predictor
        of_proxy = None if proxy is None else proxy.trainer
        trainers = [one for one in (trainer, of_proxy) if one is not None]
        logical_cpus = int(np.ceil(self.num_workers * self.num_cpus))
        logical_cpus += max((max(one.num_workers, 1) for one in trainers), default=0)
        gpus = self.num_workers * self.num_gpus
        gpus = max(gpus, *(one.num_workers for one in trainers if one.use_gpu), 0)
        self._started = launch.start(
            self.address,
            logical_cpus,
            int(np.ceil(gpus)),
            self.object_store_gib,
            self.py_modules,
        )

    def renew(self, pool: Pool) -> None:
        """Goes on with the pool as it has grown; workers that know the old one go."""
        self.pool = pool
        if self._crew is not None:
            self._crew.dismiss()
            self._crew = None

    @property
    def crew(self) -> Crew:
        """The workers, hired when first needed."""
        from rayal.engine.actors import Actors

        if self._crew is None:
            actors = Actors(
                self.pool,
                self.predictor,
                self.num_cpus,
                self.num_gpus,
                self.memory_gib,
                self.proxy,
            )
            self._crew = Crew(actors, self.num_workers, self.in_flight, self.timeout_s)
        return self._crew

    def rehearse(self, rehearsal: Rehearsal) -> None:
        """Asks an untrained model for all that the run will need, where the workers are."""
        shards = self.pool.shards[:1]
        self.crew.map_shards(shards, "rehearse", lambda shard: (rehearsal,), lambda *_: None)

    def score(self, scoring: Scoring, progress: Any = None) -> Pass:
        """Gives candidates and labelled rows of one pass over the pool."""
        shards = self.pool.shards[::-1] if self.reverse else self.pool.shards
        return score_by(self.crew, shards, scoring, progress)

    def test(self, testing: Testing, progress: Any = None) -> np.ndarray:
        """Gives the test split's tallies, added in shard order."""
        found: dict[int, np.ndarray] = {}

        def record(shard: Any, tallies: Any) -> None:
            found[shard.index] = tallies
            if progress is not None:
                progress.advance(shard.num_live)

        self.crew.map_shards(self.pool.test_shards, "test", lambda shard: (testing,), record)
        tallies = metrics.no_rows(testing.vocabulary.kind, testing.vocabulary.num_outputs)
        for shard in sorted(found):
            tallies = tallies + found[shard]
        return tallies

    def map(
        self, shards: Sequence[Shard], method: str, argument: Any, progress: Any = None
    ) -> list[Any]:
        """Gives what a method of the workers answers for each shard, in the order of the shards."""
        found: dict[Shard, Any] = {}
        carried = self.crew.transport.put(argument)

        def record(shard: Shard, answer: Any) -> None:
            found[shard] = answer
            if progress is not None:
                progress.advance(shard.num_live)

        order = shards[::-1] if self.reverse else shards
        self.crew.map_shards(order, method, lambda shard: (carried,), record)
        return [found[shard] for shard in shards]

    def rows(self, ids: Ids, columns: Sequence[str]) -> pa.Table:
        """Gives payload rows in the order of ids; a batch is small, so the driver reads it."""
        return self.pool.rows(ids, columns)

    def fit(self, fitting: Fitting) -> Checkpoint:
        """Trains under Ray Train, or in this process where `trainer.num_workers` is 0."""
        if fitting.trainer.num_workers == 0:
            return fit_rank(fitting, Alone("cuda" if fitting.trainer.use_gpu else "cpu"))
        from rayal.engine.fit import fit_group, missing_resources

        if missing_resources(fitting.trainer) and self._crew is not None:
            # A training that finds its CPUs taken would wait for ever, silently.
            self._crew.dismiss()
            self._crew = None
        return fit_group(fitting, self.timeout_s)

    def describe(self) -> dict[str, Any]:
        """Gives engine, workers and how many nodes are alive."""
        import ray

        nodes = ray.nodes() if ray.is_initialized() else []
        return {
            "engine": "ray",
            "num_workers": self.num_workers,
            "num_nodes": sum(node["Alive"] for node in nodes),
        }

    def close(self) -> None:
        """Ends the workers, and Ray if it was started here."""
        import ray

        if self._crew is not None and ray.is_initialized():
            self._crew.dismiss()
        self._crew = None
        launch.stop(self._started)
        self._started = False
