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

OUTPUTS = ("probs", "embeds", "draws", "preds", "grads")  # what a predictor can say of a row

PREDICTED_CLASS = "predicted_class"  # a need: the likeliest class of `probs`, 8 bytes a row
_TAGS = "tags of "
_TOP, _OF_PROBS = "top ", " of probs"


def tags_of(column: str) -> str:
    """Gives the need of a column whose values are only told apart: see `rayal.columns.tags`."""
    return _TAGS + column


def top_of_probs(num_classes: int) -> str:
    """Gives the need of a row's likeliest classes: (N, 2 m) float32, m class indices, likeliest
    first, then their probabilities. Of very many classes the others need not be kept."""
    return f"{_TOP}{num_classes}{_OF_PROBS}"


def num_top(need: str) -> int | None:
    """Gives how many of the likeliest classes a need asks for; None: it is another need."""
    if not (need.startswith(_TOP) and need.endswith(_OF_PROBS)):
        return None
    number = need[len(_TOP) : -len(_OF_PROBS)]
    return int(number) if number.isdecimal() else None


def source_of(need: str) -> str:
    """Gives the output or the pool column that a need is made of; most are one themselves."""
    if num_top(need) is not None:
        return "probs"
    return "probs" if need == PREDICTED_CLASS else need.removeprefix(_TAGS)
