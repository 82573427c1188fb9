"""Delta tables: what their log says of columns and files, and what is refused."""

from __future__ import annotations

import base64
import datetime
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from rayal.errors import PoolError
from rayal.pool import Pool, ingest

ROWS = pa.table({"x": [1, 2, 3], "t": ["a", "b", "c"]})


def _written(place: Path, rows: pa.Table = ROWS, **how: Any) -> str:
    write_deltalake(str(place), rows, **how)
    return str(place)


def _log(place: Path | str) -> Path:
    return Path(place, "_delta_log", f"{0:020d}.json")


def _changed(place: Path | str, **of: dict[str, Any]) -> None:
    """Changes what the first entry of the log says: of `protocol`, `metaData` or `add`."""
    lines = [json.loads(line) for line in _log(place).read_text().splitlines()]
    for line in lines:
        for kind, fields in of.items():
            if kind in line:
                line[kind].update(fields)
    _log(place).write_text("\n".join(map(json.dumps, lines)))


def _features(*names: str) -> dict[str, Any]:
    each = list(names)
    return {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": each,
        "writerFeatures": each,
    }


def _refused(source: str, tmp_path: Path, message: str) -> None:
    with pytest.raises(PoolError, match=message) as caught:
        ingest(source, str(tmp_path / "refused"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists()


def _rows(pool: Pool, columns: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        pool.rows(np.arange(pool.manifest.end_row), columns).sort_by("x").to_pylist()
    )
    return found


PARTITIONED = pa.table(
    {
        "x": [1, 2, 3, 4],
        "word": ["a", "b c/d", "ü=%20", None],
        "number": pa.array([1, None, -3, 4], pa.int32()),
        "day": [datetime.date(2024, 1, at) for at in (1, 2, 3, 4)],
        "is_one": [True, False, None, False],
        "time": [datetime.datetime(2024, 1, 1, at, tzinfo=datetime.UTC) for at in (1, 2, 3, 4)],
    }
)


def test_columns_of_partitions_have_the_types_of_the_table(tmp_path: Path) -> None:
    names = [name for name in PARTITIONED.column_names if name != "x"]
    source = _written(tmp_path / "a table", PARTITIONED, partition_by=names)
    pool = ingest(source, str(tmp_path / "pool"), test_share=0)
    assert _rows(pool, PARTITIONED.column_names) == PARTITIONED.to_pylist()
    for name in names:
        assert pool.schema.field(name).type == PARTITIONED.schema.field(name).type
    labelled = ingest(source, str(tmp_path / "labelled"), label_column="word", drop=["x"])
    assert labelled.vocabulary is not None
    assert labelled.vocabulary.classes == ("a", "b c/d", "ü=%20")
    assert "x" not in labelled.schema.names
    assert labelled.num_rows + labelled.num_test_rows == 4


def test_alike_files_of_two_partitions_are_not_the_same_rows(tmp_path: Path) -> None:
    rows = pa.table({"x": [1, 2], "day": ["mon", "mon"]})
    source = _written(tmp_path / "in", rows, partition_by=["day"])
    pool = ingest(source, str(tmp_path / "pool"), test_share=0)
    alike = rows.set_column(1, "day", pa.array(["tue", "tue"]))
    _written(tmp_path / "in", alike, mode="append")
    files = [path.read_bytes() for path in (tmp_path / "in").rglob("*.parquet")]
    assert files[0] == files[1]
    pool = ingest(source, pool.path, test_share=0)
    assert pool.rows(np.arange(4), ["day"]).column(0).to_pylist() == ["mon"] * 2 + ["tue"] * 2
    place = Path(pool.path) / pool.manifest.versions[1].files
    first = Path(pool.path) / pool.manifest.versions[0].files
    hashes = [pq.read_table(one).column("content_hash")[0].as_py() for one in (first, place)]
    assert hashes[0] != hashes[1]


def test_a_file_that_went_is_missed_though_another_one_is_alike(tmp_path: Path) -> None:
    source = _written(tmp_path / "in")
    _written(tmp_path / "in", mode="append")
    pool = ingest(source, str(tmp_path / "pool"), test_share=0)
    assert pool.num_rows == 6
    gone = Path(DeltaTable(source).file_uris()[0]).name
    remove = {"path": gone, "deletionTimestamp": 0, "dataChange": True}
    _log(source).with_name(f"{2:020d}.json").write_text(json.dumps({"remove": remove}))
    assert ingest(source, pool.path, test_share=0) == pool  # taken is taken
    _written(tmp_path / "in", pa.table({"x": [4], "t": ["d"]}), mode="append")
    with pytest.raises(PoolError, match=f"has 1 new files, and no longer 1 whose .* as .*{gone};"):
        ingest(source, pool.path, test_share=0)


def test_only_files_that_are_live_are_read(tmp_path: Path) -> None:
    source = _written(tmp_path / "in")
    _written(tmp_path / "in", pa.table({"x": [9], "t": ["z"]}), mode="overwrite")
    assert len(list((tmp_path / "in").glob("*.parquet"))) == 2
    pool = ingest(source, str(tmp_path / "pool"), test_share=0)
    assert _rows(pool, ["x", "t"]) == [{"x": 9, "t": "z"}]


def test_a_column_that_came_later_is_null_before(tmp_path: Path) -> None:
    source = _written(tmp_path / "in")
    pool = ingest(source, str(tmp_path / "old"), test_share=0)
    more = pa.table({"x": [4], "t": ["d"], "later": [0.5]})
    _written(tmp_path / "in", more, mode="append", schema_mode="merge")
    fresh = ingest(source, str(tmp_path / "pool"), test_share=0)
    assert _rows(fresh, ["x", "t", "later"]) == [
        {"x": 1, "t": "a", "later": None},
        {"x": 2, "t": "b", "later": None},
        {"x": 3, "t": "c", "later": None},
        {"x": 4, "t": "d", "later": 0.5},
    ]
    only = ingest(source, str(tmp_path / "only"), test_share=0, drop=["x", "t"])
    assert only.rows(np.arange(4), ["later"]).column(0).null_count == 3
    with pytest.raises(PoolError, match="adds later, compared with the pool "):
        ingest(source, pool.path, test_share=0)
    grown = ingest(source, str(tmp_path / "dropped"), test_share=0, drop=["later"])
    assert grown.num_rows == 4


def test_a_table_that_was_made_of_parquet_files_is_read_as_they_are(tmp_path: Path) -> None:
    from deltalake import convert_to_deltalake

    (tmp_path / "in").mkdir()
    for at in range(3):
        rows = pa.table({"x": np.arange(at * 10, at * 10 + 10), "t": [str(at)] * 10})
        pq.write_table(rows, tmp_path / "in" / f"{at}.parquet")
    expected = ingest(str(tmp_path / "in"), str(tmp_path / "a"))
    convert_to_deltalake(str(tmp_path / "in"))
    assert ingest(str(tmp_path / "in"), str(tmp_path / "b")).content_hash == expected.content_hash
    assert ingest(str(tmp_path / "in"), expected.path) == expected


# ------------------------------------------------------------------------------- what is refused


def test_files_of_a_table_are_not_taken_one_by_one(tmp_path: Path) -> None:
    _written(tmp_path / "all" / "in")
    said = f"^{tmp_path}/all/in is a Delta table, in which files may lie that are rows no more"
    _refused(str(tmp_path / "all"), tmp_path, said)
    _refused(str(tmp_path / "all" / "in" / "*.parquet"), tmp_path, said)
    _refused(str(tmp_path / "all" / "**" / "*.parquet"), tmp_path, said)


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}\n", bytes(range(256))])
def test_a_log_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    source = _written(tmp_path / "in")
    _log(source).unlink()
    if content is not None:
        _log(source).write_bytes(content)
    said = "in cannot be read as a Delta table: .+; restore its _delta_log, or write its rows into"
    _refused(source, tmp_path, said)


def test_a_checkpoint_that_cannot_be_read(tmp_path: Path) -> None:
    source = _written(tmp_path / "in")
    DeltaTable(source).create_checkpoint()
    (place,) = Path(source, "_delta_log").glob("*.checkpoint.parquet")
    place.write_bytes(place.read_bytes()[:100])
    _refused(source, tmp_path, "in cannot be read as a Delta table: .+; restore its _delta_log")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../outside.parquet", r"in/\.\./outside.parquet leaves its root .*/in by '\.\.'"),
        ("%2e%2e/outside.parquet", r"in/\.\./outside.parquet leaves its root"),
        ("a/../../outside.parquet", r"outside.parquet leaves its root"),
        ("/etc/passwd", "in names /etc/passwd, expected a file below the table's folder; write"),
        ("file:///etc/passwd", "in names file:///etc/passwd, expected a file below the table's"),
        ("s3://other/x.parquet", "in names s3://other/x.parquet, expected a file below"),
    ],
)
def test_a_path_that_leaves_the_table(tmp_path: Path, path: str, said: str) -> None:
    pq.write_table(ROWS, tmp_path / "outside.parquet")
    source = _written(tmp_path / "in")
    _changed(source, add={"path": path})
    _refused(source, tmp_path, said)


