"""Orders and answers through Label Studio: a small server that answers as the real one did, and
with RAYAL_LABEL_STUDIO (make label-studio-test) the real one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from label_studio_fake import LEGACY, PERSONAL, FakeLabelStudio, served
from label_studio_server import People, RealServer, choices, real

from rayal.errors import InDoubt, LabelError
from rayal.labelers.label_studio import LabelStudio
from rayal.labelers.label_studio.reading import DELETED, NOT_A_SAMPLE
from rayal.types import Audited, Doorbell, LabelEvent, Order, Vocabulary
from rayal.vendorkit.check import check

HOME = os.environ.get("RAYAL_LABEL_STUDIO")
ENV = "RAYAL_TEST_LABEL_STUDIO_TOKEN"
VOCABULARY = Vocabulary("class", ("cat", "dog"))
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("label_studio")]


@dataclass
class Studio:
    """A server, who annotates there, and the labelers that rayal has of it."""

    people: People
    personal: str
    fake: FakeLabelStudio | None
    real: RealServer | None = None
    count: int = 0

    def labeler(self, folder: Path, vocabulary: Vocabulary = VOCABULARY, **more) -> LabelStudio:
        settings = {"columns": ["text"], "kind": "text", "show": "text", "price_minor": 3}
        settings |= {"rows_per_chunk": 4, "overlap": 2, "in_doubt_s": 30.0, "sleep": lambda _: None}
        made = LabelStudio(self.people.url, ENV, **settings | more)
        made.bind(None, vocabulary, str(folder))
        return made

    def job(self) -> str:
        self.count += 1
        return f"b{os.getpid()}x{id(self)}x{self.count}"


@pytest.fixture(scope="module", params=["fake", "real"])
def server(request, tmp_path_factory) -> Iterator[Studio]:
    if request.param == "fake":
        fake = FakeLabelStudio()
        with served(fake) as url:
            yield Studio(People(url, LEGACY), PERSONAL, fake)
    elif not HOME:
        pytest.skip("make label-studio-test installs and starts a real server")
    else:
        with real(Path(HOME).absolute(), tmp_path_factory.mktemp("label_studio")) as running:
            people = People(running.url, running.token)
            yield Studio(people, people.personal_token(), None, running)


@pytest.fixture
def studio(server, monkeypatch) -> Studio:
    monkeypatch.setenv(ENV, server.people.token)
    return server


def rows_of(number: int, start: int = 0) -> pa.Table:
    ids = np.arange(start, start + number)
    return pa.table({"sample_id": ids, "text": [f"text {one} <&>" for one in ids]})


def ordered(labeler: LabelStudio, job: str, rows: pa.Table) -> Order:
    """Places all chunks, as the ledger's orders do."""
    acks = []
    for chunk in labeler.plan(job, rows):
        acks.append(labeler.submit(chunk, rows.slice(chunk.start, chunk.stop - chunk.start)))
    return Order(job, tuple(acks), rows.num_rows)


def drained(labeler: LabelStudio, order: Order, cursor: str = "") -> tuple[list[LabelEvent], str]:
    """Fetches until the cursor stays; gives the different events."""
    events: dict[LabelEvent, None] = {}
    while True:
        some, after = labeler.fetch(order, cursor)
        for one in some:
            assert isinstance(one.value, str | None)
            events[one] = None
        if after == cursor:
            return list(events), after
        cursor = after


def tasks_of(studio: Studio, order: Order) -> dict[int, int]:
    """Gives, by sample_id, the task of each sample."""
    found = studio.people.tasks(int(order.chunks[0].handle))
    return {one["meta"]["sample_id"]: one["id"] for one in found}


def test_it_is_what_the_ledger_recovers_by_a_tag(studio, tmp_path):
    labeler = studio.labeler(tmp_path)
    assert labeler.capabilities.family == "tag"
    assert isinstance(labeler, Audited)
    assert isinstance(labeler, Doorbell)


