"""Columns that no model reads: kept as they are, or left out."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.columns import content_hash, ids_of, is_vector, vectors, why_list
from rayal.errors import ConfigError, PoolError
from rayal.pool import Pool, ingest, open_pool

NAN = float("nan")


def _pool(tmp_path: Path, table: dict[str, Any], **options: Any) -> Pool:
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    ingest(str(tmp_path / "in.parquet"), str(tmp_path / "pool"), test_share=0.0, **options)
    return Pool.open(str(tmp_path / "pool"))


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pa.array([[1, 2], [3, 4], [5]]), "it has 1 numbers in row 2 of the .*, expected 2 as bef"),
        (pa.array([[1.0], None, [2.0]]), "it is null in row 1 of the source"),
        (pa.array([None, [1], [2]]), "it is null in row 0 of the source"),
        (pa.array([[1.0], [2.0], [None]]), "there is a null inside it in row 2"),
        (pa.array([[], [], []], pa.list_(pa.int64())), "it is empty in row 0"),
        (pa.array([[1.0], [2.0], None], pa.list_(pa.float32(), 1)), "it is null in row 2"),
        (
            pa.array([[1.0, 2.0], [2.0, None], None], pa.list_(pa.float32(), 2)),
            "there is a null inside it in row 1",
        ),
        (pa.array([[NAN], [1.0, NAN], []]), "it has 2 numbers in row 1 of the source"),
    ],
)
def test_lists_that_are_no_vectors_are_kept_as_they_are(
    tmp_path: Path, column: pa.Array, why: str
) -> None:
    pool = _pool(tmp_path, {"x": [1, 2, 3], "tokens": column})
    rows = pool.rows(np.arange(3), ["tokens", "x"])
    assert str(rows.column("tokens").to_pylist()) == str(column.to_pylist())
    (note,) = pool.manifest.notes
    assert note.startswith("column 'tokens' is stored as lists: ")
    for said in (note, why_list(pool.schema.field("tokens"))):
        assert said is not None
        assert re.search(why, said)
    with pytest.raises(PoolError, match=rf"'tokens' is list<.*>, expected .* \({why}.*; mend the"):
        vectors(rows, "tokens")


def test_vectors_that_turn_out_to_be_lists_late(tmp_path: Path) -> None:
    """The first piece, a whole file, is stored as vectors before the second says otherwise."""
    (tmp_path / "in").mkdir()
    even, odd = pa.table({"v": [[1, 2]] * 5}), pa.table({"v": [[1, 2]] * 3 + [[3]]})
    pq.write_table(even, tmp_path / "in" / "a.parquet")
    pq.write_table(odd, tmp_path / "in" / "b.parquet")
    told: list[int] = []
    pool = ingest(
        str(tmp_path / "in"), str(tmp_path / "pool"), progress=lambda done, _: told.append(done)
    )
    assert told == [0, 5, 5, 0, 5, 5, 9]
    assert pool.rows(np.arange(9), ["v"]).column("v").to_pylist() == [[1, 2]] * 8 + [[3]]
    assert why_list(pool.schema.field("v")) == (
        "it has 1 numbers in row 8 of the source (counted from 0), expected 2 as before"
    )
    pq.write_table(pa.concat_tables([even, odd]), tmp_path / "one.parquet", row_group_size=2)
    assert ingest(str(tmp_path / "one.parquet"), str(tmp_path / "1")).content_hash == (
        pool.content_hash
    )


def test_numbers_that_are_missing_or_not_finite_pass_as_metadata(tmp_path: Path) -> None:
    pool = _pool(tmp_path, {"v": [[1.0], [2.0], [3.0]], "height": [1.5, NAN, None]})
    one, nan, missing = pool.rows(np.arange(3), ["height"]).column("height").to_pylist()
    assert (one, missing) == (1.5, None)
    assert np.isnan(nan)
    assert is_vector(pool.schema.field("v"))
    assert pool.manifest.notes == ()


MAP = pa.map_(pa.string(), pa.int64())


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[("a", 1)], [], None], MAP),
        pa.array([{"m": [("a", 1)]}] * 3, pa.struct({"m": MAP})),
        pa.array([[{"a": 1, "b": "x"}], [], None]),
        pa.array([["a"], ["b", "c"], None], pa.large_list(pa.large_string())),
    ],
)
def test_nested_columns_read_back_as_they_were_written(tmp_path: Path, column: pa.Array) -> None:
    pool = _pool(tmp_path, {"x": [1, 2, 3], "c": column})
    assert pool.rows(np.arange(3), ["c"]).column("c").to_pylist() == column.to_pylist()
    again = ingest(str(tmp_path / "in.parquet"), pool.path, test_share=0.0)
    assert again.content_hash == pool.content_hash


def test_a_map_has_the_same_hash_before_and_after_parquet(tmp_path: Path) -> None:
    table = pa.table({"c": pa.array([[("a", 1)], [], None], MAP)})
    pq.write_table(table, tmp_path / "c.parquet")
    assert content_hash(pq.read_table(tmp_path / "c.parquet")) == content_hash(table)
    other = pa.table({"c": pa.array([[("a", 2)], [], None], MAP)})
    assert content_hash(other) != content_hash(table)


def test_what_was_written_is_read_before_it_is_a_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rayal.pool.pool_writer import PoolWriter

    plain = PoolWriter.finish

    def forgetful(self: PoolWriter, source: str) -> Any:
        manifest = plain(self, source)
        (self._bench.folder / manifest.shards[0].path).write_bytes(b"")
        return manifest

    monkeypatch.setattr(PoolWriter, "finish", forgetful)
    with pytest.raises(PoolError, match="has 0 bytes, expected"):
        _pool(tmp_path, {"x": [1]})
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_columns_are_left_out(tmp_path: Path) -> None:
    table = {"v": [[1.0], [2.0]], "score": [1, 2], "bad": [[1.0], [NAN]], "y": ["a", "b"]}
    pool = _pool(tmp_path, table, label_column="y", drop=["score", "bad"])
    assert pool.schema.names == ["sample_id", "v"]
    assert pool.manifest.source["drop"] == ["bad", "score"]
    source = str(tmp_path / "in.parquet")
    again = ingest(source, pool.path, label_column="y", test_share=0.0, drop=["bad", "score"])
    assert again == pool
    with pytest.raises(PoolError, match=r"no column 'nope' to drop \(it has: v, score, bad, y\)"):
        ingest(source, str(tmp_path / "other"), drop=["nope", "score", "bad"])
    with pytest.raises(ConfigError, match="'y' is to be dropped, and is named as id or label"):
        ingest(source, str(tmp_path / "other"), drop=["y"], label_column="y")
    opened = open_pool(str(tmp_path / "new"), source, label_column="y", drop=["bad", "score"])
    assert opened.schema.names == pool.schema.names


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_columns_of_text_formats_are_left_out(tmp_path: Path, suffix: str) -> None:
    place = tmp_path / f"in.{suffix}"
    place.write_text("x,weight\n1,2\n" if suffix == "csv" else '{"x": 1, "weight": 2}\n')
    pool = ingest(str(place), str(tmp_path / "pool"), drop=["weight"], test_share=0.0)
    assert pool.schema.names == ["sample_id", "x"]
    assert ingest("recipe:sum_regression:9", str(tmp_path / "sums")).schema.names[1:] == [
        "features"
    ]
    with pytest.raises(PoolError, match="no column beside"):
        ingest("recipe:sum_regression:9", str(tmp_path / "other"), drop=["features"])


def test_files_may_differ_in_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"x": [1], "y": ["a"]}), tmp_path / "in" / "a.parquet")
    pq.write_table(pa.table({"x": [2], "y": [1.5]}), tmp_path / "in" / "b.parquet")
    pq.write_table(pa.table({"x": [3]}), tmp_path / "in" / "c.parquet")
    pool = ingest(str(tmp_path / "in"), str(tmp_path / "pool"), drop=["y"], test_share=0.0)
    assert pool.rows(np.arange(3), ["x"]).column("x").to_pylist() == [1, 2, 3]


def test_whole_numbers_as_floats_may_be_names(tmp_path: Path) -> None:
    """As pandas writes integers of which some are missing."""
    table = {"x": [1, 2, 3], "y": [0.0, None, 1.0]}
    (note,) = _pool(tmp_path, table, label_column="y").manifest.notes
    assert note == (
        "label column 'y' is taken for numbers, though all of them are whole; if they name "
        "classes, ingest with --kind class"
    )
    for number, (labels, options) in enumerate(
        [([0.0, 1.5, 1.0], {}), ([0.0, 1.0, 2.0], {"kind": "number"})]
    ):
        pq.write_table(pa.table({"x": [1, 2, 3], "y": labels}), tmp_path / "in.parquet")
        place = str(tmp_path / str(number))
        made = ingest(str(tmp_path / "in.parquet"), place, label_column="y", **options)
        assert made.manifest.notes == ()


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_ids_are_those_of_the_rows_and_can_be_written(
    tmp_path: Path, start: int, is_mapped: bool
) -> None:
    rows = pa.record_batch({"other": np.arange(9.0), "sample_id": np.arange(-4, 5)})
    if is_mapped:  # a file's own memory is nobody's to write
        with (
            pa.OSFile(str(tmp_path / "rows"), "wb") as sink,
            pa.ipc.new_file(sink, rows.schema) as writer,
        ):
            writer.write_batch(rows)
        rows = pa.ipc.open_file(pa.memory_map(str(tmp_path / "rows"))).get_batch(0)
    for size in (0, 1, 9 - start):
        ids = ids_of(rows.slice(start, size))
        assert ids.tolist() == list(range(start - 4, start - 4 + size))
        assert ids.dtype == np.int64
        ids += 0
