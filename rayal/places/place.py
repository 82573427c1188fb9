"""A folder or a file, on a disk or in a store: one name, and the few things that are done with it.

What has its name is whole: on a disk it is renamed into place, a store shows an object once all of
it is there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pa_fs

from rayal import disk
from rayal.errors import PlaceError
from rayal.places import settings
from rayal.places.opened import creating, filesystem
from rayal.places.patience import no_bucket, patiently
from rayal.places.ranges import PatientFiles, Ranges

_COPY_BYTES = 8 << 20
_AHEAD_BYTES = 64 << 20  # parts wait in memory to be sent: so much of a file at most
_LARGE_BYTES = 64 << 20  # from here on a part that fails is sent again, and not the whole

# Buckets that were there when this process asked: a store says "no such object" for both.
_KNOWN: set[str] = set()


@dataclass(frozen=True)
class Entry:
    """A file below a place."""

    name: str  # relative to the place
    size_bytes: int
    changed_ns: int | None  # by the clock of the disk or store; None: it does not say


@dataclass(frozen=True)
class Place:
    """A folder or a file. Text alone, so that it can be sent to every worker; the store behind it
    is opened once a process, with the credentials of that process's environment."""

    url: str  # a path of this machine's disks, or a URL without a slash at its end

    @staticmethod
    def of(text: str) -> Place:
        """Gives the place that a path, `file://`, `s3://`, `gs://`, `abfs://` or a URL of a scheme
        of fsspec names. Nothing is asked of a store yet.

        Raises:
            PlaceError: the text has a password in it, or names no bucket.
        """
        local = text.removeprefix("file://")
        if "://" not in local:
            return Place(str(Path(local).expanduser()))
        settings.refuse_secrets(text)
        if not settings.bucket_of(text):
            raise PlaceError(
                f"{text} names no bucket; write it as {text.rstrip('/')}//BUCKET/FOLDER"
            )
        return Place(text.rstrip("/"))

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine, or one that is mounted."""
        return "://" not in self.url

    @property
    def local(self) -> Path:
        """The path on a disk.

        Raises:
            PlaceError: it lies in a store.
        """
        if not self.is_local:
            raise PlaceError(f"{self.url} lies in a store, a path of a disk is needed; name one")
        return Path(self.url)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> Place:
        """The folder that it lies in."""
        return Place(str(self.local.parent) if self.is_local else self.url.rpartition("/")[0])

    @property
    def absolute(self) -> Place:
        """The same place, named so that it means the same from any folder."""
        return Place(str(self.local.absolute())) if self.is_local else self

    # ------------------------------------------------------------------------------- looking

    def info(self) -> Entry | None:
        """Gives size and time of a file, None where there is none. One request.

        Raises:
            PlaceError: there is no such bucket, or the store does not answer.
        """
        if self.is_local:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found = self.local.stat()
                if not self.local.is_dir():
                    return Entry(self.name, found.st_size, found.st_mtime_ns)
            return None
        opened, path = filesystem(self.url)
        info = patiently(self.url, lambda: opened.get_file_info(path))
        if info.type != pa_fs.FileType.File:
            self.check_bucket()
            return None
        return Entry(self.name, info.size, info.mtime_ns)

    def exists(self) -> bool:
        """Whether there is a file of this name. One request."""
        return self.info() is not None

    def is_folder(self) -> bool:
        """Whether there is a folder of this name; in a store, whether something lies below it."""
        if self.is_local:
            return self.local.is_dir()
        opened, path = filesystem(self.url)
        info = patiently(self.url, lambda: opened.get_file_info(path))
        if self._is_flat and info.type == pa_fs.FileType.NotFound:
            return bool(self._infos(recursive=True))
        return bool(info.type == pa_fs.FileType.Directory)

    def children(self) -> Sequence[str]:
        """Gives the names of files and folders that lie in this folder, in order; none where there
        is nothing. Errors as `list`."""
        if self._is_flat:
            return sorted({entry.name.partition("/")[0] for entry in self.list()})
        return sorted({info.base_name for info in self._infos(recursive=False)})

    def list(self) -> Sequence[Entry]:
        """Gives the files below, in order of name; none where there is nothing. One request for a
        thousand.

        Raises:
            PlaceError: there is no such bucket, or the store does not answer.
        """
        start = len(self._path.rstrip("/")) + 1
        found = [
            Entry(info.path[start:], info.size, info.mtime_ns)
            for info in self._infos(recursive=True)
            if info.type == pa_fs.FileType.File
        ]
        return sorted(found, key=lambda entry: entry.name)

    @property
    def _is_flat(self) -> bool:
        """Whether folders are there for pyarrow only where somebody made an object of their name:
        so it is with Google's store, and nobody does."""
        return self.url.startswith(("gs://", "gcs://"))

    @property
    def _path(self) -> str:
        """The path as its filesystem has it."""
        return self.url if self.is_local else filesystem(self.url)[1]

    def _infos(self, recursive: bool) -> Sequence[pa_fs.FileInfo]:
        local = pa_fs.LocalFileSystem()
        opened, path = (local, self.url) if self.is_local else filesystem(self.url)
        selector = pa_fs.FileSelector(path, recursive=recursive, allow_not_found=True)
        infos: Sequence[pa_fs.FileInfo] = patiently(
            self.url, lambda: opened.get_file_info(selector)
        )
        if not infos and not self.is_local:
            self.check_bucket()
        return infos

    # ------------------------------------------------------------------------------- reading

    def open_input(self) -> pa.NativeFile:
        """Gives the file to read from: mapped on a disk, by range in a store.

        Raises:
            FileNotFoundError: there is none.
            PlaceError: there is no such bucket, or the store does not answer.
        """
        if self.is_local:
            return pa.memory_map(self.url)
        return pa.PythonFile(self.open_ranges(), mode="r")

    def open_ranges(self) -> Ranges:
        """Gives the file of a store to read ranges of; errors as `open_input`."""
        opened, path = filesystem(self.url)
        try:
            return Ranges(self.url, opened, path)
        except FileNotFoundError:
            self.check_bucket()
            raise FileNotFoundError(f"{self.url} does not exist") from None

    def read_bytes(self) -> bytes:
        """Gives a whole file, as it was or as it is where somebody puts another in its place just
        then; errors as `open_input`."""
        if self.is_local:
            return self.local.read_bytes()
        while True:  # sizes come before bytes, and a longer file would be read in part
            ranges = self.open_ranges()
            content = ranges.read_at(0, ranges.size_bytes)
            now = self.info()
            if now is not None and now.size_bytes == content.size:
                return content.to_pybytes()

    def get_file(self, local: Path) -> None:
        """Copies a file to a path of a disk, where it appears whole; errors as `open_input`."""
        with disk.atomic_path(local) as temporary:
            if self.is_local:
                shutil.copyfile(self.local, temporary)
                return
            ranges = self.open_ranges()
            with temporary.open("wb") as file:
                for start in range(0, ranges.size_bytes, _COPY_BYTES):
                    file.write(ranges.read_at(start, _COPY_BYTES))

    def to_read(self) -> tuple[pa_fs.FileSystem, str]:
        """Gives the filesystem that it lies in, for those who read as pyarrow does, and the path
        there; requests are tried again as everywhere."""
        if self.is_local:
            return pa_fs.LocalFileSystem(), os.path.abspath(self.url)
        opened, path = filesystem(self.url)
        return pa_fs.PyFileSystem(PatientFiles(self.url, opened)), path

    # ------------------------------------------------------------------------------- writing

    def put_bytes(self, content: bytes | pa.Buffer) -> None:
        """Writes a whole file, in place of any other.

        Raises:
            RayalError: the disk is full.
            PlaceError: there is no such bucket, or the store does not take it.
        """
        if self.is_local:
            disk.write_bytes(self.local, bytes(content))
        else:
            put(self.url, pa.BufferReader(content), len(memoryview(content)))

    def put_file(self, local: Path) -> None:
        """Copies a file of a disk here, in place of any other; in parts where it is large, 64
        MiB of them at most in memory. Errors as `put_bytes`."""
        if self.is_local:
            with disk.atomic_path(self.local) as temporary:
                shutil.copyfile(local, temporary)
            return
        with pa.OSFile(str(local)) as file:
            put(self.url, file, file.size())

    def create_bytes(self, content: bytes) -> bool:
        """Writes a file where there is none; gives False, and leaves what is there, where there is
        one. Of several at once one succeeds. `content` names who wrote it: a store that took it,
        and cut the connection, is known by that.

        Raises:
            PlaceError: the package for it is not installed, or as `put_bytes`.
        """
        if self.is_local:
            return _linked(self.local, content)
        client, path = creating(self.url)
        try:
            patiently(self.url, lambda: client.pipe_file(path, content, mode="create"))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # it went in the same moment
                return self.read_bytes() == content
            return False
        return True

    def remove(self) -> None:
        """Removes a file, if there is one."""
        if self.is_local:
            self.local.unlink(missing_ok=True)
            return
        opened, path = filesystem(self.url)
        try:
            patiently(self.url, lambda: opened.delete_file(path))
        except FileNotFoundError:
            self.check_bucket()

    def remove_folder(self) -> None:
        """Removes all that is below, if there is anything."""
        if self.is_local:
            disk.remove_folder(self.local)
            return
        if self._is_flat and not self._infos(recursive=True):
            return
        opened, path = filesystem(self.url)
        try:
            patiently(self.url, lambda: opened.delete_dir(path))
        except FileNotFoundError:
            self.check_bucket()

    def check_bucket(self) -> None:
        """Refuses a bucket that is not there: a store says only that an object is not. One request
        a process.

        Raises:
            PlaceError: there is no such bucket, or the store does not answer.
        """
        bucket = settings.bucket_of(self.url)
        known = f"{settings.server_of(self.url)} {bucket}"
        if known in _KNOWN or not settings.is_store(self.url):
            return
        root = f"{self.url.partition('://')[0]}://{bucket}"
        opened, path = filesystem(root)
        if patiently(root, lambda: opened.get_file_info(path)).type == pa_fs.FileType.NotFound:
            raise no_bucket(self.url)
        _KNOWN.add(known)


