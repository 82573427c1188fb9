"""Where samples come from: a file, a folder or a glob of one format; local or a URI.

Files are read in order of path, so a row's place in the source is the same on every machine.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from rayal.errors import PoolError
from rayal.places import Place, is_store, refuse_secrets
from rayal.pool.faults import is_of_a_file, one_line, why_not_there
from rayal.pool.formats import (
    COMPRESSED,
    FORMATS,
    ID_COLUMNS,
    READERS,
    Reading,
    datasets,
    delta,
    format_of,
    images,
    lance,
    plain_type,
)
from rayal.pool.formats.table import Table, info_of, listed

_MANY_FILES = 64
_SAMPLE_BYTES = 64 << 10  # of a file's head and tail


@dataclass(frozen=True)
class Piece:
    """Rows of a source, and where they are from, so that a message can say so."""

    file: str  # or the folder, where each row is a file
    first_row: int  # of the file or folder, counted from 0
    rows: pa.RecordBatch
    files: tuple[str, ...] = ()  # of each row, where each is one

    def at(self, row: int) -> str:
        """Gives the words for one row's place."""
        if self.files:
            return self.files[row]
        return f"{self.file} row {self.first_row + row} (counted from 0)"


@dataclass(frozen=True)
class Files:
    """Some files of one format, in order of path; or parts of a table, in its order."""

    filesystem: pa_fs.FileSystem
    infos: tuple[pa_fs.FileInfo, ...]
    format: str
    reading: Reading = field(default_factory=Reading)
    root: str = ""  # that no file leaves: the folder, or that of a glob
    known: tuple[pa.Schema, str] | None = None  # columns, and a file that has them; None: the first
    table: Table | None = None  # that the infos are parts of, each of which may be several files

    @property
    def id_column(self) -> str | None:
        """The column that names a row where nobody says which does; None: there is none."""
        return ID_COLUMNS.get(self.format)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Paths, sizes and times of change: what tells sources apart without reading them."""
        digest = hashlib.sha256()
        for info in self.infos:
            digest.update(f"{info.path}\x1f{info.size}\x1f{info.mtime_ns}\x1e".encode())
            digest.update(self.mark(info).encode())
        return {"files": f"{len(self.infos)} {self.format}, {digest.hexdigest()}"}

    @property
    def sample(self) -> str:
        """What tells contents apart wherever they lie: sizes, and heads and tails of some files."""
        digest = hashlib.sha256(f"{self.format}\x1f{len(self.infos)}\x1e".encode())
        digest.update(",".join(f"{info.size}{self.mark(info)}" for info in self.infos).encode())
        places = np.unique(np.linspace(0, len(self.infos) - 1, _MANY_FILES).astype(int))
        for info in (self.infos[place] for place in places):
            with self.filesystem.open_input_file(info.path) as file:
                digest.update(file.read(_SAMPLE_BYTES))
                file.seek(max(0, file.size() - _SAMPLE_BYTES))
                digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()

    @property
    def num_rows(self) -> int | None:
        """How many rows there are, where a few footers say it; it is only for the progress line."""
        if self.format == "images":
            return len(self.infos)
        if self.table is not None:
            said = [self.table.parts[info.path].num_rows for info in self.infos]
            return None if None in said else sum(number for number in said if number is not None)
        if self.format != "parquet" or len(self.infos) > _MANY_FILES:
            return None
        try:
            footers = [pq.read_metadata(i.path, filesystem=self.filesystem) for i in self.infos]
            return sum(int(footer.num_rows) for footer in footers)
        except (pa.ArrowException, OSError):
            return None  # `pieces` says which file it is, and what ails it

    def pieces(self) -> Iterator[Piece]:
        """Gives the rows in order; one block is in memory at a time.

        Raises:
            PoolError: a file cannot be read, or its columns are not those of the first file.
            Unsettled: a column is to be read in another way, from the first row on.
        """
        if self.format == "images":
            yield from self._images()
            return
        schema, first = self.known or (None, self.infos[0].path)
        for info in self.infos:
            row = 0
            try:
                read = READERS[self.format] if self.table is None else self.table.read
                for batch in read(self.filesystem, info.path, schema, self.reading):
                    if schema is None:
                        schema = _plain_schema(batch.schema)
                    rows = _same_schema(batch, schema, info.path, first)
                    yield Piece(info.path, row, rows)
                    row += batch.num_rows
            except Exception as error:
                if not is_of_a_file(error):
                    raise
                raise PoolError(
                    f"{info.path} cannot be read as {self.format}, after row {row}: "
                    f"{one_line(error)}; {'mend or remove' if self.table is None else 'restore'} "
                    "the file"
                ) from error

    def paths(self, info: pa_fs.FileInfo) -> tuple[str, ...]:
        """Gives the files whose bytes are those of one of the infos."""
        return (info.path,) if self.table is None else self.table.parts[info.path].paths

    def mark(self, info: pa_fs.FileInfo) -> str:
        """Gives what the rows of one of the infos are beside what is in its files."""
        return "" if self.table is None else self.table.parts[info.path].mark

    def now(self, info: pa_fs.FileInfo) -> pa_fs.FileInfo:
        """Gives one of the infos as it is now."""
        if self.table is None:
            return self.filesystem.get_file_info(info.path)
        return info_of(self.filesystem, self.table.parts[info.path])

    def _images(self) -> Iterator[Piece]:
        row = 0
        for paths, rows in images.read(self.filesystem, self.infos, self.root, self.reading):
            yield Piece(self.root, row, rows, paths)
            row += rows.num_rows


def find(source: str) -> Files:
    """Gives the files that a path, folder, glob or URI means; of a Delta or Lance table those that
    are rows at its newest version.

    Files whose name starts with `_` or `.`, and files of other formats in a folder, are passed by.

    Raises:
        PoolError: nothing is there, no file has a known format, formats are mixed, or the files are
            some of a table.
    """
    filesystem, path = _resolve(source)
    try:
        info = filesystem.get_file_info(path)
        if info.type == pa_fs.FileType.File:
            if format_of(path) is None:
                raise PoolError(
                    f"{source} is of no known format; its name should end in {_known()}"
                )
            folder = path.rpartition("/")[0]
            return Files(filesystem, (info,), format_of(path) or "", root=folder)
        if info.type == pa_fs.FileType.Directory:
            table = _table(filesystem, path, source)
            if table is not None:
                return table
            own = datasets.files_of(filesystem, path)
            if own is not None:
                return Files(filesystem, tuple(_these(filesystem, path, own)), "arrow")
            root, infos = path, _below(filesystem, path)
        elif any(mark in path for mark in "*?["):
            root = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0] or "/"
            match = re.compile(_glob_pattern(path)).fullmatch
            infos = [info for info in _below(filesystem, root) if match(info.path)]
        else:
            why = why_not_there(source)
            raise PoolError(f"{source} {why}; give a file, a folder, a glob or a URI")
    except Exception as error:  # a file's name may be no UTF-8
        if not is_of_a_file(error):
            raise
        raise PoolError(f"{source} cannot be listed: {one_line(error)}") from error
    formats = sorted({format_of(info.path) or "" for info in infos} - {""})
    if not formats:
        raise PoolError(f"{source} holds no file that ends in {_known()}")
    if len(formats) > 1:
        raise PoolError(
            f"{source} holds files of several formats ({', '.join(formats)}); "
            "give a glob that takes one of them, such as '*.parquet'"
        )
    chosen = sorted((i for i in infos if format_of(i.path)), key=lambda info: info.path)
    return Files(filesystem, tuple(chosen), formats[0], root=root)


def is_meant(source: str, path: str) -> bool:
    """Whether `find(source)` would give a file at this path of the local disk, if it were there;
    folders on the way to either may be links."""
    filesystem, base = _resolve(source)
    if not isinstance(filesystem, pa_fs.LocalFileSystem) or format_of(path) is None:
        return False
    return _is_meant(base, path) or _is_meant(os.path.realpath(base), _real_place(path))


def _real_place(path: str) -> str:
    """Gives a path without links but for the last name, which a new file takes over."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _is_meant(base: str, path: str) -> bool:
    folder = base.rstrip("/") + "/"
    if path.startswith(folder):
        return not any(part[:1] in "._" for part in path[len(folder) :].split("/"))
    return re.fullmatch(_glob_pattern(base), path) is not None


