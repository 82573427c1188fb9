"""Rows of ten uniform numbers whose target is their sum: the classic first example of regression.

Every number is a function of its row and place alone, so a pool of any length begins alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from rayal.errors import PoolError
from rayal.keys import salt, uniform
from rayal.pool.recipes.arrays import fixed_list
from rayal.types import Kind

LABEL_COLUMN = "sum"
KIND: Kind = "number"
ROWS_PER_SHARD: int | None = 16_384
NUM_ROWS: int | None = None  # the source may say how many

_WIDTH = 10
_DEFAULT_ROWS = 100_000
_BATCH_ROWS = 65_536


def origin(source: str | None) -> str:
    """Gives the number of rows, which is all there is to say."""
    return f"{_WIDTH} numbers, {_num_rows(source)} rows"


def read(source: str | None) -> Iterator[pa.RecordBatch]:
    """Gives columns `features` (10 float32 in [0, 1]) and `sum` (float64, of those float32).

    `source` is the number of rows, 100,000 by default.

    Raises:
        PoolError: the source is no positive integer.
    """
    num_rows = _num_rows(source)
    for lo in range(0, num_rows, _BATCH_ROWS):
        ids = np.arange(lo, min(lo + _BATCH_ROWS, num_rows))
        draws = [uniform(salt("sum_regression", place), ids) for place in range(_WIDTH)]
        rows_ND = np.ascontiguousarray(np.stack(draws, axis=1), np.float32)
        total = pa.array(rows_ND.sum(axis=1, dtype=np.float64))
        yield pa.record_batch([fixed_list(rows_ND), total], names=["features", LABEL_COLUMN])


def _num_rows(source: str | None) -> int:
    if source is None:
        return _DEFAULT_ROWS
    if not source.isdecimal() or int(source) < 1:
        raise PoolError(
            f"recipe sum_regression: '{source}' is no number of rows; write for instance "
            "recipe:sum_regression:100000"
        )
    return int(source)
