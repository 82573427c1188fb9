"""Samples that annotators disagree on go to somebody who knows; what that one says is the label."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from doors import Doors
from runs import picked

from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.rundir import RunDir

WORDS = ["labeler=file_drop", "labeler.columns=[embedding]", "labeler.overlap=3", "num_rounds=2"]


def _answer(pool: Pool, split: int) -> dict[int, str]:
    """Three answer every row of the newest chunk; of the first `split` each says another class.
    Gives the true labels."""
    truth: dict[int, str] = {}
    for part in sorted(Path("r/labeler/outbox").glob("*/*.jsonl")):
        inbox = Path("r/labeler/inbox") / part.parent.name
        if inbox.exists():
            continue
        inbox.mkdir(parents=True)
        ids = [json.loads(line)["sample_id"] for line in part.read_text().splitlines()]
        truth = dict(zip(ids, map(str, pool.secret_labels(ids)), strict=True))
        classes = list(pool.vocabulary.classes)
        lines = []
        for place, sample_id in enumerate(ids):
            right = classes.index(truth[sample_id])
            for number, who in enumerate(("ann", "ben", "cem")):
                other = number if place < split else 0
                said = classes[(right + other) % len(classes)]
                lines.append({"sample_id": sample_id, "label": said, "annotator": who})
        (inbox / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return truth


def _snapshot(t: int) -> dict[int, tuple[str, float]]:
    folder = RunDir("r")
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        table = folder.read(ledger.event(t, "labelled").result).to_pydict()
    pairs = zip(table["label"], table["weight"], strict=True)
    return dict(zip(table["sample_id"], pairs, strict=True))


def test_what_is_disputed_is_settled(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", *WORDS).done()
    truth = _answer(class_pool, 4)
    doors.run(class_pool, "r", *WORDS).done()
    said = doors("labels", "disputed", "r", "disputes.csv").done().out
    assert "disputes.csv: 4 samples" in said
    with Path("disputes.csv").open() as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    assert [int(row["sample_id"]) for row in rows] == sorted(
        (int(row["sample_id"]) for row in rows),
        key=lambda i: (next(float(r["probability"]) for r in rows if int(r["sample_id"]) == i), i),
    )
    assert all(float(row["probability"]) < 0.8 and row["label"] == "" for row in rows)
    assert all(row["answers"].count(":") == 3 and "embedding" not in row for row in rows)
    for row in rows[1:]:
        row["label"] = truth[int(row["sample_id"])]
    with Path("decided.csv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for _ in range(2):  # a replay changes nothing
        said = doors("labels", "settle", "r", "decided.csv", "--annotator", "eve").done().out
    assert "3 samples are decided, 0 of them anew" in said
    assert "1 samples" in doors("labels", "disputed", "r", "disputes.csv").done().out
    spent = json.loads(doors("status", "r", "--json").done().out)["spend"]
    _answer(class_pool, 0)
    doors.run(class_pool, "r", *WORDS).done()
    assert spent["labels"] == 20
    settled = {int(row["sample_id"]) for row in rows[1:]}
    before, after = _snapshot(0), _snapshot(1)
    assert set(before) < set(after)
    assert all(after[i] == (truth[i], 1.0) for i in settled)
    assert all(before[i][1] < 0.8 for i in settled)
    # Taken back by another decision.
    other = next(name for name in class_pool.vocabulary.classes if name != truth[min(settled)])
    Path("more.jsonl").write_text(json.dumps({"sample_id": min(settled), "label": other}) + "\n")
    assert "1 of them anew" in doors("labels", "settle", "r", "more.jsonl").done().out
    folder = RunDir("r")
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        held = {one.event.sample_id: one.event.value for one in ledger.labels(-3)}
    assert held == {i: truth[i] for i in settled} | {min(settled): other}
    doors("audit", "verify", "r").done()
    assert "labels" in doors("export", "r", "--out", "labels.parquet").done().out


def test_a_decision_is_erased_with_its_sample(
    doors: Doors, class_pool: Pool, tmp_path: Path
) -> None:
    shutil.copytree(class_pool.path, tmp_path / "pool")
    doors.run(tmp_path / "pool", "r", *WORDS[:-1], "num_rounds=1").done()
    truth = _answer(class_pool, 3)
    doors.run(tmp_path / "pool", "r", *WORDS[:-1], "num_rounds=1").done()
    one = picked("r")[0][0]
    Path("one.jsonl").write_text(json.dumps({"sample_id": one, "label": truth[one]}) + "\n")
    doors("labels", "settle", "r", "one.jsonl").done()
    doors("erase", "r", "--sample-id", one).done()
    folder = RunDir("r")
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        assert ledger.labels(-3) == []
    doors("audit", "verify", "r").done()


def test_files_that_settle_nothing(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", *WORDS).done()
    ids = picked("r")[0]
    lines = [{"sample_id": ids[0], "label": name} for name in class_pool.vocabulary.classes[:2]]
    Path("two.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    doors("labels", "settle", "r", "two.jsonl").refused("is decided twice", "Nothing was taken")
    Path("far.csv").write_text("sample_id,label\n99999999,ant\n")
    doors("labels", "settle", "r", "far.csv").refused("far.csv:2", "99999999")
    doors("labels", "disputed", "r", "list.txt").refused(".csv or .parquet")
    doors("labels", "disputed", "r", "list.csv", "--below", "2").refused("--below is 2")
    assert not Path("list.csv").exists()


def test_other_kinds(doors: Doors, multilabel_pool: Pool, number_pool: Pool) -> None:
    doors.run(multilabel_pool, "r", "num_rounds=1", "model.kind=multilabel").done()
    assert "0 samples" in doors("labels", "disputed", "r", "list.parquet").done().out
    words = ["num_rounds=1", "model.kind=number", "model.transform.column=features"]
    doors.run(number_pool, "s", *words, "strategy=random").done()
    said = doors("labels", "disputed", "s", "list.parquet")
    said.refused("labels of this run are numbers, which have no probability")
