"""Batches and rows of a pool, against slices of the whole table."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.pool import Pool, ingest
from rayal.pool import reader as reader_module


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("read")
    n = 5000
    table = pa.table(
        {
            "v": pa.FixedSizeListArray.from_arrays(np.arange(n * 3000, dtype=np.float32), 3000),
            "word": [f"w{i}" * (i % 5) for i in range(n)],
        }
    )
    pq.write_table(table, folder / "in.parquet", row_group_size=999)
    return ingest(str(folder / "in.parquet"), str(folder / "pool"), rows_per_shard=2100)


def test_the_shards_have_several_row_groups(pool: Pool) -> None:
    assert pq.read_metadata(Path(pool.path) / pool.shards[0].path).num_row_groups == 8


@pytest.mark.parametrize("batch_rows", [1, 7, 100, 256, 300, 1000, 5000])
def test_batches_are_cut_at_fixed_offsets_whatever_the_row_groups(
    pool: Pool, batch_rows: int
) -> None:
    for shard in pool.shards:
        whole = pq.read_table(Path(pool.path) / shard.path, columns=["sample_id", "word"])
        got = list(pool.batches(shard, ["word", "sample_id"], batch_rows))
        lengths = [rows.num_rows for rows in got]
        assert set(lengths[:-1]) <= {batch_rows}
        assert 0 < lengths[-1] <= batch_rows
        assert all(rows.schema.names == ["word", "sample_id"] for rows in got)
        assert (
            pa.Table.from_batches(got).to_pydict()
            == whole.select(["word", "sample_id"]).to_pydict()
        )


def test_short_pieces_from_arrow_are_cut_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = pool.shards[0]
    expected = [rows.to_pydict() for rows in pool.batches(shard, ["sample_id", "word"], 100)]

    class Choppy:
        def __init__(self, file: pq.ParquetFile) -> None:
            self._file = file

        def iter_batches(self, batch_rows: int, **options: object) -> object:
            sizes = [30, 100, 1, 99, 100, 70]
            table = self._file.read(columns=options["columns"]).combine_chunks()
            start = turn = 0
            while start < len(table):
                yield from table.slice(start, sizes[turn % 6]).to_batches()
                start += sizes[turn % 6]
                turn += 1

    file = reader_module.open_shard(pool.place, shard, pool.schema)
    got = reader_module.cut_batches(pool.place, shard, Choppy(file), ["sample_id", "word"], 100)
    assert [rows.to_pydict() for rows in got] == expected


def test_rows_come_in_the_order_asked_for_from_both_splits(pool: Pool) -> None:
    ids = np.random.default_rng(0).choice(5000, 300, replace=False)
    ids = np.concatenate([ids, ids[:5]])
    rows = pool.rows(ids, ["word", "sample_id", "v"])
    assert rows.schema.names == ["word", "sample_id", "v"]
    assert rows.column("sample_id").to_pylist() == ids.tolist()
    assert rows.column("word").to_pylist() == [f"w{i}" * (i % 5) for i in ids]
    firsts = [np.frombuffer(v.as_buffer(), np.float32)[0] for v in rows.column("v")]
    assert firsts == [np.float32(i * 3000) for i in ids]
    assert pool.rows(np.array([], np.int64), ["word"]).num_rows == 0


def test_read_rows_gives_what_lies_in_the_shard_in_its_order(pool: Pool) -> None:
    ids = np.array([4999, 3, 2099, 2100, 1, 3])
    got = []
    for shard in (*pool.shards, *pool.test_shards):
        rows = pool.read_rows(shard, ids, ["sample_id", "word"])
        assert rows.schema.names == ["sample_id", "word"]
        there = rows.column("sample_id").to_pylist()
        assert there == sorted(there)
        assert all(shard.min_id <= i <= shard.max_id for i in there)
        got += there
    assert sorted(got) == [1, 3, 2099, 2100, 4999]


def test_few_rows_open_few_row_groups(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    plain = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, index: int, *args: object, **options: object) -> pa.Table:
        opened.append(index)
        return plain(self, index, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    shard = pool.shards[0]
    rows = pool.read_rows(shard, np.array([shard.min_id, shard.max_id]), ["v"])
    assert rows.num_rows == 2
    assert opened == [0, 0, 7, 7]


def test_a_pool_opened_again_is_the_same(pool: Pool) -> None:
    again = Pool.open(pool.path)
    assert again.manifest == pool.manifest
    assert again.content_hash == pool.content_hash
    assert again.schema.equals(pool.schema, check_metadata=True)
