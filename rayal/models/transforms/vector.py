"""Vectors and numbers of a pool as one float32 matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from rayal.columns import finite_vectors, odd_lists, vectors
from rayal.models.transform import Undecodable


@dataclass(frozen=True)
class Vector:
    """Gives (N, D) float32: a vector column, or several vector or numeric columns side by side.

    Each value is multiplied by `scale` (int8 embeddings: 1/127); `normalize` then divides each row
    by its Euclidean norm (a row of zeros stays one). O(N D).

    Raises:
        Undecodable: a row holds NaN, infinity or null, or a list of another width than most.
        PoolError: a column is missing, or is neither a vector nor numeric.
    """

    column: str | Sequence[str] = "embedding"
    scale: float | None = None
    normalize: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, in the order in which they are put side by side."""
        return (self.column,) if isinstance(self.column, str) else tuple(self.column)

    def __call__(self, rows: pa.RecordBatch) -> torch.Tensor:
        """Gives (N, D) float32, a copy."""
        return self._matrix(rows, is_own=False)

    def consume(self, rows: pa.RecordBatch) -> torch.Tensor:
        """Gives (N, D) float32, perhaps in the rows' memory, which saves a copy."""
        return self._matrix(rows, is_own=self.scale is None and not self.normalize)

    def _matrix(self, rows: pa.RecordBatch, is_own: bool) -> torch.Tensor:
        # Ingest looked at every vector, and pages have checksums: saves 3 % of a small pass.
        found = [finite_vectors(rows, name) for name in self.columns]
        known = [values_ND for values_ND in found if values_ND is not None]
        are_known = len(known) == len(found)
        parts = known if are_known else [_looked_at(rows, name) for name in self.columns]
        if len(parts) == 1:
            # A module may write in place: never into memory of others, or of a mapped file.
            values_ND = parts[0].astype(np.float32, copy=not (is_own and parts[0].flags.writeable))
        else:
            values_ND = np.concatenate(parts, axis=1, dtype=np.float32, casting="unsafe")
        # One sum is far cheaper than a test of each value, and is not finite if any value is not;
        # torch's takes a quarter of the time of numpy's.
        if not are_known and not math.isfinite(torch.from_numpy(values_ND).sum().item()):
            bad_N = ~np.isfinite(values_ND).all(axis=1)
            if bad_N.any():
                raise Undecodable(
                    np.flatnonzero(bad_N).tolist(),
                    f"column '{', '.join(self.columns)}' holds NaN or infinity there",
                )
        if self.scale is not None:
            values_ND *= np.float32(self.scale)
        if self.normalize:
            norms_N = np.sqrt(np.einsum("nd,nd->n", values_ND, values_ND))
            values_ND /= np.maximum(norms_N, np.finfo(np.float32).tiny)[:, None]
        return torch.from_numpy(values_ND)


def _looked_at(rows: pa.RecordBatch, name: str) -> np.ndarray:
    if name in rows.schema.names and rows.column(name).null_count:
        nulls = np.flatnonzero(rows.column(name).is_null().to_numpy(zero_copy_only=False))
        raise Undecodable(nulls.tolist(), f"column '{name}' is null there")
    odd = odd_lists(rows, name)
    if len(odd):
        raise Undecodable(odd.tolist(), f"column '{name}' is no vector of the usual width")
    return vectors(rows, name).reshape(len(rows), -1)
