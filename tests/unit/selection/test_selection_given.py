"""Reading the user's rows: ranges of groups, readers that stay open, columns as arrays."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from given import only, outputs_of, rows_of, table_of, write_files

from rayal.errors import PoolError
from rayal.progress import Reporter
from rayal.selection import given as given_rows
from rayal.selection import ids as selection_ids
from rayal.selection.columns import Column, as_array, values_of
from rayal.selection.given import Files, Group, Held, Stream, open_given
from rayal.selection.pool import GivenPool, Range, columns_of, stage

ARRAYS = only(outputs_of(1_000, seed=2), "embedding", "draws")
WANTED = (("embeds", "embedding"), ("draws", "draws"))


def _pool(outputs: object, monkeypatch, shard_rows: int, batch_rows: int) -> GivenPool:
    monkeypatch.setattr("rayal.selection.pool._SHARD_ROWS", shard_rows)
    monkeypatch.setattr("rayal.selection.pool._BATCH_ROWS", batch_rows)
    given = open_given(outputs)
    assert not isinstance(given, Stream)
    return GivenPool.of(given, columns_of(given, WANTED, "sample_id"), "sample_id")


def _read(pool: GivenPool, order: list[int], batch_rows: int) -> dict[str, np.ndarray]:
    parts = []
    for index in order:
        for rows in pool.batches(pool.shards[index], ("draws", "embeds"), batch_rows):
            assert rows.schema.names == ["sample_id", "embeds", "draws"]
            assert 0 < rows.num_rows <= batch_rows
            parts.append(
                {
                    "sample_id": rows.column("sample_id").to_numpy(),
                    "embedding": np.frombuffer(
                        rows.column("embeds").buffers()[1], np.float32
                    ).reshape(-1, 6),
                    "draws": np.frombuffer(rows.column("draws").buffers()[1], float).reshape(
                        -1, 3, 4
                    ),
                }
            )
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return rows_of(whole, np.argsort(whole["sample_id"]))


@pytest.mark.parametrize("shard_rows", [64, 100, 1 << 18])
@pytest.mark.parametrize("as_files", [True, False])
def test_shards_hold_every_row_once_in_any_order(shard_rows, as_files, tmp_path, monkeypatch):
    outputs = table_of(ARRAYS)
    if as_files:
        outputs = write_files(tmp_path, ARRAYS, num_files=3, row_group_size=210)
    pool = _pool(outputs, monkeypatch, shard_rows, 16)
    assert pool.num_rows == 1_000
    assert max(shard.num_rows for shard in pool.shards) <= max(shard_rows, 16)
    expected = rows_of(ARRAYS, np.argsort(ARRAYS["sample_id"]))
    indices = list(range(len(pool.shards)))
    orders = [indices, indices[::-1], np.random.default_rng(0).permutation(indices).tolist()]
    for order in orders:
        for other in (pool, pickle.loads(pickle.dumps(pool))):
            found = _read(other, order, 16)
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name], values)


def test_a_reader_goes_on_where_it_stood(tmp_path, monkeypatch):
    pool = _pool(write_files(tmp_path, ARRAYS, 1, 1_000), monkeypatch, 100, 50)
    assert len(pool.shards) == 10
    opened = []
    real = pq.ParquetFile

    def counted(*args, **kwargs):
        opened.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(given_rows.pq, "ParquetFile", counted)
    _read(pool, list(range(10)), 50)
    assert len(opened) == 1
    _read(pool, [3, 7, 8, 2], 50)
    assert len(opened) == 3  # 7 and 8 lie behind 3


def test_small_groups_share_a_shard_and_large_ones_are_cut(tmp_path, monkeypatch):
    write_files(tmp_path, rows_of(ARRAYS, np.arange(90)), num_files=9)
    pq.write_table(table_of(rows_of(ARRAYS, np.arange(90, 1_000))), tmp_path / "q.parquet")
    pool = _pool(str(tmp_path), monkeypatch, 64, 16)
    sizes = [shard.num_rows for shard in pool.shards]
    assert sizes[:2] == [60, 30]
    assert sizes[2:-1] == [64] * (len(sizes) - 3)
    assert sum(sizes) == 1_000
    assert pool.ranges[0][0] == Range(Group(0, 0, 10), 0, 10)


def test_wide_rows_are_read_few_at_a_time():
    wide = {"sample_id": np.arange(8), "embedding": np.zeros((8, 300_000), np.float32)}
    given = open_given(wide)
    columns = columns_of(given, (("embeds", "embedding"),), "sample_id")
    pool = GivenPool.of(given, columns, "sample_id")
    assert pool.batch_rows == 64
    assert columns[0].row_bytes == 1_200_000


def test_a_stream_becomes_a_file_of_the_same_rows(tmp_path):
    table = table_of(ARRAYS)
    batches = [*table.slice(0, 300).to_batches(max_chunksize=7), *table.slice(300).to_batches()]
    files, columns = stage(iter(batches), WANTED, "sample_id", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["outputs.parquet"]
    assert [(one.name, one.source, one.shape) for one in columns] == [
        ("embeds", "embeds", (6,)), ("draws", "draws", (3, 4)),
    ]  # fmt: skip
    pool = GivenPool.of(files, columns, "sample_id")
    found = _read(pool, list(range(len(pool.shards))), 8_192)
    expected = rows_of(ARRAYS, np.argsort(ARRAYS["sample_id"]))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_stream_may_change_its_types_between_batches(tmp_path):
    ids, days = np.arange(6), np.arange("2020-01-01", "2020-01-07", dtype="M8[D]")
    whole = pa.table({"sample_id": ids, "x": ids.astype(np.float32), "day": days.astype("M8[ms]")})
    other = pa.table({"sample_id": ids.astype("i4"), "x": ids, "day": days})
    batches = [*whole.slice(0, 3).to_batches(), *other.slice(3).to_batches()]
    wanted = (("x", "x"), ("group", "day"))
    files, _ = stage(iter(batches), wanted, "sample_id", tmp_path)
    found = pq.read_table(files.paths[0])
    assert found["x"].to_pylist() == whole["x"].to_pylist()
    assert found["group"].equals(whole["day"])


def test_a_stream_that_breaks_leaves_nothing(tmp_path):
    def batches():
        yield from table_of(ARRAYS).to_batches()
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        stage(batches(), WANTED, "sample_id", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fingerprints_tell_contents_apart(tmp_path):
    first = open_given(write_files(tmp_path, ARRAYS, 2)).fingerprint
    assert open_given(str(tmp_path / "*.parquet")).fingerprint == first
    changed = {**ARRAYS, "embedding": ARRAYS["embedding"] + 1}
    assert open_given(write_files(tmp_path, changed, 2)).fingerprint != first
    held = open_given(ARRAYS).fingerprint
    assert open_given({name: values.copy() for name, values in ARRAYS.items()}).fingerprint == held
    assert open_given(changed).fingerprint != held


def test_files_are_told_apart_by_what_is_read_of_them_and_by_place_and_time(tmp_path):
    write_files(tmp_path, ARRAYS, 2)
    files = open_given(str(tmp_path / "*.parquet"))
    assert isinstance(files, Files)
    seen = {files.fingerprint, replace(files, groups=files.groups[1:]).fingerprint}
    first = Path(files.paths[0])
    os.utime(first, (1, 1))
    seen.add(open_given(str(tmp_path / "*.parquet")).fingerprint)
    times = first.stat().st_mtime_ns
    first = first.rename(first.with_name("another.parquet"))
    os.utime(first, ns=(times, times))
    seen.add(open_given(str(tmp_path / "*.parquet")).fingerprint)
    assert len(seen) == 4


def test_arrays_are_not_copied():
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    given = open_given({"sample_id": np.arange(4), "embedding": rows})
    assert isinstance(given, Held)
    column = Column("embeds", "embedding", "<f4", (3,))
    batch = next(iter(given.rows(given.groups[0], ["embedding"], 2, 2, 4)))
    values = column.read(batch, np.array([2, 3]), "here")
    assert np.shares_memory(values, rows)
    np.testing.assert_array_equal(values, rows[2:])


@pytest.mark.parametrize(
    "shape", [(5,), (5, 3), (5, 2, 3), (0,), (0, 3)], ids=lambda shape: "x".join(map(str, shape))
)
@pytest.mark.parametrize("dtype", ["int8", "uint16", "float16", "float64", "bool"])
def test_arrays_of_any_shape_come_back(shape, dtype):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    rows = pa.record_batch([as_array(array)], names=["x"])
    found = values_of(rows, "x", shape[1:], np.arange(shape[0]), "here")
    np.testing.assert_array_equal(found, array.astype(found.dtype))
    assert found.shape == shape


def test_decimals_and_dates_and_words():
    rows = pa.record_batch(
        {
            "price": pa.array(["1.25", "3.50"]).cast(pa.decimal128(5, 2)),
            "day": pa.array([1, 2], pa.date32()),
            "word": pa.array(["a", "b"]).dictionary_encode(),
        }
    )
    ids = np.array([5, 6])
    price = Column.found("cost", "price", rows, ids, "here")
    assert price.read(rows, ids, "here").tolist() == [1.25, 3.5]
    for name in ("day", "word"):
        found = Column.found("group", name, rows, ids, "here")
        assert (found.dtype, found.shape) == ("", ())
        assert len(found.stored(rows, ids, "here")[1]) == 2
        with pytest.raises(PoolError, match=f"column '{name}' is .* expected numbers"):
            Column.found("embeds", name, rows, ids, "here")
    nulls = pa.record_batch({"word": pa.array(["a", None])})
    with pytest.raises(PoolError, match="column 'word' has no value at sample_id 6"):
        Column("group", "word", "", ()).stored(nulls, ids, "here")


def test_files_of_remote_looking_places_are_found_by_uri(tmp_path: Path):
    write_files(tmp_path, ARRAYS, 2)
    given = open_given(f"file://{tmp_path}")
    assert isinstance(given, Files)
    assert len(given.paths) == 2


def test_any_rows_of_a_group_can_be_read(tmp_path):
    rng = np.random.default_rng(3)
    arrays = {"sample_id": np.arange(500)}
    files = open_given(write_files(tmp_path, arrays, 1, 500))
    held = open_given(arrays)
    assert isinstance(files, Files)
    assert isinstance(held, Held)
    for _ in range(60):
        start, stop = np.sort(rng.choice(501, 2, replace=False)).tolist()
        size = int(rng.choice([7, 10, 64]))
        for given in (files, held):
            parts = list(given.rows(given.groups[0], ["sample_id"], size, start, stop))
            assert max(part.num_rows for part in parts) <= size
            ids = np.concatenate([part.column(0).to_numpy() for part in parts])
            assert ids.tolist() == list(range(start, stop))


@pytest.mark.parametrize("twice", [None, 150, 199, 399])
def test_ids_in_order_need_no_second_look_unless_their_ranges_meet(twice, tmp_path, monkeypatch):
    second = np.arange(200, 400)
    if twice is not None:
        second = np.concatenate([[twice], second[1:]]) if twice < 200 else second
    first = np.arange(200) if twice != 399 else np.concatenate([np.arange(199), [399]])
    for name, ids in (("a", first), ("b", second)):
        pq.write_table(pa.table({"sample_id": ids}), tmp_path / f"{name}.parquet")
    looked = []
    real = selection_ids.SeenIds
    monkeypatch.setattr(selection_ids, "SeenIds", lambda where: looked.append(where) or real(where))
    given = open_given(str(tmp_path / "*.parquet"))
    bar = Reporter(quiet=True)
    with bar.phase("ids", None) as phase:
        if twice is None:
            asked = np.array([3, 5, 399, 400])
            found = selection_ids.look_at_ids(given, "sample_id", asked, tmp_path / "seen", phase)
            assert found[0] == 400
            assert found[1].tolist() == [True, True, True, False]
        else:
            said = f"sample_id {twice} comes twice: at row .* of .*a.parquet and at row .*b.parquet"
            with pytest.raises(PoolError, match=said):
                selection_ids.look_at_ids(
                    given, "sample_id", np.empty(0, np.int64), tmp_path / "seen", phase
                )
    assert len(looked) == (twice is not None)
    assert not (tmp_path / "seen").exists()
