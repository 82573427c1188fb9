"""Several annotators answer every row of a run: who is right decides, and how sure is a weight."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from doors import Doors

from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.rundir import RunDir

ACCURACY = {"ann": 0.95, "ben": 0.9, "cat": 0.15, "dan": 0.15}


def _answer(run: Path, pool: Pool, draw: random.Random) -> None:
    """Each of the crowd answers every row; the two who guess are often of one wrong opinion."""
    classes = pool.vocabulary.classes
    for part in sorted((run / "labeler/outbox").glob("*/*.jsonl")):
        inbox = run / "labeler/inbox" / part.parent.name
        inbox.mkdir(parents=True, exist_ok=True)
        ids = [json.loads(line)["sample_id"] for line in part.read_text().splitlines()]
        lines = []
        for sample_id, label in zip(ids, pool.secret_labels(ids), strict=True):
            wrong = draw.choice([name for name in classes if name != label])
            for who, accuracy in ACCURACY.items():
                said = label if draw.random() < accuracy else wrong
                lines.append({"sample_id": sample_id, "label": said, "annotator": who})
        draw.shuffle(lines)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (inbox / "answers.jsonl").write_text(text)


@pytest.mark.parametrize("consensus", ["majority", "one_coin", "dawid_skene"])
def test_a_run_decides_among_annotators(doors: Doors, class_pool: Pool, consensus: str) -> None:
    words = [
        "labeler=file_drop",
        "labeler.columns=all",
        "num_rounds=1",
        "budget=150",
        f"consensus={consensus}",
    ]
    doors.run(class_pool, "r", *words).done()
    _answer(doors.folder / "r", class_pool, random.Random(0))
    doors.run(class_pool, "r", *words).done()
    run = RunDir(str(doors.folder / "r"))
    with Ledger.open(run.ledger_url, run.read_id(), writer=False) as ledger:
        table = run.read(ledger.event(0, "labelled").result)
    ids, weights = table.column("sample_id").to_pylist(), table.column("weight").to_numpy()
    truth = [str(label) for label in class_pool.secret_labels(ids)]
    said = [str(label) for label in table.column("label").to_pylist()]
    right = np.mean([one == other for one, other in zip(said, truth, strict=True)])
    assert len(ids) == 150
    assert ((weights > 0) & (weights <= 1)).all()
    assert len(np.unique(weights)) > 2
    # Two who know against two who guess alike: a vote is a tie. 150 rows are too few for tables of
    # who takes what for what, which believe the two who err alike.
    least, most = {"majority": (0.4, 0.8), "one_coin": (0.88, 1.0), "dawid_skene": (0.4, 1.0)}[
        consensus
    ]
    assert least < right < most
    told = doors("status", "r", "--annotators").done().out.splitlines()
    assert told[0].startswith("4 annotators; Krippendorff's alpha 0.")
    assert [line.split()[-1] for line in told[2:]] == list(ACCURACY)
    if consensus == "one_coin":
        shown = {line.split()[-1]: float(line.split()[1]) for line in told[2:]}
        assert min(shown["ann"], shown["ben"]) > 0.8 > 0.4 > max(shown["cat"], shown["dan"])
    noted = json.loads(doors("status", "r", "--annotators", "--json").done().out)["annotators"]
    assert noted["num"] == 4


def test_nobody_to_compare(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "num_rounds=1").done()
    said = doors("status", "r", "--annotators").done().out
    assert said == "no sample has two answers yet, so annotators cannot be compared\n"


def test_another_consensus_is_another_run(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "num_rounds=1").done()
    doors.run(class_pool, "r", "num_rounds=1", "consensus=majority").refused("consensus.by")
    doors.run(class_pool, "s", "consensus=vote").refused("no consensus 'vote'")