def _resolve(source: str) -> tuple[pa_fs.FileSystem, str]:
    if not source:  # or it would be the current folder
        raise PoolError(
            "the path of a source is empty, expected a file, a folder, a glob or a URI; name one, "
            "and check whether a variable of the shell is set"
        )
    if "://" not in source:
        return pa_fs.LocalFileSystem(), os.path.abspath(Path(source).expanduser())
    if is_store(source):
        return _in_store(source)
    if not source.startswith("file:"):
        refuse_secrets(source, but_globs=True)
    try:
        filesystem, path = pa_fs.FileSystem.from_uri(source)
        return filesystem, path
    except pa.ArrowInvalid:  # a scheme, or a glob, that pyarrow does not know
        import fsspec

        try:
            other, path = fsspec.core.url_to_fs(source)
        except (ImportError, ValueError, OSError) as error:
            raise PoolError(
                f"{source}: neither pyarrow nor fsspec can open it: {one_line(error)}"
            ) from error
        return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(other)), path
    except OSError as error:
        raise PoolError(f"{source} cannot be reached: {one_line(error)}") from error


def _in_store(source: str) -> tuple[pa_fs.FileSystem, str]:
    """Gives where a URL of a store leads, which may be a glob from some letter on."""
    refuse_secrets(source, but_globs=True)
    plain = re.split(r"[*?\[]", source, maxsplit=1)[0]
    place = Place.of(plain)
    place.check_bucket()
    filesystem, path = place.to_read()
    return filesystem, path + plain[len(place.url) :] + source[len(plain) :]


