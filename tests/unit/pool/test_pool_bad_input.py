"""Sources and pools that cannot be accepted: one clear line each, and nothing half-written."""

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import write_embeddings

from rayal.errors import PlaceError, PoolError
from rayal.pool import Pool, ingest, open_pool
from rayal.pool import ids as ids_module

NAN = float("nan")


def _refused(source: Path | str, tmp_path: Path, message: str, **options: Any) -> None:
    with pytest.raises(PoolError, match=message) as caught:
        ingest(str(source), str(tmp_path / "out" / "pool"), **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0, 2.0], [3.0, NAN]]), r"'v' holds nan at .*in.parquet row 1 "),
        (pa.array([[1.0, 2.0], [float("-inf"), 0.0]]), r"'v' holds -inf at .*row 1 .*and 1 non"),
        (pa.array([[1.0], [NAN]], pa.list_(pa.float32(), 1)), r"'v' holds nan at .*row 1"),
        (
            pa.array([[1.0], [-1e39]]),
            r"'v' holds -1e\+39 at .*row 1 .* beyond the float32 that mode",
        ),
        (pa.array([[1.0], [NAN]]), r"leave the column out with --drop v \(pool.drop=\[v\]\)"),
    ],
)
def test_values_no_model_could_read(tmp_path: Path, column: pa.Array, message: str) -> None:
    pq.write_table(pa.table({"v": column}), tmp_path / "in.parquet")
    _refused(tmp_path / "in.parquet", tmp_path, message)


@pytest.mark.parametrize("spilled", [False, True])
@pytest.mark.parametrize("text", [False, True])
def test_duplicate_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spilled: bool, text: bool
) -> None:
    monkeypatch.setattr(ids_module, "_HELD_ROWS", 100 if spilled else 1 << 20)
    (tmp_path / "in").mkdir()
    ids = np.random.default_rng(3).permutation(5000).astype(np.int64)
    ids[4321], ids[2600], ids[4999] = ids[17], ids[2501], ids[4998]
    column = pa.array([f"u{i}" for i in ids]) if text else pa.array(ids)
    table = pa.table({"uid": column, "x": range(5000)})
    pq.write_table(table.slice(0, 2500), tmp_path / "in" / "a.parquet", row_group_size=70)
    pq.write_table(table.slice(2500), tmp_path / "in" / "b.parquet", row_group_size=70)
    shown = "'u%d'" if text else "%d"
    first = shown % ids[2501] + r" at \S*b.parquet row 1 and \S*b.parquet row 100; "
    second = shown % ids[17] + r" at \S*a.parquet row 17 and \S*b.parquet row 1821; "
    message = rf"'uid' repeats an id in 3 of 5000 rows .*: {first}{second}"
    _refused(tmp_path / "in", tmp_path, message, id_column="uid", rows_per_shard=700)


def test_no_false_duplicates_when_ids_are_spilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids_module, "_HELD_ROWS", 64)
    pq.write_table(
        pa.table({"uid": [f"u{i}" for i in range(3000)], "x": range(3000)}),
        tmp_path / "in.parquet",
        row_group_size=50,
    )
    pool = ingest(str(tmp_path / "in.parquet"), str(tmp_path / "pool"), id_column="uid")
    assert pool.num_rows + pool.num_test_rows == 3000
    assert sorted(p.name for p in (tmp_path / "pool").iterdir()) == [
        "files",
        "manifest.json",
        "shards",
        "test",
    ]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array([1, None, 3]), r"id column 'uid' is null at .*in.parquet row 1"),
        (pa.array(["a", None]), r"id column 'uid' is null at .*in.parquet row 1"),
        (pa.array(["a", "b", ""]), r"id column 'uid' is empty at .*in.parquet row 2"),
        (pa.array([1.0, 2.0]), r"id column 'uid' is double, expected text or integers"),
        (pa.array([[1], [2]]), r"id column 'uid' is list<.*>, expected text or integers"),
    ],
)
def test_ids_that_are_none(tmp_path: Path, ids: pa.Array, message: str) -> None:
    pq.write_table(pa.table({"uid": ids, "x": range(len(ids))}), tmp_path / "in.parquet")
    _refused(tmp_path / "in.parquet", tmp_path, message, id_column="uid")


