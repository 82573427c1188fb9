"""`rayal select` as a command, on files: through Ray, and on a pool that fits no memory."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _embeddings import blocks
from _processes import Ran, run
from _table import Goal, Line, at_most, said

_NUM_WORKERS = 4
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_INT8_STEPS = 8.0  # a unit of `mixture`: coordinates up to 80, norms up to 300
_GIB = 1 << 30


class Selected(NamedTuple):
    """What a command took, and what it picked."""

    ran: Ran
    ids: np.ndarray
    note: str


def through_ray(quick: bool) -> Iterator[Line]:
    """Line 3 of the issue: four workers pick what one process picks, for not much more. Seconds are
    those of the selection: what the same command takes on a few rows, to start Python and Ray, is
    taken off on both sides, and said beside."""
    num_rows, width, budget = (100_000, 64, 1_000) if quick else (2_000_000, 128, 10_000)
    with tempfile.TemporaryDirectory(prefix="rayal-select-") as name:
        folder = Path(name)
        _write(folder / "outputs", num_rows, width, is_int8=False)
        _write(folder / "few", 4_096, width, is_int8=False)
        ray = ["engine=ray", f"engine.num_workers={_NUM_WORKERS}"]
        one_starts, many_start = (_select(folder, "few", 10, how).ran.cpu_s for how in ([], ray))
        one = _select(folder, "outputs", budget, [])
        many = _select(folder, "outputs", budget, ray)
    is_same = np.array_equal(one.ids, many.ids)
    one_s, many_s = one.ran.cpu_s - one_starts, many.ran.cpu_s - many_start
    rounds = said(many.note, "rounds")
    goals = [Goal("identical", is_same)]
    if not quick:
        goals += [at_most("CPU by 1 process", many_s / one_s, 1.5), at_most("rounds", rounds, 60)]
    yield Line(
        f"{_NUM_WORKERS} Ray workers by 1 process (plain)",
        "mixture",
        num_rows,
        width,
        budget,
        many_s,
        one_s,
        "full",
        many_s / one_s,
        said(many.note, "evaluations") / (num_rows * budget),
        rounds,
        f"yes, {budget:,}" if is_same else "NO",
        goals,
        f"{many.ran.cpu_s / one.ran.cpu_s:.2f} with a start, {many_start:.1f} CPU s by "
        f"{one_starts:.1f}; {many.ran.wall_s:.0f} s by {one.ran.wall_s:.0f} s on the clock; "
        f"{many.note}",
    )


def large(quick: bool) -> Iterator[Line]:
    """Line 4 of the issue: N = 10,000,000 int8 rows on disk."""
    num_rows, width, budget = (1_000_000, 64, 2_000) if quick else (10_000_000, 64, 10_000)
    with tempfile.TemporaryDirectory(prefix="rayal-select-") as name:
        folder = Path(name)
        _write(folder / "outputs", num_rows, width, is_int8=True)
        one = _select(folder, "outputs", budget, [])
    evaluations = said(one.note, "evaluations")
    floor_s = evaluations * 2 * width / _gemm_rate()
    peak_gib = one.ran.peak_bytes / _GIB
    yield Line(
        "k-center, int8 on disk; GEMM as plain",
        "mixture",
        num_rows,
        width,
        budget,
        one.ran.cpu_s,
        floor_s,
        "floor",
        one.ran.cpu_s / floor_s,
        evaluations / (num_rows * budget),
        said(one.note, "rounds"),
        goals=[
            at_most("GiB", peak_gib, 6.0),
            at_most("minutes", one.ran.wall_s / 60.0, 15.0),
        ],
        note=f"peak PSS {peak_gib:.2f} GiB, {one.ran.wall_s:.0f} s on the clock; {one.note}",
    )


def _select(folder: Path, outputs: str, budget: int, overrides: list[str]) -> Selected:
    out = folder / "batch.parquet"
    command = [sys.executable, "-m", "rayal.cli.main", "select"]
    command += ["--outputs", str(folder / outputs / "*.parquet"), "--out", str(out)]
    command += ["strategy=k_center", f"budget={budget}", *overrides]
    ran = run(command, _ONE_THREAD, looks_at_memory=True)
    batch = pq.read_table(out)
    note = batch.schema.metadata[b"rayal.note"].decode()
    return Selected(ran, batch["sample_id"].to_numpy(), note)


def _write(folder: Path, num_rows: int, width: int, is_int8: bool) -> None:
    """Writes rows in files of some hundred thousand, block by block."""
    folder.mkdir()
    kind = pa.int8() if is_int8 else pa.float32()
    schema = pa.schema([("sample_id", pa.int64()), ("embedding", pa.list_(kind, width))])
    writer, first = None, 0
    for number, rows_nD in enumerate(blocks("mixture", num_rows, width)):
        if number % 8 == 0:
            if writer is not None:
                writer.close()
            writer = pq.ParquetWriter(folder / f"{number:05d}.parquet", schema, compression="none")
        if is_int8:
            rows_nD = np.clip(np.rint(rows_nD * _INT8_STEPS), -127, 127).astype(np.int8)
        flat = pa.array(np.ascontiguousarray(rows_nD).reshape(-1))
        embedding = pa.FixedSizeListArray.from_arrays(flat, width)
        ids = pa.array(np.arange(first, first + len(rows_nD)))
        assert writer is not None
        writer.write_table(pa.table({"sample_id": ids, "embedding": embedding}, schema=schema))
        first += len(rows_nD)
    if writer is not None:
        writer.close()


def _gemm_rate() -> float:
    """Gives the FLOP a second of float32 products on one thread, the best of some."""
    size = 2_048
    one = torch.ones(size, size)
    best_s = float("inf")
    for _ in range(5):
        start_s = time.process_time()
        one @ one
        best_s = min(best_s, time.process_time() - start_s)
    return 2.0 * size**3 / best_s
