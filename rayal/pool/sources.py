"""Where samples come from: Parquet, CSV or JSONL; a file, a folder or a glob; local or a URI.

Files are read in order of path, so a row's place in the source is the same on every machine.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.fs as pa_fs
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from rayal.errors import PoolError

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_BLOCK_BYTES = 8 << 20  # types of a CSV or JSONL file are inferred from its first block
_MANY_FILES = 64
# Without the spellings of NaN, which are not a missing value: a NaN is refused by name and row.
_NULLS = ["", "NA", "N/A", "#N/A", "n/a", "NULL", "null"]
_BUFFER_BYTES = 4 << 20  # or a column of a row group is read whole, however large


@dataclass(frozen=True)
class Piece:
    """Rows of a source, and where they are from, so that a message can say so."""

    file: str
    first_row: int  # of the file, counted from 0
    rows: pa.RecordBatch

    def at(self, row: int) -> str:
        """Gives the words for one row's place."""
        return f"{self.file} row {self.first_row + row} (counted from 0)"


@dataclass(frozen=True)
class Files:
    """Some files of one format, in order of path."""

    filesystem: pa_fs.FileSystem
    infos: tuple[pa_fs.FileInfo, ...]
    format: str

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Paths, sizes and times of change: what tells sources apart without reading them."""
        digest = hashlib.sha256()
        for info in self.infos:
            digest.update(f"{info.path}\x1f{info.size}\x1f{info.mtime_ns}\x1e".encode())
        return {"files": f"{len(self.infos)} {self.format}, {digest.hexdigest()}"}

    @property
    def num_rows(self) -> int | None:
        """How many rows there are, where a few footers say it; it is only for the progress line."""
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
        """
        schema: pa.Schema | None = None
        for info in self.infos:
            row = 0
            try:
                for batch in _READERS[self.format](self.filesystem, info.path, schema):
                    if schema is None:
                        schema = _plain_schema(batch.schema)
                    rows = _same_schema(batch, schema, info.path, self.infos[0].path)
                    yield Piece(info.path, row, rows)
                    row += batch.num_rows
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise PoolError(
                    f"{info.path} cannot be read as {self.format}, after row {row}: "
                    f"{_one_line(error)}; mend or remove the file"
                ) from error


def find(source: str) -> Files:
    """Gives the files that a path, folder, glob or URI means.

    Files whose name starts with `_` or `.`, and files of other formats in a folder, are passed by.

    Raises:
        PoolError: nothing is there, no file has a known format, or formats are mixed.
    """
    filesystem, path = _resolve(source)
    try:
        info = filesystem.get_file_info(path)
        if info.type == pa_fs.FileType.File:
            if _format(path) is None:
                raise PoolError(
                    f"{source} is of no known format; its name should end in {_known()}"
                )
            return Files(filesystem, (info,), _format(path) or "")
        if info.type == pa_fs.FileType.Directory:
            infos = _below(filesystem, path)
        elif any(mark in path for mark in "*?["):
            base = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
            match = re.compile(_glob_pattern(path)).fullmatch
            infos = [info for info in _below(filesystem, base or "/") if match(info.path)]
        else:
            raise PoolError(f"{source} does not exist; give a file, a folder, a glob or a URI")
    except OSError as error:
        raise PoolError(f"{source} cannot be listed: {_one_line(error)}") from error
    formats = sorted({_format(info.path) or "" for info in infos} - {""})
    if not formats:
        raise PoolError(f"{source} holds no file that ends in {_known()}")
    if len(formats) > 1:
        raise PoolError(
            f"{source} holds files of several formats ({', '.join(formats)}); "
            "give a glob that takes one of them, such as '*.parquet'"
        )
    chosen = sorted((i for i in infos if _format(i.path)), key=lambda info: info.path)
    return Files(filesystem, tuple(chosen), formats[0])


