"""Lance tables: fragments, what is deleted in them, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.errors import PoolError
from rayal.pool import Pool, ingest
from rayal.pool.sources import find

ROWS = pa.table({"x": range(100), "t": [f"row {at}" for at in range(100)]})


def _written(place: Path, rows: pa.Table = ROWS, **how: Any) -> str:
    lance.write_dataset(rows, str(place), **how)
    return str(place)


def _refused(source: str, tmp_path: Path, message: str, **options: Any) -> None:
    with pytest.raises(PoolError, match=message) as caught:
        ingest(source, str(tmp_path / "refused"), **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists()


def _touch(source: str, is_dated: bool) -> None:
    """Gives all files one time, where a copy that keeps no times has done so."""
    for path in Path(source).rglob("*.*"):
        if not is_dated:
            os.utime(path, ns=(1, 1))


def _column(pool: Pool, name: str) -> list[Any]:
    found: list[Any] = pool.rows(np.arange(pool.manifest.end_row), [name]).column(0).to_pylist()
    return found


def test_fragments_are_read_in_their_order_without_what_was_deleted(tmp_path: Path) -> None:
    source = _written(tmp_path / "in.lance", max_rows_per_file=30)
    lance.dataset(source).delete("x in (3, 31, 32, 99)")
    lance.dataset(source).delete("x >= 60 and x < 90")  # a whole fragment
    lance.dataset(source).add_columns({"twice": "x * 2"})
    files = find(source)
    assert [len(files.paths(info)) for info in files.infos] == [3, 3, 3]
    assert files.num_rows == 66
    pool = ingest(source, str(tmp_path / "pool"), test_share=0)
    expected = [at for at in range(100) if at not in (3, 31, 32, 99) and not 60 <= at < 90]
    assert _column(pool, "x") == expected
    assert _column(pool, "twice") == [at * 2 for at in expected]


def test_a_table_is_known_by_its_manifests_too(tmp_path: Path) -> None:
    source = _written(tmp_path / "table")
    pq.write_table(ROWS, tmp_path / "table" / "data" / "not-of-it.parquet")
    assert find(source).format == "lance"
    (tmp_path / "plain" / "_versions").mkdir(parents=True)
    pq.write_table(ROWS, tmp_path / "plain" / "a.parquet")
    assert find(str(tmp_path / "plain")).format == "parquet"


@pytest.mark.parametrize("change", ["delete", "add_columns", "update"])
@pytest.mark.parametrize("is_dated", [True, False])
def test_a_fragment_that_changed_since_is_refused(
    tmp_path: Path, change: str, is_dated: bool
) -> None:
    source = _written(tmp_path / "in.lance", max_rows_per_file=50)
    _touch(source, is_dated)
    pool = ingest(source, str(tmp_path / "pool"), test_share=0)
    _written(tmp_path / "in.lance", mode="append")  # may not hide it
    found = lance.dataset(source)
    if change == "delete":
        found.delete("x = 60")
    elif change == "add_columns":
        found.add_columns({"twice": "x * 2"})
    else:
        found.update({"t": "'new'"}, where="x = 60")
    _touch(source, is_dated)
    with pytest.raises(PoolError) as caught:
        ingest(source, pool.path, test_share=0)
    said = str(caught.value)
    assert " has changed since its rows were taken into the pool (" in said
    assert said.endswith(
        "; rows keep what they were: take what its table deleted out with rayal pool delete, or "
        "ingest into another folder"
    )
    assert Pool.open(pool.path) == pool


def test_a_deletion_that_was_there_and_a_touch_are_no_change(tmp_path: Path) -> None:
    source = _written(tmp_path / "in.lance")
    lance.dataset(source).delete("x = 60")
    pool = ingest(source, str(tmp_path / "pool"), test_share=0)
    for path in Path(source).rglob("*.*"):
        path.touch()
    assert ingest(source, pool.path, test_share=0) == pool
    (deleted,) = Path(source, "_deletions").iterdir()
    content = bytearray(deleted.read_bytes())
    deleted.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PoolError, match=" has changed since its rows were taken "):
        ingest(source, pool.path, test_share=0)


def test_a_column_that_came_later_is_null_before(tmp_path: Path) -> None:
    source = _written(tmp_path / "in.lance")
    lance.dataset(source).add_columns(pa.field("later", pa.float64()))
    more = pa.table({"x": [100], "t": ["row 100"], "later": [0.5]})
    _written(tmp_path / "in.lance", more, mode="append")
    pool = ingest(source, str(tmp_path / "pool"), test_share=0)
    assert _column(pool, "later") == [None] * 100 + [0.5]


def test_tensors_are_what_they_are_stored_as(tmp_path: Path) -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 3))
    storage = pa.FixedSizeListArray.from_arrays(np.arange(60, dtype=np.float32), 6)
    rows = pa.table({"v": pa.ExtensionArray.from_storage(kind, storage)})
    pool = ingest(_written(tmp_path / "in.lance", rows), str(tmp_path / "pool"), test_share=0)
    assert pool.schema.field("v").type == pa.binary(24)


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("version", ["2.0", "2.2"])
def test_blobs_are_refused_and_can_be_left_out(tmp_path: Path, version: str) -> None:
    if version == "2.0":
        meta = {"lance-encoding:blob": "true"}
        schema = pa.schema(
            [pa.field("x", pa.int64()), pa.field("b", pa.large_binary(), metadata=meta)]
        )
        rows = pa.table({"x": [1, 2], "b": [b"one", b"two"]}, schema=schema)
    else:
        rows = pa.table({"x": [1, 2], "b": lance.blob_array([b"one", b"two"])})
    source = _written(tmp_path / "in.lance", rows, data_storage_version=version)
    _refused(
        source,
        tmp_path,
        f"^the Lance table {source} keeps column 'b' as blobs, apart from its rows, expected plain "
        r"binary; write the column so, or leave it out with --drop b \(pool.drop=\[b\]\)$",
    )
    assert ingest(source, str(tmp_path / "pool"), test_share=0, drop=["b"]).num_rows == 2


def test_rows_of_another_table_are_refused(tmp_path: Path) -> None:
    source = _written(tmp_path / "in.lance")
    clone = str(tmp_path / "clone.lance")
    lance.dataset(source).shallow_clone(clone, lance.dataset(source).version)
    _refused(
        clone,
        tmp_path,
        "clone.lance is a Lance table whose fragment 0 lies in another table, expected files of "
        "its own, as a deep clone has; write its rows into a new table$",
    )


@pytest.mark.parametrize("damage", ["none", "empty", "half", "random", "flipped"])
def test_a_manifest_that_cannot_be_read(tmp_path: Path, damage: str) -> None:
    source = _written(tmp_path / "in.lance")
    (place,) = Path(source, "_versions").glob("*.manifest")
    content = place.read_bytes()
    if damage == "none":
        place.unlink()
        said = "in.lance is named as a Lance table is, and has no manifest in _versions; copy the "
        _refused(source, tmp_path, said)
        return
    flipped = bytes(
        byte ^ 0x55 if 20 < at < len(content) - 40 else byte for at, byte in enumerate(content)
    )  # on which pylance panics
    place.write_bytes(
        {
            "empty": b"",
            "half": content[: len(content) // 2],
            "random": np.random.default_rng(0).bytes(len(content)),
            "flipped": flipped,
        }[damage]
    )
    _refused(
        source, tmp_path, "in.lance cannot be read as a Lance table: .+; restore its _versions, or"
    )


def test_a_fragment_that_leaves_the_table_is_refused(tmp_path: Path) -> None:
    outside = _written(tmp_path / "outside.lance")
    name = next(Path(outside, "data").iterdir()).name
    meta = lance.dataset(outside).get_fragments()[0].metadata.to_json()
    meta["files"][0]["path"] = f"../../outside.lance/data/{name}"
    fragment = lance.FragmentMetadata.from_json(json.dumps(meta))
    inside = str(tmp_path / "in.lance")
    lance.LanceDataset.commit(inside, lance.LanceOperation.Overwrite(ROWS.schema, [fragment]))
    assert lance.dataset(inside).count_rows() == 100  # pylance follows it
    _refused(inside, tmp_path, r"outside.lance/data/.* leaves its root .*in.lance by '\.\.'; mend")
