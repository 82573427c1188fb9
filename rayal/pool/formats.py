"""Readers of the formats of a source: batches of rows, whatever a file's own blocks are.

Memory is bounded by what rows take once they are decoded: 150,000 rows of one text of 20 kB are a
small Parquet file and 3 GB of text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.fs as pa_fs
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from rayal.errors import PoolError
from rayal.types import Kind

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_BLOCK_BYTES = 8 << 20  # types of a CSV or JSONL file are inferred from its first block
_BLOCK_ROWS = 65_536
# Parquet is decoded by so many rows, at most, before their size is looked at. Measured: 1,024 cost
# 0.1 s more than 65,536 for a million short texts, and less for rows of 64 float32.
_MIN_STEP, _MAX_STEP = 16, 1_024
_BUFFER_BYTES = 4 << 20  # or a column of a row group is read whole, however large
# Without the spellings of NaN, which are not a missing value.
_NULLS = ["", "NA", "N/A", "#N/A", "n/a", "NULL", "null"]
_WHOLE = r"^(0|-?[1-9][0-9]*)$"  # the one way to write a whole number
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")


class Unsettled(Exception):
    """A column is not what its first rows said; the source is to be read again with this known."""

    def __init__(self, column: str, why: str) -> None:
        self.column, self.why = column, why
        super().__init__(column, why)


@dataclass(frozen=True)
class Reading:
    """What a reader is told of some columns."""

    drop: Sequence[str] = ()  # left out
    text: Sequence[str] = ()  # of CSV, as they are written
    id_column: str | None = None
    label_column: str | None = None
    kind: Kind | None = None  # of the label, where it is known

    def kept(self, names: Sequence[str]) -> list[str]:
        """Gives the names of the columns that are not left out.

        Raises:
            PoolError: a name comes twice.
        """
        kept = [name for name in names if name not in self.drop]
        twice = sorted({name for name in kept if kept.count(name) > 1})
        if twice:
            raise PoolError(
                f"the source has column '{twice[0]}' twice; rename one of them, or leave both out "
                f"with --drop {twice[0]} (pool.drop=[{twice[0]}])"
            )
        return kept

    def check(self, names: Sequence[str]) -> None:
        """Refuses to leave out what is not there.

        Raises:
            PoolError: a column to drop is none of these.
        """
        for name in self.drop:
            if name not in names:
                raise PoolError(
                    f"the source has no column '{name}' to drop (it has: {', '.join(names)}); "
                    "correct --drop (pool.drop)"
                )


Reader: TypeAlias = Callable[
    [pa_fs.FileSystem, str, pa.Schema | None, Reading], Iterator[pa.RecordBatch]
]


def format_of(path: str) -> str | None:
    """Gives the format that a file's name says, None for an unknown one."""
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1].lower() in COMPRESSED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None


def _parquet(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None, how: Reading
) -> Iterator[pa.RecordBatch]:
    with filesystem.open_input_file(path) as stream:
        file = pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        found = file.schema_arrow
        if schema is None:
            how.check(found.names)
        names = how.kept(found.names)
        plain = pa.schema(
            [found.field(n).with_type(plain_type(found.field(n).type)) for n in names]
        )
        meta = file.metadata
        encoded = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        fitting = _BLOCK_BYTES // 2 * max(1, meta.num_rows) // max(1, encoded)
        step = min(_MAX_STEP, max(_MIN_STEP, fitting))
        yield pa.RecordBatch.from_pylist([], schema=plain)
        held: list[pa.RecordBatch] = []
        num_rows = num_bytes = 0
        for rows in file.iter_batches(batch_size=step, columns=names if how.drop else None):
            held.append(decoded(rows, plain))
            num_rows, num_bytes = num_rows + rows.num_rows, num_bytes + held[-1].nbytes
            if num_bytes >= _BLOCK_BYTES or num_rows >= _BLOCK_ROWS:
                yield pa.concat_batches(held)
                held, num_rows, num_bytes = [], 0, 0
        if held:
            yield pa.concat_batches(held)


def decoded(rows: pa.RecordBatch, plain: pa.Schema) -> pa.RecordBatch:
    """Gives the columns of a schema, as its types: a dictionary's words in full."""
    columns = [rows.column(field.name) for field in plain]
    columns = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(columns, plain, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=plain)