def test_a_batch_is_placed_found_and_held(studio, tmp_path):
    labeler, job = studio.labeler(tmp_path), studio.job()
    rows = rows_of(10, 2**53 + 1)
    chunks = labeler.plan(job, rows)
    assert [labeler.lookup(chunk.key) for chunk in chunks] == [None] * 3
    assert labeler.held(chunks[0].key) == {}
    order = ordered(labeler, job, rows)
    assert labeler.plan(job, rows) == chunks
    assert [chunk.cost_minor for chunk in chunks] == [24, 24, 12]
    for chunk, ack in zip(chunks, order.chunks, strict=True):
        assert labeler.lookup(chunk.key) == ack
        held = labeler.held(chunk.key)
        assert list(held) == rows.column("sample_id").to_pylist()[chunk.start : chunk.stop]
        assert all(len(items) == 1 for items in held.values())
    assert labeler.status(order).num_rows == 10
    assert labeler.status(order).num_done == 0
    assert drained(labeler, order)[0] == []
    shown = studio.people.tasks(int(order.chunks[0].handle))[0]["data"]["shown"]
    assert shown == f"text {2**53 + 1} <&>"


def test_a_round_has_one_project(studio, tmp_path):
    labeler, one, two = studio.labeler(tmp_path), studio.job(), studio.job()
    first, second = ordered(labeler, one, rows_of(6)), ordered(labeler, two, rows_of(6))
    assert len({ack.handle for ack in first.chunks}) == 1
    assert first.chunks[0].handle != second.chunks[0].handle


def test_rows_that_are_there_twice_are_seen_and_withdrawn(studio, tmp_path):
    labeler, job = studio.labeler(tmp_path), studio.job()
    rows = rows_of(4)
    order, (chunk,) = ordered(labeler, job, rows), labeler.plan(job, rows)
    labeler.supply(chunk, rows.slice(1, 2))
    held = labeler.held(chunk.key)
    assert [len(held[one]) for one in range(4)] == [1, 2, 2, 1]
    assert labeler.lookup(chunk.key).num_rows == 6
    labeler.withdraw(chunk.key, [held[1][1], held[2][1]])
    assert labeler.held(chunk.key) == {one: items[:1] for one, items in held.items()}
    labeler.withdraw(chunk.key, [held[1][1]])  # gone already
    assert labeler.lookup(chunk.key) == order.chunks[0]


def test_other_rows_than_planned_are_refused(studio, tmp_path):
    labeler = studio.labeler(tmp_path)
    (chunk,) = labeler.plan(studio.job(), rows_of(4))
    with pytest.raises(LabelError, match="hand over those rows"):
        labeler.submit(chunk, rows_of(4, 1))
    assert labeler.lookup(chunk.key) is None


def test_answers_edits_refusals_and_deletions_come_as_revisions(studio, tmp_path):
    labeler, people = studio.labeler(tmp_path), studio.people
    order = ordered(labeler, studio.job(), rows_of(5))
    tasks = tasks_of(studio, order)
    ann, bob = people.join(2)
    said = people.say(tasks[0], ["cat"], ann)
    people.say(tasks[0], ["dog"], bob)
    people.refuse(tasks[1], ann)
    people.say(tasks[2], ["horse"], bob)
    events, cursor = drained(labeler, order)
    assert sorted((e.sample_id, e.value, e.annotator, e.cost_minor) for e in events if e.value) == [
        (0, "cat", str(ann), 3),
        (0, "dog", str(bob), 3),
        (2, "horse", str(bob), 3),
    ]
    (refused,) = (event for event in events if event.value is None)
    assert (refused.sample_id, refused.annotator, refused.cost_minor) == (1, str(ann), 0)
    assert labeler.status(order).num_done == 3

    people.edit(said, ["dog"])
    later, cursor = drained(labeler, order, cursor)
    (edited,) = set(later) - set(events)
    (first,) = (event for event in events if event.event_id == str(said))
    assert (edited.event_id, edited.value, edited.cost_minor) == (str(said), "dog", 0)
    assert edited.revision > first.revision

    people.delete(said)
    later, cursor = drained(labeler, order, cursor)
    (gone,) = (event for event in later if event.event_id == str(said))
    assert (gone.sample_id, gone.value, gone.revision) == (0, None, DELETED)
    assert labeler.fetch(order, cursor)[1] == cursor


