"""WebDataset tars as a source: rows of several members, and tars that are not whole."""

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rayal.errors import PoolError
from rayal.pool import Pool, ingest
from rayal.pool.formats import webdataset
from rayal.pool.sources import find


def _tar(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=form) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _members(first: int, stop: int) -> dict[str, bytes]:
    found = {}
    for at in range(first, stop):
        found[f"{at:04d}.png"] = f"image {at}".encode()
        found[f"{at:04d}.cls"] = f"{at % 3}\n".encode()
        found[f"{at:04d}.txt"] = f"tëxt {at}".encode()
    return found


def _rows(pool: Pool, columns: list[str]) -> dict[str, list[Any]]:
    shards = [*pool.shards, *pool.test_shards]
    found = [rows for shard in shards for rows in pool.batches(shard, columns, 64)]
    return pa.Table.from_batches(found).sort_by("sample_id").to_pydict()


def _refused(source: Path | str, tmp_path: Path, message: str, **options: Any) -> None:
    with pytest.raises(PoolError, match=message) as caught:
        ingest(str(source), str(tmp_path / "refused"), **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused" / "manifest.json").exists()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.zst"])
def test_members_of_a_basename_are_a_row(tmp_path: Path, suffix: str) -> None:
    for at in range(2):
        place = _tar(tmp_path / "in" / f"{at:06d}.tar", _members(at * 10, at * 10 + 10))
        if suffix != ".tar":
            codec = "zstd" if suffix == ".tar.zst" else "gzip"
            with pa.CompressedOutputStream(str(place)[:-4] + suffix, codec) as out:
                out.write(place.read_bytes())
            place.unlink()
    pool = ingest(str(tmp_path / "in"), str(tmp_path / "pool"), label_column="cls")
    rows = _rows(pool, ["sample_id", "source_id", "png", "txt"])
    assert rows["source_id"] == [f"{at:04d}" for at in range(20)]
    assert rows["png"] == [f"image {at}".encode() for at in range(20)]
    assert rows["txt"] == [f"tëxt {at}" for at in range(20)]
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == (0, 1, 2)


def test_what_a_row_lacks_is_null_and_what_comes_late_is_there_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "BLOCK_ROWS", 2)
    members = {"a.png": b"a", "b.png": b"b", "b.json": b'{"x": 1}', "c.json": b"{}"}
    members |= {"d.png": b"d", "d.wav": b"sound", "d.seg.png": b"mask", "e.cls": b" -7 "}
    place = _tar(tmp_path / "in.tar", members)
    pool = ingest(str(place), str(tmp_path / "pool"), test_share=0)
    rows = _rows(pool, ["sample_id", "source_id", "png", "json", "wav", "seg.png", "cls"])
    assert rows["source_id"] == ["a", "b", "c", "d", "e"]
    assert rows["png"] == [b"a", b"b", None, b"d", None]
    assert rows["json"] == [None, '{"x": 1}', "{}", None, None]
    assert rows["wav"] == [None, None, None, b"sound", None]
    assert rows["seg.png"] == [None, None, None, b"mask", None]
    assert rows["cls"] == [None] * 4 + [-7]
    assert pool.manifest.notes == ()
    _refused(place, tmp_path, "no column 'mp3' to drop", drop=["mp3"])
    less = ingest(str(place), str(tmp_path / "less"), drop=["wav", "cls"], test_share=0)
    assert set(less.schema.names) == {"sample_id", "source_id", "png", "json", "seg.png"}


def test_a_label_that_comes_late_is_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "BLOCK_ROWS", 1)
    _tar(tmp_path / "in" / "a.tar", {"1.txt": b"x", "2.txt": b"y"})
    _tar(tmp_path / "in" / "b.tar", {"3.txt": b"z", "3.cls": b"5"})
    _refused(tmp_path / "in", tmp_path, "no column 'cls' to be the label", label_column="cls")
    monkeypatch.undo()
    _tar(tmp_path / "in" / "a.tar", {"1.txt": b"x", "2.txt": b"y", "2.cls": b"4"})
    pool = ingest(str(tmp_path / "in"), str(tmp_path / "pool"), label_column="cls")
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == (4, 5)
    assert pool.manifest.num_null_labels == 1


