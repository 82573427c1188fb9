"""What scores a pool of any size, each in its process: rayal's engines, a bare loop, Ray Data."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from _passes import BATCH_ROWS, Case, margin, run_bare
from _processes import Watch

from rayal.engine import launch
from rayal.engine.local import LocalEngine
from rayal.engine.picking import pick
from rayal.engine.ray import RayEngine
from rayal.engine.worker import keep_freed_memory
from rayal.keys import Keys
from rayal.models.checkpoint import load
from rayal.models.model import Model
from rayal.models.modules import MLP
from rayal.models.transforms import Vector
from rayal.pool import Pool
from rayal.scorers.margin import Margin
from rayal.selectors.top_k import TopK
from rayal.strategy import Strategy

NUM_WORKERS = 2
_SCALE = 1.0 / 127.0
_LOOK_S = 0.25  # a look at memory takes 5 ms a process
_GLANCE_S = 1.0  # for what actors of Ray Data took that have ended
_TRIES = 4
_WARM_SHARDS = 4
_DATA_ROWS = 32_768  # of a batch of Ray Data: 4,096 cost it a tenth more
_DATA_STORE_BYTES = 1 << 30


@dataclass(frozen=True)
class SizedCase(Case):
    """The small model over int8 vectors, each value divided by 127."""

    @property
    def model(self) -> Model:
        return Model(partial(MLP, hidden=self.hidden), Vector("embedding", scale=_SCALE))

    def vectors(self, rows: pa.RecordBatch) -> torch.Tensor:
        """Gives (N, D) float32 as a bare loop makes them, in one copy."""
        column = rows.column("embedding")
        flat = np.frombuffer(column.buffers()[1], np.int8)
        at = column.offset * self.width
        values_ND = flat[at : at + len(column) * self.width].reshape(-1, self.width)
        return torch.from_numpy(values_ND.astype(np.float32)).mul_(_SCALE)


@dataclass(frozen=True)
class Found:
    """One run of one role: seconds of its parts, and the best scores, ascending."""

    seconds: dict[str, float]
    scores: np.ndarray
    num_first: int = 0  # rows of the first block that came, of a stream


@dataclass(frozen=True)
class Measured:
    """What a run took, all processes of the role together."""

    found: Found
    wall_s: float
    cpu_s: float
    read_bytes: int
    peaks: dict[str, int] = field(default_factory=dict)  # of a watched run


# --------------------------------------------------------------------------------------- the roles


class Bare:
    """The loop that a careful person writes, over some of the shards."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def warm(self) -> None:
        self.run(range(min(_WARM_SHARDS, len(self.case.open().shards))))

    def run(self, shards: Sequence[int]) -> Found:
        start = time.perf_counter()
        scores = run_bare(self.case, shards)
        return Found({"score": time.perf_counter() - start}, scores)

    def close(self) -> None:
        pass


class Rayal:
    """An engine of rayal's: a pass, then the best M of it picked."""

    def __init__(self, case: Case, engine: LocalEngine | RayEngine) -> None:
        self.case, self.engine, self.pool = case, engine, case.open()
        nothing = SimpleNamespace(num_workers=0, use_gpu=False)  # trains nothing
        engine.open(self.pool, case.predictor, nothing)

    def warm(self) -> None:
        """Starts the workers, and lets each load the model."""
        few = self.pool.shards[:_WARM_SHARDS]
        self.engine.pool = replace(self.pool, manifest=replace(self.pool.manifest, shards=few))
        self.run(())
        self.engine.pool = self.pool

    def run(self, shards: Sequence[int]) -> Found:
        scoring = self.case.scoring()
        strategy = Strategy(TopK(), Margin(), self.case.keep)
        clock = [time.perf_counter()]
        done = self.engine.score(scoring)
        clock.append(time.perf_counter())
        picks = pick(strategy, done, self.case.keep, Keys(0, 0))
        clock.append(time.perf_counter())
        seconds = {"score": clock[1] - clock[0], "pick": clock[2] - clock[1]}
        del done
        shutil.rmtree(scoring.folder)
        return Found(seconds, picks.scores[::-1].copy())

    def close(self) -> None:
        self.engine.close()