def test_column_mapping_is_refused(tmp_path: Path) -> None:
    source = _written(tmp_path / "in")
    log = json.loads(
        next(line for line in _log(source).read_text().splitlines() if "metaData" in line)
    )
    schema = json.loads(log["metaData"]["schemaString"])
    for at, field in enumerate(schema["fields"]):
        name = f"col-{at}"
        field["metadata"] = {
            "delta.columnMapping.id": at + 1,
            "delta.columnMapping.physicalName": name,
        }
    _changed(
        source,
        protocol={"minReaderVersion": 2, "minWriterVersion": 5},
        metaData={
            "schemaString": json.dumps(schema),
            "configuration": {"delta.columnMapping.mode": "name"},
        },
    )
    _refused(
        source,
        tmp_path,
        r"in is a Delta table with column mapping \(delta.columnMapping.mode is 'name'\), expected "
        "one whose files have the names of its columns; write its rows into a new table",
    )
    _changed(source, metaData={"configuration": {"delta.columnMapping.mode": "none"}})
    ingest(source, str(tmp_path / "pool"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("typeWidening", "asks for the reader features typeWidening, expected reader version 1 to"),
        ("variantType", "asks for the reader features variantType, expected reader version 1 to 3"),
        ("inTheFuture", "cannot be read as a Delta table: .*'inTheFuture' is not supported; "),
    ],
)
def test_features_that_came_later_are_refused(tmp_path: Path, name: str, said: str) -> None:
    source = _written(tmp_path / "in")
    _changed(source, protocol=_features(name))
    _refused(source, tmp_path, said)


