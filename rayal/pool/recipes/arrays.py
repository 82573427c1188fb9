"""Arrays on their way into Arrow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def fixed_list(vectors_ND: np.ndarray) -> pa.Array:
    """Gives a fixed_size_list column of contiguous (N, D) vectors, without a copy."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.reshape(-1)), vectors_ND.shape[1])
