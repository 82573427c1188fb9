"""The folder of a pool: one writer at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.errors import PoolError
from rayal.places import Place
from rayal.pool import ingest
from rayal.pool.folder import LOCK, alone_in

_HANGS = """
import sys, time
from rayal.places import Place
from rayal.pool.folder import alone_in
with alone_in(Place.of(sys.argv[1])):
    print("there", flush=True)
    time.sleep(60)
"""


def test_two_ingests_into_one_pool_at_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "in.parquet")
    source, place = str(tmp_path / "in.parquet"), tmp_path / "pool"
    command = [sys.executable, "-c", _HANGS, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        with pytest.raises(PoolError) as caught:
            ingest(source, str(place))
        message = str(caught.value)
        assert message.startswith(f"{place} is being written by process {process.pid} on ")
        assert message.endswith("; wait for it or end it, then run the same command again")
        assert [path.name for path in place.iterdir()] == [LOCK]
        process.send_signal(signal.SIGKILL)
    assert ingest(source, str(place)).num_rows + ingest(source, str(place)).num_test_rows == 1
    assert not (place / LOCK).exists()


def test_the_same_process_is_kept_out_too(tmp_path: Path) -> None:
    with (
        alone_in(Place.of(str(tmp_path / "pool"))),
        pytest.raises(PoolError, match=f"by process {os.getpid()} on"),
        alone_in(Place.of(str(tmp_path / "pool"))),
    ):
        raise AssertionError("two are in")
    assert not (tmp_path / "pool").exists()


def test_a_folder_goes_when_it_is_empty_and_was_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new", "full"):
        with alone_in(Place.of(str(tmp_path / name))):
            if name == "full":
                (tmp_path / name / "x").write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "mine"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["x"]