def test_a_lost_cursor_brings_all_again_and_what_was_deleted_meanwhile(studio, tmp_path):
    labeler, people = studio.labeler(tmp_path), studio.people
    order = ordered(labeler, studio.job(), rows_of(5))
    tasks = tasks_of(studio, order)
    said = [people.say(tasks[one], ["cat"]) for one in range(4)]
    before, _ = drained(labeler, order)
    people.delete(said[1])
    people.delete_tasks(int(order.chunks[0].handle), [tasks[2]])
    again = studio.labeler(tmp_path)  # another process, with the run's folder
    after, _ = drained(again, order)
    gone = {event.event_id: event for event in after if event.value is None}
    assert set(gone) == {str(said[1]), str(said[2])}
    assert {event.sample_id for event in gone.values()} == {1, 2}
    assert {event for event in after if event.value} == {
        event for event in before if event.event_id not in gone
    }
    assert set(drained(studio.labeler(tmp_path), order)[0]) == set(after)


def test_a_task_that_is_deleted_takes_its_answers_back(studio, tmp_path):
    labeler, people = studio.labeler(tmp_path), studio.people
    order = ordered(labeler, studio.job(), rows_of(3))
    tasks = tasks_of(studio, order)
    said = people.say(tasks[1], ["cat"])
    _, cursor = drained(labeler, order)
    people.delete_tasks(int(order.chunks[0].handle), [tasks[1]])
    events, _ = drained(labeler, order, cursor)
    (gone,) = (event for event in events if event.value is None)
    assert (gone.event_id, gone.sample_id, gone.revision) == (str(said), 1, DELETED)


def test_an_answer_that_was_edited_before_it_was_seen_is_paid_once(studio, tmp_path):
    labeler, people = studio.labeler(tmp_path), studio.people
    order = ordered(labeler, studio.job(), rows_of(2))
    tasks = tasks_of(studio, order)
    people.edit(people.say(tasks[0], ["cat"]), ["dog"])
    events, cursor = drained(labeler, order)
    assert sum(event.cost_minor for event in events) == 3
    said = people.say(tasks[1], ["cat"])
    more, cursor = drained(labeler, order, cursor)
    people.edit(said, ["dog"])
    last, _ = drained(labeler, order, cursor)
    whole, _ = drained(studio.labeler(tmp_path), order)
    assert sum(event.cost_minor for event in {*events, *more, *last, *whole}) == 6


def test_annotations_come_in_bulk_over_many_pages(studio, tmp_path, monkeypatch):
    monkeypatch.setattr("rayal.labelers.label_studio.server.PAGE_TASKS", 7)
    monkeypatch.setattr("rayal.labelers.label_studio.adapter._PAGES_A_FETCH", 2)
    labeler, people = studio.labeler(tmp_path), studio.people
    order = ordered(labeler, studio.job(), rows_of(4))
    project, key = int(order.chunks[0].handle), order.chunks[0].key
    said = {"result": choices("dog"), "ground_truth": False}
    tag = {"rayal_chunk": key}
    people.bring(
        project,
        [
            {
                "data": {"shown": "x", **tag},
                "meta": {**tag, "sample_id": one},
                "annotations": [said],
            }
            for one in range(4, 44)
        ],
    )
    events, cursor = drained(labeler, order)
    assert sorted(event.sample_id for event in events) == list(range(4, 44))
    assert len(labeler.held(key)) == 44
    people.say(tasks_of(studio, order)[0], ["cat"])
    later, _ = drained(labeler, order, cursor)
    assert [event.sample_id for event in later if event.value == "cat"] == [0]


def test_answers_of_rows_that_nobody_ordered_come_as_such(studio, tmp_path):
    labeler, people = studio.labeler(tmp_path), studio.people
    order = ordered(labeler, studio.job(), rows_of(2))
    foreign = people.bring(int(order.chunks[0].handle), [{"data": {"shown": "by hand"}}])
    people.say(foreign[0], ["cat"])
    (event,) = drained(labeler, order)[0]
    assert (event.sample_id, event.value) == (NOT_A_SAMPLE, "cat")


