"""A folder whose own log says which of its files are rows: a Delta or Lance table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.fs as pa_fs

from rayal.errors import PoolError
from rayal.places import settings
from rayal.pool.formats.images import refuse_escapes
from rayal.pool.formats.reading import Reader

_RUST_PLACE = re.compile(r",? /\S+\.rs:\d+:\d+")


@dataclass(frozen=True)
class Part:
    """What is read in one go: a file of a Delta table, a fragment of a Lance table."""

    paths: tuple[str, ...]  # of its files; the first one names the part
    mark: str = ""  # what its rows are beside what is in the files: values of partitions
    num_rows: int | None = None  # None: the log does not say


@dataclass(frozen=True)
class Table:
    """The rows of one version of a table."""

    format: str
    folder: str
    parts: Mapping[str, Part]  # by name, in the order of the rows
    read: Reader  # of a part, by its name


def listed(filesystem: pa_fs.FileSystem, table: Table) -> tuple[pa_fs.FileInfo, ...]:
    """Gives a table's parts, as if each were one file.

    Raises:
        PoolError: there are none, or a file is not there, or not below the table's folder.
    """
    if not table.parts:
        raise PoolError(f"{table.folder} holds no rows; a pool needs at least one")
    paths = [path for part in table.parts.values() for path in part.paths]
    for path in paths:
        if not path.startswith(table.folder.rstrip("/") + "/"):
            raise PoolError(
                f"the log of the {table.format} table {table.folder} names {path[:300]}, expected "
                "a file below the table's folder; write the table anew"
            )
    refuse_escapes(filesystem, paths, table.folder)
    found = dict(zip(paths, filesystem.get_file_info(paths), strict=True))
    for path, info in found.items():
        if info.type != pa_fs.FileType.File:
            raise PoolError(
                f"{path} is not there, and the log of the {table.format} table {table.folder} "
                "names it; restore it, or copy the table whole"
            )
    return tuple(_as_one([found[path] for path in part.paths]) for part in table.parts.values())


def info_of(filesystem: pa_fs.FileSystem, part: Part) -> pa_fs.FileInfo:
    """Gives a part as it is now, as if it were one file."""
    return _as_one(filesystem.get_file_info(list(part.paths)))


def _as_one(infos: Sequence[pa_fs.FileInfo]) -> pa_fs.FileInfo:
    """Gives files as one that is as large as all of them, and as old as the newest."""
    if len(infos) == 1:
        return infos[0]
    times = [info.mtime_ns for info in infos]
    time = None if None in times else max(times)
    size = sum(info.size or 0 for info in infos)
    return pa_fs.FileInfo(infos[0].path, pa_fs.FileType.File, mtime_ns=time, size=size)


def store_options(uri: str) -> dict[str, str]:
    """Gives what a table's own library is told of a store; credentials it finds in the environment,
    as pyarrow does."""
    endpoint = settings.endpoint()
    if endpoint is None or uri.partition("://")[0] not in ("s3", "s3a"):
        return {}
    is_plain = endpoint.startswith("http://")
    return {"aws_endpoint": endpoint, "allow_http": str(is_plain).lower()}


def refusal(error: BaseException) -> str:
    """Gives in one line what a table's own library, which is of Rust, says is wrong: without the
    places in its source.

    Raises:
        BaseException: it is no failure but the end of the process.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    said = str(error).strip().partition("\n")[0]
    plain = " ".join(_RUST_PLACE.sub("", said).split())[:300]
    return settings.scrubbed(plain) or type(error).__name__
