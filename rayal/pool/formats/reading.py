"""What a reader is told, what it gives, and how it says that it has to begin again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import pyarrow.fs as pa_fs

from rayal.errors import PoolError
from rayal.types import Kind

BLOCK_BYTES = 8 << 20  # types of a CSV or JSONL file are inferred from its first block
BLOCK_ROWS = 65_536
# Rows are decoded by so many, at most, before their size is looked at. Measured on Parquet: 1,024
# cost 0.1 s more than 65,536 for a million short texts, and less for rows of 64 float32.
_MIN_STEP, _MAX_STEP = 16, 1_024


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


def step_of(num_bytes: int, num_rows: int) -> int:
    """Gives how many rows to decode at once where so many take so many bytes."""
    fitting = BLOCK_BYTES // 2 * max(1, num_rows) // max(1, num_bytes)
    return min(_MAX_STEP, max(_MIN_STEP, fitting))


def blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Gives the rows in blocks of BLOCK_ROWS, or of somewhat more than BLOCK_BYTES."""
    held: list[pa.RecordBatch] = []
    num_rows = num_bytes = 0
    for rows in batches:
        held.append(rows)
        num_rows, num_bytes = num_rows + rows.num_rows, num_bytes + rows.nbytes
        if num_bytes >= BLOCK_BYTES or num_rows >= BLOCK_ROWS:
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


def stored(rows: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """Gives the columns as what extension types are stored as."""
    columns = [rows.column(name) for name in names]
    plain = [c.storage if isinstance(c, pa.ExtensionArray) else c for c in columns]
    return pa.RecordBatch.from_arrays(plain, names=list(names))


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Gives the plain type of what a type is stored as."""
    return plain_type(kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind)


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
