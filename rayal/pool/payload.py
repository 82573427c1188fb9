"""The columns of a source as a pool stores them; what a model could not read is refused here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayal.columns import is_vector, list_field, vector_field, vector_shape
from rayal.errors import PoolError
from rayal.pool.formats import Unsettled
from rayal.pool.sources import Piece
from rayal.types import PICK_COLUMNS

# What batches and snapshots write beside the payload columns; `label` unnamed would be no secret.
RESERVED = ("sample_id", "source_id", "label")
LEDGER = (*PICK_COLUMNS, "round", "weight")


def refuse_reserved(names: Sequence[str], apart: Sequence[str | None]) -> None:
    """Refuses payload columns that bear a name of the pool's or the ledger's own.

    Raises:
        PoolError: a column has such a name and is neither the id column nor the label column.
    """
    for name in names:
        if name in apart or name not in RESERVED + LEDGER:
            continue
        advice = {
            "sample_id": "pass --id-column sample_id, ",
            "label": "pass --label-column label, so that it is kept apart, ",
        }.get(name, "")
        raise PoolError(
            f"the source has a column '{name}', a name that rayal writes; {advice}rename it, or "
            f"leave it out with --drop {name} (pool.drop=[{name}])"
        )


class Payload:
    """The converter of a source's payload columns; types and widths are those of its first rows.

    Lists of numbers are vectors where all rows of the source have as many. Others are stored as
    they are, as is every other column, NaN and null included. A transform that reads them rejects
    the rows that it cannot decode: of lists, those without the usual number of numbers.
    `lists` holds what is known not to be vectors alone, and why.
    """

    def __init__(self, names: Sequence[str], lists: Mapping[str, str]) -> None:
        self.names = tuple(names)
        self.fields: dict[str, pa.Field] = {}
        self._lists = lists

    def convert(self, piece: Piece, first_row: int) -> dict[str, pa.Array]:
        """Gives the stored form of every payload column. O(bytes).

        `first_row` is the piece's place in the whole source.

        Raises:
            PoolError: a vector is not finite.
            Unsettled: what looked like vectors is not.
        """
        out = {}
        for name in self.names:
            field, column = piece.rows.schema.field(name), piece.rows.column(name)
            if is_vector(field):
                out[name] = self._stored(piece, field, column)
            elif _is_list(field.type) and _is_number(field.type.value_type):
                why = self._lists.get(name)
                if why is None:
                    out[name] = self._vector(piece, name, column, first_row)
                else:  # a list of fixed width too, whose nulls Parquet stores as lists
                    out[name] = column.cast(pa.list_(field.type.value_type))
                    known = list_field(name, out[name].type, why, _usual_width(column))
                    self.fields.setdefault(name, known)
            else:
                self.fields.setdefault(name, pa.field(name, field.type))
                out[name] = column
        return out

    def _vector(self, piece: Piece, name: str, column: pa.Array, first_row: int) -> pa.Array:
        known = self.fields.get(name)
        if not len(column):
            return pa.nulls(0, pa.binary(0) if known is None else known.type)
        is_null = column.is_null().to_numpy(zero_copy_only=False)
        widths = np.asarray(pc.list_value_length(column).fill_null(0), np.int64)
        widths = np.where(is_null, 0, widths)
        width = int(widths[0]) if known is None else vector_shape(known)[1]
        is_odd = is_null | (widths != width) | (width == 0)
        flat = column.flatten()
        if flat.null_count:
            is_missing = flat.is_null().to_numpy(zero_copy_only=False)
            is_odd[np.repeat(np.arange(len(column)), widths)[is_missing]] = True
        if is_odd.any():
            row = int(is_odd.argmax())
            raise Unsettled(
                name, _why(first_row + row, bool(is_null[row]), int(widths[row]), width)
            )
        values = np.ascontiguousarray(flat.to_numpy(zero_copy_only=False))
        _refuse_non_finite(piece, name, values, width)
        known = vector_field(name, values.dtype, width, known_finite=True)
        field = self.fields.setdefault(name, known)
        return pa.Array.from_buffers(field.type, len(column), [None, pa.py_buffer(values)])

    def _stored(self, piece: Piece, field: pa.Field, column: pa.Array) -> pa.Array:
        """Takes a column that is in the stored form already: a pool's shards as a source."""
        same = vector_field(field.name, *vector_shape(field), known_finite=True)
        known = self.fields.setdefault(field.name, same)
        if vector_shape(known) != vector_shape(field) or column.null_count:
            raise PoolError(
                f"column '{field.name}' holds {vector_shape(field)} and {column.null_count} nulls "
                f"from {piece.at(0)} on, expected {vector_shape(known)} and none"
            )
        dtype, width = vector_shape(field)
        start = column.offset * width
        buffer = column.buffers()[1]
        if buffer is not None:
            values = np.frombuffer(buffer, dtype)[start : start + len(column) * width]
            _refuse_non_finite(piece, field.name, values, width)
        return column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _usual_width(column: pa.Array) -> int:
    """Gives the most frequent length of the lists that hold something, 0 where none does."""
    lengths = pc.list_value_length(column).drop_null().to_numpy(zero_copy_only=False)
    lengths = lengths[lengths > 0]
    return int(np.bincount(lengths).argmax()) if len(lengths) else 0


def _why(row: int, is_null: bool, found: int, width: int) -> str:
    # Without the file: a pool of the same rows is the same, whatever their files are called.
    where = f"in row {row} of the source (counted from 0)"
    if is_null:
        return f"it is null {where}"
    if found == width == 0:
        return f"it is empty {where}"
    if found == width:
        return f"there is a null inside it {where}"
    return f"it has {found} numbers {where}, expected {width} as before"


def _refuse_non_finite(piece: Piece, name: str, values: np.ndarray, width: int) -> None:
    if values.dtype.kind != "f":
        return
    if values.dtype == np.float64:  # NaN compares as false
        finite = np.abs(values) <= np.finfo(np.float32).max
    else:
        finite = np.isfinite(values)
    if finite.all():
        return
    place = int(np.flatnonzero(~finite)[0])
    is_large = bool(np.isfinite(values[place]))
    some = f"{int((~finite).sum())} {'such' if is_large else 'non-finite'} numbers"
    raise PoolError(
        f"column '{name}' holds {values[place]} at {piece.at(place // width)}, "
        f"{'beyond the float32 that models read, ' if is_large else ''}and {some} in the "
        f"{len(values) // width} rows from {piece.at(0)} on; remove the rows, mend the numbers, or "
        f"leave the column out with --drop {name} (pool.drop=[{name}])"
    )