class Data:
    """`read_parquet().map_batches()` over the same shards; the best M of its scores are kept."""

    def __init__(self, case: Case) -> None:
        launch.prepare_environment("local")
        _forget_http()
        here = str(Path(__file__).parent)  # where workers find what is named here
        os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
        import ray

        # As many logical CPUs as actors and readers; there are two cores for all of them.
        ray.init(
            address="local",
            num_cpus=2 * NUM_WORKERS,
            include_dashboard=False,
            object_store_memory=_DATA_STORE_BYTES,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"worker_process_setup_hook": _forget_http},
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self.case, pool = case, case.open()
        self.paths = [str(Path(pool.path) / shard.path) for shard in pool.shards]

    def warm(self) -> None:
        self.run(range(min(_WARM_SHARDS, len(self.paths))))

    def run(self, shards: Sequence[int]) -> Found:
        import ray

        start = time.perf_counter()
        rows = ray.data.read_parquet(
            [self.paths[shard] for shard in shards],
            columns=["sample_id", "embedding"],
            override_num_blocks=max(len(shards), 4 * NUM_WORKERS),  # else one actor has it all
        )
        scored = rows.map_batches(
            _DataScorer,
            fn_constructor_args=(self.case,),
            compute=ray.data.ActorPoolStrategy(size=NUM_WORKERS),
            batch_size=_DATA_ROWS,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=1,
        )
        ids, best = np.empty(0, np.int64), np.empty(0)
        first_s, num_first = 0.0, 0
        for some in scored.iter_batches(batch_size=None, batch_format="pyarrow"):
            if not num_first:
                first_s, num_first = time.perf_counter() - start, some.num_rows
            ids = np.concatenate([ids, some["sample_id"].to_numpy()])
            best = np.concatenate([best, some["score"].to_numpy()])
            if len(best) > 2 * self.case.keep:
                ids, best = _best(ids, best, self.case.keep)
        ids, best = _best(ids, best, self.case.keep)
        score_s = time.perf_counter() - start
        return Found({"score": score_s, "flow": score_s - first_s}, np.sort(best), num_first)

    def close(self) -> None:
        import ray

        ray.shutdown()


def _forget_http() -> None:
    """Keeps fsspec's HTTP away: Ray Data 2.60 imports it in several threads at once, and where
    there is no aiohttp, some of them meet a half-made module and fail."""
    if importlib.util.find_spec("aiohttp") is None:
        sys.modules["fsspec.implementations.http"] = None  # type: ignore[assignment]


class _DataScorer:
    def __init__(self, case: Case) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self.case = case
        self.module = load(case.model, case.checkpoint)[1][0].eval()

    def __call__(self, table: pa.Table) -> pa.Table:
        parts = []
        with torch.inference_mode():
            for rows in table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS):
                parts.append(margin(self.module, self.case.vectors(rows)).numpy())
        return pa.table({"sample_id": table["sample_id"], "score": np.concatenate(parts)})


def _best(ids: np.ndarray, scores: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    if len(scores) <= keep:
        return ids, scores
    kept = np.argpartition(scores, -keep)[-keep:]
    return ids[kept], scores[kept]


ROLES: dict[str, Callable[[Case], Any]] = {
    "bare": Bare,
    "local": lambda case: Rayal(case, LocalEngine()),
    "ray": lambda case: Rayal(case, RayEngine(num_workers=NUM_WORKERS)),
    "data": Data,
}


# ----------------------------------------------------------------------------------- its processes


class Role:
    """A process of one role that runs when told; whatever it started is watched with it."""

    def __init__(self, role: str, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, role, case), daemon=True)
        self.process.start()
        theirs.close()
        self._answer()  # it is warm

    def start(self, shards: Sequence[int], is_watched: bool = False) -> None:
        """Begins a run over some shards. Watched: memory is looked at all the while, which takes
        a tenth of the machine, so that this is no run to time."""
        look_s = _LOOK_S if is_watched else _GLANCE_S
        self.watch = Watch(self.process.pid or 0, looks_at_memory=is_watched, look_s=look_s)
        self.watch.look()
        self._before = self.watch.cpu_s, self.watch.read_bytes
        self.watch.start()
        self._start_s = time.perf_counter()
        self._mine.send(list(shards))

    def end(self) -> Measured:
        """Gives what the run found and took."""
        found = self._answer()
        wall_s = time.perf_counter() - self._start_s
        self.watch.end()
        self.watch.look()
        cpu_s, read_bytes = self._before
        return Measured(
            found,
            wall_s,
            self.watch.cpu_s - cpu_s,
            self.watch.read_bytes - read_bytes,
            self.watch.peaks,
        )

    def close(self) -> None:
        self._mine.close()
        self.process.join()

    def _answer(self) -> Any:
        answer = self._mine.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(orders: Connection, role: str, case: Case) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # so that the bare loop has it, too
    try:
        runner = _started(role, case)
        orders.send(None)
    except Exception as error:  # the parent raises it
        orders.send(RuntimeError(f"{role}: {error}"))  # not every error of Ray can be sent
        return
    with contextlib.suppress(EOFError):
        while True:
            shards = orders.recv()
            try:
                orders.send(runner.run(shards))
            except Exception as error:
                orders.send(RuntimeError(f"{role}: {error}"))
    runner.close()


def _started(role: str, case: Case) -> Any:
    """Gives a warm role. Ray gives up a start after 30 s, which a busy machine may need."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(Exception):
            runner = ROLES[role](case)
            runner.warm()
            return runner
    runner = ROLES[role](case)
    runner.warm()
    return runner


def drop_from_memory(pool: Pool) -> None:
    """Lets the system forget what it holds of a pool's files, so that a pass reads the disk."""
    for shard in pool.manifest.shards:
        with (Path(pool.path) / shard.path).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
