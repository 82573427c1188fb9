"""Delta and Lance tables as sources: what holds for both."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pytest
from buckets import Bucket
from deltalake import DeltaTable, write_deltalake

from rayal.errors import ConfigError, PoolError
from rayal.pool import Pool, ingest
from rayal.pool.formats import reading
from rayal.pool.formats.table import refusal
from rayal.pool.sources import find
from rayal.pool.under_way import UnderWay
from rayal.selection.given import open_given

OPTIONS: dict[str, Any] = {"label_column": "y", "rows_per_shard": 40}


def rows_of(some: range) -> pa.Table:
    rng = np.random.default_rng(some.start)
    return pa.table(
        {
            "text": [f"u{i}" for i in some],
            "word": pa.array([f"w{i % 3}" for i in some]).dictionary_encode(),
            "v": rng.normal(size=(len(some), 3)).astype(np.float32).tolist(),
            "y": [None if i % 9 == 0 else f"c{i % 3}" for i in some],
        }
    )


class Delta:
    format, package, extra = "Delta", "deltalake", "delta"

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "table")

    def append(self, rows: pa.Table) -> None:
        write_deltalake(self.path, rows, mode="append")

    def compact(self) -> None:
        DeltaTable(self.path).optimize.compact()

    def delete(self, where: str) -> None:
        DeltaTable(self.path).delete(where)

    def files(self) -> list[Path]:
        return [Path(uri) for uri in DeltaTable(self.path).file_uris()]


class Lance:
    format, package, extra = "Lance", "lance", "lance"

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "table.lance")

    def append(self, rows: pa.Table) -> None:
        lance.write_dataset(rows, self.path, mode="append")

    def compact(self) -> None:
        lance.dataset(self.path).optimize.compact_files()

    def delete(self, where: str) -> None:
        lance.dataset(self.path).delete(where)

    def files(self) -> list[Path]:
        fragments = lance.dataset(self.path).get_fragments()
        return [Path(self.path, "data", one.metadata.files[0].path) for one in fragments]


@pytest.fixture(params=[Delta, Lance], ids=["delta", "lance"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.param(tmp_path / "in")


def files_in(pool: str) -> dict[str, bytes]:
    found = sorted(path for path in Path(pool).rglob("*") if path.is_file())
    return {str(path.relative_to(pool)): path.read_bytes() for path in found}


def texts(pool: Pool) -> list[str]:
    ids = np.arange(pool.manifest.end_row)
    return list(pool.rows(ids, ["text"]).column("text").to_pylist())


def refused(source: str, place: Path, message: str, **options: Any) -> None:
    with pytest.raises(PoolError, match=message) as caught:
        ingest(source, str(place), **options)
    assert "\n" not in str(caught.value)
    assert ".rs:" not in str(caught.value)
    assert not (place / "manifest.json").exists()


def test_a_table_gives_the_pool_that_parquet_gives(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_ROWS", 64)
    pq.write_table(rows_of(range(300)), tmp_path / "in.parquet")
    expected = ingest(str(tmp_path / "in.parquet"), str(tmp_path / "a"), **OPTIONS)
    table.append(rows_of(range(300)))
    pool = ingest(table.path, str(tmp_path / "b"), **OPTIONS)
    assert pool.content_hash == expected.content_hash
    assert pool.vocabulary == expected.vocabulary
    assert find(table.path).num_rows == 300
    one = ingest(table.path, str(tmp_path / "c"), id_column="text", drop=["v"], **OPTIONS)
    same = ingest(
        str(tmp_path / "in.parquet"), str(tmp_path / "d"), id_column="text", drop=["v"], **OPTIONS
    )
    assert one.content_hash == same.content_hash


def test_a_table_that_grew_adds_rows(table: Any, tmp_path: Path) -> None:
    table.append(rows_of(range(100)))
    first = ingest(table.path, str(tmp_path / "pool"), **OPTIONS)
    before = files_in(first.path)
    assert ingest(table.path, first.path, **OPTIONS) == first
    assert files_in(first.path) == before
    table.append(rows_of(range(100, 130)))
    table.append(rows_of(range(100)))  # the very rows that were taken, byte for byte
    pool = ingest(table.path, first.path, **OPTIONS)
    assert {*first.manifest.shards} < {*pool.manifest.shards}
    assert [version.end_row for version in pool.manifest.versions] == [100, 230]
    assert texts(pool)[:100] == [f"u{i}" for i in range(100)]
    assert sorted(texts(pool)[100:]) == sorted(f"u{i}" for i in range(130))
    assert ingest(table.path, first.path, **OPTIONS) == pool


@pytest.mark.parametrize("also_new", [True, False])
def test_a_compacted_table_does_not_give_its_rows_twice(
    table: Any, tmp_path: Path, also_new: bool
) -> None:
    for start in (0, 50):
        table.append(rows_of(range(start, start + 50)))
    pool = ingest(table.path, str(tmp_path / "pool"), **OPTIONS)
    before, old = files_in(pool.path), {str(path) for path in table.files()}
    table.compact()
    if also_new:
        table.append(rows_of(range(100, 120)))
    with pytest.raises(PoolError) as caught:
        ingest(table.path, pool.path, **OPTIONS)
    said = str(caught.value)
    named = next(path for path in old if path in said)
    assert said == (
        f"{table.path} has {1 + also_new} new files, and no longer 2 whose rows the pool took, "
        f"such as {named}; it was compacted, updated or overwritten, and rows may come twice: "
        "ingest into another folder"
    )
    assert files_in(pool.path) == before


def test_rows_that_were_deleted_in_a_file_that_was_taken(table: Any, tmp_path: Path) -> None:
    table.append(rows_of(range(100)))
    pool = ingest(table.path, str(tmp_path / "pool"), **OPTIONS)
    before = files_in(pool.path)
    table.delete("text = 'u7'")
    with pytest.raises(PoolError, match=r"has (changed since|1 new files, and no longer 1 whose)"):
        ingest(table.path, pool.path, **OPTIONS)
    assert files_in(pool.path) == before
    fresh = ingest(table.path, str(tmp_path / "fresh"), **OPTIONS)
    assert texts(fresh) == [f"u{i}" for i in range(100) if i != 7]


def test_a_table_that_was_moved_is_known_and_goes_on_growing(table: Any, tmp_path: Path) -> None:
    table.append(rows_of(range(100)))
    pool = ingest(table.path, str(tmp_path / "pool"), **OPTIONS)
    moved = type(table)(tmp_path / "elsewhere")
    shutil.copytree(table.path, moved.path)
    shutil.rmtree(table.path)
    assert ingest(moved.path, pool.path, **OPTIONS) == pool
    for start in (100, 120):
        moved.append(rows_of(range(start, start + 20)))
        pool = ingest(moved.path, pool.path, **OPTIONS)
    assert [version.end_row for version in pool.manifest.versions] == [100, 120, 140]
    assert texts(pool) == [f"u{i}" for i in range(140)]
    moved.compact()
    with pytest.raises(PoolError, match=r"has 1 new files, and no longer \d whose rows the pool"):
        ingest(moved.path, pool.path, **OPTIONS)


class Killed(BaseException):
    """Not an Exception: nothing in rayal may catch it."""


@pytest.mark.parametrize("num_shards", [1, 3])
def test_killed_and_run_again(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_shards: int
) -> None:
    for start in (0, 70, 90):
        table.append(rows_of(range(start, {0: 70, 70: 90, 90: 230}[start])))
    expected = ingest(table.path, str(tmp_path / "whole"), **OPTIONS)
    assert len(expected.shards) == 6
    with monkeypatch.context() as patch:
        left, plain = [1 + num_shards], UnderWay.add

        def add(self: UnderWay, entry: Any) -> None:
            plain(self, entry)
            left[0] -= 1
            if not left[0]:
                raise Killed

        patch.setattr(UnderWay, "add", add)
        with pytest.raises(Killed):
            ingest(table.path, str(tmp_path / "pool"), **OPTIONS)
    kept = tmp_path / "pool" / "shards" / "shard-00000.parquet"
    before = kept.stat().st_mtime_ns
    pool = ingest(table.path, str(tmp_path / "pool"), **OPTIONS)
    assert kept.stat().st_mtime_ns == before
    assert pool.content_hash == expected.content_hash
    assert files_in(pool.path) == files_in(expected.path)


def test_a_table_that_was_compacted_after_a_kill_is_read_anew(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in (0, 100):
        table.append(rows_of(range(start, start + 100)))

    def killed(done: int, total: int | None) -> None:
        if done > 150:
            raise Killed

    with pytest.raises(Killed):
        ingest(table.path, str(tmp_path / "pool"), progress=killed, **OPTIONS)
    table.compact()
    pool = ingest(table.path, str(tmp_path / "pool"), **OPTIONS)
    whole = ingest(table.path, str(tmp_path / "whole"), **OPTIONS)
    assert files_in(pool.path) == files_in(whole.path)
    assert sorted(texts(pool)) == sorted(f"u{i}" for i in range(200))


def test_without_the_package(table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table.append(rows_of(range(10)))
    monkeypatch.setitem(sys.modules, table.package, None)
    refused(
        table.path,
        tmp_path / "pool",
        rf"is a {table.format} table, .*needs a package that is not there \(.*{table.package}.*\); "
        rf"pip install 'rayal\[{table.extra}\]'$",
    )


def test_a_table_without_rows(table: Any, tmp_path: Path) -> None:
    table.append(rows_of(range(10)))
    table.delete("text != ''")
    refused(table.path, tmp_path / "pool", "table.* holds no rows; a pool needs at least one$")


def test_a_file_that_is_not_there(table: Any, tmp_path: Path) -> None:
    table.append(rows_of(range(10)))
    path = table.files()[0]
    content = path.read_bytes()
    path.unlink()
    refused(
        table.path,
        tmp_path / "pool",
        f"^{path} is not there, and the log of the {table.extra} table {table.path} names it; "
        "restore it, or copy the table whole$",
    )
    path.write_bytes(content[: len(content) // 2])
    refused(
        table.path,
        tmp_path / "pool",
        f"^{path} cannot be read as {table.extra}, after row 0: .*; restore the file$",
    )


def test_a_link_out_of_the_table(table: Any, tmp_path: Path) -> None:
    table.append(rows_of(range(10)))
    path = table.files()[0]
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    refused(table.path, tmp_path / "pool", f"{path} is a link to .*outside, outside of its root")


def test_what_a_library_of_rust_says_is_one_line() -> None:
    said = "Kernel error: it broke, /home/x/rust/a.rs:12:34\n   0: <unknown>\n   1: clone3"
    assert refusal(ValueError(said)) == "Kernel error: it broke"
    with pytest.raises(KeyboardInterrupt):
        refusal(KeyboardInterrupt())


def test_a_column_to_drop_that_is_not_there(table: Any, tmp_path: Path) -> None:
    table.append(rows_of(range(10)))
    refused(table.path, tmp_path / "pool", "the source has no column 'nix' to drop", drop=["nix"])


def test_files_that_change_while_they_are_read(table: Any, tmp_path: Path) -> None:
    table.append(rows_of(range(100)))
    path = table.files()[0]

    def touch(done: int, total: int | None) -> None:
        path.touch()

    with pytest.raises(PoolError, match=r"changed while it was read \(\d+ bytes"):
        ingest(table.path, str(tmp_path / "pool"), progress=touch, **OPTIONS)


def test_pieces_are_sized_by_what_is_decoded(table: Any) -> None:
    """3,000 rows of 20 kB of text."""
    table.append(pa.table({"t": ["x" * 20_000] * 3000}))
    sizes = [(piece.rows.nbytes, piece.rows.num_rows) for piece in find(table.path).pieces()]
    assert sum(num_rows for _, num_rows in sizes) == 3000
    assert max(num_bytes for num_bytes, _ in sizes) < 32 << 20


def test_outputs_of_a_selection_are_not_a_table(table: Any) -> None:
    table.append(rows_of(range(10)))
    with pytest.raises(ConfigError, match=f"whose files are {table.extra}, expected Parquet"):
        open_given(table.path, "the outputs")


def test_a_table_in_a_bucket(table: Any, tmp_path: Path, bucket: Bucket) -> None:
    for start in (0, 70):
        table.append(rows_of(range(start, start + 70)))
    expected = ingest(table.path, str(tmp_path / "local"), **OPTIONS)
    url = f"{bucket.url}/tables/{Path(table.path).name}"
    store, path = pa_fs.FileSystem.from_uri(url)
    pa_fs.copy_files(table.path, path, destination_filesystem=store)
    pool = ingest(url, str(tmp_path / "pool"), **OPTIONS)
    assert pool.content_hash == expected.content_hash
    table.append(rows_of(range(140, 150)))
    pa_fs.copy_files(table.path, path, destination_filesystem=store)
    grown = ingest(url + "/", str(tmp_path / "other"), **OPTIONS)
    assert sorted(texts(grown)) == sorted(f"u{i}" for i in range(150))
