"""Reads ranges of a file in a store, asked again where the store was busy."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs

from rayal.errors import PlaceError
from rayal.places.patience import patiently

_STREAM_BYTES = 8 << 20  # what a reader of small pieces is given at once
_BLOCK_BYTES, _END_BYTES, _LEAST_END_BYTES = 4 << 20, 64 << 10, 4 << 10


class Ranges(io.RawIOBase):
    """A file in a store that is read by range; one request a read."""

    def __init__(self, url: str, filesystem: pa_fs.FileSystem, path: str) -> None:
        super().__init__()
        self.url = url
        self._filesystem, self._path = filesystem, path
        self._file = patiently(url, lambda: filesystem.open_input_file(path))
        self.size_bytes = int(patiently(url, self._file.size))
        self._at = 0

    def read_at(self, start: int, num_bytes: int) -> pa.Buffer:
        """Gives the bytes from `start` on; fewer at the end of the file. May be called by several
        threads at once.

        Raises:
            PlaceError: the store does not give them.
        """
        return patiently(self.url, lambda: self._whole(start, num_bytes))

    def _whole(self, start: int, num_bytes: int) -> pa.Buffer:
        wanted = max(0, min(num_bytes, self.size_bytes - start))
        try:
            content = pa.py_buffer(self._file.read_at(wanted, start) if wanted else b"")
        except OSError:
            self._check_same()
            raise
        if content.size != wanted:
            raise ConnectionError(f"{content.size} of {wanted} bytes came")
        return content

    def _check_same(self) -> None:
        """Refuses to go on in a file that went or changed: a store's client calls what comes then
        an internal failure, which would be asked for again."""
        now = self._filesystem.get_file_info(self._path)
        if now.type != pa_fs.FileType.File:
            raise FileNotFoundError(f"{self.url} does not exist any more")
        if now.size != self.size_bytes:
            raise PlaceError(
                f"{self.url} changed while it was read ({self.size_bytes:,} bytes before, "
                f"{now.size:,} now); run the same command again"
            )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size_bytes}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> Any:
        """Gives a buffer, where Python's own files give bytes: it is not copied."""
        rest = self.size_bytes - self._at
        content = self.read_at(self._at, rest if size is None or size < 0 else size)
        self._at += content.size
        return content

    def readinto(self, into: Any) -> int:
        content = self.read(len(into))
        into[: content.size] = memoryview(content).cast("B")
        return int(content.size)


class Blocks(io.RawIOBase):
    """A file in a store that is read in large blocks, for readers that ask for small pieces one
    after the other: each block is asked for once in a pass. The last two are in memory, and the
    file's end, where such readers look first."""

    def __init__(self, ranges: Ranges, block_bytes: int = _BLOCK_BYTES) -> None:
        super().__init__()
        self._ranges, self._block_bytes = ranges, block_bytes
        self._at, self._blocks = 0, dict[int, memoryview]()
        size = ranges.size_bytes
        self._end = max(0, size - min(_END_BYTES, max(_LEAST_END_BYTES, size // 64)))
        self._tail = memoryview(ranges.read_at(self._end, size - self._end))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ranges.size_bytes}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Gives the next bytes; fewer at the end."""
        rest = max(0, self._ranges.size_bytes - self._at)
        stop = self._at + (rest if size is None or size < 0 else min(size, rest))
        parts = []
        while self._at < stop:
            start, content = self._around(self._at)
            part = content[self._at - start : stop - start]
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def _around(self, at: int) -> tuple[int, memoryview]:
        """Gives a stretch of the file with a byte in it, and where it begins."""
        if at >= self._end:
            return self._end, self._tail
        number = at // self._block_bytes
        start = number * self._block_bytes
        if number not in self._blocks:
            if len(self._blocks) == 2:
                del self._blocks[next(iter(self._blocks))]
            num_bytes = min(self._block_bytes, self._end - start)
            self._blocks[number] = memoryview(self._ranges.read_at(start, num_bytes))
        return start, self._blocks[number]


class PatientFiles(pa_fs.FileSystemHandler):  # type: ignore[misc]
    """A store's filesystem to read from, every request of it asked patiently."""

    def __init__(self, root: str, inner: pa_fs.FileSystem) -> None:
        self.root, self.inner = root, inner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PatientFiles) and self.root == other.root

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return str(self.inner.type_name)

    def normalize_path(self, path: str) -> str:
        return str(self.inner.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> list[pa_fs.FileInfo]:
        return list(patiently(self._url(paths[:1]), lambda: self.inner.get_file_info(paths)))

    def get_file_info_selector(self, selector: pa_fs.FileSelector) -> list[pa_fs.FileInfo]:
        url = self._url([selector.base_dir])
        return list(patiently(url, lambda: self.inner.get_file_info(selector)))

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(Ranges(self._url([path]), self.inner, path), mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        ranges = Ranges(self._url([path]), self.inner, path)
        return pa.PythonFile(io.BufferedReader(ranges, _STREAM_BYTES), mode="r")

    def _url(self, paths: list[str]) -> str:
        return f"{self.root.partition('://')[0]}://{(paths or [''])[0].lstrip('/')}"

    def _never(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError("sources are only read")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _never
    delete_file = move = copy_file = open_output_stream = open_append_stream = _never
