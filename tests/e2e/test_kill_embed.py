"""`rayal embed` killed by SIGKILL while it writes, and run again: the same files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from commands import Command
from doors import Doors, contents
from features import MODEL, checkpoint_of, embed, set_of

from rayal.pool import ingest


def test_killed_while_it_writes_it_goes_on(doors: Doors) -> None:
    rng = np.random.default_rng(0)
    vectors = pa.array(rng.normal(size=60_000 * 8).astype(np.float32))
    table = {"embedding": pa.FixedSizeListArray.from_arrays(vectors, 8),
             "label": pa.array(["a", "b"] * 30_000)}  # fmt: skip
    pq.write_table(pa.table(table), doors.folder / "rows.parquet")
    pool = ingest(str(doors.folder / "rows.parquet"), str(doors.folder / "pool"),
                  label_column="label", rows_per_shard=400)  # fmt: skip
    checkpoint = f"checkpoint={checkpoint_of(doors, pool)}"
    place = set_of(embed(doors, pool, checkpoint, "dtype=int8"))
    whole = contents(place)
    assert len(whole) > 200
    shutil.rmtree(doors.folder / "sets")
    words = ["experiment=embeddings", f"pool.path={pool.path}", *MODEL, "features=sets", checkpoint]
    command = Command([*words, "dtype=int8"], doors.folder / "log", "embed")
    assert command.until(lambda: len(list(Path(place).glob("*.arrow"))) >= 5), command.text()
    command.kill()
    done = len(list(place.glob("*.arrow")))
    assert 5 <= done < 300
    said = embed(doors, pool, checkpoint, "dtype=int8").done()
    assert f"{300 - done} of 300 shards were embedded now" in said.out
    left = {name for name in contents(place) if name.startswith(".tmp-")}
    found = {name: value for name, value in contents(place).items() if name not in left}
    assert {k: v for k, v in found.items() if not k.startswith(".")} == {
        k: v for k, v in whole.items() if not k.startswith(".")
    }
    assert not left
