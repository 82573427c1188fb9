"""A pool that grows: new files become new shards, and nothing that was there changes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.errors import PoolError
from rayal.keys import salt, uniform
from rayal.pool import Pool, ingest

OPTIONS: dict[str, Any] = {"label_column": "y", "rows_per_shard": 40}


def _write(folder: Path, name: str, rows: range, classes: int = 3, **more: Any) -> str:
    rng = np.random.default_rng(rows.start)
    table = {
        "own": [i * 7 for i in rows],
        "text": [f"u{i}" for i in rows],
        "v": rng.normal(size=(len(rows), 3)).tolist(),
        "y": [None if i % 9 == 0 else f"c{i % classes}" for i in rows],
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({**table, **more}), folder / name)
    return str(folder)


def _stamps(pool: Pool) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in Path(pool.path).rglob("*.parquet")
    }


@pytest.mark.parametrize("id_column", [None, "own", "text"])
def test_new_files_become_new_shards(tmp_path: Path, id_column: str | None) -> None:
    source = _write(tmp_path / "in", "b.parquet", range(100))
    drop = [name for name in ("own", "text") if name != id_column]
    options = {**OPTIONS, "id_column": id_column, "drop": drop}
    first = ingest(source, str(tmp_path / "pool"), **options)
    before = _stamps(first)
    _write(tmp_path / "in", "a.parquet", range(100, 150), classes=4)  # sorts before what is there
    pool = ingest(source, first.path, **options)
    after = _stamps(pool)
    assert {name: after[name] for name in before} == before
    assert pool.manifest.shards != first.manifest.shards
    assert {*first.manifest.shards} < {*pool.manifest.shards}
    assert [version.end_row for version in pool.manifest.versions] == [100, 150]
    assert [version.end_index for version in pool.manifest.versions] == [3, 5]
    assert [v.content_hash for v in pool.manifest.versions] == [
        first.content_hash,
        pool.content_hash,
    ]
    ids = np.arange(150) * (7 if id_column == "own" else 1)
    rows = pool.rows(ids, ["v"]).column("v").to_pylist()
    assert rows[:100] == first.rows(ids[:100], ["v"]).column("v").to_pylist()
    labels = [None if i % 9 == 0 else f"c{i % (3 if i < 100 else 4)}" for i in range(150)]
    assert pool.secret_labels(ids) == labels
    assert first.vocabulary is not None
    assert pool.vocabulary is not None
    assert first.vocabulary.classes == ("c0", "c1", "c2")
    assert pool.vocabulary.classes == ("c0", "c1", "c2", "c3")
    assert pool.manifest.num_null_labels == labels.count(None)
    is_test = uniform(salt("test", pool.manifest.test_key), ids) < 0.1
    tests = [pool.rows(ids, ["sample_id"])]
    found = [i for s in pool.test_shards for b in pool.batches(s, ("sample_id",), 99) for i in
             b.column(0).to_pylist()]  # fmt: skip
    assert sorted(found) == ids[is_test].tolist()
    assert tests[0].num_rows == 150
    if id_column == "text":
        assert pool.rows(ids[100:], ["source_id"]).column(0).to_pylist()[0] == "u100"


def test_the_same_command_with_nothing_new_writes_nothing(tmp_path: Path) -> None:
    source = _write(tmp_path / "in", "a.parquet", range(100))
    _write(tmp_path / "in", "b.parquet", range(100, 150))
    pool = ingest(source, str(tmp_path / "pool"), **OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in Path(pool.path).rglob("*")}
    os.utime(tmp_path / "in" / "a.parquet", ns=(5, 5))  # a copy, of the same content
    (tmp_path / "in" / "b.parquet").rename(tmp_path / "in" / "c.parquet")
    assert ingest(source, pool.path, **OPTIONS) == pool
    (tmp_path / "in" / "c.parquet").unlink()  # taken is taken
    assert ingest(source, pool.path, **OPTIONS) == pool
    shutil.copytree(tmp_path / "in", tmp_path / "copy")
    assert ingest(str(tmp_path / "copy"), pool.path, **OPTIONS) == pool
    after = {p: p.stat().st_mtime_ns for p in Path(pool.path).rglob("*") if p.is_file()}
    assert after == {path: time for path, time in before.items() if path.is_file()}


def test_a_known_name_with_other_content_is_refused(tmp_path: Path) -> None:
    source = _write(tmp_path / "in", "a.parquet", range(100))
    pool = ingest(source, str(tmp_path / "pool"), **OPTIONS)
    _write(tmp_path / "in", "a.parquet", range(200, 300))
    _write(tmp_path / "in", "b.parquet", range(100, 120))
    with pytest.raises(PoolError) as caught:
        ingest(source, pool.path, **OPTIONS)
    assert str(caught.value).startswith(
        f"{source}/a.parquet has changed since its rows were taken into the pool ("
    )
    assert "\n" not in str(caught.value)
    assert Pool.open(pool.path) == pool


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"z": range(20)}, "b.parquet adds z, compared with the pool "),
        ({"v": [[1.0]] * 20}, "column 'v' cannot be added to that of the pool: it has 1 numbers"),
        ({"v": [1.0] * 20}, "column 'v' is double, expected list<"),
        (
            {"own": [7 * 30] * 20},
            "repeats an id in 20 of 120 rows (rows counted from 0): 210 at sh",
        ),
        ({"y": [1] * 20}, "column 'y' is int64, expected string as in the pool"),
    ],
)
def test_what_does_not_fit_leaves_the_pool_as_it_was(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    source = _write(tmp_path / "in", "a.parquet", range(100))
    pool = ingest(source, str(tmp_path / "pool"), id_column="own", **OPTIONS)
    before = {p: p.read_bytes() for p in Path(pool.path).rglob("*") if p.is_file()}
    _write(tmp_path / "in", "b.parquet", range(100, 120), **more)
    with pytest.raises(PoolError) as caught:
        ingest(source, pool.path, id_column="own", **OPTIONS)
    assert said in str(caught.value)
    assert {p: p.read_bytes() for p in Path(pool.path).rglob("*") if p.is_file()} == before


def test_another_source_needs_something_in_common(tmp_path: Path) -> None:
    source = _write(tmp_path / "in", "a.parquet", range(100))
    pool = ingest(source, str(tmp_path / "pool"), **OPTIONS)
    other = _write(tmp_path / "other", "b.parquet", range(100, 120))
    with pytest.raises(PoolError, match="no file of it was taken before"):
        ingest(other, pool.path, **OPTIONS)
    _write(tmp_path / "in", "b.parquet", range(100, 120))
    assert len(ingest(source + "/*.parquet", pool.path, **OPTIONS).manifest.versions) == 2


def test_text_formats_are_read_as_the_first_files_were(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("id,x,y\na7,1,0.5\n8,2,1\n")
    pool = ingest(str(folder), str(tmp_path / "pool"), id_column="id", label_column="y")
    (folder / "b.csv").write_text("id,x,y\n9,3,2\n")  # by itself: whole numbers
    pool = ingest(str(folder), pool.path, id_column="id", label_column="y")
    assert pool.rows(np.arange(3), ["source_id"]).column(0).to_pylist() == ["a7", "8", "9"]
    assert pool.secret_labels(np.arange(3)) == [0.5, 1.0, 2.0]
    assert pool.manifest.notes == ()


def test_a_pool_of_an_earlier_rayal_opens_and_does_not_grow(tmp_path: Path) -> None:
    source = _write(tmp_path / "in", "a.parquet", range(100))
    pool = ingest(source, str(tmp_path / "pool"), **OPTIONS)
    place = Path(pool.path) / "manifest.json"
    fields = json.loads(place.read_text())
    fields["format"] = 1
    for key in ("versions", "source_schema"):
        del fields[key]
    place.write_text(json.dumps(fields))
    old = Pool.open(pool.path)
    assert old.content_hash == pool.content_hash
    assert [(v.end_row, v.end_index) for v in old.manifest.versions] == [(100, 3)]
    assert ingest(source, pool.path, **OPTIONS) == old
    _write(tmp_path / "in", "b.parquet", range(100, 120))
    with pytest.raises(
        PoolError, match="an earlier version of rayal, which did not note its files"
    ):
        ingest(source, pool.path, **OPTIONS)
