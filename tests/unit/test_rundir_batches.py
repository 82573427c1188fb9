"""What a batch on disk says of every pick, and that nobody outside is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import run

from rayal.errors import ConfigError, PoolError
from rayal.labelers.gate import Gate
from rayal.ledger import Ledger
from rayal.pool import Pool, ingest
from rayal.rundir import RunDir
from rayal.types import DETAILS, NO_ID, PICK_COLUMNS, Picks


def _picks(**details: np.ndarray) -> Picks:
    return Picks(
        np.array([7, 3]), np.array([0.5, 0.25]), np.array([2.0, 1.0]), np.array([np.nan, 0.1]),
        ("first", "second"), details,
    )  # fmt: skip


def test_a_batch_has_what_a_method_says_of_its_picks_and_null_for_the_rest(tmp_path: Path) -> None:
    picks = _picks(
        cluster=np.array([4, NO_ID]),
        nearest_id=np.array([NO_ID, 7]),
        nearest_distance=np.array([np.nan, 1.5]),
    )
    record = RunDir(str(tmp_path)).write_batch(0, picks, pa.table({"sample_id": [7, 3]}))
    table = pq.read_table(tmp_path / record.path)
    assert table.column_names == ["sample_id", *PICK_COLUMNS]
    assert {name: table[name].to_pylist() for name in ("probability", *DETAILS)} == {
        "probability": [None, 0.1],
        "cluster": [4, None],
        "labelled_distance": [None, None],
        "nearest_id": [None, 7],
        "nearest_distance": [None, 1.5],
    }
    types = [str(table.schema.field(name).type) for name in DETAILS]
    assert types == ["int64", "double", "int64", "double"]
    assert RunDir(str(tmp_path)).read(record).equals(table)


@pytest.mark.parametrize("name", ["cluster", "nearest_id", "rank"])
def test_a_column_of_the_pool_with_such_a_name_is_refused(name: str, tmp_path: Path) -> None:
    rows = pa.table({"sample_id": [7, 3], name: [1, 2]})
    with pytest.raises(ConfigError, match=f"has a column '{name}', a name that batches use"):
        RunDir(str(tmp_path)).write_batch(0, _picks(), rows)
    pq.write_table(rows.drop(["sample_id"]), tmp_path / "rows.parquet")
    with pytest.raises(PoolError, match=f"a column '{name}', a name that rayal writes; rename it"):
        ingest(str(tmp_path / "rows.parquet"), str(tmp_path / "pool"))


def test_whoever_labels_is_not_told_why() -> None:
    names = Gate("all").leaving(["sample_id", "text", *PICK_COLUMNS])
    assert names == ["sample_id", "text"]


def test_the_ledger_notes_how_a_batch_was_selected(class_pool: Pool, tmp_path: Path) -> None:
    words = [
        f"pool.path={class_pool.path}", "model=linear", "num_rounds=2", "budget=60",
        "strategy=k_center", "trainer.epochs=1", "trainer.min_steps=10", "predictor.batch_rows=64",
        f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    assert run(*words) == "done"
    folder = RunDir(str(tmp_path / "run"))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        first, second = ledger.events(step="selected")
        assert "selection" not in first.notes  # a random start decides nothing
        assert "mode" in second.notes["selection"]
        batch = folder.read(second.result)
    assert batch["labelled_distance"].null_count == 0
    assert batch["cluster"].null_count == batch.num_rows
