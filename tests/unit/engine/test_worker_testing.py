"""A worker's tallies of the test split, and the outputs that it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rayal import metrics
from rayal.columns import vectors
from rayal.engine import scoring
from rayal.engine.worker import Worker
from rayal.errors import ScoringError
from rayal.keys import Keys
from rayal.types import Checkpoint, Outputs, Vocabulary


class Summing:
    """A predictor that adds up the features and misses the label by 0.25; `width` columns of it."""

    batch_rows = 64
    num_threads = 1

    def __init__(self, width: int = 1, num_missing: int = 0) -> None:
        self.width, self.num_missing = width, num_missing

    def columns(self) -> tuple[str, ...]:
        return ("features",)

    def load(self, checkpoint: Checkpoint, path: str, keys: Keys) -> None:
        pass

    def encode(self, rows: Any) -> torch.Tensor:
        return torch.from_numpy(vectors(rows, "features").sum(1).astype(np.float64))

    def predict(self, ids: torch.Tensor, encoded: torch.Tensor, needs: Any) -> Outputs:
        preds_NT = (encoded + 0.25)[:, None].repeat(1, self.width)
        return Outputs(ids, {"preds": preds_NT[self.num_missing :]})


def _tallies(pool: Any, predictor: Summing) -> np.ndarray:
    testing = scoring.Testing(Checkpoint("c", "m"), "", Vocabulary("number"), Keys(0, 1))
    worker = Worker(pool, predictor)
    tallies = metrics.no_rows("number", 1)
    for shard in pool.test_shards:
        tallies = tallies + worker.test(shard, testing)
    return tallies


def test_the_tallies_of_the_test_split_are_those_of_all_its_labels(number_pool):
    labels = [y for shard in number_pool.test_shards for y in number_pool.test_labels(shard)]
    tallies = _tallies(number_pool, Summing())
    assert tallies[0] == len(labels) == number_pool.num_test_rows
    found = {
        name: metrics.metric_of("number", name, tallies).value for name in ("rmse", "mse", "r2")
    }
    assert found == pytest.approx(
        {"rmse": 0.25, "mse": 0.0625, "r2": 1 - 0.0625 / np.var(labels)}, rel=1e-5
    )


@pytest.mark.parametrize(
    ("predictor", "shape"),
    [(Summing(width=3), r"\(\d+, 3\)"), (Summing(num_missing=60), r"\(4, 1\)")],
)
def test_outputs_of_another_shape_are_refused(predictor, shape, number_pool):
    with pytest.raises(
        ScoringError,
        match=rf"^test shard \d: Summing gave preds of shape {shape}, expected \(\d+, 1\)",
    ):
        _tallies(number_pool, predictor)
