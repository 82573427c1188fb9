"""A whole run whose labels people give in Label Studio (the small server of the tests)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from label_studio_fake import LEGACY, FakeLabelStudio, served
from label_studio_server import People
from runs import picked, plain_config

from rayal.cli.config import build
from rayal.errors import ConfigError
from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.rundir import RunDir

SMALL = (
    "model=linear", "num_rounds=2", "budget=20", "predictor.batch_rows=64", "trainer.epochs=1",
    "trainer.min_steps=5",
)  # fmt: skip
ENV, SECRET = "RAYAL_TEST_STUDIO", "RAYAL_TEST_PSEUDONYMS"


def _said(pool: Pool, task: dict[str, Any], samples: dict[int, int]) -> str:
    (label,) = pool.secret_labels([samples[task["data"]["sample_id"]]])
    return str(label)


def test_people_in_label_studio_label_two_rounds(class_pool: Pool, tmp_path: Path, monkeypatch):
    monkeypatch.setenv(ENV, LEGACY)
    monkeypatch.setenv(SECRET, "a secret of more than sixteen bytes")
    fake = FakeLabelStudio()
    with served(fake) as url:
        people = People(url, LEGACY)
        ann, bob = people.join(2)
        config = plain_config(
            *SMALL, f"pool.path={class_pool.path}", f"run_dir={tmp_path / 'run'}",
            "labeler=label_studio", f"labeler.url={url}", f"labeler.token_env={ENV}",
            "labeler.columns=[embedding]", "labeler.kind=table", "labeler.overlap=2",
            "labeler.price_minor=5", "labeler.rows_per_chunk=8", f"labeler.pseudonyms={SECRET}",
        )  # fmt: skip
        assert build(config).run(config) == "waiting"
        states, done = ["waiting"], set[int]()
        while states[-1] == "waiting" and len(states) < 9:
            loop = build(config)
            samples = {
                int(loop.labeler.gate.ids([one])[0]): one
                for b in picked(tmp_path / "run")
                for one in b
            }
            for task in [one for number in fake.projects for one in people.tasks(number)]:
                if task["id"] in done or (task["id"] % 2 and len(states) % 2):
                    continue  # a half now, the other half later
                done.add(task["id"])
                label = _said(class_pool, task, samples)
                wrong = people.say(task["id"], [label], ann)
                if task["id"] % 5 == 0:
                    people.edit(wrong, [label])
                people.say(task["id"], [label], bob)
            states.append(loop.run(config))
        assert states == ["waiting"] * 4 + ["done"]
        titles = {one["title"] for one in fake.projects.values()}
        assert len(titles) == len(fake.projects) == 2
    folder = RunDir(str(tmp_path / "run"))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        labels = ledger.labels()
        spend = ledger.spend()
    assert len(fake.tasks) == 40
    assert len(labels) == 80
    assert {one.event.annotator for one in labels} == {str(ann), str(bob)}
    truth = class_pool.secret_labels([one.event.sample_id for one in labels])
    assert [one.event.value for one in labels] == [str(one) for one in truth]
    assert spend == {"labels": 40, "amount_minor": 400}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give labeler.columns"),
        (["labeler.columns=[embedding]"], "name the column"),
        (["labeler.columns=[embedding]", "labeler.show=text"], "'text', which does not leave"),
    ],
)
def test_what_cannot_leave_is_refused_before_anything_does(
    class_pool: Pool, tmp_path: Path, monkeypatch, words, message
):
    monkeypatch.setenv(ENV, LEGACY)
    fake = FakeLabelStudio()
    with served(fake) as url:
        config = plain_config(
            *SMALL, f"pool.path={class_pool.path}", f"run_dir={tmp_path / 'run'}",
            "labeler=label_studio", f"labeler.url={url}", f"labeler.token_env={ENV}", *words,
        )  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            build(config).run(config)
    assert fake.heard == []
