"""Places on a disk, in a store with a real S3 API, and of fsspec: the same words do the same."""

from __future__ import annotations

import pickle
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pa_fs
import pytest
from buckets import Bucket

from rayal import disk
from rayal.errors import PlaceError
from rayal.places import Place, Ranges


@pytest.fixture(params=["disk", "s3", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty folder of each kind."""
    if request.param == "disk":
        yield Place.of(str(tmp_path / "folder"))
        return
    if request.param == "s3":
        yield Place.of(request.getfixturevalue("bucket").url) / uuid.uuid4().hex
        return
    place = Place.of(f"memory://{uuid.uuid4().hex}/folder")
    yield place
    place.remove_folder()


def test_what_is_put_is_there_and_what_is_removed_is_not(folder: Place) -> None:
    file = folder / "a/b.txt"
    assert not file.exists()
    assert folder.list() == []
    file.put_bytes(b"hello")
    assert file.read_bytes() == b"hello"
    found = file.info()
    assert found is not None
    assert (found.name, found.size_bytes) == ("b.txt", 5)
    file.put_bytes(b"another")
    (folder / "c").put_bytes(b"")
    assert [(entry.name, entry.size_bytes) for entry in folder.list()] == [("a/b.txt", 7), ("c", 0)]
    assert (folder / "c").read_bytes() == b""
    assert not folder.exists()  # it is no file
    file.remove()
    file.remove()
    assert not file.exists()
    assert [entry.name for entry in folder.list()] == ["c"]
    folder.remove_folder()
    folder.remove_folder()
    assert folder.list() == []


def test_what_is_not_there_is_a_file_not_found(folder: Place) -> None:
    with pytest.raises(FileNotFoundError):
        (folder / "no").read_bytes()
    with pytest.raises(FileNotFoundError):
        (folder / "no").open_input()
    assert (folder / "no").info() is None


def test_files_of_a_disk_go_there_and_back(folder: Place, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100_000  # three blocks of a copy, and a rest
    (tmp_path / "one").write_bytes(content)
    (folder / "one").put_file(tmp_path / "one")
    (folder / "one").get_file(tmp_path / "back" / "two")
    assert (tmp_path / "back" / "two").read_bytes() == content


def test_ranges_are_read_without_the_rest(folder: Place) -> None:
    (folder / "x").put_bytes(bytes(range(100)))
    file = (folder / "x").open_input()
    assert file.size() == 100
    file.seek(10)
    assert bytes(file.read(3)) == bytes([10, 11, 12])
    assert bytes(file.read_at(5, 98)) == bytes([98, 99])


def test_only_the_first_creates(folder: Place) -> None:
    assert (folder / "lock").create_bytes(b"me")
    assert not (folder / "lock").create_bytes(b"you")
    assert (folder / "lock").read_bytes() == b"me"
    (folder / "lock").remove()
    assert (folder / "lock").create_bytes(b"you")


def test_of_many_at_once_one_creates(folder: Place) -> None:
    won: list[int] = []

    def create(number: int) -> None:
        if (folder / "lock").create_bytes(str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (folder / "lock").read_bytes() == str(won[0]).encode()


def test_pyarrow_reads_there(folder: Place) -> None:
    (folder / "d/x").put_bytes(b"hello")
    filesystem, path = folder.to_read()
    (info,) = [
        one
        for one in filesystem.get_file_info(pa_fs.FileSelector(path, recursive=True))
        if one.type == pa_fs.FileType.File
    ]
    with filesystem.open_input_file(info.path) as file:
        assert file.read() == b"hello"
    with filesystem.open_input_stream(info.path) as stream:
        assert (stream.read(2), stream.read()) == (b"he", b"llo")


def test_places_are_text_and_travel(folder: Place) -> None:
    assert pickle.loads(pickle.dumps(folder / "x")) == folder / "x"
    assert (folder / "x").name == "x"
    assert (folder / "a/x").parent == folder / "a"
    assert str(folder) == folder.url


def test_paths_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Place.of(f"file://{tmp_path}").local == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Place.of("~/x").local == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    assert Place.of("x").absolute.url == str(tmp_path / "x")
    assert Place.of("s3://b/c/").url == "s3://b/c"
    with pytest.raises(PlaceError, match="s3://b/c lies in a store, a path of a disk is needed"):
        _ = Place.of("s3://b/c").local
    with pytest.raises(PlaceError, match="s3:///c names no bucket"):
        Place.of("s3:///c")


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    assert Place.of(str(tmp_path)).info() is None
    assert Place.of(str(tmp_path / "x" / "y")).info() is None


def test_what_could_not_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place.of(str(tmp_path / "x"))
    place.put_bytes(b"before")

    def fail(temporary: Path, final: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(disk, "commit_file", fail)
    with pytest.raises(OSError, match="no"):
        place.put_bytes(b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert place.read_bytes() == b"before"


def test_a_small_object_is_one_request_and_a_large_one_is_parts(
    bucket: Bucket, tmp_path: Path
) -> None:
    place = Place.of(bucket.url) / uuid.uuid4().hex
    place.put_bytes(b"x" * 1_000_000)
    assert [one.method for one in bucket.requests] == ["PUT"]
    bucket.requests.clear()
    (tmp_path / "large").write_bytes(b"x" * 25_000_000)
    place.put_file(tmp_path / "large")
    methods = [one.method for one in bucket.requests]
    assert methods.count("PUT") == 3
    assert (methods[0], methods[-1]) == ("POST", "POST")
    found = place.info()
    assert found is not None
    assert found.size_bytes == 25_000_000


def test_what_goes_while_it_is_read_is_not_asked_for_again(bucket: Bucket) -> None:
    place = Place.of(bucket.url) / uuid.uuid4().hex
    place.put_bytes(b"hello")
    ranges = place.open_ranges()
    place.remove()
    bucket.requests.clear()
    with pytest.raises(FileNotFoundError, match="does not exist any more"):
        ranges.read_at(0, 5)
    assert [one.method for one in bucket.requests].count("GET") <= 2  # and the listing of a folder
    place.put_bytes(b"me")
    with pytest.raises(PlaceError, match=r"changed while it was read \(5 bytes before, 2 now\)"):
        ranges.read_at(3, 2)


def test_what_is_replaced_while_it_is_read_is_read_whole(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place.of(bucket.url) / uuid.uuid4().hex
    place.put_bytes(b"short")
    opened = Place.open_ranges
    longer = [b"something longer"]

    def replaced(self: Place) -> Ranges:
        ranges = opened(self)
        if longer:
            place.put_bytes(longer.pop())
        return ranges

    monkeypatch.setattr(Place, "open_ranges", replaced)
    assert place.read_bytes() == b"something longer"
