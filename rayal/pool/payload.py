"""The columns of a source as a pool stores them; what a model could not read is refused here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayal.columns import is_vector, vector_field, vector_shape
from rayal.errors import PoolError
from rayal.pool.sources import Piece

# What batches and snapshots write beside the payload columns; `label` unnamed would be no secret.
RESERVED = ("sample_id", "source_id", "label")
LEDGER = ("rank", "score", "key", "probability", "reason", "round", "weight")


def refuse_reserved(names: Sequence[str], apart: Sequence[str | None]) -> None:
    """Refuses payload columns that bear a name of the pool's or the ledger's own.

    Raises:
        PoolError: a column has such a name and is neither the id column nor the label column.
    """
    for name in names:
        if name in apart or name not in RESERVED + LEDGER:
            continue
        advice = {
            "sample_id": "pass --id-column sample_id, or rename it",
            "label": "pass --label-column label, so that it is kept apart, or rename it",
        }.get(name, "rename it")
        raise PoolError(f"the source has a column '{name}', a name that rayal writes; {advice}")


class Payload:
    """The converter of a source's payload columns; types and widths are those of its first rows."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.fields: dict[str, pa.Field] = {}

    def convert(self, piece: Piece) -> dict[str, pa.Array]:
        """Gives the stored form of every payload column. O(bytes).

        Raises:
            PoolError: a vector is ragged, null or not finite, or a number is not finite.
        """
        out = {}
        for name in self.names:
            field, column = piece.rows.schema.field(name), piece.rows.column(name)
            if is_vector(field):
                out[name] = self._stored(piece, field, column)
            elif _is_list(field.type) and _is_number(field.type.value_type):
                out[name] = self._vector(piece, name, column)
            else:
                self.fields.setdefault(name, pa.field(name, field.type))
                if pa.types.is_floating(field.type):
                    _refuse_non_finite(piece, name, column)
                out[name] = column
        return out

    def _vector(self, piece: Piece, name: str, column: pa.Array) -> pa.Array:
        if not len(column):
            return pa.nulls(0, self.fields[name].type if name in self.fields else pa.binary(0))
        if column.null_count:
            row = int(pc.index(pc.is_null(column), True).as_py())
            raise PoolError(
                f"column '{name}' is null at {piece.at(row)}, expected a vector; "
                "remove the row or fill it in"
            )
        widths = np.asarray(pc.list_value_length(column), np.int64)
        known = self.fields.get(name)
        width = vector_shape(known)[1] if known is not None else int(widths[0])
        if (widths != width).any():
            row = int(np.flatnonzero(widths != width)[0])
            raise PoolError(
                f"column '{name}' has {widths[row]} numbers at {piece.at(row)}, expected {width} "
                "as in the rows before; all vectors of a column have the same width"
            )
        if width == 0:
            raise PoolError(
                f"column '{name}' has empty vectors, from {piece.at(0)} on; leave it out"
            )
        flat = column.flatten()
        if flat.null_count:
            row = int(pc.index(pc.is_null(flat), True).as_py()) // width
            raise PoolError(
                f"column '{name}' has a null inside the vector at {piece.at(row)}; "
                "remove the row or fill it in"
            )
        values = np.ascontiguousarray(flat.to_numpy(zero_copy_only=False))
        _refuse_non_finite(piece, name, values, width)
        field = self.fields.setdefault(name, vector_field(name, values.dtype, width))
        return pa.Array.from_buffers(field.type, len(column), [None, pa.py_buffer(values)])

    def _stored(self, piece: Piece, field: pa.Field, column: pa.Array) -> pa.Array:
        """Takes a column that is in the stored form already: a pool's shards as a source."""
        known = self.fields.setdefault(field.name, vector_field(field.name, *vector_shape(field)))
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


def _refuse_non_finite(
    piece: Piece, name: str, values: pa.Array | np.ndarray, width: int = 1
) -> None:
    if isinstance(values, pa.Array):  # a null is a missing number, not a NaN
        values = values.fill_null(0).to_numpy(zero_copy_only=False)
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values)
    if finite.all():
        return
    place = int(np.flatnonzero(~finite)[0])
    raise PoolError(
        f"column '{name}' holds {values[place]} at {piece.at(place // width)}, and "
        f"{int((~finite).sum())} non-finite numbers in the {len(values) // width} rows from "
        f"{piece.at(0)} on; remove the rows or mend the numbers"
    )
