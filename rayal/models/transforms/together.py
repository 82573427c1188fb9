"""Several payload columns of a row, each by a transform of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch

from rayal.errors import ConfigError
from rayal.models.transform import Transform, Undecodable, as_arguments


@dataclass(frozen=True)
class Together:
    """Gives the tensors of all parts, in their order, as the arguments of one module: an image and
    its text, say. A module's `num_inputs` is that of the first part's first tensor.

    Raises:
        Undecodable: a part cannot decode some rows; those of all parts are named at once.
        ConfigError: there is no part.
    """

    parts: Sequence[Transform]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("Together got no parts, expected one transform or more")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of all parts, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.columns))

    def __call__(self, rows: pa.RecordBatch) -> tuple[torch.Tensor, ...]:
        """Gives the tensors of every part."""
        found: list[torch.Tensor] = []
        whys: list[str] = []
        bad: dict[int, str] = {}
        for part in self.parts:
            try:
                found += as_arguments(part(rows))
            except Undecodable as error:
                whys.append(error.why)
                for at, said in error.by_position.items():
                    bad[at] = f"{bad[at]}; {said}" if at in bad else said
        if bad:
            positions = sorted(bad)
            raise Undecodable(positions, "; ".join(whys), [bad[at] for at in positions])
        return tuple(found)
