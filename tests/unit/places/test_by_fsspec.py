"""Stores by fsspec, of which packages differ: times, listings that are kept, levels of a folder."""

from __future__ import annotations

import datetime
from typing import Any

import pyarrow.fs as pa_fs
import pytest

from rayal.places.by_fsspec import ByFsspec

WHEN = datetime.datetime(2026, 11, 24, 12, 0, tzinfo=datetime.UTC)


class Kept:
    """A store by name -> bytes, which lists what was there when it was first asked."""

    protocol = "kept"

    def __init__(self, time_name: str, value: Any) -> None:
        self.objects: dict[str, bytes] = {}
        self._time = {time_name: value}
        self._listed: dict[str, bytes] | None = None
        self.options: dict[str, Any] = {}

    def invalidate_cache(self) -> None:
        self._listed = None

    def _now(self) -> dict[str, bytes]:
        if self._listed is None:
            self._listed = dict(self.objects)
        return self._listed

    def _entry(self, name: str) -> dict[str, Any]:
        return {"name": name, "size": len(self._now()[name]), "type": "file", **self._time}

    def info(self, path: str) -> dict[str, Any]:
        if path in self._now():
            return self._entry(path)
        if any(name.startswith(f"{path}/") for name in self._now()):
            return {"name": f"{path}/", "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def find(self, path: str, withdirs: bool, detail: bool) -> dict[str, Any]:
        return {name: self._entry(name) for name in self._now() if name.startswith(f"{path}/")}

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        names = {name for name in self._now() if name.startswith(f"{path}/")}
        if not names:
            raise FileNotFoundError(path)
        firsts = {f"{path}/{name[len(path) + 1 :].partition('/')[0]}" for name in names}
        return [self.info(name) for name in sorted(firsts)]

    def exists(self, path: str) -> bool:
        return path in self._now()

    def pipe_file(self, path: str, content: bytes) -> None:
        self.objects[path] = content


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last_modified", WHEN),
        ("LastModified", WHEN.replace(tzinfo=None)),
        ("updated", "2026-11-24T12:00:00Z"),
        ("mtime", WHEN.timestamp()),
    ],
)
def test_times_are_had_by_whatever_name(name: str, value: Any) -> None:
    store = Kept(name, value)
    store.pipe_file("b/a", b"123")
    found = pa_fs.PyFileSystem(ByFsspec(store, True)).get_file_info("b/a")
    assert (found.size, found.mtime_ns) == (3, int(WHEN.timestamp() * 1e9))


def test_a_store_that_gives_no_times() -> None:
    store = Kept("touched", 3)
    store.pipe_file("b/a", b"")
    assert pa_fs.PyFileSystem(ByFsspec(store, True)).get_file_info("b/a").mtime_ns is None


def test_listings_are_those_of_now_and_of_one_level() -> None:
    store = Kept("mtime", 1.0)
    files = pa_fs.PyFileSystem(ByFsspec(store, True))
    flat = pa_fs.FileSelector("b/x", allow_not_found=True)
    deep = pa_fs.FileSelector("b/x", allow_not_found=True, recursive=True)
    assert files.get_file_info(flat) == files.get_file_info(deep) == []
    assert files.get_file_info("b/x/one").type == pa_fs.FileType.NotFound
    for name in ("b/x/one", "b/x/sub/two", "b/xy/three"):
        store.pipe_file(name, b"")
    assert [one.path for one in files.get_file_info(flat)] == ["b/x/one", "b/x/sub"]
    assert [one.path for one in files.get_file_info(deep)] == ["b/x/one", "b/x/sub/two"]
    assert files.get_file_info("b/x/sub").type == pa_fs.FileType.Directory
    with pytest.raises(FileNotFoundError):
        files.get_file_info(pa_fs.FileSelector("b/none"))
