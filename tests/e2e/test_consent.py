"""Rows that may not be used: nobody scores, orders, tests or judges by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors

from rayal.errors import PoolError
from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.pool.ingest import ingest
from rayal.pool.opening import open_pool
from rayal.rundir import RunDir

ONLY = "pool.only={consent: true, region: [eu, uk]}"
GIVEN = {"consent": True, "region": ["eu", "uk"]}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[int]]:
    """A pool of 600 rows of three files, and the ids of those that may be used."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 600)
    rows_ND = (rng.normal(size=(600, 8)) + 2 * np.eye(3, 8)[label]).astype(np.float32)
    consent = [(True, False, None)[i] for i in rng.integers(0, 3, 600)]
    region = [("eu", "uk", "us", None)[i] for i in rng.integers(0, 4, 600)]
    table = pa.table(
        {
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows_ND.reshape(-1)), 8),
            "consent": pa.array(consent, pa.bool_()),
            "region": pa.array(region, pa.string()),
            "label": pa.array([("ant", "bee", "cat")[i] for i in label]),
        }
    )
    (folder / "source").mkdir()
    for part in range(3):
        place = folder / "source" / f"part{part}.parquet"
        pq.write_table(table.slice(200 * part, 200), place)
    ingest(str(folder / "source"), str(folder / "pool"), label_column="label")
    pairs = zip(consent, region, strict=True)
    let = {i for i, (one, other) in enumerate(pairs) if one and other in ("eu", "uk")}
    return folder / "pool", let


def _ids(pool: Pool, split: str) -> list[int]:
    shards = pool.shards if split == "pool" else pool.test_shards
    parts = [pool.batches(shard, ("sample_id",), 64) for shard in shards]
    return [one for part in parts for rows in part for one in rows.column(0).to_pylist()]


def test_a_pool_without_the_rows_that_are_not_let(mixed: tuple[Path, set[int]]) -> None:
    path, let = mixed
    whole, pool = open_pool(str(path)), open_pool(str(path), only=GIVEN)
    for split in ("pool", "test"):
        wanted = [i for i in _ids(whole, split) if i in let]
        assert _ids(pool, split) == wanted
        assert 0 < len(wanted) < len(_ids(whole, split))
    assert pool.num_rows == len(_ids(pool, "pool"))
    assert pool.num_test_rows == len(_ids(pool, "test"))
    for shard in pool.shards:
        places = pool.living_places(shard)
        assert set(pool.ids_at(shard, places).tolist()) <= let
        assert len(places) == shard.num_live
    labels = [pool.test_labels(shard) for shard in pool.test_shards]
    assert sum(map(len, labels)) == pool.num_test_rows
    some = np.asarray(_ids(pool, "pool")[:5])
    assert pool.rows(some, ["sample_id"]).column(0).to_pylist() == some.tolist()
    other = next(i for i in _ids(whole, "pool") if i not in let)
    with pytest.raises(PoolError, match="not in the pool"):
        pool.rows(np.asarray([other]), ["sample_id"])


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_run_leaves_them_alone(doors: Doors, mixed: tuple[Path, set[int]], engine: str) -> None:
    path, let = mixed
    words = ["num_rounds=3", "budget=15", ONLY, "gold_share=0.2", "strategy=k_center"]
    more = ["engine=ray", "engine.num_workers=2"] if engine == "ray" else []
    doors.run(path, "r", *words, *more).done()
    folder = RunDir("r")
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        asked = {one.event.sample_id for one in ledger.labels()}
        results: list[Any] = [event.result for event in ledger.events(step="tested")]
        assert json.loads(ledger.run().config["pool_only"]) == {
            "consent": [True], "region": ["eu", "uk"],
        }  # fmt: skip
    assert len(asked) >= 45
    assert asked <= let
    assert results[0].num_rows == open_pool(str(path), only=GIVEN).num_test_rows


def test_the_engines_pick_the_same(doors: Doors, mixed: tuple[Path, set[int]]) -> None:
    digests = set()
    for number, more in enumerate([[], ["engine=ray", "engine.num_workers=2"]]):
        doors.run(mixed[0], f"r{number}", "strategy=entropy", ONLY, *more).done()
        digests.add(doors.digest(f"r{number}"))
    assert len(digests) == 1


def test_a_run_takes_all_rows_that_are_let(doors: Doors, mixed: tuple[Path, set[int]]) -> None:
    pool = open_pool(str(mixed[0]), only=GIVEN)
    words = [ONLY, "num_rounds=4", f"budget={pool.num_rows - 10}", "strategy=random"]
    said = doors.run(mixed[0], "r", *words).done()
    assert "every row of the pool is labelled" in said.err + said.out
    status = json.loads(doors("status", "r", "--json").done().out)
    assert status["spend"]["labels"] == pool.num_rows


def test_what_cannot_be(doors: Doors, mixed: tuple[Path, set[int]]) -> None:
    path = mixed[0]
    doors.run(path, "a", "pool.only={consnt: true}").refused("column 'consnt'", "it has: ")
    doors.run(path, "a", "pool.only={consent: perhaps}").refused("pool.only.consent", "bool")
    doors.run(path, "a", "pool.only={embedding: 1}").refused("pool.only.embedding")
    doors.run(path, "a", "pool.only={region: []}").refused("one value at least")
    assert not Path("a").exists()
    doors.run(path, "b", ONLY, "num_rounds=1").done()
    said = doors.run(path, "b", "pool.only={consent: true}", "num_rounds=1")
    said.refused("pool_only")
    doors.run(path, "b", "num_rounds=1").refused("pool_only")
    doors.run(path, "c", "pool.only={region: mars}").refused("lets no row")
