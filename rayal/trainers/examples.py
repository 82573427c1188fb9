"""The labelled rows of a snapshot as inputs, targets and weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rayal.errors import TrainingError
from rayal.keys import Keys
from rayal.models.transform import Transform, Undecodable, as_arguments
from rayal.types import Ids

_HELD_BYTES = 1 << 30  # encoded rows up to this size are kept; more are encoded again in every step

Positions = npt.NDArray[np.int64]


class EncodedRows:
    """Gives the inputs of any rows of a snapshot.

    Where the transform gives one tensor, all rows are encoded once and held, up to 1 GiB. A tuple
    is made again for each step: its parts need not hold one entry a row (indices and offsets).
    """

    def __init__(self, transform: Transform, labels: pa.Table) -> None:
        missing = [name for name in transform.columns if name not in labels.schema.names]
        if missing:
            raise TrainingError(
                f"the snapshot has no column '{missing[0]}' (it has: "
                f"{', '.join(labels.schema.names)}); keep the transform's columns in the pool"
            )
        columns = dict.fromkeys((*transform.columns, "sample_id"))
        self._rows = labels.select(list(columns)).combine_chunks().to_batches()[0]
        self._transform = transform
        self._held: torch.Tensor | None = None
        first = transform_rows(transform, self._rows.slice(0, 1))
        self.example = first
        if len(first) == 1 and first[0].nbytes * len(self._rows) <= _HELD_BYTES:
            self._held = transform_rows(transform, self._rows)[0]

    def inputs(self, positions: Positions, device: str) -> tuple[torch.Tensor, ...]:
        """Gives the module's arguments for the rows at these positions."""
        if self._held is not None:
            arguments: tuple[torch.Tensor, ...] = (self._held[torch.from_numpy(positions)],)
        else:
            arguments = transform_rows(self._transform, self._rows.take(pa.array(positions)))
        return tuple(argument.to(device) for argument in arguments)


@dataclass(frozen=True)
class Examples:
    """L labelled rows, ready to be learnt."""

    rows: EncodedRows
    ids: Ids  # (L,)
    targets: torch.Tensor  # (L,) int64 classes, (L, C) float32 0/1, or (L, 1) float32 numbers
    weights: torch.Tensor  # (L,) float32, mean 1 over the rows that are trained on

    def order(self, positions: Positions, keys: Keys, name: str) -> Positions:
        """Gives the positions in an order that is a function of (keys, name) and the ids alone."""
        draws = keys.stream(name).uniform(self.ids[positions])
        return positions[np.lexsort((self.ids[positions], draws))]


def transform_rows(transform: Transform, rows: pa.RecordBatch) -> tuple[torch.Tensor, ...]:
    """Gives the module's arguments.

    Raises:
        TrainingError: a labelled row cannot be decoded; the message names its sample_id.
    """
    try:
        return as_arguments(transform(rows))
    except Undecodable as error:
        ids = [rows.column("sample_id")[position].as_py() for position in error.positions]
        raise TrainingError(
            f"{len(ids)} labelled rows cannot be decoded (first sample_id {ids[0]}): {error.why}; "
            "withdraw their labels, or correct the rows at their source"
        ) from error


def split(examples_ids: Ids, share: float, keys: Keys) -> tuple[Positions, Positions]:
    """Gives the positions to train on and those to validate on, both ascending.

    The share is met as nearly as whole rows allow, with at least one row on each side; which rows
    is a keyed hash of their ids. A single row, or a share of 0, leaves nothing to validate on.
    """
    everyone = np.arange(len(examples_ids))
    if share == 0.0 or len(everyone) < 2:
        return everyone, everyone[:0]
    num_kept = min(max(round(share * len(everyone)), 1), len(everyone) - 1)
    draws = keys.stream("train/validation").uniform(examples_ids)
    by_draw = np.lexsort((examples_ids, draws))
    return np.sort(by_draw[num_kept:]), np.sort(by_draw[:num_kept])
