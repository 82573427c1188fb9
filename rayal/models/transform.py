"""What an input transform is, and how it says that rows cannot be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import pyarrow as pa
import torch

from rayal.errors import RayalError

Inputs: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]


class Undecodable(RayalError):
    """Rows of a batch that a transform cannot decode; a predictor rejects them and goes on.

    `reasons` has a few words for each row, in the order of the positions; without them `why`, which
    is said of the batch, is said of each.
    """

    def __init__(
        self, positions: Sequence[int], why: str, reasons: Sequence[str] | None = None
    ) -> None:
        self.positions = tuple(int(position) for position in positions)
        self.why = why
        self.reasons = (why,) * len(self.positions) if reasons is None else tuple(reasons)
        super().__init__(positions, why, reasons)

    @property
    def by_position(self) -> dict[int, str]:
        """Why each row cannot be decoded."""
        return dict(zip(self.positions, self.reasons, strict=True))

    def __str__(self) -> str:
        some = ", ".join(str(position) for position in self.positions[:5])
        more = ", ..." if len(self.positions) > 5 else ""
        return (
            f"{len(self.positions)} rows cannot be decoded (at {some}{more} in their batch): "
            f"{self.why}"
        )


class Transform(Protocol):
    """Turns pool columns into a module's inputs; a pure function of each row by itself.

    A transform may also have `consume(rows)`: the same for rows that nobody else looks at any more,
    so that the inputs may lie in their memory.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """The pool columns that it reads."""
        ...

    def __call__(self, rows: pa.RecordBatch) -> Inputs:
        """Gives a tensor with one entry a row, or a tuple of tensors, passed as arguments.

        Raises:
            Undecodable: some rows cannot be decoded; their positions in the batch are named.
        """
        ...


def as_arguments(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """Gives the inputs as the positional arguments of a module."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def num_inputs(inputs: Inputs) -> int:
    """Gives the first tensor's width of a row: D of (N, D), C*H*W of images, 1 of (N,)."""
    return int(as_arguments(inputs)[0].shape[1:].numel())
