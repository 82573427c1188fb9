"""Ids, split, shards, vectors and labels of an ingested pool, against plain versions."""

import json
import os
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from rayal.columns import vector_shape, vectors
from rayal.errors import ConfigError, PoolError
from rayal.keys import salt, uniform
from rayal.pool import Pool, ingest


def _source(folder: Path, num_rows: int = 1000, files: int = 3) -> pa.Table:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "text": [f"row {i}" for i in range(num_rows)],
            "label": [f"class {i % 7}" for i in range(num_rows)],
        }
    )
    step = -(-num_rows // files)
    for i in range(files):
        pq.write_table(table.slice(i * step, step), folder / f"part-{i}.parquet")
    return table


def _all(pool: Pool, split: str, columns: list[str]) -> pa.Table:
    shards = pool.shards if split == "pool" else pool.test_shards
    return pa.Table.from_batches(
        [rows for shard in shards for rows in pool.batches(shard, columns, 64)]
    )


def test_ids_are_places_in_the_sorted_source_and_the_split_is_by_hash(tmp_path: Path) -> None:
    table = _source(tmp_path / "in")
    pool = ingest(
        str(tmp_path / "in"),
        str(tmp_path / "pool"),
        label_column="label",
        rows_per_shard=300,
        test_share=0.2,
        seed=5,
    )
    ids = np.arange(1000)
    is_test = uniform(salt("test", pool.manifest.test_key), ids) < 0.2
    for split, mask in (("pool", ~is_test), ("test", is_test)):
        rows = _all(pool, split, ["sample_id", "text"])
        assert rows.column("sample_id").to_pylist() == ids[mask].tolist()
        assert rows.column("text").to_pylist() == [f"row {i}" for i in ids[mask]]
    assert [shard.first_id for shard in pool.shards] == [0, 300, 600, 900]
    assert pool.num_rows == int((~is_test).sum())
    assert pool.num_test_rows == int(is_test.sum())
    assert pool.schema.names == ["sample_id", "text"]
    for shard in (*pool.shards, *pool.test_shards):
        kept = ids[(ids // 300 == shard.index) & (is_test == (shard.split == "test"))]
        assert (shard.min_id, shard.max_id, shard.num_rows) == (kept[0], kept[-1], len(kept))
    labels = table.column("label").to_pylist()
    asked = np.array([999, 0, 500, 0])
    assert pool.secret_labels(asked) == [labels[i] for i in asked]
    for shard in pool.test_shards:
        mine = [i for i in ids[is_test] if i // 300 == shard.index]
        assert pool.test_labels(shard) == [labels[i] for i in mine]
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == tuple(f"class {i}" for i in range(7))


def test_labels_are_nowhere_but_in_their_own_folder(tmp_path: Path) -> None:
    _source(tmp_path / "in")
    pool = ingest(str(tmp_path / "in"), str(tmp_path / "pool"), label_column="label")
    for shard in (*pool.shards, *pool.test_shards):
        assert "label" not in pq.read_schema(Path(pool.path) / shard.path).names
    with pytest.raises(PoolError, match=r"no column 'label' \(it has: sample_id, text\)"):
        pool.batches(pool.shards[0], ["label"], 8)


def test_the_answer_depends_on_source_and_seed_alone(tmp_path: Path) -> None:
    table = _source(tmp_path / "in", files=3)
    _source(tmp_path / "other", files=7)
    options = {"label_column": "label", "rows_per_shard": 256}
    one = ingest(str(tmp_path / "in"), str(tmp_path / "one"), **options)
    two = ingest(str(tmp_path / "other"), str(tmp_path / "two"), **options)
    assert one.content_hash == two.content_hash
    assert one.manifest.shards[0].content_hash == two.manifest.shards[0].content_hash
    other = ingest(str(tmp_path / "in"), str(tmp_path / "three"), seed=1, **options)
    assert other.manifest.test_key != one.manifest.test_key
    assert other.content_hash != one.content_hash
    pq.write_table(table.slice(1), tmp_path / "in" / "part-0.parquet")
    changed = ingest(str(tmp_path / "in"), str(tmp_path / "four"), **options)
    assert changed.content_hash != one.content_hash


def test_an_int64_column_is_the_sample_id(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).permutation(5000).astype(np.int64) * 7 - 300
    pq.write_table(pa.table({"key_id": ids, "x": ids * 2.0}), tmp_path / "in.parquet")
    pool = ingest(
        str(tmp_path / "in.parquet"),
        str(tmp_path / "pool"),
        id_column="key_id",
        rows_per_shard=1000,
    )
    assert pool.schema.names == ["sample_id", "x"]
    got = _all(pool, "pool", ["sample_id"]).column(0).to_pylist()
    got += _all(pool, "test", ["sample_id"]).column(0).to_pylist()
    assert sorted(got) == sorted(ids.tolist())
    asked = ids[[4000, 3, 4000, 77]]
    assert pool.rows(asked, ["x"]).column("x").to_pylist() == (asked * 2.0).tolist()


@pytest.mark.parametrize("kind", [pa.string(), pa.int32(), pa.binary()])
def test_any_other_id_is_kept_as_text(tmp_path: Path, kind: pa.DataType) -> None:
    raw = [b"u%d" % i if pa.types.is_binary(kind) else i for i in range(200)]
    names = pa.array([str(i) for i in raw] if pa.types.is_string(kind) else raw, kind)
    pq.write_table(pa.table({"uid": names, "x": range(200)}), tmp_path / "in.parquet")
    pool = ingest(str(tmp_path / "in.parquet"), str(tmp_path / "pool"), id_column="uid")
    assert pool.schema.names == ["sample_id", "source_id", "x"]
    rows = pool.rows(np.array([7, 150]), ["source_id", "x"])
    expected = [b"u7".hex(), b"u150".hex()] if pa.types.is_binary(kind) else ["7", "150"]
    assert rows.to_pydict() == {"source_id": expected, "x": [7, 150]}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int64"])
@pytest.mark.parametrize("fixed", [True, False])
def test_vectors_are_stored_with_fixed_width(tmp_path: Path, dtype: str, fixed: bool) -> None:
    values = np.random.default_rng(1).integers(0, 100, (500, 6)).astype(dtype)
    flat = pa.array(values.reshape(-1))
    column = (
        pa.FixedSizeListArray.from_arrays(flat, 6)
        if fixed
        else pa.ListArray.from_arrays(np.arange(0, 3001, 6, dtype=np.int32), flat)
    )
    pq.write_table(pa.table({"embedding": column}), tmp_path / "in.parquet", row_group_size=77)
    pool = ingest(
        str(tmp_path / "in.parquet"), str(tmp_path / "pool"), rows_per_shard=123, test_share=0.0
    )
    field = pool.schema.field("embedding")
    assert field.type == pa.binary(6 * np.dtype(dtype).itemsize)
    assert vector_shape(field) == (np.dtype(dtype), 6)
    rows = pool.rows(np.arange(500), ["embedding"])
    assert vectors(rows, "embedding").tolist() == values.tolist()
    assert pool.test_shards == ()
    again = ingest(
        str(tmp_path / "pool" / "shards" / "*.parquet"),
        str(tmp_path / "again"),
        id_column="sample_id",
        rows_per_shard=123,
        test_share=0.0,
    )
    assert [s.content_hash for s in again.shards] == [s.content_hash for s in pool.shards]


def test_shards_are_sized_by_bytes_between_64k_and_256k_rows(tmp_path: Path) -> None:
    narrow = pa.table({"x": np.zeros(300_000, np.int8)})
    pq.write_table(narrow, tmp_path / "narrow.parquet")
    pool = ingest(str(tmp_path / "narrow.parquet"), str(tmp_path / "a"), test_share=0.0)
    assert [shard.num_rows for shard in pool.shards] == [262_144, 300_000 - 262_144]
    wide = pa.table({"x": pa.FixedSizeListArray.from_arrays(np.zeros(70_000 * 256, np.int8), 256)})
    pq.write_table(wide, tmp_path / "wide.parquet")
    pool = ingest(
        str(tmp_path / "wide.parquet"),
        str(tmp_path / "b"),
        test_share=0.0,
        shard_size_bytes=1 << 20,
    )
    assert [shard.num_rows for shard in pool.shards] == [65_536, 70_000 - 65_536]
    groups = pq.read_metadata(tmp_path / "b" / pool.shards[0].path)
    assert groups.row_group(0).num_rows == 8192  # four MiB at 264 bytes a row, as a power of two


def test_csv_jsonl_and_parquet_of_the_same_rows_give_the_same_pool(tmp_path: Path) -> None:
    table = pa.table(
        {"word": ["NA", "null", "a,b", "ü"], "n": [1, 2, 3, 4], "y": [0.5, 1.5, 2.5, 9]}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    pa_csv.write_csv(table, tmp_path / "in.csv")
    lines = [json.dumps(row) for row in table.to_pylist()]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    hashes = set()
    for name in ("in.parquet", "in.csv", "in.jsonl"):
        pool = ingest(str(tmp_path / name), str(tmp_path / f"pool-{name}"), label_column="y")
        hashes.add(pool.content_hash)
        assert pool.secret_labels(np.arange(4)) == [0.5, 1.5, 2.5, 9.0]
    assert len(hashes) == 1


def test_folder_glob_and_uris_find_the_same_files_in_order(tmp_path: Path) -> None:
    _source(tmp_path / "in" / "b", 10, 1)
    _source(tmp_path / "in" / "a", 20, 2)
    (tmp_path / "in" / "README.md").write_text("not a sample")
    (tmp_path / "in" / "_SUCCESS.parquet").write_text("")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "in"), "/rayal-test", recursive=True)
    here = str(tmp_path / "in")
    sources = [
        here,
        here + "/**/*.parquet",
        here + "/?/part-[0-9].parquet",
        f"file://{here}",
        "memory://rayal-test",
        "memory://rayal-test/*/*.parquet",
    ]
    hashes = {}
    for i, source in enumerate(sources):
        pool = ingest(source, str(tmp_path / f"pool{i}"), label_column="label")
        hashes[source] = pool.content_hash
        assert pool.num_rows + pool.num_test_rows == 30
    assert len(set(hashes.values())) == 1, hashes
    some = ingest(here + "/a/*-0.parquet", str(tmp_path / "some"), label_column="label")
    assert some.num_rows + some.num_test_rows == 10


def test_the_same_ingest_again_changes_nothing_and_another_is_refused(tmp_path: Path) -> None:
    _source(tmp_path / "in")
    source, place = str(tmp_path / "in"), str(tmp_path / "pool")
    first = ingest(source, place, label_column="label")
    times = {p: p.stat().st_mtime_ns for p in Path(place).rglob("*")}
    assert ingest(source, place, label_column="label") == first
    assert ingest(f"{source}/../in/", place, label_column="label") == first
    assert {p: p.stat().st_mtime_ns for p in Path(place).rglob("*")} == times
    with pytest.raises(PoolError, match=r"of something else .test_share: 0.1 there, 0.3 asked"):
        ingest(source, place, label_column="label", test_share=0.3)
    os.utime(tmp_path / "in" / "part-1.parquet", ns=(1, 1))
    assert ingest(source, place, label_column="label") == first
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(PoolError, match="exists and is not a pool"):
        ingest(source, str(tmp_path / "full"), label_column="label")
    assert (tmp_path / "full" / "note.txt").read_text() == "mine"


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    _source(tmp_path / "in")
    (tmp_path / "in" / "part-9.parquet").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(PoolError, match=r"part-9.parquet cannot be read as parquet"):
        ingest(str(tmp_path / "in"), str(tmp_path / "out" / "pool"), label_column="label")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rayal.errors import RayalError

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    _source(tmp_path / "in")
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(RayalError, match=r"the disk is full while writing .*pool"):
        ingest(str(tmp_path / "in"), str(tmp_path / "out" / "pool"), label_column="label")
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_counts_up_to_all_rows(tmp_path: Path) -> None:
    _source(tmp_path / "in")
    told: list[tuple[int, int | None]] = []
    ingest(
        str(tmp_path / "in"),
        str(tmp_path / "pool"),
        label_column="label",
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (1000, 1000)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_pool_is_small_to_send_and_a_shard_can_be_a_key(tmp_path: Path) -> None:
    _source(tmp_path / "in")
    pool = ingest(
        str(tmp_path / "in"), str(tmp_path / "pool"), label_column="label", rows_per_shard=100
    )
    packed = pickle.dumps(pool)
    assert len(packed) < 20_000
    assert pickle.loads(packed) == pool
    assert len({shard: 0 for shard in pool.manifest.shards}) == len(pool.manifest.shards)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_share": 1.0}, "test_share is 1.0, expected 0 or more and below 1"),
        ({"test_share": -0.1}, "test_share is -0.1"),
        ({"rows_per_shard": -4}, "rows_per_shard is -4, expected 1 or more"),
        ({"kind": "ordinal", "label_column": "label"}, "kind is 'ordinal', expected one of class"),
        ({"kind": "number"}, "no label column is named"),
        ({"id_column": "label", "label_column": "label"}, "as id column and as label column"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, options: dict, message: str) -> None:
    _source(tmp_path / "in")
    with pytest.raises(ConfigError, match=message):
        ingest(str(tmp_path / "in"), str(tmp_path / "pool"), **options)