def _csv(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None, how: Reading
) -> Iterator[pa.RecordBatch]:
    delimiter = "\t" if format_of(path) == "tsv" else ","
    options = {
        "read_options": pa_csv.ReadOptions(block_size=_BLOCK_BYTES),
        "parse_options": pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
    }
    # Types are those of the first file.
    types = {field.name: field.type for field in schema or ()}
    if schema is None:
        with filesystem.open_input_stream(path) as stream:
            guess = pa_csv.ConvertOptions(null_values=_NULLS)
            first = pa_csv.open_csv(stream, convert_options=guess, **options).schema
        how.check(first.names)
        types = {field.name: _csv_type(field, how) for field in first}
    types.update(dict.fromkeys(how.drop, pa.string()))
    exact = [name for name in _exact(how) if types.get(name) == pa.int64()]
    types.update(dict.fromkeys(exact, pa.string()))
    # In text nothing is missing: "NA" and "null" are words.
    convert = pa_csv.ConvertOptions(
        column_types=types, null_values=_NULLS, strings_can_be_null=False
    )
    row = 0
    with filesystem.open_input_stream(path) as stream:
        for rows in pa_csv.open_csv(stream, convert_options=convert, **options):
            names = how.kept(rows.schema.names)
            whole = {name: _whole(rows, name, f"{path} row", row, how) for name in exact}
            row += rows.num_rows
            columns = [whole.get(name, rows.column(name)) for name in names]
            yield pa.RecordBatch.from_arrays(columns, names=names)


def _csv_type(field: pa.Field, how: Reading) -> pa.DataType:
    """Gives the type to read a column as, of what the first block looks like."""
    kind = field.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if field.name in how.text or pa.types.is_null(kind):  # no value in the first block
        return pa.string()
    if field.name == how.id_column:
        return kind if pa.types.is_integer(kind) else pa.string()
    if field.name == how.label_column:
        if how.kind == "number" and is_number:
            return pa.float64()
        return kind if is_number or pa.types.is_boolean(kind) else pa.string()
    return kind


def _exact(how: Reading) -> list[str]:
    """Gives the columns whose text would be lost in a number: 007 is not 7."""
    label = None if how.kind == "number" else how.label_column
    names = [name for name in (how.id_column, label) if name is not None]
    return [name for name in names if name not in how.text]


def _whole(rows: pa.RecordBatch, name: str, where: str, first: int, how: Reading) -> pa.Array:
    """Gives a column of text as int64, where each value is written as a whole number is.

    Raises:
        Unsettled: one is not, so that the column is text.
        PoolError: one is a decimal number, and nothing says whether the label is a number.
    """
    text = pc.utf8_trim_whitespace(rows.column(name))
    text = pc.if_else(pc.is_in(text, pa.array(_NULLS)), pa.scalar(None, pa.string()), text)
    is_whole = pc.fill_null(pc.match_substring_regex(text, _WHOLE), True)
    row = pc.index(is_whole, False).as_py()
    if row < 0:
        try:
            return text.cast(pa.int64())
        except pa.ArrowInvalid:  # beyond int64
            raise Unsettled(name, "it holds numbers of more digits than an int64 has") from None
    value = text[row].as_py()
    if name == how.label_column and how.kind is None and _DECIMAL.fullmatch(value):
        raise PoolError(
            f"label column '{name}' holds {value} at {where} {first + row} (counted from 0), and "
            "whole numbers before it; pass --kind number if it holds numbers, --kind class if they "
            "are names"
        )
    raise Unsettled(name, f"it holds '{value}'")


def _jsonl(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None, how: Reading
) -> Iterator[pa.RecordBatch]:
    parse = pa_json.ParseOptions(explicit_schema=schema, newlines_in_values=False)
    read = pa_json.ReadOptions(block_size=_BLOCK_BYTES)
    with filesystem.open_input_stream(path) as stream:
        for place, rows in enumerate(pa_json.open_json(stream, read, parse)):
            if schema is None and place == 0:
                how.check(rows.schema.names)
            yield rows.select(how.kept(rows.schema.names))


READERS: Mapping[str, Reader] = {"parquet": _parquet, "csv": _csv, "tsv": _csv, "jsonl": _jsonl}


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Gives the type without what differs by writer: dictionaries, large and view layouts."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type), kind.list_size)
    return kind