def test_columns_that_are_missing_or_bear_a_taken_name(tmp_path: Path) -> None:
    place = tmp_path / "in.parquet"
    pq.write_table(pa.table({"label": [1], "x": [1]}), place)
    _refused(
        place,
        tmp_path,
        r"no column 'y' to be the label column \(it has: label, x\)",
        label_column="y",
    )
    _refused(place, tmp_path, r"no column 'uid' to be the id column", id_column="uid")
    _refused(
        place, tmp_path, r"column 'label', a name that rayal writes; pass --label-column label"
    )
    pq.write_table(pa.table({"sample_id": [1], "x": [1]}), place)
    _refused(place, tmp_path, r"'sample_id', a name that rayal writes; pass --id-column sample_id")
    pq.write_table(pa.table({"score": [1], "x": [1]}), place)
    _refused(
        place,
        tmp_path,
        r"column 'score', a name that rayal writes; rename it, or leave it out with --drop score",
    )
    pq.write_table(pa.table({"y": [1]}), place)
    _refused(place, tmp_path, "no column beside y; a model needs one", label_column="y")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    _refused(tmp_path / "nowhere.parquet", tmp_path, r"nowhere.parquet does not exist; give a file")
    (tmp_path / "in").mkdir()
    _refused(tmp_path / "in", tmp_path, r"in holds no file that ends in .parquet, .pq, .csv")
    _refused(f"{tmp_path}/in/*.csv", tmp_path, r"\*.csv holds no file that ends in")
    (tmp_path / "in" / "notes.txt").write_text("x")
    _refused(tmp_path / "in", tmp_path, "holds no file that ends in")
    _refused(tmp_path / "in" / "notes.txt", tmp_path, r"notes.txt is of no known format")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "b.csv").write_text("x\n1\n")
    _refused(tmp_path / "in", tmp_path, r"several formats \(csv, parquet\); give a glob")
    _refused("nosuch://bucket/x.parquet", tmp_path, "neither pyarrow nor fsspec can open it")


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hush@host/a.csv",
        "http://hush@host/a.csv",
        "https://host/a.csv?sig=hush.csv",
    ],
)
def test_a_source_with_a_secret_in_its_url(tmp_path: Path, url: str) -> None:
    """Of the web too, and before anything is asked of it: a manifest names its source."""
    with pytest.raises(PlaceError, match="was given with a password") as caught:
        ingest(url, str(tmp_path / "pool"))
    assert "hush" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_in_a_store_of_no_known_kind(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "in.parquet")
    said = "nosuch://bucket: neither pyarrow nor fsspec can open it"
    with pytest.raises(PlaceError, match=said):
        ingest(str(tmp_path / "in.parquet"), "nosuch://bucket/pool")
    for opened in (Pool.open, open_pool):
        with pytest.raises(PlaceError, match=said):
            opened("nosuch://bucket/pool")


def test_empty_sources(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.int64())}), tmp_path / "in.parquet")
    _refused(tmp_path / "in.parquet", tmp_path, "in.parquet holds no rows")
    (tmp_path / "header.csv").write_text("x,y\n")
    _refused(tmp_path / "header.csv", tmp_path, "header.csv holds no rows")
    for name in ("empty.csv", "empty.jsonl", "empty.parquet"):
        (tmp_path / name).write_bytes(b"")
        _refused(tmp_path / name, tmp_path, rf"{name} cannot be read as|{name} holds no rows")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(10_000)}), whole)
    whole.write_bytes(whole.read_bytes()[:-100])
    _refused(
        whole, tmp_path, r"a.parquet cannot be read as parquet, after row 0: .*; mend or remove"
    )
    (tmp_path / "b.csv").write_text("x,y\n1,2\n3\n")
    _refused(
        tmp_path / "b.csv", tmp_path, r"b.csv cannot be read as csv.*Expected 2 columns, got 1"
    )
    (tmp_path / "c.jsonl").write_text('{"x": 1}\n{"x": }\n')
    _refused(tmp_path / "c.jsonl", tmp_path, r"c.jsonl cannot be read as jsonl")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"x\n1\n2\n" * 1000)[:-20])
    _refused(tmp_path / "d.csv.gz", tmp_path, r"d.csv.gz cannot be read as csv")
    (tmp_path / "e.csv").write_text("x,x\n1,2\n")
    _refused(tmp_path / "e.csv", tmp_path, r"column 'x' twice; rename")


