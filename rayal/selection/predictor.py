"""What the user computed in place of a model's forward pass, and in place of a scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from rayal.columns import vectors
from rayal.errors import PoolError
from rayal.keys import Keys
from rayal.selection.columns import Column
from rayal.types import OUTPUTS, Checkpoint, Kind, Needs, Outputs, Scorer, Scores

_OFF_BY = 0.02  # of 1, the sum of a row's probabilities: float16 rounds 1,000 of them by 0.01


@dataclass(frozen=True)
class GivenPredictor:
    """Gives outputs as they lie in columns. Probabilities of logits do not depend on the rows
    beside: a softmax row by row, in float64."""

    inputs: tuple[Column, ...]
    kind: Kind
    batch_rows: int

    num_threads = 0  # as many as the process has: it may be the user's own

    @classmethod
    def of(cls, columns: Sequence[Column], kind: Kind, batch_rows: int) -> GivenPredictor:
        """Gives who says outputs; other columns go to scorers and selectors as they are."""
        inputs = tuple(one for one in columns if one.name in (*OUTPUTS, "logits"))
        return cls(inputs, kind, batch_rows)

    def columns(self) -> tuple[str, ...]:
        """What `encode` reads."""
        return tuple(column.name for column in self.inputs)

    def load(self, checkpoint: Checkpoint, path: str, keys: Keys) -> None:
        """There is nothing to load."""

    def encode(self, rows: pa.RecordBatch) -> Mapping[str, torch.Tensor]:
        """Gives the outputs.

        Raises:
            PoolError: probabilities are none.
        """
        made = {}
        for column in self.inputs:
            values = torch.from_numpy(vectors(rows, column.name).copy())
            shape = column.shape or (1,)
            name, values = self._output(column, values.reshape(len(values), *shape))
            if name == "probs":
                self._check(values, rows, column.source)
            made[name] = values
        return made

    def predict(self, ids: torch.Tensor, encoded: Any, needs: Needs) -> Outputs:
        """Gives those that are asked for."""
        return Outputs(ids, {name: encoded[name] for name in needs})

    def _output(self, column: Column, values: torch.Tensor) -> tuple[str, torch.Tensor]:
        if column.name == "logits":
            return "probs", self._probs(values.double()).float()
        if column.name == "probs":
            is_wide = values.dtype in (torch.float32, torch.float64)
            return "probs", values if is_wide else values.float()
        if column.name in ("draws", "preds"):
            return column.name, values.double()
        return column.name, values

    def _probs(self, logits_NC: torch.Tensor) -> torch.Tensor:
        if self.kind != "multilabel":
            return logits_NC.softmax(1)
        # A sigmoid in the form of a softmax: of a plain one a row's last bits depend on its place.
        return torch.stack((torch.zeros_like(logits_NC), logits_NC), -1).softmax(-1)[..., 1]

    def _check(self, probs_NC: torch.Tensor, rows: pa.RecordBatch, source: str) -> None:
        bad_N = ((probs_NC < -_OFF_BY) | (probs_NC > 1.0 + _OFF_BY)).flatten(1).any(1)
        if self.kind == "class":
            bad_N |= (probs_NC.flatten(1).sum(1, dtype=torch.float64) - 1.0).abs() > _OFF_BY
        if bool(bad_N.any()):
            row = int(bad_N.nonzero()[0, 0])
            some = ", ".join(f"{value:.3g}" for value in probs_NC[row].flatten()[:4].tolist())
            one = "" if self.kind != "class" else " that sum to 1"
            raise PoolError(
                f"column '{source}' holds no probabilities at sample_id "
                f"{rows.column('sample_id')[row].as_py()} ([{some}, ...]), expected numbers of 0 "
                f"to 1{one}; name raw outputs of a network columns.logits, check kind={self.kind}"
            )


@dataclass(frozen=True)
class GivenScore:
    """Gives the score that the user computed. O(N) time."""

    needs = ("score",)

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64."""
        return outputs["score"].double()


def with_given_score(scorer: Scorer) -> Any:
    """Gives a scorer with the given score in place of what looks at outputs: noise on top of it, as
    in Power, stays."""
    inner = getattr(scorer, "scorer", None)
    if inner is None:
        return GivenScore()
    return replace(scorer, scorer=with_given_score(inner))  # type: ignore[type-var]
