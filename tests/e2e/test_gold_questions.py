"""Gold questions among a batch: one answer a sample is enough to see who is any good."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors

from rayal.consensus import Consensus, DawidSkene, Majority, OneCoin
from rayal.gold import GOLD, STEP, answers_of
from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.rundir import RunDir
from rayal.types import Told, Vocabulary

ACCURACY = {"ann": 0.95, "ben": 0.9, "dud": 0.1}
WORDS = [
    "labeler=file_drop", "labeler.columns=[embedding]", "labeler.price_minor=2", "num_rounds=2",
    "budget=120", "gold_share=0.25",
]  # fmt: skip


def _status(doors: Doors) -> dict[str, Any]:
    return json.loads(doors("status", "r", "--json").done().out)


def _answer(pool: Pool, draw: random.Random, crowd: list[str]) -> list[list[int]]:
    """One of the crowd answers each row of the chunks that have no answer yet; gives their ids."""
    asked = []
    for part in sorted(Path("r/labeler/outbox").glob("*/*.jsonl")):
        inbox = Path("r/labeler/inbox") / part.parent.name
        if inbox.exists():
            continue
        inbox.mkdir(parents=True)
        rows = [json.loads(line) for line in part.read_text().splitlines()]
        assert all(set(row) == {"sample_id", "embedding"} for row in rows)
        ids = [row["sample_id"] for row in rows]
        lines = []
        for place, (sample_id, label) in enumerate(zip(ids, pool.secret_labels(ids), strict=True)):
            who = crowd[place % len(crowd)]
            wrong = draw.choice([name for name in pool.vocabulary.classes if name != label])
            said = label if draw.random() < ACCURACY[who] else wrong
            lines.append({"sample_id": sample_id, "label": said, "annotator": who})
        (inbox / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        asked.append(ids)
    return asked


def _test_ids(pool: Pool) -> set[int]:
    parts = [pool.batches(shard, ("sample_id",), 1000) for shard in pool.test_shards]
    return {one for part in parts for rows in part for one in rows.column(0).to_pylist()}


def test_gold_questions_judge_annotators_who_answer_alone(doors: Doors, class_pool: Pool) -> None:
    words = [*WORDS, "consensus.quarantine={_target_: rayal.consensus.Quarantine}"]
    doors.run(class_pool, "r", *words).done()
    waiting = _status(doors)["waiting_for"]
    assert waiting == "150 of 150 labels of round 0"
    draw, tests = random.Random(0), _test_ids(class_pool)
    (asked,) = _answer(class_pool, draw, list(ACCURACY))
    is_gold = np.asarray([one in tests for one in asked])
    assert is_gold.sum() == 30
    assert 0 < np.flatnonzero(is_gold).mean() / 150 < 0.8  # among the others, not behind them
    said = doors.run(class_pool, "r", *words).done()
    assert "samples are ordered again, since answers of dud are not heard" in said.err
    # What the one who guesses did alone is asked again, and no gold question with it.
    (again,) = _answer(class_pool, draw, ["ann", "ben"])
    assert not set(again) & tests
    assert set(again) == {one for one in asked[2::3] if one not in tests}
    doors.run(class_pool, "r", *words).done()
    _answer(class_pool, draw, ["ann", "ben"])
    doors.run(class_pool, "r", *words).done()
    told = _status(doors)
    assert told["state"] == "done"
    assert told["spend"]["labels"] == 240
    assert told["spend"]["amount_minor"] == 2 * (300 + len(again))
    assert told["rounds"][1]["num_labels"] == 240
    lines = doors("status", "r", "--annotators").done().out.splitlines()
    assert [line.split()[-1] for line in lines if "dud" in line] == ["heard)"]
    folder = RunDir("r")
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        snapshot = folder.read(ledger.event(1, "labelled").result)
        key = ledger.event(0, "ordered").result.chunks[0].key
        why = [one.detail["why"] for one in ledger.logged(key) if one.what == "attempt"]
    assert "with 30 gold questions" in why[0]
    ids = snapshot.column("sample_id").to_pylist()
    assert not set(ids) & tests
    pairs = zip(snapshot.column("label").to_pylist(), class_pool.secret_labels(ids), strict=True)
    right = np.mean([str(one) == str(other) for one, other in pairs])
    assert right > 0.85
    out = doors("export", "r", "--out", "labels.parquet").done().out
    assert "labels.parquet: " in out
    doors("audit", "verify", "r").done()


def test_the_same_questions_after_a_restart(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", *WORDS).done()
    before = {path: path.read_bytes() for path in Path("r/labeler/outbox").glob("*/*")}
    doors.run(class_pool, "r", *WORDS).done()
    assert before == {path: path.read_bytes() for path in Path("r/labeler/outbox").glob("*/*")}
    doors.run(class_pool, "s", *WORDS).done()
    theirs = [path.read_bytes() for path in sorted(Path("s/labeler/outbox").glob("*/*.jsonl"))]
    assert theirs == [one for path, one in sorted(before.items()) if path.suffix == ".jsonl"]


def test_questions_from_a_file_of_test_labels(doors: Doors, class_pool: Pool) -> None:
    tests = sorted(_test_ids(class_pool))
    some = dict(zip(tests[:7], class_pool.secret_labels(tests[:7]), strict=True))
    text = "".join(json.dumps({"sample_id": i, "label": one}) + "\n" for i, one in some.items())
    Path("known.jsonl").write_text(text)
    doors.run(class_pool, "r", *WORDS, "test_labels=known.jsonl").done()
    (part,) = Path("r/labeler/outbox").glob("*/*.jsonl")
    ids = {json.loads(line)["sample_id"] for line in part.read_text().splitlines()}
    assert ids & set(tests) == set(some)  # all there are, though 30 were wanted
    assert _status(doors)["waiting_for"] == "127 of 127 labels of round 0"


def test_questions_that_cannot_be(
    doors: Doors, class_pool: Pool, number_pool: Pool, tmp_path: Path
) -> None:
    doors.run(class_pool, "r", "gold_share=1.5").refused("gold_share is 1.5, expected 0 to 1")
    said = doors.run(number_pool, "s", "gold_share=0.1")
    said.refused("of kind 'number', which no answer meets")
    table = pa.table({"embedding": [[float(i), 1.0] for i in range(200)]})
    pq.write_table(table, tmp_path / "rows.parquet")
    doors("ingest", tmp_path / "rows.parquet", tmp_path / "pool").done()
    words = ["vocabulary=class", "vocabulary.classes=[a,b]", *WORDS]
    said = doors.run(tmp_path / "pool", "t", *words)
    said.refused("no label of the test split is known to ask for; give test_labels")


def test_a_plan_counts_the_questions(doors: Doors, class_pool: Pool) -> None:
    words = ["experiment=embeddings", f"pool.path={class_pool.path}", "budget=20", "num_rounds=2"]
    costs = []
    for share in (0, 0.5):
        more = ["labeler.price_minor=4", f"gold_share={share}", "--json"]
        costs.append(json.loads(doors("plan", *words, *more).done().out)["labels"]["amount_minor"])
    assert costs == [160, 240]


def test_another_run_takes_the_questions_over(doors: Doors, class_pool: Pool) -> None:
    words = ["gold_share=0.5", "labeler.noise=0.2", "num_rounds=1"]
    doors.run(class_pool, "r", *words).done()
    doors.run(class_pool, "s", *words, "strategy=random", "begin_from=r", "num_rounds=2").done()
    asked = []
    for name in ("r", "s"):
        folder = RunDir(name)
        with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
            asked.append({one.event.sample_id for one in ledger.labels(GOLD)})
            assert ledger.event(0, STEP) is not None
    assert len(asked[0]) == 10
    assert asked[0] < asked[1]
    doors("audit", "verify", "s").done()


def test_a_question_is_erased(doors: Doors, class_pool: Pool, tmp_path: Path) -> None:
    shutil.copytree(class_pool.path, tmp_path / "pool")
    doors.run(tmp_path / "pool", "r", "gold_share=0.5", "num_rounds=1").done()
    folder = RunDir("r")
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        gold = folder.read(ledger.event(0, STEP).result)
    gone = gold.column("sample_id").to_pylist()[0]
    doors("erase", "r", "--sample-id", gone).done()
    folder = RunDir("r")
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        known = answers_of(folder, ledger.event(0, STEP).result)
        assert gone not in {one.event.sample_id for one in ledger.labels(GOLD)}
    assert len(known) == 9
    assert gone not in known
    doors("audit", "verify", "r").done()


@pytest.mark.parametrize("by", [OneCoin(), Majority(), DawidSkene()])
def test_gold_answers_tell_the_quality_of_those_who_answer_alone(by: Any) -> None:
    """2,000 samples with one answer each and 200 gold ones: accuracies are those of the gold."""
    rng = np.random.default_rng(0)
    classes = tuple("abcde")
    accuracy = np.asarray([0.95, 0.7, 0.2])
    truth = rng.integers(0, 5, 2_200)
    who = rng.integers(0, 3, 2_200)
    wrong = (truth + rng.integers(1, 5, 2_200)) % 5
    said = np.where(rng.random(2_200) < accuracy[who], truth, wrong)
    told = Told(np.arange(2_200), ("x", "y", "z"), who, classes, said)
    gold = {int(i): classes[truth[i]] for i in range(2_000, 2_200)}
    decided = Consensus(by=by).decide(told, Vocabulary("class", classes), gold)
    assert sorted(decided.labels) == list(range(2_000))
    for place, one in enumerate(decided.reports):
        is_mine = (who == place) & (np.arange(2_200) >= 2_000)
        assert one.num_gold == is_mine.sum()
        assert one.accuracy == pytest.approx((said == truth)[is_mine].mean(), abs=1e-9)
        assert one.low < one.accuracy < one.high
    weights = np.asarray([decided.weights[i] for i in range(2_000)])
    if not isinstance(by, Majority):  # which takes one answer for the truth
        means = [weights[who[:2_000] == place].mean() for place in range(3)]
        assert means[0] > 0.85 > means[1] > 0.5 > means[2]


def test_gold_answers_of_several_classes() -> None:
    """Who names a class at random does not outvote one who knows, once gold answers say so."""
    rng = np.random.default_rng(1)
    classes = ("a", "b")
    truth = rng.random((300, 2)) < 0.5
    good = truth ^ (rng.random((300, 2)) < 0.05)
    alike = truth ^ (rng.random((300, 2)) < 0.45)  # two who copy each other
    texts = [[], ["a"], ["b"], ["a", "b"]]
    place = lambda has: has[:, 0] + 2 * has[:, 1]  # noqa: E731
    told = Told(
        np.tile(np.arange(300), 3), ("x", "y", "z"), np.repeat([0, 1, 2], 300),
        tuple(texts), np.concatenate([place(good), place(alike), place(alike)]),
    )  # fmt: skip
    vocabulary = Vocabulary("multilabel", classes)
    gold = {i: texts[place(truth)[i]] for i in range(150)}
    with_gold = Consensus().decide(told, vocabulary, gold)
    without = Consensus().decide(told, vocabulary)
    assert sorted(with_gold.labels) == list(range(150, 300))

    def right(labels: dict[int, Any]) -> float:
        return float(np.mean([labels[i] == texts[place(truth)[i]] for i in range(150, 300)]))

    assert right(with_gold.labels) > 0.85
    assert right(without.labels) < 0.6
