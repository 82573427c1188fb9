"""Stores that pyarrow has no filesystem for, by fsspec: Azure above all.

pyarrow's own adapter says of no file when it changed (each package has a name of its own for that),
lists folders as they were a while ago, and takes what a package calls one level of a folder for
that; here all three would let two processes write one pool.
"""

from __future__ import annotations

import datetime
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs

# What fsspec's packages call the time of a file's last change.
_CHANGED = ("mtime", "last_modified", "LastModified", "updated", "modified", "created")


class ByFsspec(pa_fs.FSSpecHandler):  # type: ignore[misc]
    """pyarrow's adapter, with times, and with listings as they are now."""

    def __init__(self, fs: Any, whole_ranges: bool) -> None:
        super().__init__(fs)
        self._options = {"cache_type": "none"} if whole_ranges else {}  # a read is one request

    __hash__ = None  # type: ignore[assignment]

    def get_file_info(self, paths: list[str]) -> list[pa_fs.FileInfo]:
        found = []
        for path in paths:
            self.fs.invalidate_cache()
            try:
                found.append(_info(path, self.fs.info(path)))
            except FileNotFoundError:
                found.append(pa_fs.FileInfo(path, pa_fs.FileType.NotFound))
        return found

    def get_file_info_selector(self, selector: pa_fs.FileSelector) -> list[pa_fs.FileInfo]:
        self.fs.invalidate_cache()
        base = selector.base_dir.strip("/")
        if selector.recursive:
            entries = self.fs.find(selector.base_dir, withdirs=True, detail=True).values()
        else:
            try:
                entries = self.fs.ls(selector.base_dir, detail=True)
            except FileNotFoundError:
                entries = []
        infos = [_info(entry["name"], entry) for entry in entries]
        found = [info for info in infos if info.path.strip("/").startswith(f"{base}/")]
        if not found and not selector.allow_not_found and not self.fs.exists(selector.base_dir):
            raise FileNotFoundError(selector.base_dir)
        return found

    def open_input_file(self, path: str) -> pa.NativeFile:
        if not self.fs.isfile(path):
            raise FileNotFoundError(path)
        return pa.PythonFile(self.fs.open(path, mode="rb", **self._options), mode="r")

    def write_whole(self, path: str, content: bytes) -> None:
        """Writes a file in one request: a stream that breaks off may leave a part of one."""
        self.fs.pipe_file(path, content)


def _info(path: str, said: dict[str, Any]) -> pa_fs.FileInfo:
    kinds = {"file": pa_fs.FileType.File, "directory": pa_fs.FileType.Directory}
    kind = kinds.get(said["type"], pa_fs.FileType.Unknown)
    size = said["size"] if kind is pa_fs.FileType.File else None
    return pa_fs.FileInfo(path.rstrip("/"), kind, size=size, mtime=_changed(said))


def _changed(said: dict[str, Any]) -> datetime.datetime | float | None:
    for name in _CHANGED:
        value = said.get(name)
        if isinstance(value, str):
            try:
                value = datetime.datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, datetime.datetime):
            return value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None
