"""An ingest that is killed at any moment, and run again: the same pool, and nothing done twice."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal import disk
from rayal.errors import PoolError, RayalError
from rayal.pool import Pool, ingest, leftovers
from rayal.pool.under_way import UnderWay
from rayal.pool.writer import ShardWriter

OPTIONS: dict[str, Any] = {"id_column": "uid", "label_column": "y", "rows_per_shard": 40}


class Killed(BaseException):
    """Not an Exception: nothing in rayal may catch it."""


class Fate:
    """Ends an ingest before or after one of its writes."""

    def __init__(self, at: int = -1, when: str = "after") -> None:
        self.at, self.when = at, when
        self.writes: list[str] = []

    def __call__(self, name: str, act: Callable[[], Any]) -> Any:
        here = len(self.writes) == self.at
        self.writes.append(name)
        if here and self.when == "before":
            raise Killed
        done = act()
        if here:
            raise Killed
        return done


@pytest.fixture
def fated(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fate], None]:
    """Puts every write of an ingest under a fate."""
    plain = {
        "group": ShardWriter._write_group,
        "close": ShardWriter.close,
        "add": UnderWay.add,
        "end": UnderWay.end,
        "commit": disk.commit_file,
        "remove": leftovers.disk.remove_folder,
    }

    def under(fate: Fate) -> None:
        def method(name: str) -> Callable[..., Any]:
            return lambda *args: fate(name, lambda: plain[name](*args))

        monkeypatch.setattr(ShardWriter, "_write_group", method("group"))
        monkeypatch.setattr(ShardWriter, "close", method("close"))
        monkeypatch.setattr(UnderWay, "add", method("add"))
        monkeypatch.setattr(UnderWay, "end", method("end"))
        monkeypatch.setattr(disk, "commit_file", method("commit"))
        monkeypatch.setattr(disk, "remove_folder", method("remove"))

    return under


def _write(folder: Path, name: str, rows: range, own: bool, **more: Any) -> None:
    rng = np.random.default_rng(rows.start)
    table = {
        "uid": [i * 7 for i in rows] if own else [f"u{i}" for i in rows],
        "v": rng.normal(size=(len(rows), 3)).tolist(),
        "y": [None if i % 9 == 0 else f"c{i % 4 + i // 100}" for i in rows],
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({**table, **more}), folder / name, row_group_size=17)


def _files(pool: str) -> dict[str, bytes]:
    """Everything in a pool, but for what says where the source lies."""
    return {
        str(path.relative_to(pool)): path.read_bytes()
        for path in sorted(Path(pool).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(params=[True, False], ids=["int64 ids", "text ids"])
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    for start, name in ((0, "a"), (90, "b"), (100, "c")):
        rows = range(start, {"a": 90, "b": 100, "c": 230}[name])
        _write(tmp_path / "in", f"{name}.parquet", rows, request.param)
    return tmp_path / "in"


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_write(source: Path, tmp_path: Path, fated: Any, when: str) -> None:
    whole = str(tmp_path / "whole")
    fate = Fate()
    fated(fate)
    expected = ingest(str(source), whole, **OPTIONS)
    assert len(expected.shards) == 6
    assert {"group", "close", "add", "end", "commit", "remove"} == set(fate.writes)
    assert fate.writes.count("add") == 1 + 6  # the header, then each closed shard
    for at in range(0, len(fate.writes), 2 if when == "after" else 3):
        place = str(tmp_path / f"pool{at}")
        fated(Fate(at, when))
        with pytest.raises(Killed):
            ingest(str(source), place, **OPTIONS)
        second = Fate()
        fated(second)
        assert ingest(str(source), place, **OPTIONS).content_hash == expected.content_hash
        assert _files(place) == _files(whole), (at, fate.writes[at])
        done = fate.writes[: at + (when == "after")].count("add") - 1
        assert second.writes.count("add") <= 1 + 6 - max(done, 0) or "commit" in fate.writes[:at]


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(source: Path, tmp_path: Path, fated: Any, seed: int) -> None:
    expected = ingest(str(source), str(tmp_path / "whole"), **OPTIONS)
    rng, place, kills = np.random.default_rng(seed), str(tmp_path / "pool"), 0
    while True:
        fated(Fate(int(rng.integers(12)), ("before", "after")[int(rng.integers(2))]))
        try:
            pool = ingest(str(source), place, **OPTIONS)
            break
        except Killed:
            kills += 1
            assert kills < 60
    assert kills >= 2
    assert pool.content_hash == expected.content_hash
    assert _files(place) == _files(str(tmp_path / "whole"))


def _killed(source: Path, place: str, fated: Any, num_shards: int, **options: Any) -> None:
    """Ends an ingest after so many shards are in its journal."""

    class AtShard(Fate):
        def __call__(self, name: str, act: Callable[[], Any]) -> Any:
            done = super().__call__(name, act)
            if self.writes.count("add") == 1 + num_shards:
                raise Killed
            return done

    fated(AtShard())
    with pytest.raises(Killed):
        ingest(str(source), place, **{**OPTIONS, **options})
    fated(Fate())


def test_what_was_done_is_not_done_again(source: Path, tmp_path: Path, fated: Any) -> None:
    place = str(tmp_path / "pool")
    _killed(source, place, fated, 4)
    kept = {path: path.stat().st_mtime_ns for path in Path(place, "shards").glob("*0[0-3].parquet")}
    assert len(kept) == 4
    with pytest.raises(PoolError, match="is not a pool yet: its ingest did not come to its end"):
        Pool.open(place)
    ingest(str(source), place, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("change", ["plan", "file", "damage", "journal"])
def test_what_an_attempt_left_is_only_used_where_it_fits(
    source: Path, tmp_path: Path, fated: Any, change: str
) -> None:
    place = str(tmp_path / "pool")
    _killed(source, place, fated, 4)
    options = dict(OPTIONS)
    if change == "plan":
        options["rows_per_shard"] = 25
    elif change == "file":
        own = pq.read_schema(source / "a.parquet").field("uid").type == pa.int64()
        _write(source, "a.parquet", range(1000, 1090), own)
    elif change == "damage":
        (Path(place) / "shards" / "shard-00002.parquet").write_bytes(b"PAR1")
    else:
        with (Path(place) / "ingest.jsonl").open("r+b") as file:
            file.seek(-30, os.SEEK_END)
            file.write(b"x")
    pool = ingest(str(source), place, **options)
    assert pool.content_hash == ingest(str(source), str(tmp_path / "w"), **options).content_hash
    assert _files(place) == _files(str(tmp_path / "w"))


def test_a_file_that_came_after_the_kill_is_a_version_of_its_own(
    source: Path, tmp_path: Path, fated: Any
) -> None:
    place = str(tmp_path / "pool")
    _killed(source, place, fated, 2)
    own = pq.read_schema(source / "a.parquet").field("uid").type == pa.int64()
    _write(source, "0.parquet", range(300, 310), own)
    pool = ingest(str(source), place, **OPTIONS)
    assert [version.end_row for version in pool.manifest.versions] == [230, 240]


def test_a_column_that_changes_late_begins_the_pass_again(tmp_path: Path, fated: Any) -> None:
    source = tmp_path / "in"
    _write(source, "a.parquet", range(100), True)
    _write(source, "b.parquet", range(100, 190), True)
    table = pq.read_table(source / "b.parquet")
    odd = [[1.0], *table.column("v").to_pylist()[1:]]
    pq.write_table(table.set_column(1, "v", pa.array(odd)), source / "b.parquet")
    fate = Fate()
    fated(fate)
    expected = ingest(str(source), str(tmp_path / "whole"), **OPTIONS)
    for at in range(1, len(fate.writes), 3):
        place = str(tmp_path / f"pool{at}")
        fated(Fate(at))
        with pytest.raises(Killed):
            ingest(str(source), place, **OPTIONS)
        fated(Fate())
        assert ingest(str(source), place, **OPTIONS).content_hash == expected.content_hash


@pytest.mark.parametrize("is_own", [True, False])
def test_an_id_that_comes_again_after_a_kill_is_refused(
    is_own: bool, tmp_path: Path, fated: Any
) -> None:
    source, place = tmp_path / "in", str(tmp_path / "pool")
    _write(source, "a.parquet", range(100), is_own)
    _write(source, "b.parquet", range(30, 60), is_own)
    _killed(source, place, fated, 2)
    name = "210" if is_own else "'u30'"
    with pytest.raises(
        PoolError, match=rf"in 30 of 130 rows .*: {name} at shard 0 of the pool and "
    ):
        ingest(str(source), place, **OPTIONS)
    assert not Path(place).exists()


def test_a_store_that_fails_is_gone_on_with_and_bad_input_is_not(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "pool")
    plain, left = ShardWriter.close, [14]

    def full(self: ShardWriter, first_id: int) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(self, first_id)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "close", full)
        with pytest.raises(RayalError, match="the disk is full while writing"):
            ingest(str(source), place, **OPTIONS)
    kept = Path(place) / "shards" / "shard-00001.parquet"
    before = kept.stat().st_mtime_ns
    ingest(str(source), place, **OPTIONS)
    assert kept.stat().st_mtime_ns == before
    table = pq.read_table(source / "c.parquet")
    pq.write_table(table.append_column("z", table.column("y")), source / "d.parquet")
    with pytest.raises(PoolError, match="adds z"):
        ingest(str(source), str(tmp_path / "other"), **OPTIONS)
    assert not (tmp_path / "other").exists()


def test_a_file_that_changes_while_it_is_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(done: int, total: int | None) -> None:
        os.utime(source / "b.parquet", ns=(1, 1))

    with pytest.raises(PoolError, match=r"b.parquet changed while it was read \(\d+ bytes"):
        ingest(str(source), str(tmp_path / "pool"), progress=touch, **OPTIONS)
    assert not (tmp_path / "pool").exists()