def put(url: str, source: pa.NativeFile, size_bytes: int) -> None:
    """Makes an object of a store; the one point where they appear, as `disk.commit_file` is that
    of files on a disk."""
    opened, path = filesystem(url, for_parts=size_bytes >= _LARGE_BYTES)

    def send() -> None:
        source.seek(0)
        if size_bytes < _LARGE_BYTES and isinstance(opened, pa_fs.PyFileSystem):
            opened.handler.write_whole(path, source.read(size_bytes))
            return
        unread: OSError | None = None
        num_sent = 0
        with opened.open_output_stream(path) as out:
            while unread is None and num_sent < size_bytes:
                try:
                    content = source.read(_COPY_BYTES)
                    unread = None if content else OSError("it became shorter")
                except OSError as error:
                    unread = error
                else:
                    out.write(content)
                    num_sent += len(content)
                    if num_sent % _AHEAD_BYTES < _COPY_BYTES:
                        out.flush()
        if unread is not None:  # a stream cannot be given up: what was read became an object
            opened.delete_file(path)
            raise PlaceError(
                f"{url}: what was to be put there cannot be read after byte {num_sent:,} of "
                f"{size_bytes:,} ({unread}); nothing is left there: run the same command again"
            ) from unread

    patiently(url, send)


def _linked(final: Path, content: bytes) -> bool:
    """Gives whether a file that is whole from the first moment could take a name."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with _written_beside(final, content) as temporary:
        try:
            os.link(temporary, final)
        except FileExistsError:
            return final.read_bytes() == content
        disk.sync(final.parent)
    return True


@contextlib.contextmanager
def _written_beside(final: Path, content: bytes) -> Iterator[Path]:
    temporary = final.parent / f".tmp-{final.name}-{uuid.uuid4().hex[:8]}"
    try:
        with disk.explained(final):
            temporary.write_bytes(content)
            disk.sync(temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
