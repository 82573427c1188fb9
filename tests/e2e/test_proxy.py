"""A cheap model that scores every row, and the run's own model its best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from doors import Doors
from runs import digest, loop_of, picked, run, write_embeddings

from rayal.keys import Keys
from rayal.ledger import Ledger
from rayal.pool import Pool, ingest
from rayal.rundir import RunDir

SMALL = (
    "model=mlp", "model.module.hidden=[16]", "num_rounds=3", "budget=15", "trainer.min_steps=30",
    "predictor.batch_rows=64", "strategy.num_candidates=50",
)  # fmt: skip
PROXY = ("proxy=linear", "proxy.num_rows=120", "proxy.trainer.min_steps=20")
RAY = (
    "engine=ray", "engine.num_workers=2", "engine.num_cpus=0.5", "engine.object_store_gib=0.1",
    "engine.timeout_s=120",
)  # fmt: skip


def _words(pool: Pool, run_dir: Path, *more: str) -> list[str]:
    return [f"pool.path={pool.path}", f"run_dir={run_dir}", *SMALL, *more]


def _margins(pool: Pool, words: list[str], of: str, folder: Path, record: Any) -> dict[int, float]:
    """Gives every row's margin score by a checkpoint, without engine or worker."""
    loop, _ = loop_of(*words)
    predictor = loop.proxy.predictor if of == "proxy" and loop.proxy else loop.predictor
    predictor.load(record, str(folder), Keys(0, 0))
    found: dict[int, float] = {}
    for shard in pool.shards:
        columns = ("sample_id", *predictor.columns())
        for rows in pool.batches(shard, columns, 64):
            ids = rows.column("sample_id").to_numpy()
            short = 64 - len(ids)
            padded = rows.take(np.r_[np.arange(len(ids)), np.full(short, len(ids) - 1)])
            probs = predictor.predict(
                torch.zeros(64, dtype=torch.int64), predictor.encode(padded), ("probs",)
            ).probs.double()
            best = probs.topk(2, dim=1).values
            scores = (1.0 - (best[:, 0] - best[:, 1])).tolist()
            found |= dict(zip(ids.tolist(), scores, strict=False))
    return found


def _best(scores: dict[int, float], among: set[int], number: int) -> list[int]:
    return sorted(among, key=lambda one: (-scores[one], one))[:number]


def test_the_models_best_of_the_proxys_best(class_pool: Pool, tmp_path: Path) -> None:
    words = _words(class_pool, tmp_path / "run", "strategy=margin", *PROXY)
    assert run(*words) == "done"
    folder = RunDir(str(tmp_path / "run"))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        trained = [event.result for event in ledger.events(step="trained")]
        proxied = [event.result for event in ledger.events(step="proxied")]
        notes = [event.notes["selection"] for event in ledger.events(step="selected")[1:]]
    assert all("120 of" in note and "the proxy's best" in note for note in notes)
    batches = picked(tmp_path / "run")
    for t in (1, 2):
        taken = {one for batch in batches[:t] for one in batch}
        cheap, own = (
            _margins(class_pool, words, of, folder.inside(record.path), record)
            for of, record in (("proxy", proxied[t - 1]), ("own", trained[t - 1]))
        )
        let_through = set(_best(cheap, set(cheap) - taken, 120))
        assert batches[t] == _best(own, let_through, 15)
        assert batches[t] != _best(own, set(own) - taken, 15)  # or nothing was left out


def test_a_proxy_that_lets_all_rows_through_changes_no_pick(
    class_pool: Pool, tmp_path: Path
) -> None:
    assert run(*_words(class_pool, tmp_path / "a", "strategy=cluster_margin")) == "done"
    every = (*PROXY, "proxy.num_rows=100000")
    assert run(*_words(class_pool, tmp_path / "b", "strategy=cluster_margin", *every)) == "done"
    assert picked(tmp_path / "a") == picked(tmp_path / "b")


