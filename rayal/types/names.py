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
Needs: TypeAlias = tuple[str, ...]  # of OUTPUTS or of pool columns, or what `source_of` explains
Label: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any]
Kind: TypeAlias = Literal["class", "multilabel", "number"]

OUTPUTS = ("probs", "embeds", "draws", "preds")  # what a predictor can say of a row

PREDICTED_CLASS = "predicted_class"  # a need: the likeliest class of `probs`, 8 bytes a row
_TAGS = "tags of "


def tags_of(column: str) -> str:
    """Gives the need of a column whose values are only told apart: see `rayal.columns.tags`."""
    return _TAGS + column


def source_of(need: str) -> str:
    """Gives the output or the pool column that a need is made of; most are one themselves."""
    return "probs" if need == PREDICTED_CLASS else need.removeprefix(_TAGS)
