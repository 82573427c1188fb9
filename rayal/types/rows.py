"""Rows on their way through a round: outputs, slices of candidates, picks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from rayal.errors import NeedsError
from rayal.types.names import PREDICTED_CLASS, Float64s, Ids, num_top

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

NO_ID = -(2**63)  # an int64 detail that a pick does not have

# What a method may say of each pick beside its key: int64, NO_ID for none, or float64, NaN for
# none.
DETAILS = (
    "cluster",
    "labelled_distance",  # to the nearest labelled or pending row
    "nearest_id",  # the labelled, pending or picked row that explains the key
    "nearest_distance",
)

# What a batch says of each pick beside its payload.
PICK_COLUMNS = ("rank", "score", "key", "probability", "reason", *DETAILS)


@dataclass(frozen=True)
class Outputs:
    """What a predictor says of N rows, as tensors on the worker's device.

    probs  (N, C) class probabilities (softmax; sigmoid for multi-label), float32
    embeds (N, D) penultimate features, float32
    draws  (N, K, C) class probabilities of K ensemble members or dropout draws, or (N, K, T)
           predictions for a regression, float64
    preds  (N, T) predictions of a regression (the mean over draws where there are draws), float64
    grads  (N, P) sketched gradients of a regression's output by the model's weights, float32
    Pool columns that were asked for lie in `arrays` by their own name. `rejected` marks rows that
    could not be decoded; their other values mean nothing. `reasons` may say why, by position.
    """

    ids: torch.Tensor
    arrays: Mapping[str, torch.Tensor]
    rejected: torch.Tensor | None = None  # (N,) bool
    reasons: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> torch.Tensor:
        if (number := num_top(name)) is not None and name not in self.arrays:
            return _top_of(self["probs"], number)
        if name == PREDICTED_CLASS and name not in self.arrays:
            return self.likeliest[1]
        if name not in self.arrays:
            raise NeedsError(
                f"output '{name}' was asked for but is not there (there are: "
                f"{', '.join(sorted(self.arrays)) or 'none'}); declare needs = ('{name}',), "
                "and use a predictor that gives it"
            )
        return self.arrays[name]

    @property
    def probs(self) -> torch.Tensor:
        return self["probs"]

    @cached_property
    def likeliest(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(N,) the highest of a row's probs and (N,) its class, found once for all who ask."""
        highest_N, class_N = self.probs.max(dim=1)
        return highest_N, class_N

    @property
    def embeds(self) -> torch.Tensor:
        return self["embeds"]

    @property
    def draws(self) -> torch.Tensor:
        return self["draws"]

    @property
    def preds(self) -> torch.Tensor:
        return self["preds"]

    @property
    def grads(self) -> torch.Tensor:
        return self["grads"]


def _top_of(probs_NC: torch.Tensor, number: int) -> torch.Tensor:
    """Gives (N, 2 m) the m likeliest classes and their probabilities; of equals the lowest."""
    import torch

    order = torch.sort(probs_NC, dim=1, descending=True, stable=True)
    top = order.values[:, :number], order.indices[:, :number].to(probs_NC.dtype)
    return torch.cat([top[1], top[0]], dim=1)


@dataclass
class Slice:
    """A part of the candidates (or of the labelled rows), where scoring left it; ids ascend.

    `features` holds what the selector needs, one (m, ...) array a name, perhaps memory-mapped and
    read-only. `cache` is what asks remember between steps: it is lost with its worker, and made
    again by asking the same questions in the same order.
    """

    key: int  # place in the fixed order of slices
    ids: Ids  # (m,)
    scores: Float64s  # (m,)
    features: Mapping[str, np.ndarray]
    cache: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def feature(self, name: str) -> np.ndarray:
        """Gives the (m, ...) array of this name."""
        if name not in self.features:
            raise NeedsError(
                f"slice {self.key} carries no '{name}' (it has: "
                f"{', '.join(sorted(self.features)) or 'none'}); declare it in the selector's needs"
            )
        return self.features[name]


class Candidates(Protocol):
    """M rows in S slices, each where scoring left it. Labelled rows come in the same form, with
    the features `label` (L,) float64 (class index or number, NaN while pending, and for words
    whose classes nobody named; (L, C) for multi-label) and `pending` (L,) bool beside those that
    the selector needs."""

    @property
    def num_rows(self) -> int: ...

    def each(self, ask: Callable[..., T], step: int, *args: Any) -> list[T]:
        """Asks every slice: `ask(slice, step, *args)`, answers in slice-key order.

        `ask` is a module-level function, a pure function of the slice, its cache and the arguments.
        `step` counts up by the caller, so that a lost slice can be asked again from the start.
        """
        ...


@dataclass(frozen=True)
class Allowed:
    """The rows that may be scored, and why these."""

    ids: Ids | None  # ascending; None: every row
    note: str


@dataclass(frozen=True)
class Picks:
    """The batch in the order picked: unique ids and why each was picked."""

    ids: Ids  # (B,)
    scores: Float64s  # (B,) what the scorer said
    keys: Float64s  # (B,) what decided the order (score, distance, noisy score)
    probabilities: Float64s  # (B,) inclusion probability, NaN where the method has none
    reasons: tuple[str, ...]  # B short sentences
    details: Mapping[str, np.ndarray] = field(default_factory=dict)  # (B,) arrays: see DETAILS
    note: str = ""  # what was decided on the way, such as the precision and why

    def __post_init__(self) -> None:
        ids = np.sort(self.ids)  # 15 ms of a million ids; np.unique takes 1.1 s
        if (ids[1:] == ids[:-1]).any():
            raise ValueError("picks hold an id twice")

    def first(self, budget: int) -> Picks:
        """Gives the first picks."""
        return Picks(
            self.ids[:budget],
            self.scores[:budget],
            self.keys[:budget],
            self.probabilities[:budget],
            self.reasons[:budget],
            {name: values[:budget] for name, values in self.details.items()},
            self.note,
        )