def _table(filesystem: pa_fs.FileSystem, path: str, source: str) -> Files | None:
    uri = path if isinstance(filesystem, pa_fs.LocalFileSystem) else source.rstrip("/")
    for table_at in (delta.table_at, lance.table_at):
        table = table_at(filesystem, path.rstrip("/"), uri)
        if table is not None:
            infos = listed(filesystem, table)
            return Files(filesystem, infos, table.format, root=path, table=table)
    return None


def _below(filesystem: pa_fs.FileSystem, folder: str) -> list[pa_fs.FileInfo]:
    selector = pa_fs.FileSelector(folder, recursive=True, allow_not_found=True)
    skip = len(folder)
    infos = filesystem.get_file_info(selector)
    if isinstance(filesystem, pa_fs.LocalFileSystem):
        _refuse_loops(infos)
    for info in infos:
        root, log, _ = f"{info.path}/".partition(f"/{delta.LOG}/")
        if log:
            raise PoolError(
                f"{root} is a Delta table, in which files may lie that are rows no more; name the "
                f"table itself in place of {folder} or a glob"
            )
    return [
        info
        for info in infos
        if info.type == pa_fs.FileType.File
        and not any(part[:1] in "._" for part in info.path[skip:].split("/") if part)
    ]


def _refuse_loops(infos: list[pa_fs.FileInfo]) -> None:
    for info in infos:
        if info.type != pa_fs.FileType.Directory or not os.path.islink(info.path):
            continue
        above = os.path.realpath(os.path.dirname(info.path)) + "/"
        if above.startswith(os.path.realpath(info.path).rstrip("/") + "/"):
            raise PoolError(
                f"{info.path} is a link to a folder that it lies in, so that every file below "
                "comes again and again; remove the link"
            )


def _these(filesystem: pa_fs.FileSystem, folder: str, paths: list[str]) -> list[pa_fs.FileInfo]:
    if not paths:
        raise PoolError(f"{folder} holds no rows; a pool needs at least one")
    infos = list(filesystem.get_file_info(paths))
    for info in infos:
        if info.type != pa_fs.FileType.File:
            raise PoolError(
                f"{info.path} is not there, and {datasets.STATE} beside it names it; copy the "
                "dataset whole"
            )
    return infos


def _glob_pattern(glob: str) -> str:
    marks = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    out = ""
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", glob):
        sets = len(token) > 2 and token.startswith("[")
        out += marks.get(token) or (token.replace("[!", "[^") if sets else re.escape(token))
    return out


def _known() -> str:
    return ", ".join(FORMATS) + f" (text also with {', '.join(COMPRESSED)})"


# ------------------------------------------------------------------------------------ the columns


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(plain_type(field.type)) for field in schema])


def _has_text(kind: pa.DataType) -> bool:
    nested = (kind.field(at).type for at in range(kind.num_fields))
    return bool(pa.types.is_string(kind)) or any(_has_text(one) for one in nested)


def _same_schema(batch: pa.RecordBatch, schema: pa.Schema, path: str, first: str) -> pa.RecordBatch:
    if set(batch.schema.names) != set(schema.names):
        less = sorted(set(schema.names) - set(batch.schema.names))
        more = sorted(set(batch.schema.names) - set(schema.names))
        said = [f"lacks {', '.join(less)}"] * bool(less) + [f"adds {', '.join(more)}"] * bool(more)
        raise PoolError(
            f"{path} {' and '.join(said)}, compared with {first}; "
            "all files of a source have the same columns"
        )
    columns = []
    for known in schema:
        column = batch.column(known.name)
        found = plain_type(column.type)
        if found != known.type and not pa.types.is_null(found):
            raise PoolError(
                f"{path}: column '{known.name}' is {found}, expected {known.type} as in {first}; "
                "all files of a source have the same columns"
            )
        if _has_text(found):  # of Parquet and JSONL nobody else looks whether it is UTF-8
            column.validate(full=True)
        columns.append(column if column.type == known.type else column.cast(known.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