def test_cancel_leaves_what_was_answered(studio, tmp_path):
    labeler, people = studio.labeler(tmp_path), studio.people
    order = ordered(labeler, studio.job(), rows_of(6))
    tasks = tasks_of(studio, order)
    people.say(tasks[1], ["cat"])
    people.refuse(tasks[4])
    labeler.cancel(order)
    assert sorted(tasks_of(studio, order)) == [1, 4]
    events, _ = drained(labeler, order)
    assert sorted(event.sample_id for event in events) == [1, 4]


def test_erase_leaves_no_trace_and_takes_nothing_back(studio, tmp_path):
    labeler, people = studio.labeler(tmp_path), studio.people
    order = ordered(labeler, studio.job(), rows_of(6))
    tasks = tasks_of(studio, order)
    people.say(tasks[1], ["cat"])
    people.say(tasks[2], ["cat"])
    _, cursor = drained(labeler, order)
    labeler.erase(order, np.array([1, 5]))
    labeler.erase(order, np.array([1, 5]))
    assert sorted(tasks_of(studio, order)) == [0, 2, 3, 4]
    assert {event.sample_id for event in drained(labeler, order, cursor)[0]} == {2}
    assert {event.sample_id for event in drained(studio.labeler(tmp_path), order)[0]} == {2}


def test_two_projects_of_one_round_count_as_one(studio, tmp_path):
    """A creation that was cut off may have been done after all."""
    labeler, people = studio.labeler(tmp_path), studio.people
    rows, job = rows_of(4), studio.job()
    order = ordered(labeler, job, rows)
    title = f"rayal {order.chunks[0].key.rpartition('-')[0]}"
    second = labeler.server.create({"title": title, "label_config": _config()})
    task = {"data": {"shown": "x", "rayal_chunk": order.chunks[0].key}}
    (there,) = people.bring(
        second, [{**task, "meta": {"rayal_chunk": order.chunks[0].key, "sample_id": 2}}]
    )
    held = labeler.held(order.chunks[0].key)
    assert [len(held[one]) for one in range(4)] == [1, 1, 2, 1]
    assert labeler.lookup(order.chunks[0].key).num_rows == 5
    people.say(there, ["cat"])
    assert [event.sample_id for event in drained(labeler, order)[0]] == [2]
    labeler.withdraw(order.chunks[0].key, [held[2][1]])
    assert labeler.lookup(order.chunks[0].key).num_rows == 4


def test_a_project_that_is_gone_is_said(studio, tmp_path):
    labeler = studio.labeler(tmp_path)
    with pytest.raises(LabelError, match="has no project 'rayal b"):
        labeler.fetch(Order(studio.job(), (), 4), "")


def test_a_personal_token_opens_too(studio, tmp_path, monkeypatch):
    monkeypatch.setenv(ENV, studio.personal)
    now = [1e9]
    labeler = studio.labeler(tmp_path, now=lambda: now[0])
    order = ordered(labeler, studio.job(), rows_of(2))
    if studio.fake is not None:
        refreshed = [one for one in studio.fake.heard if b"/api/token/refresh" in one]
        now[0] += 250.0
        assert labeler.lookup(order.chunks[0].key) is not None
        again = [one for one in studio.fake.heard if b"/api/token/refresh" in one]
        assert len(again) == len(refreshed) + 1
        studio.fake._access.clear()  # it forgot them, and says 401
    assert labeler.lookup(order.chunks[0].key) == order.chunks[0]


@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_a_wrong_token_is_refused_and_never_shown(studio, tmp_path, monkeypatch, kind):
    wrong = "f" * 40 if kind == "legacy" else "eyJwcm9i.eyJwcm9iYWJseS.bm90LXRoZS1zaWduYXR1cmU"
    monkeypatch.setenv(ENV, wrong)
    labeler = studio.labeler(tmp_path)
    with pytest.raises(LabelError, match=r"401|cannot be traded") as caught:
        labeler.lookup("bx-0000")
    assert wrong not in str(caught.value)
    assert wrong not in repr(caught.value.__cause__)
    assert wrong not in repr([labeler, labeler.server.client, vars(labeler)])


