"""Columns that the user computed: what they are called, and their values as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from rayal.columns import TAG_BYTES, is_vector, vector_field, vector_shape, vectors
from rayal.errors import ConfigError, PoolError, ScoringError
from rayal.types import OUTPUTS, Ids

_AS_THEY_ARE = ("i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8")  # what torch has too
_NUMBERS = (*OUTPUTS, "logits", "score", "cost")
_NUMPYS = (torch.float16, torch.float32, torch.float64)
_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)


@dataclass(frozen=True)
class Columns:
    """The names of columns. What a strategy needs beside these has the name that it needs it by."""

    sample_id: str = "sample_id"
    embedding: str = "embedding"  # `embeds` in rayal
    probs: str = "probs"
    logits: str = "logits"  # stand in for probs
    score: str = "score"
    cost: str = "cost"
    group: str = "group"
    label: str = "label"  # of labelled rows

    def of(self, need: str) -> str:
        """Gives the name of the column that holds what a strategy needs."""
        if need == "embeds":
            return self.embedding
        known = {field.name for field in fields(self)}
        return str(getattr(self, need)) if need in known else need


@dataclass(frozen=True)
class Column:
    """A column that is read: what it is in rayal, and what every row of it must be."""

    name: str  # what a strategy needs, or logits
    source: str  # the user's name
    dtype: str  # "": no numbers, but values that can be told apart, such as text
    shape: tuple[int, ...]  # of one row's value
    kind: pa.DataType | None = None  # of what is no number

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's value, about."""
        if not self.dtype:
            return TAG_BYTES
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))

    @classmethod
    def found(cls, name: str, source: str, rows: pa.RecordBatch, ids: Ids, where: str) -> Column:
        """Gives the column as its first row says.

        Raises:
            PoolError: there is no value in it, or one of no use.
        """
        kind = _plain(rows.column(source)).type
        if name not in _NUMBERS and (_is_text(kind) or pa.types.is_temporal(kind)):
            return cls(name, source, "", (), kind)
        values = values_of(rows.slice(0, 1), source, None, ids, where)
        if 0 in values.shape[1:]:
            raise PoolError(
                f"column '{source}' holds no numbers at sample_id {ids[0]} in {where}, expected at "
                "least one a row; check what wrote it"
            )
        return cls(name, source, values.dtype.str, values.shape[1:])

    def stored(self, rows: pa.RecordBatch, ids: Ids, where: str) -> tuple[pa.Field, pa.Array]:
        """Gives rows' values, checked, in the form of a pool's column; without a copy where they
        lie in a row.

        Raises:
            PoolError, ScoringError: as `read`.
        """
        if not self.dtype:
            array = self._told_apart(rows, ids, where)
            return pa.field(self.name, array.type), array
        values = self.read(rows, ids, where)
        if not self.shape:
            array = pa.array(values)
            return pa.field(self.name, array.type), array
        width = int(np.prod(self.shape, dtype=np.int64))
        field = vector_field(self.name, values.dtype, width)
        flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        return field, pa.Array.from_buffers(field.type, len(values), [None, pa.py_buffer(flat)])

    def _told_apart(self, rows: pa.RecordBatch, ids: Ids, where: str) -> pa.Array:
        """Gives (N,) values without nulls, of one type in all files, so that equal values are equal
        numbers or bytes; a date or time of another type is taken where that changes no value."""
        array = _plain(rows.column(self.source))
        _refuse_nulls(array, self.source, ids, [], where)
        as_said = _of_kind(array, self.kind)
        if as_said is None:
            raise PoolError(
                f"column '{self.source}' holds {array.type} in {where}, expected {self.kind} as in "
                "the first file of the outputs; write one type"
            )
        return as_said

    def read(self, rows: pa.RecordBatch, ids: Ids, where: str) -> np.ndarray:
        """Gives (N, *shape) finite values, read-only; a number of another type is taken where that
        changes no value.

        Raises:
            PoolError: the values are of another shape or type.
            ScoringError: some are NaN or infinite.
        """
        values = values_of(rows, self.source, self.shape, ids, where)
        if values.dtype.str != self.dtype:
            as_said = values.astype(self.dtype)
            if not np.array_equal(as_said, values):
                raise PoolError(
                    f"column '{self.source}' holds {values.dtype} in {where}, expected "
                    f"{np.dtype(self.dtype)} as in the first file of the outputs; write one type"
                )
            values = as_said
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad_N = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            raise ScoringError(
                f"column '{self.source}' holds NaN or infinite numbers in {where}, in "
                f"{int(bad_N.sum())} of {len(bad_N)} rows (first sample_id "
                f"{ids[int(bad_N.argmax())]}), expected finite numbers; mend or leave out these "
                "rows"
            )
        return values


