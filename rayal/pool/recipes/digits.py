"""1,797 handwritten digits of 8 x 8 pixels, from scikit-learn: a first look that needs only pip.

Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from rayal.errors import PoolError
from rayal.pool.recipes.arrays import fixed_list
from rayal.types import Kind

LABEL_COLUMN = "label"
KIND: Kind = "class"
ROWS_PER_SHARD: int | None = 512
NUM_ROWS: int | None = 1_797


def origin(source: str | None) -> str:
    """Gives the name of the set; it has never changed.

    Raises:
        PoolError: a source was given.
    """
    if source is not None:
        raise PoolError(f"recipe digits takes no source (got '{source}'); write: recipe:digits")
    return "sklearn.datasets.load_digits"


def read(source: str | None) -> Iterator[pa.RecordBatch]:
    """Gives columns `image` (64 float32 in [0, 16]) and `label` (0 to 9).

    Raises:
        PoolError: scikit-learn is not installed, or a source was given.
    """
    origin(source)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise PoolError("recipe digits needs scikit-learn; pip install scikit-learn") from None
    found = load_digits()
    images = np.ascontiguousarray(found.data, np.float32)
    labels = pa.array(found.target.astype(np.int64))
    yield pa.record_batch([fixed_list(images), labels], names=["image", LABEL_COLUMN])
