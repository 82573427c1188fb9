"""Small snapshots to train on."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rayal.columns import vector_field
from rayal.keys import Keys
from rayal.models.model import Model
from rayal.models.modules import Linear
from rayal.models.transforms.vector import Vector
from rayal.trainers.group import Alone
from rayal.trainers.supervised import Supervised
from rayal.types import Checkpoint, Vocabulary

ABC = Vocabulary("class", ("a", "b", "c"))
NUMBER = Vocabulary("number")


def snapshot(
    inputs: np.ndarray, labels: list[object], weights: np.ndarray | None = None
) -> pa.Table:
    inputs = inputs.astype(np.float32)
    field = vector_field("embedding", inputs.dtype, inputs.shape[1])
    columns = [
        pa.array(np.arange(len(inputs), dtype=np.int64) * 7),
        pa.array(labels),
        pa.array([row.tobytes() for row in inputs], field.type),
    ]
    fields = [pa.field("sample_id", pa.int64()), pa.field("label", columns[1].type), field]
    if weights is not None:
        columns.append(pa.array(weights))
        fields.append(pa.field("weight", pa.float64()))
    return pa.table(columns, schema=pa.schema(fields))


def blobs(num_rows: int = 90, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    places = np.arange(num_rows) % 3
    centres = np.array([[3, 0], [0, 3], [-3, -3]])
    inputs = centres[places] + rng.normal(size=(num_rows, 2))
    return snapshot(inputs, ["abc"[place] for place in places])


def fit(
    trainer: Supervised,
    labels: pa.Table,
    out: Path,
    vocabulary: Vocabulary = ABC,
    start: Path | None = None,
    seed: int = 0,
) -> Checkpoint:
    return trainer.fit(labels, vocabulary, start and str(start), str(out), Keys(seed, 0), Alone())


def vectors(labels: pa.Table) -> torch.Tensor:
    return Vector()(labels.select(["embedding"]).combine_chunks().to_batches()[0])


def linear(kind: str = "class") -> Model:
    return Model(Linear, Vector(), kind)
