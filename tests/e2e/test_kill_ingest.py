"""`rayal ingest` killed by SIGKILL at random moments, and run again: the same pool."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.pool import ingest

NUM_KILLS = 10
NUM_FILES, ROWS_PER_FILE = 12, 200_000  # long enough that a third of an ingest finishes a shard
WORDS = ("--id-column", "uid", "--label-column", "y")


def _write(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM_FILES):
        ids = np.arange(ROWS_PER_FILE) + number * ROWS_PER_FILE
        vectors = pa.array(rng.normal(size=ROWS_PER_FILE * 8).astype(np.float32))
        table = {
            "uid": [f"user-{i:09d}" for i in ids],
            "v": pa.FixedSizeListArray.from_arrays(vectors, 8),
            "y": pa.array(ids % 7),
        }
        pq.write_table(pa.table(table), folder / f"{number:02d}.parquet")


def _has_begun(pool: Path, pid: int) -> bool:
    try:
        return f"process {pid} " in (pool / ".lock").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_ten_kills_at_random_moments(tmp_path: Path, seed: int) -> None:
    _write(tmp_path / "in")
    started = time.monotonic()
    whole = ingest(str(tmp_path / "in"), str(tmp_path / "whole"), id_column="uid", label_column="y")
    span_s = time.monotonic() - started
    rng = np.random.default_rng(seed)
    command = [sys.executable, "-m", "rayal.cli.main", "ingest", str(tmp_path / "in")]
    command += [str(tmp_path / "pool"), *WORDS]
    done = []
    for _ in range(NUM_KILLS):
        with subprocess.Popen(command) as process:
            # Not in the imports, in which there is nothing to spoil.
            while process.poll() is None and not _has_begun(tmp_path / "pool", process.pid):
                time.sleep(0.01)
            time.sleep(float(rng.uniform(0.05, span_s / 3)))
            process.send_signal(signal.SIGKILL)
        done.append(len(list((tmp_path / "pool" / "shards").glob("*.parquet"))))
    assert done == sorted(done)
    assert done[-1] > 0
    assert subprocess.run(command, check=True).returncode == 0
    paths = sorted(p.relative_to(whole.path) for p in Path(whole.path).rglob("*.parquet"))
    assert paths == sorted(
        p.relative_to(tmp_path / "pool") for p in (tmp_path / "pool").rglob("*.parquet")
    )
    for path in paths:
        assert (tmp_path / "pool" / path).read_bytes() == (Path(whole.path) / path).read_bytes()
