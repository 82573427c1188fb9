"""Annotators who are worse than they may be are not heard, and what they did is ordered again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doors import Doors

from rayal.consensus import Consensus, Quarantine
from rayal.errors import ConfigError
from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.rundir import RunDir
from rayal.types import LabelEvent, Told, Vocabulary

ACCURACY = {"ann": 0.95, "ben": 0.9, "cem": 0.95, "dud": 0.1}
WORDS = [
    "labeler=file_drop", "labeler.columns=[embedding]", "labeler.overlap=3", "num_rounds=1",
    "budget=120", "labeler.price_minor=2",
    "consensus.quarantine={_target_: rayal.consensus.Quarantine, least_accuracy: 0.5}",
]  # fmt: skip


def _status(doors: Doors) -> dict[str, Any]:
    return json.loads(doors("status", "r", "--json").done().out)


def _answer(pool: Pool, draw: random.Random) -> int:
    """Three of the four answer each row of the chunks that have no answer yet."""
    num = 0
    for part in sorted(Path("r/labeler/outbox").glob("*/*.jsonl")):
        inbox = Path("r/labeler/inbox") / part.parent.name
        if inbox.exists():
            continue
        inbox.mkdir(parents=True)
        ids = [json.loads(line)["sample_id"] for line in part.read_text().splitlines()]
        lines = []
        for place, (sample_id, label) in enumerate(zip(ids, pool.secret_labels(ids), strict=True)):
            crowd = ["ann", "ben", "cem"] if num or place % 2 else ["ann", "ben", "dud"]
            for who in crowd:
                wrong = draw.choice([name for name in pool.vocabulary.classes if name != label])
                said = label if draw.random() < ACCURACY[who] else wrong
                lines.append({"sample_id": sample_id, "label": said, "annotator": who})
        (inbox / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        num += len(ids)
    return num


@pytest.mark.parametrize("limit", [None, 800])
def test_what_a_bad_annotator_did_is_ordered_again(
    doors: Doors, class_pool: Pool, limit: int | None
) -> None:
    words = [*WORDS, f"max_amount_minor={limit}"] if limit else WORDS
    doors.run(class_pool, "r", *words).done()
    draw = random.Random(0)
    assert _answer(class_pool, draw) == 120
    said = doors.run(class_pool, "r", *words).done()
    if limit is None:
        assert "60 samples are ordered again, since answers of dud are not heard" in said.err
        assert _status(doors)["state"] == "waiting"
        assert _status(doors)["orders"]["promised_minor"] == 60 * 3 * 2
        doors.run(class_pool, "r", *words).done()  # again the same changes nothing
        assert len(list(Path("r/labeler/outbox").iterdir())) == 2
        for path in Path("r/labeler/outbox").glob("*/manifest.json"):
            assert json.loads(path.read_text())["answers_a_row"] == 3
        assert _answer(class_pool, draw) == 60
        doors.run(class_pool, "r", *words).done()
        assert _status(doors)["spend"]["amount_minor"] == (120 + 60) * 3 * 2
    else:
        assert "60 samples lack answers that are heard; to order them again would cost" in said.err
        assert _status(doors)["spend"]["amount_minor"] == 120 * 3 * 2
    assert _status(doors)["state"] == "done"
    said = doors("status", "r", "--annotators").done().out
    assert [line.split()[-1] for line in said.splitlines() if "dud" in line] == ["heard)"]
    folder = RunDir("r")
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        table = folder.read(ledger.event(0, "labelled").result)
        assert ledger.problems() == []
    truth = class_pool.secret_labels(table.column("sample_id").to_pylist())
    right = [
        str(a) == str(b) for a, b in zip(table.column("label").to_pylist(), truth, strict=True)
    ]
    assert len(right) == 120
    assert np.mean(right) > 0.95


def test_who_is_not_heard() -> None:
    rng = np.random.default_rng(0)
    events = []
    for row in range(200):
        true = int(rng.integers(4))
        for who, accuracy in ACCURACY.items():
            said = true if rng.random() < accuracy else (true + 1 + int(rng.integers(3))) % 4
            events.append(LabelEvent(row, said, f"{row}/{who}", annotator=who))
    words = Vocabulary("class", (0, 1, 2, 3))
    told = Told.of(events)
    heard = Consensus(quarantine=Quarantine(0.5, 30)).decide(told, words)
    assert heard.quarantined == ("dud",)
    assert [one.annotator for one in heard.reports] == sorted(ACCURACY)
    assert Consensus().decide(told, words).quarantined == ()
    assert Consensus(quarantine=Quarantine(0.5, 500)).decide(told, words).quarantined == ()
    turned = Told.of([events[i] for i in rng.permutation(len(events))])
    again = Consensus(quarantine=Quarantine(0.5, 30)).decide(turned, words)
    assert again.labels == heard.labels
    assert again.weights == heard.weights
    without_dud = Told.of([one for one in events if one.annotator != "dud"])
    assert Consensus().decide(without_dud, words).labels == heard.labels
    # All below the bar: nobody would be left, so nobody is set apart for good.
    all_bad = Consensus(quarantine=Quarantine(0.999, 1)).decide(told, words)
    assert len(all_bad.quarantined) < 4
    with pytest.raises(ConfigError, match=r"least_accuracy=1.5"):
        Quarantine(1.5)
