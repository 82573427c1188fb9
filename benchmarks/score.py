"""How fast a worker scores a pool of vectors, beside the bare loop that a careful person writes.

    python benchmarks/score.py [--quick] [--rows N] [--cuda] [--workers 1 2]

The worker is rayal's own, as the local engine runs it: read, check, predict, score, keep the best M
with their ids, leave survivors on disk for each shard. The bare loop reads the same files and keeps
the best M in memory, and does nothing else; it has rayal's own softmax and two likeliest (another
line of the table: with torch's). Both have one thread for mathematics. They run in turn, several
times, in processes of their own; pinned means that every thread of a process, the reader
included, may use one core alone. One worker pinned is the mean of all worker processes, each by
itself. Ratios are medians over the turns: other work on the machine hits neighbours in time alike.
With --cuda the worker is measured against a forward pass whose rows already lie on the device.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch
from _passes import BATCH_ROWS, ROLES, Case, prepare

from rayal.engine.worker import keep_freed_memory

WANTED_OF_BARE, WANTED_OF_TWO = 0.9, 1.7


CASES = (Case(64, (256,)), Case(128, (256,)), Case(128, (1024, 1024), part=1 / 16, turns=1))
QUICK_CASES = (Case(64, (256,)), Case(128, (1024, 1024), part=1 / 16, turns=1))


# ------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class Turn:
    """One run of one process."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    scores: np.ndarray


class Process:
    """A process of one role that runs when told, on the cores that it is told."""

    def __init__(self, role: str, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, role, case), daemon=True)
        self.process.start()

    def start(self, shards: Sequence[int], cores: Sequence[int] | None) -> None:
        self._mine.send((list(shards), cores))

    def end(self) -> Turn:
        answer = self._mine.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self, shards: Sequence[int], cores: Sequence[int] | None) -> Turn:
        self.start(shards, cores)
        return self.end()

    def close(self) -> None:
        self._mine.close()
        self.process.join()


def _serve(orders: Connection, role: str, case: Case) -> None:
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    torch.set_num_threads(1)
    keep_freed_memory()  # so that the bare loop has it, too
    with contextlib.suppress(EOFError):
        while True:
            shards, cores = orders.recv()
            try:
                pin(cores)
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                scores = ROLES[role](case, shards)
                wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
                peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                orders.send(Turn(wall_s, cpu_s, peak_mib, scores))
            except Exception as error:  # the parent raises it
                orders.send(error)


def pin(cores: Sequence[int] | None) -> None:
    """Lets every thread of this process run on these cores alone; threads to come inherit it."""
    if cores is not None:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cores)


# --------------------------------------------------------------------------------------- the table
Table = dict[str, dict[str, str]]  # measure -> model -> what was found