@pytest.mark.parametrize(
    ("kind", "classes", "boxes"),
    [
        ("class", ('a & "b" <c>', "é", "line\nbreak"), False),
        ("class", (1, 2), False),
        ("multilabel", ("art", "law"), False),
        ("number", (), False),
        ("class", ("car", "bus"), True),
    ],
)
def test_every_kind_of_label_goes_there_and_back(studio, tmp_path, kind, classes, boxes):
    """As a suggestion of the model, and as an annotation that agrees with it."""
    label = {"class": classes[0] if classes else None, "multilabel": ["art"], "number": 2.5}[kind]
    more: dict[str, object] = {}
    rows = rows_of(1)
    if boxes:
        box = {"label": "car", "x": 0.5, "y": 0.25, "width": 0.125, "height": 0.5}
        label, more = [box], {"boxes": True, "kind": "image", "show": "image"}
        rows = rows.append_column("image", pa.array(["https://example.org/one.png"]))
    rows = rows.append_column("guess", pa.array([label]))
    more |= {"columns": rows.schema.names[1:], "prelabel": "guess"}
    labeler = studio.labeler(tmp_path, Vocabulary(kind, classes), **more)
    labeler.check(rows.schema)
    order = ordered(labeler, studio.job(), rows)
    (task,) = studio.people.tasks(int(order.chunks[0].handle))
    (prediction,) = task["predictions"]
    assert "guess" not in task["data"].get("more", {})
    path = f"/api/tasks/{task['id']}/annotations/"
    studio.people._done("POST", path, json={"result": prediction["result"]})
    events, _ = labeler.fetch(order, "")
    assert [event.value for event in events] == [label]


def test_pictures_and_tables_are_taken(studio, tmp_path):
    vector = pa.field("image", pa.binary(4), False, {b"rayal.dtype": b"|u1", b"rayal.width": b"4"})
    rows = pa.table(
        [pa.array([7], pa.int64()), pa.array([b"\0\x40\x80\xff"], pa.binary(4))],
        schema=pa.schema([pa.field("sample_id", pa.int64()), vector]),
    )
    labeler = studio.labeler(tmp_path, columns=["image"], kind="image", show="image", pixels=[2, 2])
    labeler.check(rows.schema)
    (task,) = studio.people.tasks(int(ordered(labeler, studio.job(), rows).chunks[0].handle))
    assert task["data"]["shown"].startswith("data:image/png;base64,iVBORw0KGgo")
    rows = rows_of(1).append_column("size", pa.array([2.5]))
    labeler = studio.labeler(tmp_path, columns=["text", "size"], kind="table", show=None)
    (task,) = studio.people.tasks(int(ordered(labeler, studio.job(), rows).chunks[0].handle))
    assert task["data"]["shown"] == {"text": "text 0 <&>", "size": 2.5}


def test_the_contract_is_kept_by_the_word_of_vendor_check(studio, tmp_path):
    """Calls are cut off after the fact, and the driver dies before and after each."""
    labeler = studio.labeler(tmp_path, in_doubt_s=0.2)
    findings = list(check(labeler, VOCABULARY, rows_of(9)))
    assert [one for one in findings if not one.is_kept] == []
    assert len(findings) == 7


def test_a_server_that_is_killed_in_an_import_has_all_of_it_or_nothing(studio, tmp_path):
    if studio.real is None:
        pytest.skip("the small server cannot be killed")
    labeler, job = studio.labeler(tmp_path, rows_per_chunk=20_000), studio.job()
    ordered(labeler, job, rows_of(1))  # the project is there
    rows = rows_of(20_000)
    chunk = replace(labeler.plan(job, rows)[0], key=f"{job}-0001")
    killing = threading.Timer(1.0, studio.real.kill)
    killing.start()
    with pytest.raises(InDoubt, match="cut off"):
        labeler.submit(chunk, rows)
    killing.join()
    studio.real.start()
    found = labeler.lookup(chunk.key)
    assert found is None or found.num_rows == 20_000
    if found is None:
        labeler.submit(chunk, rows)
    assert labeler.lookup(chunk.key).num_rows == 20_000


