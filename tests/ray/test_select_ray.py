"""`rayal.select` with real actors, and of a Ray Dataset: the picks of one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from given import only, outputs_of, table_of, write_files
from runs import FOR_NUMBERS, STRATEGIES

import rayal
from rayal.engine.ray import RayEngine

pytestmark = pytest.mark.ray
NUM_ROWS, BUDGET = 4_000, 60
ARRAYS = outputs_of(NUM_ROWS, seed=9)
IDS = ARRAYS["sample_id"]


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    """Enough slices for several workers, also of few rows."""
    patch = pytest.MonkeyPatch()
    patch.setattr("rayal.selection.pool._SHARD_ROWS", 512)
    patch.setattr("rayal.selection.pool._BATCH_ROWS", 128)
    patch.setattr("rayal.engine.survivors.plan_slices.__defaults__", (300,))
    yield
    patch.undo()


def _asked(strategy: str) -> dict:
    return {
        "strategy": strategy, "budget": BUDGET, "seed": 2, "labelled": IDS[::50],
        "kind": "number" if strategy in FOR_NUMBERS else "class",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "counts"),
    [("k_center", (1, 2, 4)), ("badge", (2,)), ("cluster_margin", (4,)), ("power_margin", (2,))],
)
def test_any_number_of_workers_picks_as_one_process(strategy, counts, small_ray, tmp_path: Path):
    files = write_files(tmp_path, only(ARRAYS, "embedding", "probs"), 3, 700, seed=1)
    expected = rayal.select(files, **_asked(strategy))
    for num_workers in counts:
        engine = RayEngine(num_workers=num_workers, num_cpus=0.25)
        found = rayal.select(files, engine=engine, **_asked(strategy))
        assert found.equals(expected), num_workers


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_picks_the_same_with_two_workers(strategy, small_ray, tmp_path: Path):
    arrays = only(ARRAYS, "embedding", "probs", "draws", "preds", "grads", "cost", "group")
    labelled = {"sample_id": IDS[::50], "label": ARRAYS["group"][::50]}
    asked = {**_asked(strategy), "labelled": labelled}
    engine = RayEngine(num_workers=2, num_cpus=0.25)
    found = rayal.select(write_files(tmp_path, arrays, 2), engine=engine, **asked)
    assert found.equals(rayal.select(arrays, **asked))


def test_labelled_rows_of_their_own_reach_the_workers(small_ray):
    arrays, known = only(ARRAYS, "embedding"), np.arange(NUM_ROWS) % 50 == 0
    rest = {name: values[~known] for name, values in arrays.items()}
    outside = {name: values[known] for name, values in arrays.items()}
    expected = rayal.select(arrays, **_asked("k_center"))
    engine = RayEngine(num_workers=2, num_cpus=0.25)
    found = rayal.select(
        rest, engine=engine, **{**_asked("k_center"), "labelled": outside}
    )  # arrays are written into files first: actors cannot see them
    assert found.equals(expected)


def test_a_ray_dataset_is_what_it_holds(small_ray):
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    expected = rayal.select(only(ARRAYS, "embedding", "probs"), **_asked("badge"))
    table = table_of(only(ARRAYS, "embedding", "probs", "draws"))
    dataset = ray.data.from_arrow([table.slice(0, 1_500), table.slice(1_500)])
    assert rayal.select(dataset, **_asked("badge"))["sample_id"].equals(expected["sample_id"])
    tensors = ray.data.from_items(
        [{"sample_id": int(IDS[i]), "row": i} for i in range(NUM_ROWS)], override_num_blocks=3
    ).map_batches(
        lambda rows: {
            "sample_id": rows["sample_id"],
            "embedding": ARRAYS["embedding"][rows["row"]],
            "probs": ARRAYS["probs"][rows["row"]],
        },
        num_cpus=0.25,
    )
    engine = RayEngine(num_workers=2, num_cpus=0.25)
    found = rayal.select(tensors, engine=engine, **_asked("badge"))
    assert found["sample_id"].equals(expected["sample_id"])
    assert small_ray.is_initialized()  # what was there before stays


def test_what_workers_refuse_is_said_in_one_line(small_ray, tmp_path: Path):
    broken = only(ARRAYS, "embedding")
    broken["embedding"] = broken["embedding"].copy()
    broken["embedding"][1_234, 3] = np.nan
    engine = RayEngine(num_workers=2, num_cpus=0.25)
    with pytest.raises(rayal.errors.ScoringError, match=f"first sample_id {IDS[1_234]}\\)"):
        rayal.select(write_files(tmp_path, broken), budget=3, engine=engine)
