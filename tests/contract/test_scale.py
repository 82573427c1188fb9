"""Orders and answers through a server that answers in Scale's shapes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from doors import Doors
from runs import picked
from scale_fake import KEY, FakeScale, served

from rayal.errors import ConfigError, LabelError
from rayal.labelers.http import Client
from rayal.labelers.scale import NOT_A_SAMPLE, Scale
from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.rundir import RunDir
from rayal.types import Ack, Doorbell, LabelEvent, Order, Status, Vocabulary
from rayal.vendorkit.faults import Faults

pytest.importorskip("httpx", reason="adapters over HTTP need the extra 'vendors'")
ENV = "RAYAL_TEST_SCALE_KEY"
ROWS = pa.table({"sample_id": pa.array([3, 4, 5], pa.int64()), "text": ["a", "b", "c"]})
CLASSES = Vocabulary("class", ("cat", "dog"))


def scale(url: str, vocabulary: Vocabulary = CLASSES, **more: Any) -> Scale:
    settings = {"columns": ["text"], "key_env": ENV, "price_minor": 5, **more}
    made = Scale("animals", url=url, **settings)
    made.client._sleep = lambda _: None
    made.bind(None, vocabulary, "")
    return made


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, KEY)


def place(labeler: Scale, rows: pa.Table = ROWS, job: str = "b0") -> Order:
    chunks = labeler.plan(job, rows)
    acks = [labeler.submit(c, rows.slice(c.start, c.stop - c.start)) for c in chunks]
    return Order(job, tuple(acks), rows.num_rows)


def _body(heard: bytes) -> dict[str, Any]:
    content = heard.partition(b"\n\n")[2]
    return json.loads(content) if content else {}


def drain(labeler: Scale, order: Order, cursor: str = "") -> tuple[list[LabelEvent], str]:
    events: list[LabelEvent] = []
    while True:
        some, after = labeler.fetch(order, cursor)
        events += some
        if after == cursor:
            return events, after
        cursor = after


def test_a_task_in_scales_shape() -> None:
    fake = FakeScale()
    with served(fake) as url:
        labeler = scale(url, instruction="what is it?")
        assert labeler.lookup("b0-0000") is None
        order = place(labeler)
        assert order.chunks == (Ack("b0-0000", "b0-0000", 3),)
        assert labeler.lookup("b0-0000") == Ack("b0-0000", "b0-0000", 3)
        place(labeler)  # again: nothing comes to be
    assert len(fake.tasks) == 3
    assert fake.batches["b0-0000"]["status"] == "in_progress"
    one = next(iter(fake.tasks.values()))
    bodies = [body for body in map(_body, fake.heard) if "attachments" in body]
    mine = next(body for body in bodies if body["metadata"]["sample_id"] == 3)
    assert mine == {
        "batch": "b0-0000",
        "unique_id": "b0-0000-3",
        "metadata": {"rayal_chunk": "b0-0000", "sample_id": 3},
        "attachments": [{"type": "text", "content": "text: a"}],
        "fields": [
            {
                "field_id": "label", "title": "Label", "required": True, "type": "category",
                "choices": [{"label": "cat", "value": "0"}, {"label": "dog", "value": "1"}],
                "min_choices": 1, "max_choices": 1,
            }
        ],
        "instruction": "what is it?",
    }  # fmt: skip
    assert one["project"] == "animals"


def test_answers_are_corrected_recalled_and_canceled() -> None:
    fake = FakeScale()
    with served(fake) as url:
        labeler = scale(url)
        order = place(labeler)
        by_sample = {task["metadata"]["sample_id"]: name for name, task in fake.tasks.items()}
        assert drain(labeler, order)[0] == []
        fake.say(by_sample[3], ["0"])
        fake.say(by_sample[4], ["7"])  # none of the choices
        events, cursor = drain(labeler, order)
        said = {one.sample_id: one.value for one in events if not one.event_id.endswith("/price")}
        assert said == {3: "cat", 4: "7"}
        assert sum({one.event_id: one.cost_minor for one in events}.values()) == 10
        assert labeler.status(order) == Status(3, 2)
        fake.say(by_sample[3], ["1"])
        fake.recall(by_sample[4])
        newer, cursor = drain(labeler, order, cursor)
        newest = {}
        for one in sorted(events + newer, key=lambda one: one.revision):
            newest[one.event_id] = one
        assert newest[by_sample[3]].value == "dog"
        assert newest[by_sample[4]].is_open
        assert newest[by_sample[4]].value is None
        labeler.cancel(order)
        newer, _ = drain(labeler, order, cursor)
        canceled = [one for one in newer if one.event_id == by_sample[5]]
        assert {(one.value, one.is_open) for one in canceled} == {(None, False)}
        fake._listed = lambda query: {"error": "no"}
        with pytest.raises(LabelError, match="list of tasks"):
            labeler.fetch(order, "")


@pytest.mark.parametrize(
    ("vocabulary", "said", "label"),
    [
        (Vocabulary("multilabel", ("x", "y", "z")), ["2", "0"], ["x", "z"]),
        (Vocabulary("multilabel", ("x", "y", "z")), [], []),
        (Vocabulary("number", ()), ["4.5"], 4.5),
        (Vocabulary("number", ()), ["four"], "four"),
        (Vocabulary("class", (10, 20)), ["1"], 20),
        (Vocabulary("class", ("cat", "dog")), ["0", "1"], "[['0', '1']]"),
    ],
)
def test_labels_of_all_kinds(vocabulary: Vocabulary, said: list[str], label: Any) -> None:
    fake = FakeScale()
    with served(fake) as url:
        labeler = scale(url, vocabulary, price_minor=0)
        order = place(labeler, ROWS.slice(0, 1))
        fake.say(next(iter(fake.tasks)), said)
        (event,) = {one.event_id: one for one in drain(labeler, order)[0]}.values()
    assert event.value == label


def test_a_task_that_is_none_of_ours_goes_apart() -> None:
    fake = FakeScale()
    with served(fake) as url:
        labeler = scale(url)
        order = place(labeler, ROWS.slice(0, 1))
        (task,) = fake.tasks.values()
        task["metadata"] = {}
        fake.say(task["task_id"], ["0"])
        events, _ = drain(labeler, order)
    assert {one.sample_id for one in events} == {NOT_A_SAMPLE}


def test_rows_that_cannot_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    labeler = scale("http://127.0.0.1:1", columns=["photo"])
    with pytest.raises(ConfigError, match="takes texts and URLs"):
        labeler.check(pa.schema([("sample_id", pa.int64()), ("photo", pa.binary())]))
    labeler = scale("http://127.0.0.1:1", attachments={"photo": "image"})
    with pytest.raises(ConfigError, match="photo, which does not leave"):
        labeler.check(pa.schema([("sample_id", pa.int64()), ("text", pa.string())]))
    with pytest.raises(ConfigError, match="choose text, image"):
        scale("http://127.0.0.1:1", attachments={"text": "smell"})
    monkeypatch.delenv(ENV)
    with pytest.raises(ConfigError, match=ENV):
        scale("http://127.0.0.1:1")


def test_the_doorbell(monkeypatch: pytest.MonkeyPatch) -> None:
    labeler = scale("http://127.0.0.1:1", callback_env="RAYAL_TEST_CALLBACK")
    assert isinstance(labeler, Doorbell)
    monkeypatch.setenv("RAYAL_TEST_CALLBACK", "live_auth_1")
    assert labeler.rings({"scale-callback-auth": "live_auth_1"}, b"{}")
    assert not labeler.rings({"scale-callback-auth": "live_auth_2"}, b"{}")
    assert not labeler.rings({}, b"{}")
    assert not scale("http://127.0.0.1:1").rings({"scale-callback-auth": ""}, b"{}")


@pytest.mark.parametrize("seed", range(3))
def test_a_run_over_a_vendor_with_faults(
    doors: Doors, class_pool: Pool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are cut, refused and broken; every sample is one task, and the ledger has the truth."""
    monkeypatch.setattr("rayal.labelers.scale.Client", partial(Client, sleep=lambda _: None))
    faults = Faults(cut_after=0.1, cut_before=0.1, busy=0.1, broken=0.1, broken_after=0.1,
                    cut_asked=0.1)  # fmt: skip
    fake, rng = FakeScale(faults, seed), np.random.default_rng(seed)
    words = [
        "labeler=scale", "labeler.project=animals", "labeler.columns=[embedding]",
        f"labeler.key_env={ENV}", "labeler.price_minor=5", "labeler.rows_per_chunk=8",
        "num_rounds=2", "budget=20",
    ]  # fmt: skip
    classes = [str(one) for one in class_pool.vocabulary.classes]
    with served(fake) as url:
        words.append(f"labeler.url={url}")
        for _ in range(60):
            said = doors.run(class_pool, "r", *words)
            if said.code == 0 and json.loads(doors("status", "r", "--json").out)["state"] == "done":
                break
            for name, task in list(fake.tasks.items()):
                if task["status"] == "pending" and rng.random() < 0.7:
                    sample_id = task["metadata"]["sample_id"]
                    truth = str(class_pool.secret_labels(np.asarray([sample_id]))[0])
                    fake.say(name, [str(classes.index(truth))])
                elif task["status"] == "completed" and rng.random() < 0.05:
                    fake.recall(name)
    samples = [one for batch in picked("r") for one in batch]
    assert sorted(task["metadata"]["sample_id"] for task in fake.tasks.values()) == sorted(samples)
    assert len(samples) == 40
    folder = RunDir("r")
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        told = {one.event.sample_id: one.event.value for one in ledger.labels()}
        done = {e.round: e.result for e in ledger.events(step="labelled")}
        assert ledger.spend()["amount_minor"] == 5 * len(samples)
        assert ledger.problems() == []
    truth = dict(zip(samples, map(str, class_pool.secret_labels(np.asarray(samples))), strict=True))
    assert all(truth[sample] == label for sample, label in told.items())
    assert done[1].num_rows >= 30  # one that was recalled late is awaited by nobody any more
    for body in map(_body, fake.heard):
        if "attachments" in body:
            assert set(body) == {"batch", "unique_id", "metadata", "attachments", "fields"}
            (attachment,) = body["attachments"]
            assert attachment["content"].startswith("embedding: [")
    for path in Path("r").rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes()


def test_erased_samples_are_canceled() -> None:
    fake = FakeScale()
    with served(fake) as url:
        labeler = scale(url)
        order = place(labeler)
        labeler.erase(order, np.asarray([4]))
    states = {task["metadata"]["sample_id"]: task["status"] for task in fake.tasks.values()}
    assert states == {3: "pending", 4: "canceled", 5: "pending"}