def _config() -> str:
    return (
        '<View><Text name="shown" value="$shown"/><Choices name="label" toName="shown">'
        '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
    )


# ------------------------------------------------------------------------ faults: the fake alone


@pytest.fixture
def own(tmp_path, monkeypatch) -> Iterator[Studio]:
    """A server of one test."""
    monkeypatch.setenv(ENV, LEGACY)
    fake = FakeLabelStudio()
    with served(fake) as url:
        yield Studio(People(url, LEGACY), PERSONAL, fake)


def test_an_import_whose_reply_is_lost_is_in_doubt_and_found_later(own, tmp_path):
    labeler, rows = own.labeler(tmp_path), rows_of(4)
    (chunk,) = labeler.plan("bjob", rows)
    own.fake.cut = lambda method, path: path.endswith("/import")
    with pytest.raises(InDoubt, match="cut off"):
        labeler.submit(chunk, rows)
    own.fake.cut = lambda method, path: False
    assert labeler.lookup(chunk.key).num_rows == 4


def test_a_creation_whose_reply_is_lost_is_in_doubt_and_used_later(own, tmp_path):
    labeler, rows = own.labeler(tmp_path), rows_of(4)
    (chunk,) = labeler.plan("bjob", rows)
    own.fake.cut = lambda method, path: (method, path) == ("POST", "/api/projects")
    with pytest.raises(InDoubt):
        labeler.submit(chunk, rows)
    own.fake.cut = lambda method, path: False
    assert labeler.lookup(chunk.key) is None
    labeler.submit(chunk, rows)
    assert len(own.fake.projects) == 1


def test_a_busy_server_is_asked_again_and_takes_it_once(own, tmp_path):
    waits: list[float] = []
    labeler, rows = own.labeler(tmp_path, sleep=waits.append), rows_of(4)
    left = {"GET": 2, "POST": 3}

    def refuse(method: str, path: str) -> tuple[int, dict[str, str]] | None:
        left[method] -= 1
        return (429, {"Retry-After": "7"}) if left[method] >= 0 else None

    own.fake.refuse = refuse
    (chunk,) = labeler.plan("bjob", rows)
    labeler.submit(chunk, rows)
    assert waits == [7.0] * 5
    assert len(own.fake.tasks) == 4


def test_a_server_that_breaks_over_an_import_leaves_it_in_doubt(own, tmp_path):
    labeler, rows = own.labeler(tmp_path), rows_of(4)
    (chunk,) = labeler.plan("bjob", rows)
    own.fake.refuse = lambda method, path: (500, {}) if path.endswith("/import") else None
    with pytest.raises(InDoubt, match="500"):
        labeler.submit(chunk, rows)


def test_what_changes_while_it_is_read_comes_with_the_next(own, tmp_path, monkeypatch):
    monkeypatch.setattr("rayal.labelers.label_studio.server.PAGE_TASKS", 2)
    monkeypatch.setattr("rayal.labelers.label_studio.adapter._PAGES_A_FETCH", 1)
    labeler = own.labeler(tmp_path)
    order = ordered(labeler, "bjob", rows_of(8))
    tasks = tasks_of(own, order)
    people = own.people
    for one in range(8):
        people.say(tasks[one], ["cat"])
    seen: set[LabelEvent] = set()
    cursor = ""
    for step in range(3):
        events, cursor = labeler.fetch(order, cursor)
        seen |= set(events)
        people.say(tasks[step], ["dog"])  # behind the reader
    people.delete_tasks(int(order.chunks[0].handle), [tasks[7]])  # shifts pages by number
    rest, _ = drained(labeler, order, cursor)
    seen |= set(rest)
    said = {(event.sample_id, event.value) for event in seen if event.value}
    assert said >= {(one, "cat") for one in range(7)} | {(one, "dog") for one in range(3)}


