"""A pool at size: ingested, its best hundredth picked; beside a bare loop and Ray Data.

    python benchmarks/pool.py [--quick] [--rows N ...] [--folder FOLDER]

Sources are `make_pool.py`'s: 64 int8 features and a text key a row; `rayal ingest --id-column key`
makes the pool. The model is 64-256-10; margin and top_k keep and pick M = N/100 rows (1e6 of 1e8).
All passes read the same shards, two processes each, none pinned:
- rayal: the Ray engine with two workers, a whole pass, survivors on disk and M picks with reasons;
- bare: two processes with half of the shards each, pyarrow and torch, M scores kept in memory;
- Ray Data: `read_parquet().map_batches()` with an actor class, two actors; M scores kept.
Processes are warm before the clock runs, and take turns. Up to 2e7 rows also one bare process
beside the local engine; above, one turn. Actors of Ray Data start with each of its runs.
Bytes read are what the disk gave (`read_bytes` of /proc/PID/io, mapped files included) to all
processes of the Ray engine in a pass after the system was told to forget the pool's files; needed
are the bytes of sample_id and embedding in the shards' footers. Peak memory is the largest PSS seen
of any process of a role, looked at four times a second (ingest: twice) in a run that is not timed:
a look takes 5 ms a process of the same two cores, and Ray has a dozen processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import make_pool
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _at_size import NUM_WORKERS, Found, Measured, Role, SizedCase, drop_from_memory
from _passes import with_checkpoint
from _processes import run

from rayal.pool import Pool

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_GIB, _MOST_GIB, _MOST_READ, _LEAST_OF_BARE = 1 << 30, 1.5, 1.1, 0.85
_HIDDEN = (256,)
_SMALL_ROWS = 5_000_000  # up to it passes take about a second, and the median is of nine
_LARGE_ROWS = 20_000_000  # above it: one turn, and two processes alone
Column = dict[str, str]  # of the table: measure -> what was found


def measure(folder: Path, num_rows: int, turns: int, has_data: bool, column: Column) -> None:
    """Makes, ingests and scores one pool; writes its column of the table."""
    keep = max(1, num_rows // 100)
    column.update({"rows": f"{num_rows:,}", "M, picked": f"{keep:,}"})
    pool = _ingest(folder, num_rows, column)
    case = SizedCase(make_pool.WIDTH, _HIDDEN)
    work = Path(pool.path).with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    case = with_checkpoint(case, work, Path(pool.path), keep)
    every = range(len(pool.shards))
    column["shards"] = f"{len(every):,}"
    runs: dict[str, list[Measured]] = {}
    watched: dict[str, Measured] = {}

    def take(name: str, found: Measured) -> None:
        runs.setdefault(name, []).append(found)
        _check_alike(name, found.found.scores, runs["rayal"][0].found.scores)

    with _role("ray", case) as ray:
        drop_from_memory(pool)
        cold = _one(ray, every, is_watched=True)
        _put_bytes(pool, cold, column)
        watched["rayal"] = cold
        is_large = num_rows > _LARGE_ROWS
        with contextlib.ExitStack() as stack:
            bare = [stack.enter_context(_role("bare", case)) for _ in range(NUM_WORKERS)]
            local = None if is_large else stack.enter_context(_role("local", case))
            watched["bare"] = _together(bare, every, keep, is_watched=True)
            if local is not None:
                watched["1 rayal"] = _one(local, every, is_watched=True)
                watched["1 bare"] = _one(bare[0], every, is_watched=True)
            for _ in range(turns):
                take("rayal", _one(ray, every))
                take("bare", _together(bare, every, keep))
                if local is None:
                    continue
                take("1 bare", _one(bare[0], every))
                take("1 rayal", _one(local, every))
    try:
        if has_data:
            with _role("data", case) as data:
                watched["data"] = _one(data, every, is_watched=True)
                for _ in range(turns):
                    take("data", _one(data, every))
    finally:  # what was measured is shown
        _put_passes(runs, watched, num_rows, column)


@contextlib.contextmanager
def _role(name: str, case: SizedCase) -> Iterator[Role]:
    role = Role(name, case)
    try:
        yield role
    finally:
        role.close()


def _one(role: Role, shards: Sequence[int], is_watched: bool = False) -> Measured:
    role.start(shards, is_watched)
    return role.end()


def _together(
    roles: Sequence[Role], shards: Sequence[int], keep: int, is_watched: bool = False
) -> Measured:
    for place, role in enumerate(roles):
        role.start(shards[place :: len(roles)], is_watched)
    found = [role.end() for role in roles]
    scores = np.sort(np.concatenate([one.found.scores for one in found]))[-keep:]
    peaks = {"": max(one.peaks[""] for one in found)} if is_watched else {}
    wall_s = max(one.found.seconds["score"] for one in found)
    answer = Found({"score": wall_s}, scores)
    cpu_s, read_bytes = (sum(getattr(one, n) for one in found) for n in ("cpu_s", "read_bytes"))
    return Measured(answer, wall_s, cpu_s, read_bytes, peaks)


def _check_alike(name: str, scores: np.ndarray, wanted: np.ndarray) -> None:
    """Makes sure that all found rows of the same scores: a fast wrong answer is no answer."""
    if len(scores) != len(wanted) or not np.allclose(scores, wanted, rtol=0, atol=1e-6):
        raise SystemExit(f"{name} keeps rows of other scores than rayal's first pass")


# ------------------------------------------------------------------------------------------ ingest


def _ingest(folder: Path, num_rows: int, column: Column) -> Pool:
    source, place = folder / f"rows-{num_rows}", folder / f"pool-{num_rows}"
    source_bytes = make_pool.make(source, num_rows)
    if place.exists():
        shutil.rmtree(place)
    words = ["ingest", str(source), str(place), "--id-column", "key", "--test-share", "0"]
    ran = run([sys.executable, "-m", "rayal.cli.main", *words], _ONE_THREAD, looks_at_memory=True)
    pool = Pool.open(str(place))
    if pool.num_rows != num_rows:
        raise SystemExit(f"{place} has {pool.num_rows:,} rows, expected {num_rows:,}")
    pool_bytes = sum(shard.size_bytes for shard in pool.manifest.shards)
    column["source, pool GB"] = f"{source_bytes / 1e9:.2f}, {pool_bytes / 1e9:.2f}"
    column["ingest: rows/s"] = f"{num_rows / ran.wall_s:,.0f}"
    column["ingest: wall s, CPU s"] = f"{ran.wall_s:.1f}, {ran.cpu_s:.1f}"
    column["ingest: us a row, CPU"] = f"{ran.cpu_s / num_rows * 1e6:.2f}"
    column["ingest: peak GiB"] = _gib(ran.peaks[""])
    return pool


# ----------------------------------------------------------------------------------------- passes


def _put_bytes(pool: Pool, cold: Measured, column: Column) -> None:
    needed = 0
    for shard in pool.shards:
        footer = pq.read_metadata(Path(pool.path) / shard.path)
        for group in range(footer.num_row_groups):
            chunks = [footer.row_group(group).column(i) for i in range(footer.num_columns)]
            needed += sum(
                chunk.total_compressed_size
                for chunk in chunks
                if chunk.path_in_schema in ("sample_id", "embedding")
            )
    ratio = cold.read_bytes / needed
    verdict = "ok" if ratio <= _MOST_READ else "ABOVE"
    column["bytes read, cold, GB"] = f"{cold.read_bytes / 1e9:.3f}"
    column[f"  by bytes needed (wanted {_MOST_READ:g})"] = f"{ratio:.3f} {verdict}"
    column["cold pass: rows/s"] = f"{pool.num_rows / cold.found.seconds['score']:,.0f}"


def _put_passes(
    runs: dict[str, list[Measured]], watched: dict[str, Measured], num_rows: int, column: Column
) -> None:
    def seconds(name: str, part: str) -> float:
        return statistics.median(one.found.seconds[part] for one in runs[name])

    def walls(name: str) -> list[float]:
        return [one.found.seconds["score"] for one in runs[name]]

    def ratio(what: str, slow: str, fast: str, wanted: float | None = None) -> None:
        by_wall = [s / f for s, f in zip(walls(slow), walls(fast), strict=True)]
        by_cpu = [s.cpu_s / f.cpu_s for s, f in zip(runs[slow], runs[fast], strict=True)]
        found = statistics.median(by_wall)
        verdict = "" if wanted is None else " ok" if found >= wanted else " BELOW"
        goal = "" if wanted is None else f" (wanted {wanted:g})"
        column[what + goal] = f"{found:.3f}{verdict}"
        column[f"  the same by CPU-s, {what}"] = f"{statistics.median(by_cpu):.3f}"

    titles = {
        "rayal": "2 workers of rayal, Ray",
        "bare": "2 bare",
        "data": "2 actors of Ray Data",
        "1 rayal": "1 worker of rayal, local",
        "1 bare": "1 bare",
    }
    for name, title in titles.items():
        if name not in runs:
            continue
        wall_s = statistics.median(walls(name))
        cpu_s = statistics.median(one.cpu_s for one in runs[name])
        column[f"{title}: rows/s"] = f"{num_rows / wall_s:,.0f}"
        column[f"{title}: wall s, CPU s"] = f"{wall_s:.2f}, {cpu_s:.2f}"
        if "rayal" in name:
            column[f"{title}: s to pick M"] = f"{seconds(name, 'pick'):.2f}"
        if name == "data":
            # Its actors start with every run; from the first block that comes on, they are there.
            rates = [(num_rows - r.found.num_first) / r.found.seconds["flow"] for r in runs[name]]
            rest = f"{statistics.median(rates):,.0f}" if all(rates) else "one block"
            column[f"{title}: rows/s after its first block"] = rest
        peaks = dict(watched[name].peaks)
        worker = peaks.pop("ray::_Carrier", None) or peaks.pop("ray::MapWorker", None)
        driver = peaks.pop("")
        own = f"{_gib(driver)}" if worker is None else f"{_gib(driver)}, {_gib(worker)}"
        what = "" if worker is None else " of driver, worker"
        column[f"{title}: peak GiB{what}"] = own
        if worker is not None:
            role, size = max(peaks.items(), key=lambda pair: pair[1])
            column[f"{title}: the largest other"] = f"{_gib(size)} {role}"
    ratio("rayal / bare, 2 by 2", "bare", "rayal", _LEAST_OF_BARE)
    if "1 bare" in runs:
        ratio("rayal / bare, 1 by 1", "1 bare", "1 rayal", _LEAST_OF_BARE)
    if "data" in runs:
        ratio("rayal / Ray Data", "data", "rayal", 1.0)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f}" + ("" if size <= _MOST_GIB * _GIB else " ABOVE")


def _turns(num_rows: int) -> int:
    return 9 if num_rows <= _SMALL_ROWS else 3 if num_rows <= _LARGE_ROWS else 1


# ------------------------------------------------------------------------------------------- table


def show(columns: Sequence[Column]) -> None:
    """Prints the table, one column a size."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    left = max(map(len, names))
    for name in names:
        cells = "  ".join(f"{column.get(name, ''):>24}" for column in columns)
        print(f"{name:{left}}  {cells}".rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 and 4 million rows")
    parser.add_argument(
        "--rows", type=int, nargs="+", help="default 1, 10 and 100 million: 20 GB of disk"
    )
    parser.add_argument("--turns", type=int, help="default 9, 3 or 1 by the number of rows")
    parser.add_argument("--folder", type=Path, help="keep sources and pools there, or find them")
    parser.add_argument("--without-ray-data", action="store_true", help="which takes longest")
    args = parser.parse_args()
    sizes = args.rows or ([1_000_000, 4_000_000] if args.quick else [10**6, 10**7, 10**8])
    os.environ.update(_ONE_THREAD)  # for the processes to come
    columns = []
    with contextlib.ExitStack() as stack:
        if args.folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rayal-pool-")))
        else:
            folder = args.folder.absolute()
            folder.mkdir(parents=True, exist_ok=True)
        for num_rows in sizes:
            turns = args.turns or _turns(num_rows)
            columns.append(Column())
            try:
                measure(folder, num_rows, turns, not args.without_ray_data, columns[-1])
            finally:
                show(columns[-1:])
                sys.stdout.flush()
            if args.folder is None:
                shutil.rmtree(folder / f"rows-{num_rows}")
                shutil.rmtree(folder / f"pool-{num_rows}")
                shutil.rmtree(folder / f"pool-{num_rows}.work")
    import ray

    print(
        f"int8 rows, batches of 4,096, median of turns; {os.cpu_count()} cores; ray "
        f"{ray.__version__}, torch {torch.__version__}, pyarrow {pa.__version__}"
    )
    show(columns)


if __name__ == "__main__":
    main()
