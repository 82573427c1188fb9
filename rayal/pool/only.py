"""Rows that may be used at all: by consent, class of data, region, or whatever columns say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayal.errors import PoolError


@dataclass(frozen=True)
class Only:
    """In each of these columns a row has one of these values; a null is none of them.

    num_withheld  rows that are not let, and not removed either, by the index of the shard and split
    """

    allowed: tuple[tuple[str, tuple[Any, ...]], ...]
    num_withheld: Mapping[tuple[int, str], int] = field(default_factory=dict, compare=False)

    @staticmethod
    def of(given: Mapping[str, Any], schema: pa.Schema) -> Only:
        """Gives what a configuration says: a value or several, by column.

        Raises:
            PoolError: the pool has no such column, or it cannot hold such a value.
        """
        allowed = []
        for name, values in sorted(given.items()):
            if name not in schema.names:
                raise PoolError(
                    f"pool.only names column '{name}', which the pool does not have (it has: "
                    f"{', '.join(schema.names)}); name the right one"
                )
            some = list(values) if isinstance(values, Sequence) and not _is_text(values) else values
            listed = some if isinstance(some, list) else [some]
            kind = schema.field(name).type
            try:
                found = pa.array(listed, kind)
                pc.is_in(pa.array([], kind), value_set=found)
            except (pa.ArrowException, TypeError) as error:
                raise PoolError(
                    f"pool.only.{name} is {listed!r}, but the column is of type {kind} ({error}); "
                    "give values that it can hold"
                ) from error
            if not listed or found.null_count:
                raise PoolError(f"pool.only.{name} is {listed!r}; give one value at least, no null")
            allowed.append((name, tuple(found.to_pylist())))
        return Only(tuple(allowed))

    @property
    def columns(self) -> list[str]:
        """The columns that decide."""
        return [name for name, _ in self.allowed]

    @property
    def text(self) -> str:
        """What a run's record says of it."""
        return json.dumps({name: list(values) for name, values in self.allowed}, default=str)

    def lets(self, rows: pa.RecordBatch) -> np.ndarray:
        """Gives (n,) whether a row may be used."""
        let = np.ones(rows.num_rows, bool)
        for name, values in self.allowed:
            column = rows.column(name)
            among = pc.is_in(column, value_set=pa.array(values, column.type))
            let &= np.asarray(among.to_numpy(zero_copy_only=False), bool)
        return let


def _is_text(values: Any) -> bool:
    return isinstance(values, str | bytes)