def test_a_change_that_shows_late_is_still_read(own, tmp_path):
    """A long transaction ends after a short one that began later."""
    now = [1e9]
    labeler = own.labeler(tmp_path, now=lambda: now[0])
    order = ordered(labeler, "bjob", rows_of(3))
    tasks = tasks_of(own, order)
    late = own.people.say(tasks[0], ["cat"])
    hidden = own.fake.annotations.pop(late)
    before = own.fake.tasks[tasks[0]]["created_at"]
    shown_at = own.fake.tasks[tasks[0]]["updated_at"]
    own.fake.tasks[tasks[0]]["updated_at"] = before
    own.people.say(tasks[1], ["dog"])
    events, cursor = drained(labeler, order)
    assert [event.sample_id for event in events] == [1]
    own.fake.annotations[late] = hidden
    own.fake.tasks[tasks[0]]["updated_at"] = shown_at
    now[0] += 31.0
    events, cursor = drained(labeler, order, cursor)
    assert {event.sample_id for event in events} == {0, 1}
    heard = len(own.fake.heard)
    assert labeler.fetch(order, cursor) == ([], cursor)
    assert len(own.fake.heard) == heard + 3  # projects, twice, and what is newest


def test_a_server_that_gives_short_pages_is_read_whole(own, tmp_path):
    own.fake.most_a_page = 3
    labeler = own.labeler(tmp_path, rows_per_chunk=100)
    order = ordered(labeler, "bjob", rows_of(10))
    assert len(labeler.held(order.chunks[0].key)) == 10
    own.fake.most_a_page = 10_000
    for task in tasks_of(own, order).values():
        own.people.say(task, ["cat"])
    own.fake.most_a_page = 3
    assert len(drained(labeler, order)[0]) == 10


def test_nothing_leaves_but_what_is_named(own, tmp_path, caplog):
    """Every byte of every request."""
    caplog.set_level("DEBUG")
    sent: list[bytes] = []

    class Recording(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            sent.append(str(request.url).encode() + str(request.headers.raw).encode())
            sent.append(request.read())
            return super().handle_request(request)

    with contextlib.closing(Recording()) as transport:
        labeler = own.labeler(tmp_path, transport=transport, pseudonyms=ENV)
        pool = pa.table(
            {
                "sample_id": [918273645, 918273646],
                "source_id": ["patient-4711", "patient-4712"],
                "text": ["what may leave", "and this"],
                "diagnosis": ["a secret thing", "another"],
                "score": [0.123456789, 0.5],
            }
        )
        labeler.check(pool.schema)
        rows = labeler.gate.passed(pool)
        order = ordered(labeler, "bjob", rows)
        for task in tasks_of(own, order).values():
            own.people.say(task, ["cat"])
        events, _ = drained(labeler, order)
        labeler.status(order)
        labeler.erase(order, rows.column("sample_id").to_numpy()[:1])
        labeler.cancel(order)
    assert {event.sample_id for event in events} == set(
        labeler.gate.ids(np.array([918273645, 918273646])).tolist()
    )
    everything = b"\n".join(sent)
    assert b"what may leave" in everything
    for never in (b"918273645", b"patient", b"secret thing", b"0.12345", b"diagnosis", b"score"):
        assert never not in everything
    assert LEGACY not in caplog.text
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or LEGACY.encode() not in path.read_bytes()
    assert all(LEGACY not in str(order) for order in (order, *order.chunks))


def test_the_doorbell_rings_with_its_secret_alone(own, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYAL_TEST_BELL", "a long shared secret")
    labeler = own.labeler(tmp_path, doorbell_env="RAYAL_TEST_BELL")
    assert labeler.rings({"x-rayal-doorbell": "a long shared secret"}, b"{}")
    assert not labeler.rings({"x-rayal-doorbell": "a long shared secret "}, b"{}")
    assert not labeler.rings({"x-rayal-doorbell": "\udcff"}, b"{}")
    assert not labeler.rings({}, b"a long shared secret")
    assert not own.labeler(tmp_path).rings({"x-rayal-doorbell": ""}, b"")
