"""Losses a row, and the weights of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from rayal.errors import ConfigError, TrainingError
from rayal.models.model import listed
from rayal.types import Float64s, Kind, Vocabulary

Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def default_loss(kind: Kind) -> Loss:
    """Gives cross-entropy, binary cross-entropy or squared error, one value a row and output."""
    return {"class": _cross_entropy, "multilabel": _binary, "number": _squared}[kind]


def _cross_entropy(logits_NC: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits_NC, targets_N, reduction="none")


def _binary(logits_NC: torch.Tensor, targets_NC: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits_NC, targets_NC, reduction="none")


def _squared(logits_NT: torch.Tensor, targets_NT: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(logits_NT, targets_NT, reduction="none")


def weighted_sum(
    loss: Loss, logits: torch.Tensor, targets: torch.Tensor, weights_N: torch.Tensor
) -> torch.Tensor:
    """Gives the sum over rows of weight x loss; a loss of several outputs is their mean.

    Raises:
        TrainingError: the loss gave one number for all rows although their weights differ, or a
            shape that has no entry a row.
    """
    found = loss(logits, targets)
    if found.ndim == 0:
        if not bool((weights_N == weights_N[0]).all()):
            raise TrainingError(
                "trainer.loss gave one number for all rows, but rows have different weights; give "
                "the loss reduction='none', so that it gives one number a row"
            )
        return found * weights_N.sum()
    if found.shape[0] != len(weights_N):
        raise TrainingError(
            f"trainer.loss gave shape {tuple(found.shape)} for {len(weights_N)} rows, expected one "
            "number a row, or one for all"
        )
    return (found.flatten(1).mean(1) if found.ndim > 1 else found) @ weights_N


def check_class_weights(chosen: str | Sequence[float] | None, vocabulary: Vocabulary) -> None:
    """Refuses class weights that do not fit the labels; needs none of them.

    Raises:
        ConfigError: they do not.
    """
    if chosen is None:
        return
    if vocabulary.kind != "class":
        raise ConfigError(
            f"trainer.class_weights is set, but the labels are of kind '{vocabulary.kind}', "
            "expected 'class'; leave it null"
        )
    if isinstance(chosen, str):
        if chosen != "balanced":
            raise ConfigError(
                f"trainer.class_weights is '{chosen}', expected null, 'balanced' or a list"
            )
        return
    weights = list(chosen)
    bad = [x for x in weights if not (isinstance(x, Real) and 0 <= x < math.inf)]
    if len(weights) != vocabulary.num_outputs or bad or not any(weights):
        among = f", {bad[0]!r} among them" if bad else "" if any(weights) else ", all of them 0"
        raise ConfigError(
            f"trainer.class_weights holds {len(weights)} numbers{among}, expected "
            f"{vocabulary.num_outputs}, finite and not negative, in the order of the vocabulary's "
            f"classes ({listed(vocabulary.classes)})"
        )


def class_weight_of(
    chosen: str | Sequence[float] | None, targets: npt.NDArray[Any], vocabulary: Vocabulary
) -> Float64s:
    """Gives (L,) float64: the weight of each row's class; 'balanced' gives every class that is
    there the same sum."""
    check_class_weights(chosen, vocabulary)
    if chosen is None:
        return np.ones(len(targets))
    num_classes = vocabulary.num_outputs
    places = targets.astype(np.int64)
    if isinstance(chosen, str):
        counts_C = np.bincount(places, minlength=num_classes)
        seen = max(int((counts_C > 0).sum()), 1)
        # A class without a label has weight 0: it has no row to weigh.
        weights_C = np.where(counts_C > 0, len(places) / (seen * np.maximum(counts_C, 1)), 0.0)
        return weights_C[places]
    return np.asarray(list(chosen), np.float64)[places]