@pytest.mark.parametrize("role", [None, "id_column", "label_column"])
def test_text_that_is_not_utf_8(tmp_path: Path, role: str | None) -> None:
    options = {} if role is None else {role: "t"}
    (tmp_path / "a.jsonl").write_bytes(b'{"t": "tea", "x": 1}\n{"t": "caf\xe9", "x": 1}\n')
    _refused(tmp_path / "a.jsonl", tmp_path, "a.jsonl cannot be read as .*Invalid UTF8", **options)
    offsets, letters = np.array([0, 3, 7], np.int32), b"teacaf\xe9"
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(letters)]
    )
    pq.write_table(pa.table({"t": text, "x": [1, 2]}), tmp_path / "b.parquet")
    _refused(tmp_path / "b.parquet", tmp_path, "b.parquet cannot .*Invalid UTF8", **options)


def test_a_name_of_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "in") + b"/caf\xe9.csv")).write_text("x\n1\n")
    _refused(tmp_path / "in", tmp_path, "in cannot be listed: 'utf-8' codec can't decode byte 0xe9")


def test_files_of_mixed_schemas(tmp_path: Path) -> None:
    for name, second, message in (
        (
            "type",
            pa.table({"x": ["a"], "y": [1]}),
            r"b.parquet: column 'x' is string, expected int64 as in .*a.parquet",
        ),
        ("less", pa.table({"x": [1]}), r"b.parquet lacks y, compared with .*a.parquet"),
        ("more", pa.table({"x": [1], "y": [1], "z": [1]}), r"b.parquet adds z, compared with"),
    ):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"x": [1], "y": [1]}), tmp_path / name / "a.parquet")
        pq.write_table(second, tmp_path / name / "b.parquet")
        _refused(tmp_path / name, tmp_path, message)
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text("x\n1\n")
    (tmp_path / "csv" / "b.csv").write_text("x\n1.5\n")
    _refused(tmp_path / "csv", tmp_path, r"b.csv cannot be read as csv.*invalid value '1.5'")


def test_another_order_of_columns_is_no_other_schema(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"x": [1], "y": ["a"]}), tmp_path / "in" / "a.parquet")
    second = pa.table({"y": pa.array(["b"], pa.large_string()), "x": [2]})
    pq.write_table(second, tmp_path / "in" / "b.parquet")
    pool = ingest(str(tmp_path / "in"), str(tmp_path / "pool"), test_share=0.0)
    got = pool.rows(np.array([0, 1]), ["y", "x"]).to_pydict()
    assert got == {"y": ["a", "b"], "x": [1, 2]}


