"""Rows that are to be forgotten: nothing reads them, before `compact` and after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal import disk
from rayal.errors import PoolError
from rayal.pool import Pool, compact, delete, ingest
from rayal.pool import leftovers as leftovers_module
from rayal.pool.writer import ShardWriter

GONE = [0, 7, 41, 42, 43, 99]


def _write(folder: Path, name: str, rows: range) -> str:
    folder.mkdir(exist_ok=True)
    table = {
        "own": [i * 7 for i in rows],
        "text": [f"u{i}" for i in rows],
        "v": np.random.default_rng(rows.start).normal(size=(len(rows), 3)).tolist(),
        "y": [f"c{i % 3}" for i in rows],
    }
    pq.write_table(pa.table(table), folder / name)
    return str(folder)


def _options(id_column: str | None) -> dict[str, Any]:
    drop = [name for name in ("own", "text") if name != id_column]
    return {"label_column": "y", "rows_per_shard": 30, "test_share": 0.3, "id_column": id_column,
            "drop": drop}  # fmt: skip


def _names(id_column: str | None, rows: list[int]) -> list[str]:
    return [{None: str(i), "own": str(i * 7), "text": f"u{i}"}[id_column] for i in rows]


def _read(pool: Pool) -> list[int]:
    return [
        sample_id
        for shard in (*pool.shards, *pool.test_shards)
        for rows in pool.batches(shard, ("v", "sample_id"), 16)
        for sample_id in rows.column("sample_id").to_pylist()
    ]


@pytest.fixture(params=[None, "own", "text"])
def id_column(request: pytest.FixtureRequest) -> str | None:
    return request.param


@pytest.mark.parametrize("is_compacted", [False, True])
def test_removed_rows_are_nowhere(
    tmp_path: Path, id_column: str | None, is_compacted: bool
) -> None:
    scale = 7 if id_column == "own" else 1
    source = _write(tmp_path / "in", "a.parquet", range(100))
    before = ingest(source, str(tmp_path / "pool"), **_options(id_column))
    files = {p: p.read_bytes() for p in Path(before.path, "shards").iterdir()}
    left = [i * scale for i in range(100) if i not in GONE]
    labels = before.secret_labels(np.asarray(left))
    rows = before.rows(np.asarray(left), ["v"])
    assert delete(before.path, _names(id_column, GONE)) == len(GONE)
    assert delete(before.path, _names(id_column, GONE[:2])) == 0
    assert {p: p.read_bytes() for p in Path(before.path, "shards").iterdir()} == files
    if is_compacted:
        assert compact(before.path) > 0
        assert compact(before.path) == 0
    pool = Pool.open(before.path)
    assert sorted(_read(pool)) == left
    assert pool.num_rows + pool.num_test_rows == len(left)
    gone = np.asarray(GONE) * scale
    for sample_id in gone:
        with pytest.raises(PoolError, match="are not in the pool"):
            pool.rows(np.asarray([sample_id]), ["v"])
    for shard in (*pool.shards, *pool.test_shards):
        assert len(pool.read_rows(shard, gone, ["v"])) == 0
    assert pool.secret_labels(gone) == [None] * len(GONE)
    assert pool.secret_labels(np.asarray(left)) == labels
    assert pool.rows(np.asarray(left), ["v"]).equals(rows)
    for shard in pool.test_shards:
        ids = [i for b in pool.batches(shard, ("sample_id",), 7) for i in b.column(0).to_pylist()]
        assert pool.test_labels(shard) == pool.secret_labels(np.asarray(ids))
    assert pool.living({left[0]: "a", int(gone[0]): "b"}) == {left[0]: "a"}
    assert [version.end_row for version in pool.manifest.versions[:2]] == [100, 100]
    assert pool.content_hash != before.content_hash
    words = pq.read_table(Path(pool.path) / pool.manifest.removed[0].path)
    assert words.column("sample_id").to_pylist() == gone.tolist()


@pytest.mark.parametrize("is_compacted", [False, True])
def test_ids_of_removed_rows_are_not_given_again(
    tmp_path: Path, id_column: str | None, is_compacted: bool
) -> None:
    source = _write(tmp_path / "in", "a.parquet", range(100))
    pool = ingest(source, str(tmp_path / "pool"), **_options(id_column))
    delete(pool.path, _names(id_column, [7, 99]))
    if is_compacted:
        compact(pool.path)
    assert ingest(source, pool.path, **_options(id_column)) == Pool.open(pool.path)
    _write(tmp_path / "in", "b.parquet", range(100, 120))
    pool = ingest(source, pool.path, **_options(id_column))
    assert max(_read(pool)) == 119 * (7 if id_column == "own" else 1)
    assert len(_read(pool)) == 118
    if id_column is None:
        return
    _write(tmp_path / "in", "c.parquet", range(99, 100))
    with pytest.raises(PoolError, match="repeats an id in 1 of "):
        ingest(source, pool.path, **_options(id_column))
    assert len(_read(Pool.open(pool.path))) == 118


def test_ids_that_are_not_there(tmp_path: Path, id_column: str | None) -> None:
    source = _write(tmp_path / "in", "a.parquet", range(100))
    pool = ingest(source, str(tmp_path / "pool"), **_options(id_column))
    missing = _names(id_column, [1234])[0]
    with pytest.raises(PoolError, match=rf"1 of 2 ids to delete are no s.*{missing}.*nothing was"):
        delete(pool.path, [missing, *_names(id_column, [3])])
    assert Pool.open(pool.path) == pool
    if id_column != "text":
        with pytest.raises(PoolError, match="is no sample_id, an int64"):
            delete(pool.path, ["cat"])
    with pytest.raises(PoolError, match="is not a pool"):
        delete(str(tmp_path / "in"), ["1"])
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.parquet"]


class Killed(BaseException):
    """Not an Exception: nothing in rayal may catch it."""


def test_compact_killed_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _write(tmp_path / "in", "a.parquet", range(100))
    close, commit, remove = (
        ShardWriter.close,
        disk.commit_file,
        leftovers_module.disk.remove_folder,
    )
    whole: dict[str, bytes] = {}
    for at in range(-1, 10):
        pool = ingest(source, str(tmp_path / f"pool{at}"), **_options("text"))
        delete(pool.path, _names("text", GONE))
        left = [at]

        def fated(act: Any, left: list[int] = left) -> Any:
            def call(*args: Any) -> Any:
                done = act(*args)
                left[0] -= 1
                if left[0] == -1:
                    raise Killed
                return done

            return call

        with monkeypatch.context() as patch:
            if at >= 0:
                patch.setattr(ShardWriter, "close", fated(close))
                patch.setattr(disk, "commit_file", fated(commit))
                patch.setattr(disk, "remove_folder", fated(remove))
            try:
                compact(pool.path)
                was_killed = False
            except Killed:
                was_killed = True
        assert len(_read(Pool.open(pool.path))) == 94, at
        compact(pool.path)
        found = {
            str(p.relative_to(pool.path)): p.read_bytes()
            for p in Path(pool.path).rglob("*.parquet")
            if p.parent.name != "files"
        }
        whole = whole or found
        assert found == whole, at
        assert was_killed == (0 <= at < 9), at
        for name in ("u0", "u7", "u41"):
            assert all(name.encode() + b"u" not in text for text in found.values())


def test_a_damaged_list_is_one_line(tmp_path: Path) -> None:
    source = _write(tmp_path / "in", "a.parquet", range(100))
    pool = ingest(source, str(tmp_path / "pool"), **_options(None))
    delete(pool.path, ["3"])
    pool = Pool.open(pool.path)
    (Path(pool.path) / pool.manifest.removed[0].path).unlink()
    with pytest.raises(PoolError, match="a list of removed rows, cannot be read"):
        _read(pool)
