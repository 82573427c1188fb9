"""Whole runs with each labeler: answers in parts, rows that nobody knows, settings that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors
from runs import digest, picked, plain_config, write_embeddings

from rayal.cli.config import build
from rayal.ledger import Ledger
from rayal.pool import Pool, ingest
from rayal.rundir import RunDir

SMALL = (
    "model=linear", "num_rounds=2", "budget=20", "predictor.batch_rows=64", "trainer.epochs=1",
    "trainer.min_steps=5",
)  # fmt: skip


def _until_done(pool: Pool, run_dir: Path, *more: str) -> list[dict[str, Any]]:
    """The same command until the run is done; gives what the ledger said after each."""
    config = plain_config(*SMALL, f"pool.path={pool.path}", f"run_dir={run_dir}", *more)
    said: list[dict[str, Any]] = []
    for _ in range(40):
        state = build(config).run(config)
        with _ledger(run_dir) as ledger:
            said.append({"state": state, "labels": len(ledger.labels())})
        if state == "done":
            return said
    raise AssertionError(f"the run does not end: {said}")


def _ledger(run_dir: Path) -> Ledger:
    folder = RunDir(str(run_dir))
    return Ledger.open(folder.ledger_url, folder.read_id(), writer=False)


def _answers(run_dir: Path) -> list[tuple[Any, ...]]:
    with _ledger(run_dir) as ledger:
        found = [(x.round, x.event.sample_id, x.event.value) for x in ledger.labels()]
    return sorted(found, key=str)


def test_answers_in_parts_are_waited_for_and_change_nothing(class_pool: Pool, tmp_path: Path):
    share = "labeler.partial_share=0.5"
    assert len(_until_done(class_pool, tmp_path / "whole", "labeler.noise=0.2")) == 1
    said = _until_done(class_pool, tmp_path / "parts", "labeler.noise=0.2", share)
    # 20 rows come as 10, 5, 3, 1, 1
    assert [one["labels"] for one in said] == [10, 15, 18, 19, 20 + 10, 35, 38, 39, 40]
    assert [one["state"] for one in said] == ["waiting"] * 8 + ["done"]
    assert _answers(tmp_path / "parts") == _answers(tmp_path / "whole")
    assert picked(tmp_path / "parts") == picked(tmp_path / "whole")
    polled = _until_done(class_pool, tmp_path / "polled", "labeler.noise=0.2", share, "poll_s=0.01")
    assert len(polled) == 1
    assert digest(tmp_path / "polled") == digest(tmp_path / "parts")


@pytest.fixture
def gaps(tmp_path: Path) -> Pool:
    """400 rows, of which every fifth has no label."""
    source = write_embeddings(tmp_path / "rows.parquet", 400)
    table = pq.read_table(source)
    labels = [None if i % 5 == 0 else x for i, x in enumerate(table["label"].to_pylist())]
    pq.write_table(table.set_column(1, "label", pa.array(labels)), source)
    return ingest(str(source), str(tmp_path / "pool"), label_column="label")


def test_rows_that_the_oracle_does_not_know_do_not_end_a_run(gaps: Pool, tmp_path: Path):
    _until_done(gaps, tmp_path / "run", "labeler.price_minor=3", "num_rounds=3")
    rows = [i for batch in picked(tmp_path / "run") for i in batch]
    known = [i for i in rows if i % 5]
    assert len(set(rows)) == len(rows) == 60  # a refused row is not asked for again
    assert 0 < len(known) < 60
    with _ledger(tmp_path / "run") as ledger:
        assert sorted(one.event.sample_id for one in ledger.labels()) == sorted(known)
        assert ledger.spend() == {"labels": len(known), "amount_minor": 3 * len(known)}
        snapshot = ledger.event(2, "labelled").result
    table = RunDir(str(tmp_path / "run")).read(snapshot)
    assert table.column("sample_id").to_pylist() == sorted(known)


def test_folders_that_do_not_work_are_corrected_in_the_same_run_dir(
    doors: Doors, class_pool: Pool
) -> None:
    (doors.folder / "file").write_text("")
    drop = ["labeler=file_drop", "labeler.columns=all", "num_rounds=1"]
    wrong = [
        (["labeler.outbox=file/out"], ["labeler.outbox=file/out cannot be written (Not a direc"]),
        (
            ["labeler.outbox=o", "labeler.inbox=./o"],
            ["lies in labeler.inbox=o", "give two folders"],
        ),
        (["labeler.inbox=r/labeler"], ["labeler.outbox=", "lies in labeler.inbox=r/labeler"]),
    ]
    for words, parts in wrong:
        doors.run(class_pool, "r", *drop, *words).refused(*parts)
        assert not (doors.folder / "r" / "run.json").exists()
    said = doors.run(class_pool, "r", *drop, "labeler.outbox=o", "labeler.inbox=i").done()
    assert "waiting for 20 of 20 labels" in said.err
    assert len(list((doors.folder / "o").glob("*/manifest.json"))) == 1


def test_a_column_that_cannot_leave_is_refused_before_the_run_dir_is_claimed(
    doors: Doors, class_pool: Pool
) -> None:
    words = ["labeler=file_drop", "labeler.columns=all", "num_rounds=1"]
    doors.run(class_pool, "r", *words, "labeler.columns=[foo]").refused(
        "is to send foo, which the batch does not have (it has: sample_id, embedding, ",
        "correct labeler.columns",
    )
    assert not (doors.folder / "r" / "run.json").exists()
    doors.run(class_pool, "r", *words, "labeler.columns=[]").done()
    (part,) = (doors.folder / "r" / "labeler" / "outbox").glob("*/*.jsonl")
    assert list(json.loads(part.read_text().splitlines()[0])) == ["sample_id"]