def test_nan_in_a_csv_is_not_taken_for_a_missing_number(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x,y\n1.5,a\nNA,b\nnan,c\n")
    pool = ingest(str(tmp_path / "in.csv"), str(tmp_path / "pool"), test_share=0.0)
    one, missing, nan = pool.rows(np.array([0, 1, 2]), ["x"]).column("x").to_pylist()
    assert (one, missing) == (1.5, None)
    assert np.isnan(nan)


# ------------------------------------------------------------------------------------------ pools


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    table = pa.table({"v": [[float(i), 1.0] for i in range(400)], "y": ["a", "b"] * 200})
    pq.write_table(table, tmp_path / "in.parquet")
    return ingest(
        str(tmp_path / "in.parquet"), str(tmp_path / "pool"), label_column="y", rows_per_shard=100
    )


def test_a_folder_without_manifest(tmp_path: Path, pool: Pool) -> None:
    with pytest.raises(
        PoolError, match=r"gone is not a pool: it does not exist; make one with: ra"
    ):
        Pool.open(str(tmp_path / "gone"))
    (Path(pool.path) / "manifest.json").unlink()
    with pytest.raises(PoolError, match=r"pool is not a pool: it has no manifest.json; make one"):
        Pool.open(pool.path)


def test_a_manifest_that_is_none_or_was_changed(pool: Pool) -> None:
    place = Path(pool.path) / "manifest.json"
    fields = json.loads(place.read_text())
    for content, message in (
        ("{", "is not a manifest of a pool"),
        ("[]", "is not a manifest of a pool"),
        (json.dumps({**fields, "format": 99}), "has format 99, this version of rayal reads 1"),
        (json.dumps({**fields, "test_key": "0"}), "it was changed by hand"),
        (json.dumps({**fields, "arrow_schema": "AAAA"}), "is not a manifest of a pool"),
    ):
        place.write_text(content)
        with pytest.raises(PoolError, match=message):
            Pool.open(pool.path)


def test_a_link_to_a_folder_that_it_lies_in(tmp_path: Path) -> None:
    """Else its rows come again and again, as deep as the system follows links."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    pq.write_table(pa.table({"v": [1, 2]}), tmp_path / "in" / "rows.parquet")
    for name, target in (("self", "."), ("sub/up", "..")):
        link = tmp_path / "in" / name
        link.symlink_to(target)
        _refused(tmp_path / "in", tmp_path, f"{name} is a link to a folder that it lies in")
        link.unlink()
    (tmp_path / "in" / "other").symlink_to("sub")
    assert ingest(str(tmp_path / "in"), str(tmp_path / "pool"), test_share=0).num_rows == 2


@pytest.mark.parametrize("split", ["shards", "test", "labels"])
def test_a_shard_that_is_missing_or_truncated(pool: Pool, split: str) -> None:
    place = Path(pool.path) / split / "shard-00002.parquet"
    content = place.read_bytes()
    place.write_bytes(content[:-9])
    size = len(content)
    with pytest.raises(
        PoolError, match=rf"00002.parquet has {size - 9} bytes, expected {size}, so"
    ):
        Pool.open(pool.path)
    place.unlink()
    with pytest.raises(
        PoolError, match=r"00002.parquet is missing: .* shard 2, .* sample_id 2\d\d"
    ):
        Pool.open(pool.path)


def test_a_shard_of_another_schema_is_found_when_read(pool: Pool) -> None:
    shard = pool.shards[1]
    place = Path(pool.path) / shard.path
    pq.write_table(pa.table({"sample_id": [1], "v": [b"12345678"]}), place)
    changed = Pool(pool.path, _resized(pool, place.stat().st_size))
    with pytest.raises(
        PoolError, match=r"another schema than the manifest \(v is binary, expected 2"
    ):
        changed.batches(changed.shards[1], ["v"], 8)
    pq.write_table(pa.table({"sample_id": [1], "w": [1]}), place)
    changed = Pool(pool.path, _resized(pool, place.stat().st_size))
    with pytest.raises(
        PoolError, match=r"v is absent, expected 2 x float64, w is int64, expected absent"
    ):
        changed.read_rows(changed.shards[1], np.array([shard.min_id]), ["v"])


def test_a_shard_of_other_rows_is_found_when_read(tmp_path: Path) -> None:
    """A whole file of the same size and schema, as another ingest made it."""
    pools = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        source = write_embeddings(folder / "rows.parquet", 100, seed=seed)
        made = ingest(str(source), str(folder / "pool"), label_column="label", rows_per_shard=50)
        pools.append(made)
    shard, other = pools[0].shards[1], pools[1].shards[1]
    assert (shard.size_bytes, shard.num_rows) == (other.size_bytes, other.num_rows)
    shutil.copy(Path(pools[1].path) / other.path, Path(pools[0].path) / shard.path)
    pool = Pool.open(pools[0].path)
    pool.batches(pool.shards[0], ["embedding"], 8)
    with pytest.raises(
        PoolError,
        match=f"other rows than those .*{other.content_hash[:12]}, expected "
        f"{shard.content_hash[:12]}.*shard 1,",
    ):
        pool.batches(pool.shards[1], ["embedding"], 8)


def _resized(pool: Pool, size_bytes: int) -> Any:
    from dataclasses import replace

    shards = tuple(
        replace(shard, size_bytes=size_bytes) if shard == pool.shards[1] else shard
        for shard in pool.manifest.shards
    )
    return replace(pool.manifest, shards=shards)


def test_a_shard_that_is_damaged_inside(pool: Pool) -> None:
    shard = pool.shards[0]
    place = Path(pool.path) / shard.path
    content = bytearray(place.read_bytes())
    content[-40:] = b"\0" * 40
    place.write_bytes(bytes(content))
    with pytest.raises(PoolError, match=r"00000.parquet is damaged .*: pool shard 0, "):
        list(pool.batches(shard, ["v"], 8))
    content[4:60] = b"\xff" * 56
    content[-40:] = Path(place).read_bytes()[-40:]
    place.write_bytes(bytes(content))
    with pytest.raises(PoolError, match="is damaged"):
        list(pool.batches(shard, ["sample_id", "v"], 8))


def test_vectors_altered_at_equal_size_are_found_by_every_way_to_read(pool: Pool) -> None:
    shard = pool.shards[1]
    place = Path(pool.path) / shard.path
    ids = np.array([shard.min_id])
    for read in (
        lambda: list(pool.batches(shard, ["sample_id", "v"], 8)),
        lambda: pool.read_rows(shard, ids, ["v"]),
        lambda: pool.rows(ids, ["v"]),
    ):
        content = bytearray(place.read_bytes())
        read()
        at = content.index(np.float64(shard.min_id).tobytes() + np.float64(1.0).tobytes())
        place.write_bytes(bytes(content[:at] + b"\x01" * 16 + content[at + 16 :]))
        with pytest.raises(PoolError, match=r"00001.parquet is damaged .*: pool shard 1, 8\d rows"):
            read()
        place.write_bytes(bytes(content))
        read()


def test_a_process_verifies_a_column_of_a_shard_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[bool] = []
    plain = pq.ParquetFile

    def noted(*args: Any, page_checksum_verification: bool, **options: Any) -> pq.ParquetFile:
        verified.append(page_checksum_verification)
        return plain(*args, page_checksum_verification=page_checksum_verification, **options)

    monkeypatch.setattr(pq, "ParquetFile", noted)
    shard = pool.shards[0]
    next(iter(pool.batches(shard, ["sample_id"], 8)))  # not to the end: not all was verified
    for columns in (["sample_id"], ["sample_id"], ["sample_id", "v"], ["v"]):
        list(pool.batches(shard, columns, 8))
    assert verified == [True, True, False, True, False]
    (Path(pool.path) / shard.path).touch()
    list(pool.batches(shard, ["v"], 8))
    assert verified[-1]


def test_ids_that_are_not_in_the_pool(pool: Pool) -> None:
    with pytest.raises(PoolError, match=r"2 of 3 sample_ids are not in the pool .*first: 400"):
        pool.rows(np.array([5, 777, 400]), ["v"])


@pytest.mark.parametrize("source", ["in", "in/*.parquet", "in/**"])
def test_a_pool_inside_its_own_source(tmp_path: Path, source: str) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "in" / "a.parquet")
    place = str(tmp_path / "in" / "pool")
    if source == "in/*.parquet":  # takes nothing of it
        assert ingest(str(tmp_path / source), place, test_share=0.0).num_rows == 2
        assert ingest(str(tmp_path / source), place, test_share=0.0).num_rows == 2
        return
    with pytest.raises(PoolError, match=r"would lie in its own source .*outside of it"):
        ingest(str(tmp_path / source), place)
    assert not (tmp_path / "in" / "pool").exists()
