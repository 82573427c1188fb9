"""The ids that every strategy picks for a fixed seed, as they lie in picks.json.

Features and weights are small multiples of 1/16, so that every machine computes the same logits to
the last bit. A change that is not meant to alter answers leaves picks.json alone. One that is shows
a curve over several seeds beside random and margin, and then writes the file anew:

    PYTHONPATH=tests .venv/bin/python tests/golden/test_golden_picks.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from passes import NUM_TAKEN, Stage, all_ids
from runs import FOR_NUMBERS, STRATEGIES, loop_of

from rayal.engine.local import LocalEngine
from rayal.engine.survivors import Taken
from rayal.models.checkpoint import Description, describe_architecture, model_id, save
from rayal.pool import Pool, ingest
from rayal.types import Checkpoint

FILE = Path(__file__).parent / "picks.json"
BUDGET = 10
NUM_ROWS, WIDTH, HIDDEN, NUM_MEMBERS = 600, 8, 16, 3


def _pool(folder: Path) -> Pool:
    rng = np.random.default_rng(11)
    rows_ND = (rng.integers(-16, 17, (NUM_ROWS, WIDTH)) / 8).astype(np.float32)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(rows_ND.reshape(-1)), WIDTH)
    places = rng.integers(0, 4, NUM_ROWS)
    table = {"embedding": embedding, "word": [("ant", "bee", "cat", "dog")[i] for i in places]}
    pq.write_table(pa.table({**table, "number": places / 2}), folder / "rows.parquet")
    return ingest(
        str(folder / "rows.parquet"), str(folder / "pool"), label_column="word", rows_per_shard=150
    )


def _stage(pool: Pool, folder: Path, is_number: bool) -> Stage:
    """Gives a stage whose ensemble nobody trained."""
    overrides = (
        f"pool.path={pool.path}", "model=mlp", f"model.module.hidden=[{HIDDEN}]", "num_rounds=1",
        "strategy=random",
        "predictor.batch_rows=64", f"run_dir={folder}",
        *(["model.kind=number", "vocabulary={_target_:rayal.types.Vocabulary,kind:number}"]
          if is_number else []),
    )  # fmt: skip
    loop, _ = loop_of(*overrides)
    rng = np.random.default_rng(12)
    members = []
    for _ in range(NUM_MEMBERS):
        module = loop.predictor.model.build(loop.vocabulary.num_outputs, WIDTH)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.from_numpy(rng.integers(-8, 9, parameter.shape) / 16))
        members.append(module)
    description = Description(
        loop.vocabulary.kind, loop.vocabulary.classes, loop.vocabulary.num_outputs, WIDTH, HIDDEN,
        describe_architecture(members[0]), NUM_MEMBERS,
    )  # fmt: skip
    save(folder / "checkpoint", description, members)
    checkpoint = Checkpoint("checkpoint", model_id(description, members), NUM_MEMBERS)
    ids = np.sort(all_ids(pool)[:: pool.num_rows // NUM_TAKEN][:NUM_TAKEN])
    pending = np.arange(len(ids)) % 5 == 4
    labels = np.where(pending, np.nan, ids % 4 / (2 if is_number else 1))
    return Stage(pool, folder, checkpoint, Taken(ids, labels, pending), overrides)


def _picks(stage: Stage, strategy: str, folder: Path) -> list[int]:
    loop = stage.loop(strategy)
    engine = LocalEngine()
    engine.open(stage.pool, loop.predictor, loop.trainer)
    _, picks = stage.select(engine, loop.strategy, folder, BUDGET)
    ids: list[int] = picks.ids.tolist()
    return ids


@pytest.fixture(scope="module")
def golden_stages(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Stage]:
    """Stages by whether they are for numbers."""
    folder = tmp_path_factory.mktemp("golden")
    pool = _pool(folder)
    return {kind: _stage(pool, folder / f"{kind}", kind) for kind in (False, True)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_picks_are_the_golden_ones(strategy, golden_stages, tmp_path):
    golden = json.loads(FILE.read_text())
    assert strategy in golden, "a new strategy: write the file anew, as the head of this file says"
    assert _picks(golden_stages[strategy in FOR_NUMBERS], strategy, tmp_path) == golden[strategy]


def test_every_strategy_has_its_golden_picks_and_none_is_left_over():
    golden = json.loads(FILE.read_text())
    assert sorted(golden) == STRATEGIES
    assert all(len(set(ids)) == BUDGET for ids in golden.values())
    assert golden["margin"] != golden["random"] != golden["power_margin"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        pool = _pool(where)
        stages = {kind: _stage(pool, where / f"{kind}", kind) for kind in (False, True)}
        found = {one: _picks(stages[one in FOR_NUMBERS], one, where / one) for one in STRATEGIES}
    lines = [f'"{one}": {json.dumps(ids)}' for one, ids in sorted(found.items())]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
