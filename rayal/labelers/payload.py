"""Rows of a batch as the text of a part, and the ids back from it.

Vectors go out as lists, bytes as base64, times as ISO 8601, decimals as their digits in text. In
CSV a list is a cell of JSON. The same rows give the same bytes, so that a part can be placed again
and be the same part.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from rayal.columns import is_vector, vectors
from rayal.errors import LabelError


def has_form(kind: pa.DataType) -> bool:
    """Whether values of this type can be written."""
    if pa.types.is_dictionary(kind):
        return has_form(kind.value_type)
    if pa.types.is_nested(kind):
        parts = [kind.field(place).type for place in range(kind.num_fields)]
        return not pa.types.is_union(kind) and all(has_form(part) for part in parts)
    return not pa.types.is_duration(kind)


def encode(rows: pa.Table, names: Sequence[str], format: str) -> bytes:
    """Gives the bytes of a part: one line a row, in row order. O(bytes).

    Raises:
        LabelError: a value has no form in JSON.
    """
    try:
        values = [_values(rows, name) for name in names]
        if format == "csv":
            return _csv([names, *zip(*values, strict=True)])
        lines = (
            json.dumps(
                dict(zip(names, row, strict=True)),
                ensure_ascii=False,
                allow_nan=False,
                default=_text,
            )
            for row in zip(*values, strict=True)
        )
        return "".join(f"{line}\n" for line in lines).encode()
    except (TypeError, ValueError, OverflowError) as error:
        raise LabelError(
            f"a value of {', '.join(names)} cannot be written as {format} ({error}); mend it at "
            "the source, or start a new run that names the columns to send in labeler.columns"
        ) from error


def sha256(rows: pa.Table) -> str:
    """Gives the hash of all columns of some rows, as lines of JSON."""
    return hashlib.sha256(encode(rows, rows.schema.names, "jsonl")).hexdigest()


def ids_of(content: bytes, format: str) -> dict[int, str | None]:
    """Gives {sample_id: source_id} of a part, source_id None where the pool has none."""
    if format == "csv":
        rows: Iterable[dict[str, Any]] = csv.DictReader(io.StringIO(content.decode(), newline=""))
    else:
        rows = (json.loads(line) for line in content.decode().split("\n") if line)
    return {int(row["sample_id"]): row.get("source_id") for row in rows}


def without(content: bytes, format: str, ids: set[int]) -> bytes:
    """Gives a part without the rows of these ids; the others keep their bytes."""
    if format == "csv":
        header, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
        return _csv([header, *(row for row in rows if int(row[0]) not in ids)])
    lines = [line for line in content.decode().split("\n") if line]
    kept = [line for line in lines if int(json.loads(line)["sample_id"]) not in ids]
    return "".join(f"{line}\n" for line in kept).encode()


def _values(rows: pa.Table, name: str) -> list[Any]:
    field = rows.schema.field(name)
    if is_vector(field):
        return list(vectors(rows, name).tolist())
    return list(rows.column(name).to_pylist())


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_text).strip('"')


def _text(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
