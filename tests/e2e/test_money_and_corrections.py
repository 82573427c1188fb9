"""What labels cost, answers that are corrected later, and a pool that comes to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors

from rayal.pool import Pool, ingest


def _answer(run: Path, pool: Pool, **fields: object) -> int:
    """Answers every chunk that has no answer; gives how many rows that were."""
    num_rows = 0
    for part in sorted((run / "labeler/outbox").glob("*/*.jsonl")):
        inbox = run / "labeler/inbox" / part.parent.name
        if inbox.exists():
            continue
        ids = [json.loads(line)["sample_id"] for line in part.read_text().splitlines()]
        labels = pool.secret_labels(ids)
        lines = [
            json.dumps({"sample_id": i, "label": x, **fields})
            for i, x in zip(ids, labels, strict=True)
        ]
        inbox.mkdir(parents=True)
        (inbox / "answers.jsonl").write_text("\n".join(lines) + "\n")
        num_rows += len(ids)
    return num_rows


def _status(doors: Doors, run_dir: str) -> dict:
    return json.loads(doors("status", run_dir, "--json").done().out)


def test_money_is_counted_at_what_labels_did_cost(doors: Doors, class_pool: Pool) -> None:
    rule = ["stopping=max_amount", "stopping.amount_minor=1500"]
    words = [
        *rule,
        "labeler=file_drop",
        "labeler.columns=all",
        "labeler.price_minor=10",
        "num_rounds=9",
    ]
    for _ in range(9):
        doors.run(class_pool, "r", *words).done()
        if _status(doors, "r")["state"] == "done":
            break
        _answer(doors.folder / "r", class_pool, cost_minor=50)
    # 20 labels at 50 a round: the price of 10 would have let a second round begin.
    assert _status(doors, "r")["spend"] == {
        "labels": 20, "amount_minor": 1000, "currency": "USD",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("currency", "cost", "minor", "said"),
    [("KWD", "0.125", 2_500, "2.500 KWD"), ("XAF", "80", 1_600, "1,600 XAF")],
)
def test_money_has_the_minor_unit_of_its_currency(
    doors: Doors, class_pool: Pool, currency: str, cost: str, minor: int, said: str
) -> None:
    words = [
        "labeler=file_drop",
        "labeler.columns=all",
        f"labeler.currency={currency}",
        "num_rounds=1",
    ]
    doors.run(class_pool, "r", *words).done()
    assert _answer(doors.folder / "r", class_pool, cost=cost) == 20
    doors.run(class_pool, "r", *words).done()
    assert _status(doors, "r")["spend"]["amount_minor"] == minor
    assert doors("status", "r").done().out.startswith(f"done; 20 labels, {said}\n")
    assert said in (doors.folder / "r" / "report.html").read_text()


def test_test_labels_count_as_money_and_not_as_labels(doors: Doors, class_pool: Pool) -> None:
    common = ["labeler.price_minor=10", "test_budget=30", "num_rounds=9"]
    money = ["stopping=max_amount", "stopping.amount_minor=100"]
    doors.run(class_pool, "r", *common, *money).refused("test_budget=30 costs 300 minor units")
    assert not list((doors.folder / "r").glob("rounds/*"))
    labels = ["stopping=max_labels", "stopping.num_labels=40"]
    doors.run(class_pool, "r2", *common, *labels).done()
    stands = _status(doors, "r2")
    assert [one["num_labels"] for one in stands["rounds"]] == [20, 40]
    assert stands["spend"]["amount_minor"] == 700


def test_a_correction_of_an_earlier_round_is_taken(doors: Doors, class_pool: Pool) -> None:
    words = ["labeler=file_drop", "labeler.columns=all", "num_rounds=2"]
    doors.run(class_pool, "r", *words).done()
    _answer(doors.folder / "r", class_pool)
    doors.run(class_pool, "r", *words).done()  # round 0 is done, round 1 waits
    (first,) = (doors.folder / "r/labeler/inbox").glob("*/answers.jsonl")
    answer = json.loads(first.read_text().splitlines()[0])
    wrong = next(one for one in ("ant", "bee") if one != answer["label"])
    correction = {**answer, "label": wrong, "revision": 1}
    (first.parent / "corrected.jsonl").write_text(json.dumps(correction) + "\n")
    _answer(doors.folder / "r", class_pool)
    doors.run(class_pool, "r", *words).done()
    assert _status(doors, "r")["state"] == "done"
    doors("export", "r", "--out", "labels.parquet").done()
    exported = pq.read_table(doors.folder / "labels.parquet").to_pylist()
    labels = {row["sample_id"]: row["label"] for row in exported}
    snapshot = pq.read_table(doors.folder / "r/rounds/r0001/snapshot.parquet").to_pylist()
    learnt = {row["sample_id"]: row["label"] for row in snapshot}
    assert labels[answer["sample_id"]] == learnt[answer["sample_id"]] == wrong
    assert len(exported) == 40


def test_a_pool_ends_where_what_is_left_cannot_be_decoded(doors: Doors) -> None:
    words_N = [None if row % 12 == 0 else f"word {row}" for row in range(60)]
    labels_N = ["even" if row % 2 == 0 else "odd" for row in range(60)]
    pq.write_table(pa.table({"text": words_N, "label": labels_N}), doors.folder / "rows.parquet")
    pool = ingest(
        str(doors.folder / "rows.parquet"), str(doors.folder / "pool"), label_column="label"
    )
    words = ["model=ngram_bag", "num_rounds=9", "budget=15", "max_rejected_share=0.5"]
    said = doors.run(pool, "r", *words).done()
    assert "every row of the pool is labelled, ordered or cannot be decoded" in said.out + said.err
    rounds = _status(doors, "r")["rounds"]
    counts = [one["num_labels"] for one in rounds]
    assert counts == sorted(set(counts))  # no round without a new label


@pytest.mark.parametrize("key", ["in_flight", "num_workers", "timeout_s", "num_cpus"])
def test_an_engine_that_could_do_nothing(doors: Doors, class_pool: Pool, key: str) -> None:
    doors.run(class_pool, "r", "engine=ray", f"engine.{key}=0").refused(f"engine.{key} is 0")
    assert not (doors.folder / "r").exists()


def test_boxes_of_a_finished_round_may_be_put_away(doors: Doors, class_pool: Pool) -> None:
    words = ["labeler=file_drop", "labeler.columns=all", "num_rounds=2"]
    doors.run(class_pool, "r", *words).done()
    _answer(doors.folder / "r", class_pool)
    doors.run(class_pool, "r", *words).done()
    (inbox,) = (doors.folder / "r/labeler/inbox").iterdir()
    inbox.rename(doors.folder / "answered")
    (doors.folder / "r/labeler/outbox" / inbox.name).rename(doors.folder / "asked")
    _answer(doors.folder / "r", class_pool)
    doors.run(class_pool, "r", *words).done()
    assert _status(doors, "r")["state"] == "done"
