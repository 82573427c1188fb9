"""Runs on a pool that grows: every round scores what is there, and all test on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from doors import Doors
from runs import picked, write_embeddings

from rayal.ledger import Ledger
from rayal.pool import Pool, ingest
from rayal.rundir import RunDir

ENGINES = [
    pytest.param(("engine=local",), id="local"),
    pytest.param(("engine=ray", "engine.num_workers=2"), id="ray", marks=pytest.mark.ray),
]


def _pool(folder: Path, num_files: int) -> Pool:
    """A pool of so many files of 300 rows, the later ones added one by one."""
    (folder / "in").mkdir(exist_ok=True)
    pool: Pool | None = None
    for number in range(num_files):
        place = folder / "in" / f"{number}.parquet"
        if not place.exists():
            write_embeddings(place, 300, seed=number)
        pool = ingest(str(folder / "in"), str(folder / "pool"), label_column="label",
                      rows_per_shard=100)  # fmt: skip
    assert pool is not None
    return pool


def _tested(run_dir: Path) -> list[int]:
    folder = RunDir(str(run_dir))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        return [event.result.num_rows for event in ledger.events(step="tested")]


def _versions(run_dir: Path) -> list[int]:
    folder = RunDir(str(run_dir))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        return [event.notes["pool"]["version"] for event in ledger.events(step="selected")]


@pytest.mark.parametrize("engine", ENGINES)
def test_rounds_score_the_newest_version(
    doors: Doors, engine: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    if "engine=ray" in engine:
        request.getfixturevalue("small_ray")
        engine = (*engine, "engine.address=auto")
    pool = _pool(doors.folder, 1)
    doors.run(pool, "r", *engine, "num_rounds=1").done()
    grown = _pool(doors.folder, 2)
    assert grown.num_test_rows > pool.num_test_rows
    doors.run(grown, "r", *engine, "num_rounds=3").done()
    first, *later = picked(doors.folder / "r")
    assert max(first) < 300
    assert max(max(ids) for ids in later) >= 300
    assert _tested(doors.folder / "r") == [pool.num_test_rows] * 3
    assert _versions(doors.folder / "r") == [1, 2, 2]
    doors.run(grown, "fresh", "num_rounds=1").done()
    assert _tested(doors.folder / "fresh") == [grown.num_test_rows]


def test_a_pool_that_grows_while_a_run_is_under_way(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rayal.loop import Loop

    pool = _pool(doors.folder, 1)
    plain = Loop.show

    def show(self: Loop, t: int) -> None:
        plain(self, t)
        if t == 0:
            _pool(doors.folder, 2)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "show", show)
        said = doors.run(pool, "r", "num_rounds=3").done()
    assert "the pool has changed from " in said.out + said.err
    assert _versions(doors.folder / "r") == [1, 2, 2]
    assert _tested(doors.folder / "r") == [pool.num_test_rows] * 3


def test_another_pool_is_refused_and_new_classes_are_one_line(doors: Doors) -> None:
    pool = _pool(doors.folder, 1)
    doors.run(pool, "r", "num_rounds=1").done()
    write_embeddings(doors.folder / "other.parquet", 300, seed=9)
    other = ingest(str(doors.folder / "other.parquet"), str(doors.folder / "other"),
                   label_column="label")  # fmt: skip
    doors.run(other, "r", "num_rounds=2").refused("another configuration", "pool_content: ")
    place = write_embeddings(doors.folder / "in" / "9.parquet", 300, seed=3)
    table = pq.read_table(place)
    labels: Any = np.asarray(table.column("label").to_pylist())
    labels[:50] = "eel"
    pq.write_table(table.set_column(1, "label", [labels]), place)
    grown = ingest(str(doors.folder / "in"), pool.path, label_column="label", rows_per_shard=100)
    doors.run(grown, "r", "num_rounds=2").refused(
        "has grown by 1 class(es) that this run does not know: 'eel'; a model of 4 classes",
        "start a new run_dir",
    )
    doors.run(grown, "new", "num_rounds=1").done()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("is_compacted", [False, True])
def test_removed_rows_are_in_no_later_round(
    doors: Doors, engine: tuple[str, ...], is_compacted: bool, request: pytest.FixtureRequest
) -> None:
    if "engine=ray" in engine:
        request.getfixturevalue("small_ray")
        engine = (*engine, "engine.address=auto")
    pool = _pool(doors.folder, 1)
    doors.run(pool, "whole", "num_rounds=2").done()
    doors.run(pool, "r", *engine, "num_rounds=1").done()
    bought, later = picked(doors.folder / "whole")
    test_ids = [
        sample_id
        for shard in pool.test_shards
        for rows in pool.batches(shard, ("sample_id",), 999)
        for sample_id in rows.column("sample_id").to_pylist()
    ]
    gone = {*bought[:4], *later[:4], *test_ids[:5]}
    (doors.folder / "ids.txt").write_text("".join(f"{i}\n" for i in gone))
    said = doors("pool", "delete", pool.path, "--ids", "ids.txt").done()
    assert "13 rows are removed from every later round" in said.out
    if is_compacted:
        assert "shard files were written anew" in doors("pool", "compact", pool.path).done().out
    doors.run(pool.path, "r", *engine, "num_rounds=2").done()
    first, second = picked(doors.folder / "r")
    assert first == bought
    assert not gone & {*second}
    assert len(second) == 20
    trained = pq.read_table(doors.folder / "r" / "rounds" / "r0001" / "snapshot.parquet")
    assert {*trained.column("sample_id").to_pylist()} == {*first, *second} - gone
    assert _tested(doors.folder / "r") == [len(test_ids), len(test_ids) - 5]


def test_ids_to_delete_are_read_from_a_file(doors: Doors) -> None:
    pool = _pool(doors.folder, 1)
    doors("pool", "delete", pool.path).refused("delete takes --ids FILE", code=2)
    doors("pool", "delete", pool.path, "--ids", "no.txt").refused("--ids no.txt cannot be read")