def _resolve(source: str) -> tuple[pa_fs.FileSystem, str]:
    if "://" not in source:
        return pa_fs.LocalFileSystem(), os.path.abspath(Path(source).expanduser())
    try:
        filesystem, path = pa_fs.FileSystem.from_uri(source)
        return filesystem, path
    except pa.ArrowInvalid:  # a scheme, or a glob, that pyarrow does not know
        import fsspec

        try:
            other, path = fsspec.core.url_to_fs(source)
        except (ImportError, ValueError, OSError) as error:
            raise PoolError(
                f"{source}: neither pyarrow nor fsspec can open it: {_one_line(error)}"
            ) from error
        return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(other)), path
    except OSError as error:
        raise PoolError(f"{source} cannot be reached: {_one_line(error)}") from error


def _below(filesystem: pa_fs.FileSystem, folder: str) -> list[pa_fs.FileInfo]:
    selector = pa_fs.FileSelector(folder, recursive=True, allow_not_found=True)
    skip = len(folder)
    return [
        info
        for info in filesystem.get_file_info(selector)
        if info.type == pa_fs.FileType.File
        and not any(part[:1] in "._" for part in info.path[skip:].split("/") if part)
    ]


def _glob_pattern(glob: str) -> str:
    marks = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    out = ""
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", glob):
        sets = len(token) > 2 and token.startswith("[")
        out += marks.get(token) or (token.replace("[!", "[^") if sets else re.escape(token))
    return out


def _format(path: str) -> str | None:
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1].lower() in _COMPRESSED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None


def _known() -> str:
    return ", ".join(FORMATS) + f" (text also with {', '.join(_COMPRESSED)})"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# ------------------------------------------------------------------------------------ the formats


def _parquet(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None
) -> Iterator[pa.RecordBatch]:
    with filesystem.open_input_file(path) as stream:
        file = pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        meta = file.metadata
        total = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        # Half the block, because a decoded column can be larger than its pages.
        rows = _BLOCK_BYTES // 2 * max(1, meta.num_rows) // max(1, total)
        yield pa.RecordBatch.from_pylist([], schema=file.schema_arrow)
        yield from file.iter_batches(batch_size=min(65_536, max(256, rows)))


def _csv(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None
) -> Iterator[pa.RecordBatch]:
    delimiter = "\t" if _format(path) == "tsv" else ","
    # Types are those of the first file. A column without a value in the first block is text.
    types = {c.name: pa.string() if pa.types.is_null(c.type) else c.type for c in schema or ()}
    options = {
        "read_options": pa_csv.ReadOptions(block_size=_BLOCK_BYTES),
        "parse_options": pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
    }
    if not types:
        with filesystem.open_input_stream(path) as stream:
            guess = pa_csv.ConvertOptions(null_values=_NULLS)
            first = pa_csv.open_csv(stream, convert_options=guess, **options).schema
        types = {c.name: pa.string() if pa.types.is_null(c.type) else c.type for c in first}
    # In text nothing is missing: "NA" and "null" are words.
    convert = pa_csv.ConvertOptions(
        column_types=types, null_values=_NULLS, strings_can_be_null=False
    )
    with filesystem.open_input_stream(path) as stream:
        yield from pa_csv.open_csv(stream, convert_options=convert, **options)


def _jsonl(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None
) -> Iterator[pa.RecordBatch]:
    parse = pa_json.ParseOptions(explicit_schema=schema, newlines_in_values=False)
    read = pa_json.ReadOptions(block_size=_BLOCK_BYTES)
    with filesystem.open_input_stream(path) as stream:
        yield from pa_json.open_json(stream, read_options=read, parse_options=parse)


_READERS = {"parquet": _parquet, "csv": _csv, "tsv": _csv, "jsonl": _jsonl}


# ------------------------------------------------------------------------------------ the columns


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Gives the type without what differs by writer: dictionaries, large and view layouts."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type), kind.list_size)
    return kind


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise PoolError(f"the source has column '{twice[0]}' twice; rename one of them")
    return pa.schema([field.with_type(_plain_type(field.type)) for field in schema])


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
    for field in schema:
        column = batch.column(field.name)
        found = _plain_type(column.type)
        if found != field.type and not pa.types.is_null(found):
            raise PoolError(
                f"{path}: column '{field.name}' is {found}, expected {field.type} as in {first}; "
                "all files of a source have the same columns"
            )
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
