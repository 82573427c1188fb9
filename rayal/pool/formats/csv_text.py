"""CSV and TSV files: what is a number, and what only looks like one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.fs as pa_fs

from rayal.errors import PoolError
from rayal.pool.formats.reading import BLOCK_BYTES, Reading, Unsettled

# Without the spellings of NaN, which are not a missing value.
_NULLS = ["", "NA", "N/A", "#N/A", "n/a", "NULL", "null"]
_HEAD_BYTES = 256  # where a page says what it is
_WHOLE = r"^(0|-?[1-9][0-9]*)$"  # the one way to write a whole number
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")


def read(
    filesystem: pa_fs.FileSystem,
    path: str,
    schema: pa.Schema | None,
    how: Reading,
    delimiter: str = ",",
) -> Iterator[pa.RecordBatch]:
    """Gives the rows of one file, a block at a time.

    Raises:
        Unsettled: an id or label column of whole numbers is none, from some row on.
        PoolError: nothing says whether labels are names or numbers, or a column is not there.
    """
    options = {
        "read_options": pa_csv.ReadOptions(block_size=BLOCK_BYTES),
        "parse_options": pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
    }
    # Types are those of the first file.
    types = {field.name: field.type for field in schema or ()}
    _refuse_page(filesystem, path)
    if schema is None:
        with filesystem.open_input_stream(path) as stream:
            guess = pa_csv.ConvertOptions(null_values=_NULLS)
            first = pa_csv.open_csv(stream, convert_options=guess, **options).schema
        how.check(first.names)
        _refuse_other_encoding(filesystem, path, first, how)
        types = {field.name: _csv_type(field, how) for field in first}
    types.update(dict.fromkeys(how.drop, pa.binary()))
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


def _refuse_page(filesystem: pa_fs.FileSystem, path: str) -> None:
    with filesystem.open_input_stream(path) as stream:
        head = stream.read(_HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise PoolError(
            f"{path} is a page of HTML or XML ({head[:40].decode(errors='replace')!r}), expected "
            "rows of text; a server may have answered with a page of its own: fetch the file again"
        )


def _refuse_other_encoding(
    filesystem: pa_fs.FileSystem, path: str, first: pa.Schema, how: Reading
) -> None:
    """Refuses text in another encoding, which would become columns of bytes. O(bytes) where there
    is such a column."""
    names = [f.name for f in first if pa.types.is_binary(f.type) and f.name not in how.drop]
    if not names:
        return
    with filesystem.open_input_stream(path) as stream:
        lines = (line for block in _lines(stream) for line in block)
        number, line = next(
            (place, line) for place, line in enumerate(lines, 1) if not _is_utf8(line)
        )
    raise PoolError(
        f"{path} line {number}: column '{names[0]}' is not UTF-8 ({line[:60]!r}); convert the file "
        f"to it (iconv -f LATIN1 -t UTF-8), or leave the column out with --drop {names[0]} "
        f"(pool.drop=[{names[0]}])"
    )


def _lines(stream: pa.NativeFile) -> Iterator[list[bytes]]:
    rest = b""
    while block := stream.read(BLOCK_BYTES):
        *whole, rest = (rest + block).split(b"\n")
        yield whole
    yield [rest]


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


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