def test_ids_of_ones_own(tmp_path: Path) -> None:
    members = {f"{at}.{end}": f"{at + 100}".encode() for at in range(9) for end in ("id", "txt")}
    place = _tar(tmp_path / "in.tar", members)
    pool = ingest(str(place), str(tmp_path / "pool"), id_column="id", drop=["__key__"])
    assert _rows(pool, ["sample_id", "txt"])["sample_id"] == list(range(100, 109))
    twice = _tar(tmp_path / "twice.tar", {"a.txt": b"1", "b.txt": b"2", "a.cls": b"3"})
    _refused(twice, tmp_path, "id column '__key__' repeats an id in 1 of 3 rows .*'a' at")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_folders_and_what_is_no_row(tmp_path: Path, form: int) -> None:
    deep = "/".join(["folder" * 5] * 4) + "/0001"
    members = {f"./{deep}.PNG": b"1", f"{deep}.txt": b"x", "README": b"none", ".x.png": b"hidden"}
    place = _tar(tmp_path / "in.tar", {**members, "__meta__.json": b"{}"}, form)
    pool = ingest(str(place), str(tmp_path / "pool"), test_share=0)
    assert _rows(pool, ["sample_id", "source_id"])["source_id"] == [deep]
    assert pool.schema.names == ["sample_id", "source_id", "png", "txt"]


@pytest.mark.parametrize("name", ["../../escape.png", "/etc/escape.png", "a/../../escape.png"])
def test_paths_that_leave_the_tar_are_refused(tmp_path: Path, name: str) -> None:
    place = _tar(tmp_path / "in.tar", {"a.png": b"a", name: b"x"})
    _refused(place, tmp_path, r"in.tar has a member '.*escape.png', whose path leaves the tar")
    assert not [found for found in tmp_path.rglob("*escape*")]


def test_names_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "a.tar"
    with tarfile.open(place, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("caf\u00e9.txt"), io.BytesIO())
    with pytest.raises(PoolError, match=r"a member 'caf\\udce9\.txt', whose name is not UTF-8"):
        ingest(str(place), str(tmp_path / "pool"))


def test_links_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "in.tar"
    with tarfile.open(place, "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    _refused(place, tmp_path, "in.tar has a member a.png that is a link or a device")


def test_members_that_are_not_what_their_name_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _tar(tmp_path / "in.tar", {"a.cls": b"cat"})
    _refused(place, tmp_path, r"in.tar has b'cat' in member a.cls, expected a whole number")
    place = _tar(tmp_path / "in.tar", {"b/a.txt": b"ok\xff"})
    _refused(place, tmp_path, r"in.tar has text that is not UTF-8 in member b/a.txt \(byte 2\)")
    place = _tar(tmp_path / "in.tar", {"a.png": b"x", "a.PNG": b"y"})
    _refused(place, tmp_path, r"in.tar has two members a.png, expected one")
    monkeypatch.setattr(webdataset, "MAX_MEMBER_BYTES", 3)
    place = _tar(tmp_path / "in.tar", {"a.png": b"four"})
    _refused(place, tmp_path, "in.tar has a member a.png of 0 MiB, expected at most 0 MiB")


@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_cut_off_anywhere_is_refused(tmp_path: Path, packed: bool) -> None:
    whole = _tar(tmp_path / "whole.tar", _members(0, 3), tarfile.USTAR_FORMAT).read_bytes()
    end = 9 * 1024  # nine members of a header and one record, then the mark of the end
    content = gzip.compress(whole) if packed else whole
    place = tmp_path / ("in.tar.gz" if packed else "in.tar")
    for cut in [*range(0, len(content) if packed else end + 1, 13 if packed else 256)]:
        place.write_bytes(content[:cut])
        with pytest.raises(PoolError, match=r"in.tar.* is no whole tar: .* member (its beginn|0)"):
            list(find(str(place)).pieces())
    place.write_bytes(content)
    pool = ingest(str(place), str(tmp_path / "pool"), test_share=0)
    assert pool.num_rows == 3


def test_a_header_that_was_damaged_is_not_the_end(tmp_path: Path) -> None:
    place = _tar(tmp_path / "in.tar", _members(0, 3), tarfile.USTAR_FORMAT)
    content = bytearray(place.read_bytes())
    content[4 * 1024 + 5] ^= 0xFF  # in the fifth member's name
    place.write_bytes(content)
    _refused(place, tmp_path, r"in.tar is no whole tar: bad checksum, at or after member 0001.png")


def test_tars_one_after_the_other_are_refused(tmp_path: Path) -> None:
    place = _tar(tmp_path / "in.tar", _members(0, 3))
    place.write_bytes(place.read_bytes() + place.read_bytes())
    _refused(place, tmp_path, "more after the mark of its end, at or after member 0002.txt")
    empty = _tar(tmp_path / "empty.tar", {})
    _refused(empty, tmp_path, "empty.tar holds no rows; a pool needs at least one")
