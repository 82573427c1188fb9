"""Canonical JSON of what the ledger keeps and compares.

A vendor's own name for a chunk (`Ack.handle`) is kept in records but left out of fingerprints and
digests: it differs between runs that are otherwise the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.columns import content_hash
from rayal.errors import LedgerError
from rayal.types import Ack, from_record, to_record

_PLAIN = "plain"


def to_json(value: Any) -> str:
    """Gives JSON text that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def canonical(value: Any) -> Any:
    """Gives a JSON-able form of plain values, nouns, arrays and tables (the last two by hash).

    Raises:
        LedgerError: a value is none of these.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.ndarray) and value.dtype != object:
        plain = np.ascontiguousarray(value)
        shape, name = list(plain.shape), plain.dtype.str
        return {
            "array": name,
            "shape": shape,
            "sha256": hashlib.sha256(plain.tobytes()).hexdigest(),
        }
    if isinstance(value, pa.Table):
        return {"table": content_hash(value)}
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
        if isinstance(value, Ack):
            del fields["handle"]
        return {"type": type(value).__name__, **canonical(fields)}
    raise LedgerError(
        f"a step cannot be compared by an input of type {type(value).__name__}; hand it plain "
        "values, the nouns of rayal.types, arrays or tables"
    )


def fingerprint(value: Any) -> str:
    """Gives the sha256 of a value's canonical form."""
    return hashlib.sha256(to_json(canonical(value)).encode()).hexdigest()


def encode(result: Any, step: str) -> str:
    """Gives the JSON text of what a step gave: a ledger noun or a plain value.

    Raises:
        LedgerError: `decode` could not give it back.
    """
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        record = to_record(result)
    else:
        record = {"type": _PLAIN, "value": result}
    try:
        text = to_json(record)
        decode(text)
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(
            f"step '{step}' gave a {type(result).__name__}, which a ledger cannot hold "
            f"({error!r}); give a record of rayal.types or a plain finite value"
        ) from error
    return text


def decode(text: str) -> Any:
    """Gives what `encode` was given; tuples inside plain values come back as lists."""
    record = json.loads(text)
    return record["value"] if record["type"] == _PLAIN else from_record(record)