def ids_in(rows: pa.RecordBatch, name: str, where: str) -> Ids:
    """Gives the (N,) int64 ids of some rows.

    Raises:
        ConfigError: there is no such column, or it holds no whole numbers.
        PoolError: an id is null, or beyond int64.
    """
    if name not in rows.schema.names:
        raise ConfigError(
            f"{where} has no column '{name}' (it has: {', '.join(rows.schema.names) or 'none'}); "
            "name the one with the ids: columns.sample_id=NAME"
        )
    column = rows.column(name)
    if not pa.types.is_integer(column.type):
        raise ConfigError(
            f"column '{name}' is {column.type} in {where}, expected whole numbers of up to 64 "
            "bits; add a column of numbers, and name it: columns.sample_id=NAME"
        )
    if column.null_count:
        raise PoolError(
            f"column '{name}' is null in {column.null_count} of {len(column)} rows of {where}; "
            "every row needs an id"
        )
    try:
        ids: Ids = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise PoolError(
            f"column '{name}' of {where} holds numbers beyond int64 ({error}); number the rows"
        ) from error
    return ids


def values_of(
    rows: pa.RecordBatch, name: str, shape: Sequence[int] | None, ids: Ids, where: str
) -> np.ndarray:
    """Gives the (N, ...) array of a column of numbers, lists or tensors; every row's shape is the
    given one, else the first row's.

    Raises:
        PoolError: it holds no numbers, some are missing, or rows differ in shape.
    """
    field, column = rows.schema.field(name), _plain(rows.column(name))
    known, found = None, list[int]()
    if is_vector(field):  # as rayal writes it: of more than one axis, too
        values, found = vectors(rows, name), [vector_shape(field)[1]]
        known = shape if shape is not None and np.prod(shape) == found[0] else None
    else:
        if isinstance(column, pa.ExtensionArray):
            known, column = getattr(column.type, "shape", None), column.storage
        while _is_list(column.type):
            is_known = shape is not None and known is None and len(found) < len(shape)
            wanted = shape[len(found)] if shape is not None and is_known else None
            width = _width(column, wanted, name, ids, found, where)
            column = column.flatten()
            found.append(width)
        _refuse_nulls(column, name, ids, found, where)
        values = _numbers(column, field, where)
    found = found if known is None else list(known)
    if shape is not None and tuple(found) != tuple(shape):
        raise PoolError(
            f"column '{name}' holds values of shape {tuple(found)} in {where}, expected "
            f"{tuple(shape)} as in the first row of the outputs; write one shape"
        )
    return values.reshape(len(rows), *found)


def _width(
    column: pa.Array, wanted: int | None, name: str, ids: Ids, outer: list[int], where: str
) -> int:
    """Gives how long all lists of a column are."""
    _refuse_nulls(column, name, ids, outer, where)
    if pa.types.is_fixed_size_list(column.type) and wanted in (None, column.type.list_size):
        return int(column.type.list_size)
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    width = wanted if wanted is not None else int(lengths[0]) if len(lengths) else 0
    odd = np.flatnonzero(lengths != width)
    if len(odd):
        row = int(odd[0]) // max(1, int(np.prod(outer, dtype=np.int64)))
        raise PoolError(
            f"column '{name}' has {lengths[odd[0]]} numbers at sample_id {ids[row]} in {where}, "
            f"expected {width} as in the first row; every row must be as wide"
        )
    return width