def test_it_goes_on_after_a_stop_in_the_proxys_training(
    class_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("strategy=margin", *PROXY)
    assert run(*_words(class_pool, tmp_path / "whole", *words)) == "done"
    loop, plain = loop_of(*_words(class_pool, tmp_path / "run", *words))
    once, done = loop.fit_proxy, []

    def stopped(*arguments: object) -> object:
        done.append(once(*arguments))  # type: ignore[arg-type]
        if len(done) == 2:
            raise KeyboardInterrupt
        return done[-1]

    monkeypatch.setattr(loop, "fit_proxy", stopped)
    with pytest.raises(KeyboardInterrupt):
        loop.run(plain)
    assert run(*_words(class_pool, tmp_path / "run", *words)) == "done"
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


def test_rows_that_only_one_of_the_models_can_read_are_all_listed(
    doors: Doors, tmp_path: Path
) -> None:
    table = pq.read_table(write_embeddings(doors.folder / "rows.parquet", 400))
    for name, bad in (("height", 7), ("width", 9)):
        numbers = [np.nan if row == bad else 1.5 for row in range(400)]
        table = table.append_column(name, pa.array(numbers))
    pq.write_table(table, doors.folder / "rows.parquet")
    pool = ingest("rows.parquet", "pool", label_column="label", test_share=0.0)
    of_proxy = "{_target_: rayal.models.transforms.Vector, column: [embedding, height]}"
    every = ("proxy=linear", "proxy.num_rows=400", f"proxy.trainer.model.transform={of_proxy}")
    own = "model.transform.column=[embedding,width]"
    doors.run(pool, "r", "strategy=margin", "strategy.num_candidates=50", *every, own).done()
    listed = pq.read_table(doors.folder / "r" / "rejected.parquet")["sample_id"].to_pylist()
    assert listed == [7, 9]


def test_another_run_begins_from_its_round_0(class_pool: Pool, tmp_path: Path) -> None:
    assert run(*_words(class_pool, tmp_path / "a", "strategy=margin", *PROXY)) == "done"
    more = ("strategy=margin", *PROXY, f"begin_from={tmp_path / 'a'}")
    assert run(*_words(class_pool, tmp_path / "b", *more)) == "done"
    assert picked(tmp_path / "a") == picked(tmp_path / "b")


@pytest.mark.ray
def test_workers_give_the_same(class_pool: Pool, tmp_path: Path) -> None:
    for name, more in (("local", ()), ("ray", RAY)):
        words = _words(class_pool, tmp_path / name, "strategy=margin", *PROXY, *more)
        assert run(*words) == "done"
    assert digest(tmp_path / "local") == digest(tmp_path / "ray")


def test_what_cannot_stand_before_a_strategy(class_pool: Pool, doors: Doors) -> None:
    path = class_pool.path
    doors.run(path, "a", *SMALL, *PROXY, "proxy.num_rows=49").refused(
        "proxy.num_rows is 49, below the 50 rows that the strategy asks for"
    )
    doors.run(path, "b", *PROXY, "strategy=seals").refused(
        "the strategy leaves out rows itself (Seals), and a proxy would too"
    )
    doors.run(path, "c", *PROXY, "strategy=k_center").refused(
        "the strategy scores no rows", "set proxy.scorer, or proxy=null"
    )
    other = "proxy.trainer.model.transform={_target_: rayal.models.transforms.Vector, column: none}"
    doors.run(path, "d", *PROXY, other).refused(
        "the model reads column 'none', which the pool does not have"
    )
    doors.run(path, "e", "proxy.num_rows=3").refused("proxy is null; choose one: proxy=linear")


def test_a_proxy_can_begin_from_the_labels_of_a_run_without(
    class_pool: Pool, tmp_path: Path
) -> None:
    assert run(*_words(class_pool, tmp_path / "a", "strategy=margin")) == "done"
    more = ("strategy=margin", *PROXY, f"begin_from={tmp_path / 'a'}")
    assert run(*_words(class_pool, tmp_path / "b", *more)) == "done"
    assert picked(tmp_path / "a")[0] == picked(tmp_path / "b")[0]
