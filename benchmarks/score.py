"""How fast a worker scores a pool of vectors, beside the bare loop that a careful person writes.

    python benchmarks/score.py [--quick] [--rows N] [--cuda] [--workers 1 2]

The worker is rayal's own, as the local engine runs it: read, check, predict, score, keep the best M
with their ids, leave survivors on disk for each shard. The bare loop reads the same files and keeps
the best M in memory, and does nothing else; it has rayal's own softmax and two likeliest (another
line of the table: with torch's). Both have one thread for mathematics. They run in turn, several
times, in processes of their own; pinned means that every thread of a process, the reader
included, may use one core alone. Ratios are medians over the turns: other work on the machine hits
neighbours in time alike. With --cuda the worker is measured against a forward pass whose rows
already lie on the device.
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
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rayal.engine.local import LocalEngine
from rayal.engine.scoring import Scoring
from rayal.engine.survivors import Taken, write_taken
from rayal.engine.worker import keep_freed_memory
from rayal.keys import Keys
from rayal.models.checkpoint import Description, describe_architecture, load, model_id, save
from rayal.models.model import Model
from rayal.models.modules import MLP
from rayal.models.transforms import Vector
from rayal.pool import Pool, ingest
from rayal.predictors import TorchPredictor
from rayal.probabilities import softmax, top_two
from rayal.scorers.margin import Margin
from rayal.types import Checkpoint, Outputs, Slice

CLASSES, BATCH_ROWS = 10, 4096
WANTED_OF_BARE, WANTED_OF_TWO = 0.9, 1.7


@dataclass(frozen=True)
class Case:
    """One model over one pool."""

    width: int
    hidden: tuple[int, ...]
    part: float = 1.0  # of the pool's shards, at least two
    turns: int = 3  # for each one asked for: a short pass is noisier
    keep: int = 0  # M
    pool: str = ""
    checkpoint: str = ""
    model_id: str = ""
    folder: str = ""
    device: str = "cpu"

    @property
    def name(self) -> str:
        return "-".join(map(str, (self.width, *self.hidden, CLASSES)))

    @property
    def model(self) -> Model:
        return Model(partial(MLP, hidden=self.hidden), Vector("embedding"))

    @property
    def predictor(self) -> TorchPredictor:
        return TorchPredictor(self.model, BATCH_ROWS, num_threads=1, device=self.device)

    def open(self) -> Pool:
        """Gives the part of the pool that is scored."""
        pool = Pool.open(self.pool)
        num_shards = max(2, round(self.part * len(pool.shards)))
        return replace(pool, manifest=replace(pool.manifest, shards=pool.shards[:num_shards]))

    def scoring(self) -> Scoring:
        """Gives a pass that leaves its survivors in a new folder."""
        folder = Path(self.folder) / uuid.uuid4().hex
        folder.mkdir()
        taken = folder / "taken.arrow"
        write_taken(taken, Taken(np.empty(0, np.int64), np.empty(0), np.empty(0, bool)))
        checkpoint = Checkpoint("", self.model_id)
        return Scoring(
            keys=Keys(0, 0),
            scorer=Margin(),
            features=(),
            keep=self.keep,
            checkpoint=checkpoint,
            checkpoint_path=self.checkpoint,
            taken_path=str(taken),
            folder=str(folder),
            pass_id="",
        )


CASES = (Case(64, (256,)), Case(128, (256,)), Case(128, (1024, 1024), part=1 / 16, turns=1))
QUICK_CASES = (Case(64, (256,)), Case(128, (1024, 1024), part=1 / 16, turns=1))


# ---------------------------------------------------------------------------------- what is timed


def run_worker(case: Case, shards: Sequence[int]) -> np.ndarray:
    """Scores some shards as the local engine does; gives the scores of the best M, ascending."""
    engine = _ENGINES.setdefault((case, tuple(shards)), LocalEngine())
    if not hasattr(engine, "worker"):
        pool = case.open()
        mine = tuple(pool.shards[index] for index in shards)
        pool = replace(pool, manifest=replace(pool.manifest, shards=mine))
        engine.open(pool, case.predictor, SimpleNamespace(num_workers=0, use_gpu=False))
    scoring = case.scoring()
    done = engine.score(scoring)
    scores = np.concatenate(done.candidates.each(_scores, 0))
    shutil.rmtree(scoring.folder)
    return np.sort(scores)


_ENGINES: dict[Any, LocalEngine] = {}


def _scores(part: Slice, step: int) -> np.ndarray:
    return part.scores


def run_bare(
    case: Case, shards: Sequence[int], score: Callable[..., torch.Tensor] | None = None
) -> np.ndarray:
    """Scores some shards by the shortest loop there is; gives the best M scores, ascending."""
    module = _module(case)
    pool = case.open()
    best_ids, best = np.empty(0, np.int64), np.empty(0)
    for index in shards:
        ids, scores = [best_ids], [best]
        for rows in read_bare(pool, index):
            ids.append(rows.column("sample_id").to_numpy())
            with torch.inference_mode():
                scores.append((score or margin)(module, vectors_bare(rows, case.width)).numpy())
        best_ids, best = np.concatenate(ids), np.concatenate(scores)
        if len(best) > case.keep:
            kept = np.argpartition(best, -case.keep)[-case.keep :]
            best_ids, best = best_ids[kept], best[kept]
    return np.sort(best)


def run_resident(case: Case, shards: Sequence[int]) -> np.ndarray:
    """Scores rows that lie on the device already; gives the scores of the best M, ascending."""
    module = _module(case)
    if case not in _RESIDENT:
        pool = case.open()
        parts = [
            torch.tensor(vectors_bare(r, case.width)) for i in shards for r in read_bare(pool, i)
        ]
        _RESIDENT[case] = torch.cat(parts).to(case.device)
    best = torch.empty(0, dtype=torch.float64, device=case.device)
    with torch.inference_mode():
        scores = [margin(module, rows_ND) for rows_ND in torch.split(_RESIDENT[case], BATCH_ROWS)]
        best = torch.cat(scores).topk(case.keep).values
    return best.cpu().numpy()[::-1]


_RESIDENT: dict[Case, torch.Tensor] = {}


def _module(case: Case) -> torch.nn.Module:
    return load(case.model, case.checkpoint)[1][0].eval().to(case.device)


def read_bare(pool: Pool, index: int) -> Iterator[pa.RecordBatch]:
    file = pq.ParquetFile(Path(pool.path) / pool.shards[index].path, memory_map=True)
    return file.iter_batches(BATCH_ROWS, columns=["sample_id", "embedding"], use_threads=False)


def vectors_bare(rows: pa.RecordBatch, width: int) -> torch.Tensor:
    """Gives (N, D) float32 without a copy."""
    column = rows.column("embedding")
    flat = np.frombuffer(column.buffers()[1], np.float32)
    at = column.offset * width
    return torch.from_numpy(flat[at : at + len(column) * width].reshape(-1, width))


def margin(module: torch.nn.Module, rows_ND: torch.Tensor) -> torch.Tensor:
    """Gives the margin score in the fastest way known here, which is rayal's own."""
    outputs = Outputs(rows_ND, {"probs": softmax(module(rows_ND)[0])})
    first_N, second_N = top_two(outputs)
    return 1.0 - (first_N.double() - second_N.double())


