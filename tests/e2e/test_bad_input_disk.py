"""A disk that is full at any write: one line, nothing half-written, the same command goes on."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doors import Doors, contents
from runs import write_embeddings
from sqlalchemy import event

from rayal.engine import survivors
from rayal.ledger import store
from rayal.pool import Pool, ingest

MOST_ATTEMPTS = 60


@pytest.fixture
def one_shard(tmp_path: Path) -> Pool:
    """200 rows in one shard, so that a run writes few files."""
    source = write_embeddings(tmp_path / "rows.parquet", 200)
    return ingest(str(source), str(tmp_path / "pool"), label_column="label")


def _no_space(path: object = None) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None if path is None else str(path))


def _go_on(doors: Doors, pool: Pool, number: int) -> bool:
    """Gives one attempt: whether it ended well; a refusal is one line about a full disk."""
    said = doors.run(pool, "r", "budget=10")
    assert not [path for path in doors.folder.rglob(".tmp-*")], number
    if said.code == 0:
        said.done()
        return True
    said.refused("the disk is full", "nothing was half-written", "run the same command again")
    return False


def _attempts(doors: Doors, pool: Pool) -> int:
    """Runs the same command until it succeeds; gives how often it was refused."""
    for number in range(MOST_ATTEMPTS):
        if _go_on(doors, pool, number):
            return number
    raise AssertionError(f"{MOST_ATTEMPTS} attempts, and it did not end")


def _once_a_path(function: Callable[..., Any], path_of: Callable[..., str], root: Path, seen: set):
    """Gives the function, but it finds the disk full the first time it is asked for a path."""

    def called(*args: Any) -> Any:
        path = path_of(*args)
        if path.startswith(str(root)) and path not in seen:
            seen.add(path)
            raise _no_space(path)
        return function(*args)

    return called


def _name_of(descriptor: int) -> str:
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    return re.sub(r"/\.tmp-([^/]*)-[0-9a-f]{8}", r"/\1 (temporary)", path)


@pytest.mark.parametrize(
    ("name", "path_of"),
    [("replace", lambda source, target: str(target)), ("fsync", _name_of)],
    ids=["rename", "sync"],
)
def test_every_file_of_a_run(
    doors: Doors,
    one_shard: Pool,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    path_of: Callable[..., str],
) -> None:
    """Each file of a run finds the disk full once, before its name is there or after."""
    doors.run(one_shard, "plain", "budget=10").done()
    seen: set[str] = set()
    root = doors.folder / "r"
    with monkeypatch.context() as patch:
        patch.setattr(os, name, _once_a_path(getattr(os, name), path_of, root, seen))
        refused = _attempts(doors, one_shard)
    assert refused == len(seen)
    words = " ".join(sorted(seen))
    # Survivors of a pass are not synced: a checksum tells the damaged ones, which are made again.
    survivors = ["shard-00000.arrow"] if name == "replace" else []
    for part in ("run.json", "taken.arrow", "batch.parquet", "r0001", *survivors):
        assert part in words
    for part in ("snapshot.parquet", "checkpoints/r0000", "report.html", "labeler/"):
        assert part in words
    assert doors.digest("r") == doors.digest("plain")


def test_every_page_of_the_ledger(
    doors: Doors, one_shard: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite may grow by a page more at each attempt, and says itself that the disk is full."""
    doors.run(one_shard, "plain", "budget=10").done()
    doors.run(one_shard, "r", "budget=10", "num_rounds=1", "seed=0").done()
    allowed = _pages(doors.folder / "r" / "ledger.db")
    make = store.create_engine

    def tight(*args: Any, **kwargs: Any) -> Any:
        engine = make(*args, **kwargs)

        @event.listens_for(engine, "connect")
        def limit(connection: sqlite3.Connection, _: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {allowed}")

        return engine

    refused = 0
    with monkeypatch.context() as patch:
        patch.setattr(store, "create_engine", tight)
        while not _go_on(doors, one_shard, refused):
            refused, allowed = refused + 1, allowed + 1
            assert refused < MOST_ATTEMPTS
    assert refused >= 2
    assert doors.digest("r") == doors.digest("plain")


def _pages(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])
    finally:
        connection.close()


def test_a_new_ledger(doors: Doors, one_shard: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store.sqlite3, "connect", full)
        doors.run(one_shard, "r").refused("the disk is full while writing the ledger", "free some")
    doors.run(one_shard, "r").done()


def test_survivors_and_checkpoints_cut_short(
    doors: Doors, one_shard: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a file is written when the disk is full; torch hides why in an error of its own."""
    doors.run(one_shard, "plain", "budget=10").done()
    save, write_streams, fails = torch.save, survivors.write_streams, [True, True, True]

    def half_a_checkpoint(state: Any, file: Any) -> None:
        if fails.pop() if fails else False:
            try:
                file.write(b"PK")
                raise _no_space()
            except OSError:
                raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904
        save(state, file)

    def half_a_stream(path: Path, batches: Any) -> None:
        if fails.pop() if fails else False:
            path.write_bytes(b"ARROW")
            raise _no_space(path)
        write_streams(path, batches)

    with monkeypatch.context() as patch:
        patch.setattr(survivors, "write_streams", half_a_stream)
        assert not _go_on(doors, one_shard, 0)
        patch.undo()
        patch.setattr(torch, "save", half_a_checkpoint)
        assert not _go_on(doors, one_shard, 1)
        assert not list(doors.folder.glob("r/checkpoints/*/member-0.pt"))
        assert not _go_on(doors, one_shard, 2)
        assert not fails
        assert _go_on(doors, one_shard, 3)
    assert doors.digest("r") == doors.digest("plain")


def test_an_ingest_goes_on_where_the_disk_was_full(
    doors: Doors, one_shard: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(doors.folder)

    def full(*_: object) -> None:
        raise _no_space()

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        doors("ingest", "rows.parquet", "other", "--label-column", "label").refused(
            "the disk is full while writing other", "nothing was half-written", "free some space"
        )
    closed = doors.folder / "other" / "shards" / "shard-00000.parquet"
    written = closed.stat().st_mtime_ns
    doors.run(Pool(str(doors.folder / "other"), one_shard.manifest), "r").refused(
        "is not a pool yet: its ingest did not come to its end", "run the same ingest again"
    )
    assert {path: what for path, what in contents(doors.folder).items() if path in before} == before
    doors("ingest", "rows.parquet", "other", "--label-column", "label").done()
    assert closed.stat().st_mtime_ns == written
    assert Pool.open(str(doors.folder / "other")).content_hash == one_shard.content_hash


def test_an_export_and_a_report(
    doors: Doors, one_shard: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors.run(one_shard, "r").done()
    report = (doors.folder / "r" / "report.html").read_bytes()

    def full(*_: object) -> None:
        raise _no_space()

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        doors("export", "r", "--out", "o.parquet").refused("the disk is full while writing o.parq")
        doors("report", "r").refused("the disk is full while writing", "report.html")
    assert not (doors.folder / "o.parquet").exists()
    assert (doors.folder / "r" / "report.html").read_bytes() == report
    doors("export", "r", "--out", "o.parquet").done()
