"""Short names for the types that travel everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Ids: TypeAlias = npt.NDArray[np.int64]
Float64s: TypeAlias = npt.NDArray[np.float64]
Scores: TypeAlias = "torch.Tensor"  # (N,) float64, finite, higher = label sooner
Needs: TypeAlias = tuple[str, ...]  # names out of OUTPUTS, or of pool columns
Label: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any]
Kind: TypeAlias = Literal["class", "multilabel", "number"]

OUTPUTS = ("probs", "embeds", "draws", "preds")  # what a predictor can say of a row
