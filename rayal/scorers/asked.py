"""A scorer's answer, checked."""

from __future__ import annotations

import torch

from rayal.errors import ScoringError
from rayal.keys import Keys
from rayal.models.explain import explained, is_own
from rayal.types import Outputs, Scorer, Scores


def scores_of(scorer: Scorer, outputs: Outputs, keys: Keys) -> Scores:
    """Gives (N,) float64 scores. Two comparisons a batch: that they are finite is not looked at.

    Raises:
        ScoringError: the scorer gave no tensor, or one of another shape.
        ConfigError: it is the user's, and raised something.
    """
    name = type(scorer).__name__
    if is_own(scorer):
        with explained(f"{name}.score failed for {len(outputs.ids)} rows", "mend it"):
            found = scorer.score(outputs, keys)
    else:
        found = scorer.score(outputs, keys)
    if not isinstance(found, torch.Tensor) or found.shape != outputs.ids.shape:
        num_rows = len(outputs.ids)
        shape = "" if not hasattr(found, "shape") else f" of shape {tuple(found.shape)}"
        first = f" (first sample_id {int(outputs.ids[0])})" if num_rows else ""
        raise ScoringError(
            f"{name} gave {type(found).__name__}{shape} for {num_rows} rows"
            f"{first}, expected a torch.Tensor of shape ({num_rows},); mend its score(), which "
            "owes one number a row"
        )
    return found if found.dtype is torch.float64 else found.double()