def test_features_that_say_nothing_of_the_rows_are_not(tmp_path: Path) -> None:
    source = _written(tmp_path / "in")
    _changed(source, protocol=_features("deletionVectors", "timestampNtz", "v2Checkpoint"))
    assert ingest(source, str(tmp_path / "pool"), test_share=0).num_rows == 3


def _vector(rows: list[int]) -> str:
    """Gives the rows that are deleted, as the log has them: a Roaring bitmap in Z85."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16)
    bitmap += struct.pack(f"<{len(rows)}H", *rows)
    content = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    content += b"\0" * (-len(content) % 4)
    z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    b85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    return base64.b85encode(content).decode().translate(str.maketrans(b85, z85))


@pytest.mark.parametrize("is_whole", [True, False])
def test_deletion_vectors_are_refused(tmp_path: Path, is_whole: bool) -> None:
    source = _written(tmp_path / "in")
    inline = _vector([1])
    vector = {"storageType": "i", "pathOrInlineDv": inline, "sizeInBytes": 34, "cardinality": 1}
    if not is_whole:
        vector |= {"storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "offset": 1}
    _changed(source, protocol=_features("deletionVectors"), add={"deletionVector": vector})
    if is_whole:  # it is one, and not only something that cannot be read
        assert pa.table(DeltaTable(source).deletion_vectors())["selection_vector"].to_pylist() == [
            [True, False, True]
        ]
    what = r", such as part-\S+.parquet" if is_whole else r" \(.*File not found: .*\)"
    _refused(
        source,
        tmp_path,
        rf"in is a Delta table with deletion vectors{what}, expected files without deleted rows; "
        r"REORG TABLE \.\.\. APPLY \(PURGE\) writes the files anew, and "
        "delta.enableDeletionVectors=false keeps them so$",
    )


def test_partitions_by_bytes_are_refused(tmp_path: Path) -> None:
    rows = pa.table({"x": [1, 2], "b": [b"a", b"\xff"]})
    source = _written(tmp_path / "in", rows, partition_by=["b"])
    _refused(source, tmp_path, "in is a Delta table that is partitioned by the binary column 'b'")


def test_a_value_of_a_partition_that_is_none_of_its_type(tmp_path: Path) -> None:
    rows = pa.table({"x": [1], "n": [5]})
    source = _written(tmp_path / "in", rows, partition_by=["n"])
    _changed(source, add={"partitionValues": {"n": "five"}})
    _refused(source, tmp_path, "in cannot be read as a Delta table: .*'five' as 'long'; restore")


def test_a_file_that_is_of_other_columns(tmp_path: Path) -> None:
    source = _written(tmp_path / "in")
    (place,) = Path(source).glob("*.parquet")
    pq.write_table(ROWS.rename_columns(["X", "t"]), place)
    _refused(
        source, tmp_path, f"{place} has a column 'X', expected 'x' as in the Delta table's log"
    )
    pq.write_table(ROWS.set_column(0, "x", pa.array(["one", "2", "3"])), place)
    _refused(source, tmp_path, f"{place} cannot be read as delta, after row 0: .*'one'.*; restore")