def margin_plain(module: torch.nn.Module, rows_ND: torch.Tensor) -> torch.Tensor:
    """Gives the margin score as most would write it."""
    best_N2 = module(rows_ND)[0].softmax(1).topk(2).values.double()
    return 1.0 - (best_N2[:, 0] - best_N2[:, 1])


run_plain = partial(run_bare, score=margin_plain)
ROLES = {"bare": run_bare, "plain": run_plain, "worker": run_worker, "resident": run_resident}


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

    runs: dict[str, list[list[Turn]]] = {}
    try:
        for turn in range(-1, args.turns * case.turns):
            found = {}
            for size in sizes:
                found[f"{size} bare, pinned"] = together(bare[:size])
                found[f"{size} worker, pinned"] = together(workers[:size])
            found["1 plain, pinned"] = together([plain])
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


# ------------------------------------------------------------------------------------ the material


def prepare(case: Case, folder: Path, num_rows: int, keep: int) -> Case:
    """Ingests a pool of random vectors with rayal, and leaves an untrained checkpoint beside it."""
    pool = folder / f"pool-{case.width}"
    if not pool.exists():
        source = folder / f"rows-{case.width}.parquet"
        write_vectors(source, num_rows, case.width)
        ingest(str(source), str(pool), test_share=0.0)
        source.unlink()
    module = case.model.build(CLASSES, case.width)
    classes = tuple(f"class-{index}" for index in range(CLASSES))
    description = Description(
        "class", classes, CLASSES, case.width, case.hidden[-1], describe_architecture(module)
    )
    checkpoint = folder / f"checkpoint-{case.name}"
    save(checkpoint, description, [module])
    return replace(
        case,
        keep=keep,
        pool=str(pool),
        checkpoint=str(checkpoint),
        model_id=model_id(description, [module]),
        folder=str(folder),
    )


def write_vectors(path: Path, num_rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([("embedding", pa.list_(pa.float32(), width))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, 65_536):
            flat = rng.standard_normal(min(65_536, num_rows - start) * width, np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
            writer.write_table(pa.table({"embedding": column}, schema=schema))


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
