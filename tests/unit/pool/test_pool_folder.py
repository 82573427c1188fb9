"""The folder of a pool while it is made, and what a killed ingest leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.pool import folder, ingest
from rayal.pool.folder import making

_HANGS = """
import sys, time
from pathlib import Path
from rayal.pool.folder import making
with making(Path(sys.argv[1])) as temporary:
    (temporary / "half").write_text("written")
    print(temporary, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_ingest_left_is_removed_by_the_next(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "in.parquet")
    command = [sys.executable, "-c", _HANGS, str(tmp_path / "pool")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert left.is_dir()
        ingest(str(tmp_path / "in.parquet"), str(tmp_path / "other"))
        with making(tmp_path / "pool"):  # of a process that lives, and may yet end
            assert left.is_dir()
        (tmp_path / "pool").rmdir()
        process.send_signal(signal.SIGKILL)
    strangers = [f".tmp-pool-{name}-{process.pid}-0123abcd" for name in ("elsewhere", "2-node")]
    strangers += [".tmp-pool-1a2b3c4d", f".tmp-pool-{folder._machine()}-{process.pid}-notes"]
    strangers += [f".tmp-pool2-{folder._machine()}-{process.pid}-0123abcd"]
    for name in strangers:
        (tmp_path / name).mkdir()
    assert left.is_dir()
    ingest(str(tmp_path / "in.parquet"), str(tmp_path / "pool"))
    assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*strangers, "in.parquet", "other", "pool"]
    )


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with making(tmp_path / "pool") as temporary:
            (temporary / "x").write_text("1")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "pool").mkdir()  # an empty folder is no obstacle
    with making(tmp_path / "pool") as temporary:
        assert str(os.getpid()) in temporary.name
        (temporary / "deep").mkdir()
        (temporary / "deep" / "x").write_text("1")
    assert (tmp_path / "pool" / "deep" / "x").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]