def measure(case: Case, args: argparse.Namespace, table: Table) -> None:
    """Runs all roles of one model in turn, and writes what was found into the table."""
    pool = case.open()
    num_shards, num_rows = len(pool.shards), pool.num_rows
    shards = list(range(num_shards))
    table.setdefault("rows", {})[case.name] = f"{num_rows:,}"
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    sizes = [n for n in args.workers if cores is not None and n <= min(len(cores), num_shards)]
    bare = [Process("bare", case) for _ in range(max(sizes, default=1))]
    workers = [Process("worker", case) for _ in bare]
    plain = Process("plain", case)

    def together(some: Sequence[Process]) -> list[Turn]:
        start = time.perf_counter()
        for index, one in enumerate(some):
            one.start(shards[index :: len(some)], cores and [cores[index]])
        turns = [one.end() for one in some]
        return [replace(turn, wall_s=time.perf_counter() - start) for turn in turns]

    def each_alone(some: Sequence[Process]) -> list[Turn]:
        # Where a process's memory came to lie makes up to 15 % between processes of one kind.
        turns = [one.run(shards, cores and [cores[at]]) for at, one in enumerate(some)]
        means = (statistics.mean(t.wall_s for t in turns), statistics.mean(t.cpu_s for t in turns))
        return [replace(turns[0], wall_s=means[0], cpu_s=means[1])]

    runs: dict[str, list[list[Turn]]] = {}
    try:
        for turn in range(-1, args.turns * case.turns):
            found = {}
            for size in sizes:
                run = each_alone if size == 1 else together
                found[f"{size} bare, pinned"] = run(bare if size == 1 else bare[:size])
                found[f"{size} worker, pinned"] = run(workers if size == 1 else workers[:size])
            found["1 plain, pinned"] = each_alone([plain])
            found["1 bare, unpinned"] = [bare[0].run(shards, cores)]
            found["1 worker, unpinned"] = [workers[0].run(shards, cores)]
            check_alike(case, found["1 bare, unpinned"][0], found["1 worker, unpinned"][0])
            for name, turns in found.items():
                if turn >= 0:  # the first turn warms caches
                    runs.setdefault(name, []).append(turns)
    finally:
        for one in (*bare, *workers, plain):
            one.close()

    def put(what: str, text: str) -> None:
        table.setdefault(what, {})[case.name] = text

    walls = {name: [max(t.wall_s for t in turns) for turns in some] for name, some in runs.items()}
    for name, kept in runs.items():
        cpu_s = statistics.median(sum(one.cpu_s for one in turns) for turns in kept)
        put(f"{name}: rows/s", f"{num_rows / statistics.median(walls[name]):,.0f}")
        put(f"{name}: CPU-s per 1e6 rows", f"{cpu_s / num_rows * 1e6:.3f}")
        put(f"{name}: peak MiB a process", f"{max(t.peak_mib for some in kept for t in some):.0f}")

    def ratio(what: str, slow: str, fast: str, wanted: float | None = None) -> None:
        if slow in walls and fast in walls:
            value = median_ratio(walls[slow], walls[fast])
            verdict = "" if wanted is None else " ok" if value >= wanted else " BELOW"
            put(what + (f" (wanted {wanted:g})" if wanted else ""), f"{value:.3f}{verdict}")

    def cpu_ratio(what: str, slow: str, fast: str, factor: float = 1.0) -> None:
        if slow in runs and fast in runs:
            cpu = [[sum(t.cpu_s for t in some) for some in runs[name]] for name in (slow, fast)]
            put(f"  the same by CPU-s, {what}", f"{factor * median_ratio(*cpu):.3f}")

    ratio("1 worker / 1 bare, pinned", "1 bare, pinned", "1 worker, pinned", WANTED_OF_BARE)
    cpu_ratio("1 / 1", "1 bare, pinned", "1 worker, pinned")
    ratio(
        "1 worker / 1 with torch's softmax and topk, pinned", "1 plain, pinned", "1 worker, pinned"
    )
    ratio("2 workers / 1 worker, pinned", "1 worker, pinned", "2 worker, pinned", WANTED_OF_TWO)
    cpu_ratio("2 / 1", "1 worker, pinned", "2 worker, pinned", 2.0)
    ratio("2 bare / 1 bare, pinned", "1 bare, pinned", "2 bare, pinned")
    ratio("1 worker / 1 bare, unpinned", "1 bare, unpinned", "1 worker, unpinned")


def check_alike(case: Case, one: Turn, two: Turn) -> None:
    """Makes sure that both found the same best rows: a fast wrong answer is no answer."""
    if not np.allclose(one.scores, two.scores, rtol=0, atol=1e-6):
        raise SystemExit(f"{case.name}: worker and bare loop keep rows of different scores")


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Gives how many times as fast the second is: the median over neighbours in time."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def measure_ray(case: Case, args: argparse.Namespace, table: Table) -> None:
    """Scores with the Ray engine's crew, one worker and several in turn, none pinned."""
    from rayal.engine import launch
    from rayal.engine.ray import RayEngine

    pool = case.open()
    started = launch.start("local", sum(args.workers) + 1, 0, 0.25, ())
    engines = {size: RayEngine(num_workers=size) for size in args.workers}
    walls: dict[int, list[float]] = {size: [] for size in args.workers}
    try:
        for engine in engines.values():
            engine.open(pool, case.predictor, SimpleNamespace(num_workers=0, use_gpu=False))
        for turn in range(-1, args.turns * case.turns):
            for size, engine in engines.items():
                scoring = case.scoring()
                start = time.perf_counter()
                engine.score(scoring)
                if turn >= 0:
                    walls[size].append(time.perf_counter() - start)
                shutil.rmtree(scoring.folder)
    finally:
        for engine in engines.values():
            engine.close()
        launch.stop(started)
    for size, seconds in walls.items():
        rate = f"{pool.num_rows / statistics.median(seconds):,.0f}"
        table.setdefault(f"{size} worker, Ray: rows/s", {})[case.name] = rate
    if {1, 2} <= set(walls):
        found = f"{median_ratio(walls[1], walls[2]):.3f}"
        table.setdefault("2 workers / 1 worker, Ray", {})[case.name] = found


