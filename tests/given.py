"""What a user's own code says of some rows: arrays by name, and Parquet files of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUM_CLASSES = 4


def outputs_of(num_rows: int, seed: int = 0, width: int = 6) -> dict[str, np.ndarray]:
    """Gives rows of overlapping classes with all that a strategy may ask for; ids in no order."""
    rng = np.random.default_rng(seed)
    place_N = rng.integers(0, NUM_CLASSES, num_rows)
    centers_CD = rng.normal(size=(NUM_CLASSES, width)) * 2.0
    embedding = (centers_CD[place_N] + rng.normal(size=(num_rows, width))).astype(np.float32)
    logits = rng.normal(size=(num_rows, NUM_CLASSES)).astype(np.float32) * 2
    logits[np.arange(num_rows), place_N] += 2
    draws = rng.dirichlet(np.ones(NUM_CLASSES), size=(num_rows, 3))
    return {
        "sample_id": rng.permutation(num_rows).astype(np.int64) * 3 - num_rows,
        "embedding": embedding,
        "logits": logits,
        "probs": softmax(logits),
        "draws": draws,
        "preds": embedding[:, :1].astype(np.float64),
        "grads": (embedding * rng.normal(size=(num_rows, 1))).astype(np.float32),
        "score": rng.integers(0, 50, num_rows) / 8.0,  # ties
        "cost": rng.integers(1, 30, num_rows),
        "group": place_N,
    }


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    """Gives float32 probabilities."""
    exp_NC = np.exp(logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True))
    return (exp_NC / exp_NC.sum(axis=1, keepdims=True)).astype(np.float32)


def only(arrays: Mapping[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    """Gives the ids and some of the arrays."""
    return {name: arrays[name] for name in ("sample_id", *names)}


def rows_of(arrays: Mapping[str, np.ndarray], which: np.ndarray) -> dict[str, np.ndarray]:
    """Gives some of the rows."""
    return {name: values[which] for name, values in arrays.items()}


def table_of(arrays: Mapping[str, np.ndarray]) -> pa.Table:
    """Gives the rows as users write them: lists of any length where there are more numbers."""
    columns = {
        name: pa.array(values) if values.ndim == 1 else pa.array(values.tolist(), _lists(values))
        for name, values in arrays.items()
    }
    return pa.table(columns)


def _lists(values: np.ndarray) -> pa.DataType:
    kind = pa.from_numpy_dtype(values.dtype)
    for _ in values.shape[1:]:
        kind = pa.list_(kind)
    return kind


def write_files(
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    num_files: int = 3,
    row_group_size: int = 37,
    seed: int | None = None,
) -> str:
    """Writes the rows, in an order of their own where there is a seed; gives the glob."""
    folder.mkdir(parents=True, exist_ok=True)
    num_rows = len(arrays["sample_id"])
    order = np.arange(num_rows)
    if seed is not None:
        order = np.random.default_rng(seed).permutation(num_rows)
    for number, some in enumerate(np.array_split(order, num_files)):
        path = folder / f"part-{number}.parquet"
        pq.write_table(table_of(rows_of(arrays, some)), path, row_group_size=row_group_size)
    return str(folder / "*.parquet")


NUM_ROWS, BUDGET = 600, 20
ARRAYS = outputs_of(NUM_ROWS)  # what most tests of `rayal.select` choose from
IDS = ARRAYS["sample_id"]


def some_labelled() -> dict[str, np.ndarray]:
    """Gives every twentieth row of `ARRAYS` with its label, some of them pending."""
    labels = ARRAYS["group"][::20].astype(np.float64)
    labels[::5] = np.nan
    return {"sample_id": IDS[::20], "label": labels}
