"""Delta tables: which Parquet files are rows at the newest version is what their log says.

The package deltalake reads the log, the files are read as any Parquet is. What is not in the files
alone, or not under the names of the columns, is refused: deletion vectors, column mapping, features
of the format that came later. Reference: the Delta transaction log protocol (PROTOCOL.md of
delta-io/delta), reader versions 1 to 3.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pa_fs

from rayal.errors import PoolError
from rayal.pool.formats import parquet
from rayal.pool.formats.reading import Reading, plain_type
from rayal.pool.formats.table import Part, Table, refusal, store_options

LOG = "_delta_log"
# That change nothing for who reads only rows, as long as no file or column makes use of the two
# that are looked at apart.
_FEATURES = ("timestampNtz", "v2Checkpoint", "vacuumProtocolCheck")
_APART = ("deletionVectors", "columnMapping")


def table_at(filesystem: pa_fs.FileSystem, folder: str, uri: str) -> Table | None:
    """Gives the table that a folder is; None where it has no log. O(files) time and memory.

    Raises:
        PoolError: the log cannot be read, or the table is not only files of rows.
    """
    if filesystem.get_file_info(f"{folder}/{LOG}").type != pa_fs.FileType.Directory:
        return None
    try:
        from deltalake import DeltaTable
    except ImportError as error:
        raise PoolError(
            f"{folder} is a Delta table, whose log needs a package that is not there "
            f"({' '.join(str(error).split())}); pip install 'rayal[delta]'"
        ) from error
    try:
        found = DeltaTable(uri, storage_options=store_options(uri))
        _refuse_later_features(folder, found)
        columns = pa.schema(found.schema().to_arrow())
        partitions = list(found.metadata().partition_columns)
        _refuse_bytes(folder, columns, partitions)
        _refuse_deletions(folder, found)
        files = pa.table(found.get_add_actions())
    except PoolError:
        raise
    except BaseException as error:
        raise PoolError(
            f"{folder} cannot be read as a Delta table: {refusal(error)}; restore its {LOG}, or "
            "write its rows into a new table"
        ) from error
    return _table(folder, files, columns, partitions)


def _table(folder: str, files: pa.Table, columns: pa.Schema, partitions: Sequence[str]) -> Table:
    plain = pa.schema([pa.field(field.name, plain_type(field.type)) for field in columns])
    paths = [_path(folder, named) for named in files.column("path").to_pylist()]
    num_rows = files.column("num_records").to_pylist()
    values: dict[str, dict[str, pa.Scalar]] = {}
    parts: dict[str, Part] = {}
    for path, row in sorted(zip(paths, range(len(paths)), strict=True)):
        own = {name: files.column("partition")[row][name] for name in partitions}
        values[path], parts[path] = own, Part((path,), _mark(own), num_rows[row])
    read = functools.partial(_read, columns=plain, values=values)
    return Table("delta", folder, parts, read)


def _path(folder: str, named: str) -> str:
    """Gives the path of a file, which the log has encoded as in a URI."""
    path = unquote(named)
    return path if path.startswith("/") or "://" in path else f"{folder.rstrip('/')}/{path}"


def _mark(own: Mapping[str, pa.Scalar]) -> str:
    said = {name: None if not own[name].is_valid else str(own[name].as_py()) for name in own}
    return json.dumps(said, sort_keys=True) if said else ""


# -------------------------------------------------------------------------------- what is refused


def _refuse_later_features(folder: str, found: Any) -> None:
    protocol, settings = found.protocol(), found.metadata().configuration
    mode = settings.get("delta.columnMapping.mode", "none")
    if mode != "none":
        raise PoolError(
            f"{folder} is a Delta table with column mapping (delta.columnMapping.mode is "
            f"'{mode}'), expected one whose files have the names of its columns; write its rows "
            "into a new table, without that property"
        )
    version = protocol.min_reader_version
    more = sorted({*(protocol.reader_features or ())} - {*_FEATURES, *_APART})
    if version > 3 or more:
        what = f"the reader features {', '.join(more)}" if more else f"reader version {version}"
        raise PoolError(
            f"{folder} is a Delta table that asks for {what}, expected reader version 1 to 3 and "
            f"none but {', '.join(_FEATURES)}; write its rows into a new table, without them"
        )


def _refuse_deletions(folder: str, found: Any) -> None:
    """Refuses rows that are deleted and lie in the files all the same."""
    try:
        chunks = pa.RecordBatchReader.from_stream(found.deletion_vectors())
        name = next((rows.column("filepath")[0].as_py() for rows in chunks if rows.num_rows), None)
        where = "" if name is None else f", such as {unquote(name.rpartition('/')[2])}"
    except BaseException as error:  # there is one, and it cannot be read
        name, where = "", f" ({refusal(error)})"
    if name is not None:
        raise PoolError(
            f"{folder} is a Delta table with deletion vectors{where}, expected files without "
            "deleted rows; REORG TABLE ... APPLY (PURGE) writes the files anew, and "
            "delta.enableDeletionVectors=false keeps them so"
        )


def _refuse_bytes(folder: str, columns: pa.Schema, partitions: Sequence[str]) -> None:
    for (
        name
    ) in partitions:  # writers differ in how the log has them, and deltalake in what it gives
        if pa.types.is_binary(plain_type(columns.field(name).type)):
            raise PoolError(
                f"{folder} is a Delta table that is partitioned by the binary column '{name}', "
                "expected text, numbers, booleans, dates or times; write its rows into a new table"
            )


# ------------------------------------------------------------------------------------- the rows


def _read(
    filesystem: pa_fs.FileSystem,
    path: str,
    schema: pa.Schema | None,
    how: Reading,
    *,
    columns: pa.Schema,
    values: Mapping[str, Mapping[str, pa.Scalar]],
) -> Iterator[pa.RecordBatch]:
    """Gives the rows of one file, a block at a time, with the table's columns and types: a column
    of the partitions has one value, one that came after the file was written is null."""
    if schema is None:
        how.check(columns.names)
    kept = how.kept(columns.names)
    own = values[path]

    def needed(names: Sequence[str]) -> Sequence[str]:
        _refuse_other_case(path, names, columns)
        in_file = [name for name in names if name in kept and name not in own]
        return in_file or names[:1]  # one at least, or nobody knows how many rows there are

    for rows in parquet.columns_of(filesystem, path, needed):
        arrays = [_column(rows, columns.field(name), own) for name in kept]
        yield pa.RecordBatch.from_arrays(arrays, names=kept)


def _column(rows: pa.RecordBatch, field: pa.Field, own: Mapping[str, pa.Scalar]) -> pa.Array:
    if field.name in own:
        return pa.repeat(own[field.name].cast(field.type), rows.num_rows)
    if field.name not in rows.schema.names:
        return pa.nulls(rows.num_rows, field.type)
    column = rows.column(field.name)
    return column if column.type == field.type else column.cast(field.type)


def _refuse_other_case(path: str, names: Sequence[str], columns: pa.Schema) -> None:
    """Refuses a column that would be null because its file spells it otherwise."""
    spelled = {name.lower(): name for name in names}
    for name in columns.names:
        other = spelled.get(name.lower(), name)
        if name not in names and other != name:
            raise PoolError(
                f"{path} has a column '{other}', expected '{name}' as in the Delta table's log; "
                "write its rows into a new table"
            )