def measure_cuda(case: Case, args: argparse.Namespace, table: Table) -> None:
    """Compares a worker on the GPU with a forward pass over rows that lie there already."""
    pool = case.open()
    shards = list(range(len(pool.shards)))
    on_gpu = replace(case, device="cuda")
    resident, worker = Process("resident", on_gpu), Process("worker", on_gpu)
    walls: dict[str, list[float]] = {"resident": [], "worker": []}
    try:
        for turn in range(-1, args.turns * case.turns):
            first, second = resident.run(shards, None), worker.run(shards, None)
            check_alike(case, first, second)
            if turn >= 0:
                walls["resident"].append(first.wall_s)
                walls["worker"].append(second.wall_s)
    finally:
        resident.close()
        worker.close()
    for name, seconds in walls.items():
        rate = f"{pool.num_rows / statistics.median(seconds):,.0f}"
        table.setdefault(f"1 {name}, CUDA: rows/s", {})[case.name] = rate
    found = median_ratio(walls["resident"], walls["worker"])
    verdict = "ok" if found >= WANTED_OF_BARE else "BELOW"
    what = f"1 worker / resident, CUDA (wanted {WANTED_OF_BARE:g})"
    table.setdefault(what, {})[case.name] = f"{found:.3f} {verdict}"


def show(table: Table, cases: Sequence[Case]) -> None:
    """Prints the table, one column a model."""
    left = max(map(len, table))
    names = [case.name for case in cases]
    print(f"{'':{left}}  " + "  ".join(f"{name:>16}" for name in names))
    for what, found in table.items():
        print(f"{what:{left}}  " + "  ".join(f"{found.get(name, ''):>16}" for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows, models and turns")
    parser.add_argument("--rows", type=int, help="rows of each pool")
    parser.add_argument("--turns", type=int, help="how often everything runs")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cuda", action="store_true", help="also measure on a GPU")
    args = parser.parse_args()
    args.turns = args.turns or (3 if args.quick else 5)
    num_rows = args.rows or (524_288 if args.quick else 2_097_152)
    keep = max(1, num_rows // 20)  # near the default M of 100,000 for the full form
    has_ray, has_cuda = importlib.util.find_spec("ray") is not None, torch.cuda.is_available()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # for the processes to come
    table: Table = {}
    with tempfile.TemporaryDirectory(prefix="rayal-score-") as folder:
        cases = [
            prepare(case, Path(folder), num_rows, keep)
            for case in (QUICK_CASES if args.quick else CASES)
        ]
        for case in cases:
            measure(case, args, table)
        for case in cases:
            if has_ray:
                measure_ray(case, args, table)
            else:
                table.setdefault("Ray", {})[case.name] = "not measured"
            if args.cuda and has_cuda:
                measure_cuda(case, args, table)
            else:
                table.setdefault("1 worker / resident, CUDA", {})[case.name] = "not measured"
    print(
        f"float32 rows in batches of {BATCH_ROWS:,}, best {keep:,} kept; "
        f"median of {args.turns} turns, of small models {3 * args.turns}; {os.cpu_count()} cores; "
        f"torch {torch.__version__}, pyarrow {pa.__version__}, numpy {np.__version__}"
    )
    show(table, cases)


if __name__ == "__main__":
    main()
