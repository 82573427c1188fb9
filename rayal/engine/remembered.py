"""What is kept of a shard's rows between passes: 14 bytes a row, one checked file a shard.

Everything is rounded to the safe side. A row that was never scored, or whose model is no longer
known, is unknown, and so are all rows where there is no file, or it is of another shard or damaged:
unknown rows are scored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayal.engine.survivors import is_whole, read_stream, write_streams
from rayal.pool import Shard
from rayal.storage import atomic_path, here
from rayal.types import Float64s

UNKNOWN = 255
MOST_CLASSES, MOST_CELLS, _MOST_MODELS = 65_536, 255, 200
FARTHEST = 65_535  # steps of distance
_SHARD, _MODELS = b"rayal.shard", b"rayal.models"
UNIT = 1.0 / 512.0  # of logarithms: up to 64, rounded down
_TYPES = {
    "model": np.uint8,  # by which the row was scored last, a place in `models`
    "cell": np.uint8,
    "radius": np.uint16,  # at least the distance to the cell's center, in steps of the cells' own
    "top": np.uint16,  # the likeliest class
    "second": np.uint16,
    "odds": np.int16,  # at most the logarithm of the odds of the likeliest class
    "gap": np.int16,  # at most the logarithm of its ratio to the second
    "third": np.int16,  # and to the third
}
BYTES_A_ROW = sum(np.dtype(kind).itemsize for kind in _TYPES.values())


@dataclass
class Remembered:
    """Rows of a shard's file, removed ones among them, as they were scored last."""

    models: list[str]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def nothing(cls, num_rows: int) -> Remembered:
        """Gives rows of which nothing is known."""
        arrays = {name: np.zeros(num_rows, kind) for name, kind in _TYPES.items()}
        arrays["model"][:] = arrays["cell"][:] = UNKNOWN
        return cls([], arrays)

    def __len__(self) -> int:
        return len(self.arrays["model"])

    def logarithms(self, name: str, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Gives odds or gaps of some rows."""
        return self.arrays[name].take(rows) * np.float32(UNIT)

    def number_of(self, model_id: str) -> int:
        """Gives the place of a model, a new one where it has none; the oldest is forgotten where
        there are too many."""
        if model_id not in self.models:
            if len(self.models) >= _MOST_MODELS:
                model = self.arrays["model"]
                is_known = model != UNKNOWN
                is_oldest = model == 0
                model[is_known] -= 1
                model[is_oldest] = UNKNOWN
                del self.models[0]
            self.models.append(model_id)
        return self.models.index(model_id)

    def set_cells(
        self, rows: npt.NDArray[np.intp], cell_N: np.ndarray, radius_N: Float64s, step: float
    ) -> None:
        """Notes where rows lie; one that is too far away has no cell."""
        steps_N = np.ceil(radius_N / step * (1.0 + 1e-9))
        is_near = steps_N <= FARTHEST
        self.arrays["cell"][rows] = np.where(is_near, cell_N, UNKNOWN)
        self.arrays["radius"][rows] = np.where(is_near, steps_N, 0)

    def set_seen(
        self,
        rows: npt.NDArray[np.intp],
        number: int,
        classes_NK: np.ndarray,
        odds_N: Float64s,
        gap_N: Float64s,
        third_N: Float64s,
    ) -> None:
        """Notes how rows were scored: `classes_NK` the likeliest two."""
        self.arrays["model"][rows] = number
        self.arrays["top"][rows], self.arrays["second"][rows] = classes_NK[:, 0], classes_NK[:, 1]
        for name, values_N in (("odds", odds_N), ("gap", gap_N), ("third", third_N)):
            steps_N = np.floor(values_N * (1.0 / UNIT))
            self.arrays[name][rows] = np.minimum(np.maximum(steps_N, -32_768.0), 32_767.0)


def path_of(folder: str, shard: Shard) -> Path:
    """Gives where what is kept of a shard lies."""
    return Path(folder) / f"shard-{shard.index:05d}-{shard.content_hash[:16]}.arrow"


def read(folder: str, shard: Shard) -> Remembered:
    """Gives what is kept of a shard; nothing where there is no whole file of it."""
    path = here(path_of(folder, shard))
    if path.exists() and is_whole(path):
        batch = read_stream(path, 0)
        said = batch.schema.metadata
        if said[_SHARD] == shard.content_hash.encode() and batch.num_rows == shard.num_rows:
            arrays = {
                name: np.frombuffer(batch.column(name).buffers()[1], kind).copy()
                for name, kind in _TYPES.items()
            }
            return Remembered(json.loads(said[_MODELS]), arrays)
    return Remembered.nothing(shard.num_rows)


def write(folder: str, shard: Shard, kept: Remembered) -> None:
    """Writes what is kept of a shard under its name, or leaves what was there."""
    arrays = [
        pa.Array.from_buffers(pa.from_numpy_dtype(kind), len(kept), [None, pa.py_buffer(values)])
        for kind, values in ((kind, kept.arrays[name]) for name, kind in _TYPES.items())
    ]
    metadata = {_SHARD: shard.content_hash, _MODELS: json.dumps(kept.models)}
    batch = pa.record_batch(arrays, names=list(_TYPES)).replace_schema_metadata(metadata)
    with atomic_path(path_of(folder, shard), durable=False) as temporary:
        write_streams(temporary, [batch])