def _refuse_nulls(column: pa.Array, name: str, ids: Ids, outer: list[int], where: str) -> None:
    if column.null_count:
        place = int(pc.index(pc.is_null(column), True).as_py())
        row = place // max(1, int(np.prod(outer, dtype=np.int64)))
        raise PoolError(
            f"column '{name}' has no value at sample_id {ids[row]} in {where} (and "
            f"{column.null_count - 1} more are missing there); fill them in, or leave out the rows"
        )


def _is_text(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in _TEXTS)


def _of_kind(array: pa.Array, kind: pa.DataType | None) -> pa.Array | None:
    """Gives texts as bytes, and dates and times as those of another type; None: they are of neither
    kind, or one of them would change."""
    if _is_text(array.type) or _is_text(kind):
        both = _is_text(array.type) and _is_text(kind)
        return array.cast(pa.large_binary()) if both else None
    if array.type == kind:
        return array
    zones = [getattr(one, "tz", None) is None for one in (array.type, kind)]
    if not pa.types.is_temporal(array.type) or zones[0] != zones[1]:
        return None
    try:  # Arrow cuts the hours off where a time becomes a date, without a word
        found = array.cast(kind)
        return found if found.cast(array.type).equals(array) else None
    except pa.ArrowException:
        return None


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _numbers(column: pa.Array, field: pa.Field, where: str) -> np.ndarray:
    kind = column.type
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        values: np.ndarray = column.to_numpy(zero_copy_only=False)
        values = values.view(np.uint8) if values.dtype == bool else values
        if values.dtype.str[1:] in _AS_THEY_ARE:
            return values
        wider = values.astype(np.int64)  # of unsigned numbers, which torch has but one type of
        if np.array_equal(wider, values):
            return wider
    raise PoolError(
        f"column '{field.name}' is {field.type} in {where}, expected numbers or lists of numbers; "
        "compute it as such, or name another column"
    )


def as_array(values: Any) -> pa.Array:
    """Gives an (N, ...) array as an Arrow column, without a copy where it lies in a row. A tensor
    comes from its device, and one of a type that NumPy has not (bfloat16) as float32.

    Raises:
        ConfigError: it holds what no column can hold.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    try:
        return _as_array(values)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise ConfigError(
            f"found a {type(values).__name__} that is no column ({str(error).splitlines()[0]}); "
            "give an array, or a list with a number, a word or a list a row"
        ) from error


def _as_array(values: Any) -> pa.Array:
    if isinstance(values, np.ma.MaskedArray) and values.ndim == 1:
        return pa.array(values)
    if isinstance(values, torch.Tensor):
        values = _of_tensor(values)
    if isinstance(values, list | tuple) and any(isinstance(one, torch.Tensor) for one in values):
        values = [_of_tensor(one) if isinstance(one, torch.Tensor) else one for one in values]
    if isinstance(values, list | tuple) and any(isinstance(one, list | tuple) for one in values):
        lengths = {len(one) if isinstance(one, list | tuple) else -1 for one in values}
        if len(lengths) > 1:  # labels of rows that have several, or none
            return pa.array(values)
    array = np.ascontiguousarray(np.asarray(values))
    if array.dtype.kind == "c":
        raise ValueError("it holds complex numbers")
    if 0 in array.shape[1:]:
        raise ValueError("its rows hold no numbers")
    if array.dtype.kind in "iuf" and not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind not in "biuf":
        return pa.array(array.tolist())
    column = pa.array(array.reshape(-1))
    for width in array.shape[:0:-1]:
        column = pa.FixedSizeListArray.from_arrays(column, width)
    return column


def _of_tensor(values: torch.Tensor) -> np.ndarray:
    there = values.detach().cpu()
    if there.is_floating_point() and there.dtype not in _NUMPYS:
        there = there.float()
    array: np.ndarray = there.numpy()
    return array
