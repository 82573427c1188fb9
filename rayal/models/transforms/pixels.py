"""Pixels stored as bytes, as images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from rayal.columns import vectors
from rayal.errors import PoolError


@dataclass(frozen=True)
class Pixels:
    """Gives (N, channels, height, width) float32 of a uint8 vector column in row-major order.

    Pixels are brought to [0, 1], then `mean` is taken off and the rest divided by `std`. O(pixels).

    Raises:
        PoolError: the column is missing, or its vectors have another width or type.
    """

    column: str = "pixels"
    height: int = 28
    width: int = 28
    channels: int = 1
    mean: float = 0.0
    std: float = 1.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of pixels."""
        return (self.column,)

    def __call__(self, rows: pa.RecordBatch) -> torch.Tensor:
        """Gives (N, channels, height, width) float32."""
        flat_ND = vectors(rows, self.column)
        expected = self.channels * self.height * self.width
        if flat_ND.ndim != 2 or flat_ND.shape[1] != expected or flat_ND.dtype != np.uint8:
            found = f"{flat_ND.dtype} x {flat_ND.shape[1] if flat_ND.ndim == 2 else 1}"
            raise PoolError(
                f"column '{self.column}' holds {found}, expected uint8 x {expected} "
                f"({self.channels} x {self.height} x {self.width}); set the transform's height, "
                "width and channels"
            )
        images_ND = flat_ND.astype(np.float32)
        images_ND *= np.float32(1 / (255 * self.std))
        if self.mean:
            images_ND -= np.float32(self.mean / self.std)
        shape = (len(images_ND), self.channels, self.height, self.width)
        return torch.from_numpy(images_ND).reshape(shape)
