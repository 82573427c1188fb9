"""The parts of the adapter for Label Studio, without a server."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import httpx
import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from rayal.errors import ConfigError, InDoubt, LabelError
from rayal.labelers.images import png
from rayal.labelers.label_studio import LabelStudio
from rayal.labelers.label_studio.reading import DELETED, Place, begun, ended, events_of
from rayal.labelers.label_studio.screen import Screen
from rayal.labelers.label_studio.server import Server
from rayal.labelers.label_studio.tasks import Layout, tasks
from rayal.labelers.label_studio.told import Known, Told
from rayal.types import Vocabulary

PETS = Vocabulary("class", ("cat", "dog"))
URL = "https://labels.example.org"


def region(kind, **value):
    return {"from_name": "label", "to_name": "shown", "type": kind, "value": value}


# --------------------------------------------------------------------------------------- the screen


@pytest.mark.parametrize("classes", [("a & b", '"c" <d>', "two\nlines"), (1, 2)])
def test_a_config_has_every_class_as_it_is(classes):
    tree = ElementTree.fromstring(Screen("text", Vocabulary("class", classes)).config())
    assert [one.get("value") for one in tree.iter("Choice")] == [str(one) for one in classes]
    (choices,) = tree.iter("Choices")
    assert (choices.get("choice"), choices.get("required")) == ("single", "true")


@pytest.mark.parametrize(
    ("screen", "tags"),
    [
        (Screen("text", PETS), ["Text", "Choices"]),
        (Screen("text", PETS, has_more=True), ["Text", "Table", "Choices"]),
        (Screen("table", Vocabulary("number")), ["Table", "Number"]),
        (Screen("image", PETS, boxes=True), ["Image", "RectangleLabels"]),
        (Screen("image", None), ["Image", "TextArea"]),
    ],
)
def test_a_config_shows_and_asks_what_was_said(screen, tags):
    assert [one.tag for one in ElementTree.fromstring(screen.config())] == tags


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("video", PETS), "choose text, image, table"),
        (("text", PETS, True), "on an image"),
        (("image", Vocabulary("number"), True), "has 0 classes"),
        (("text", Vocabulary("class", ("cat", ""))), "empty or has blanks"),
        (("text", Vocabulary("class", ("cat", " dog"))), "empty or has blanks"),
    ],
)
def test_screens_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Screen(*settings)


MANY = Vocabulary("multilabel", ("art", "law"))


@pytest.mark.parametrize(
    ("vocabulary", "result", "label"),
    [
        (PETS, [region("choices", choices=["dog"])], "dog"),
        (Vocabulary("class", (1, 2)), [region("choices", choices=["2"])], 2),
        (PETS, [region("choices", choices=["horse"])], "horse"),
        (PETS, [region("choices", choices=["cat", "dog"])], '["cat", "dog"]'),
        (PETS, [], None),
        (PETS, [region("choices", choices=[])], None),
        (PETS, [{"from_name": "other", "value": {"choices": ["cat"]}}], None),
        (MANY, [region("choices", choices=["law", "new", "art"])], ["art", "law", "new"]),
        (MANY, [], []),
        (Vocabulary("number"), [region("number", number=2.5)], 2.5),
        (Vocabulary("number"), [], None),
        (None, [region("textarea", text=["one", "two"])], "one\ntwo"),
        (None, [], None),
    ],
)
def test_what_an_annotation_says(vocabulary, result, label):
    assert Screen("text", vocabulary).label_of(result) == label


@pytest.mark.parametrize(
    "result",
    [[region("rating", rating=3)], [region("choices", choices=7)], [region("x") | {"value": 1}]],
)
def test_what_another_control_said_comes_as_text(result):
    said = Screen("text", PETS).label_of(result)
    assert isinstance(said, str)
    assert '"from_name": "label"' in said


def test_a_box_goes_out_in_percent_and_comes_back_in_shares():
    screen = Screen("image", PETS, boxes=True)
    box = {"label": "cat", "x": 0.5, "y": 0.25, "width": 0.125, "height": 0.5, "rotation": 90.0}
    (out,) = screen.result_of([box])
    assert out["value"]["x"] == 50.0
    assert screen.label_of([out]) == [box]
    assert screen.label_of([]) == []
    with pytest.raises(LabelError, match="expected label, x, y"):
        screen.result_of([{"label": "cat"}])


# ---------------------------------------------------------------------------------------- the tasks


def test_tasks_have_the_tag_what_is_shown_and_the_rest_below():
    rows = pa.table({"sample_id": [7], "text": ["hi"], "size": [2.5], "guess": ["cat"]})
    (task,) = tasks(rows, "bj-0000", Layout("text", "text", (), "guess"), Screen("text", PETS))
    assert task["data"] == {
        "rayal_chunk": "bj-0000",
        "sample_id": 7,
        "shown": "hi",
        "more": {"size": 2.5},
    }
    assert task["meta"] == {"rayal_chunk": "bj-0000", "sample_id": 7}
    assert task["predictions"][0]["result"] == [region("choices", choices=["cat"])]
    (task,) = tasks(rows.set_column(3, "guess", pa.array([None], pa.string())), "bj-0000",
                    Layout("text", "text", (), "guess"), Screen("text", PETS))  # fmt: skip
    assert "predictions" not in task


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3)])
def test_vectors_become_pictures(shape):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    with PIL.Image.open(io.BytesIO(png(pixels))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\nx", "png"),
        (b"\xff\xd8\xffx", "jpeg"),
        (b"GIF89a", "gif"),
        (b"BMx", "bmp"),
        (b"RIFF0000WEBPx", "webp"),
    ],
)
def test_encoded_pictures_go_whole_and_urls_as_they_are(content, kind):
    layout, screen = Layout("image", "image"), Screen("image", PETS)
    rows = pa.table({"sample_id": [1], "image": [content]})
    (task,) = tasks(rows, "bj-0000", layout, screen)
    assert task["data"]["shown"].startswith(f"data:image/{kind};base64,")
    (task,) = tasks(rows.set_column(1, "image", pa.array(["s3://b/x"])), "bj-0000", layout, screen)
    assert task["data"]["shown"] == "s3://b/x"
    with pytest.raises(LabelError, match="of sample_id 1 is no PNG"):
        tasks(rows.set_column(1, "image", pa.array([b"text"])), "bj-0000", layout, screen)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout("text", None), "name the column"),
        (Layout("table", "text"), "none for a table"),
        (Layout("text", "body"), "'body', which does not leave"),
        (Layout("text", "text", (), "guess"), "'guess', which does not leave"),
        (Layout("text", "took"), "'took', which is duration"),
        (Layout("image", "size"), "an image is a column of encoded bytes"),
        (Layout("image", "text", (2, 2)), "leave it out"),
    ],
)
def test_columns_that_cannot_be_shown_are_refused(layout, message):
    schema = pa.schema(
        [
            ("sample_id", pa.int64()),
            ("text", pa.string()),
            ("size", pa.float64()),
            ("took", pa.duration("s")),
        ]
    )
    names = ["sample_id", "text", "size"] + (["took"] if layout.show == "took" else [])
    with pytest.raises(ConfigError, match=message):
        layout.check(names, schema)


# --------------------------------------------------------------------------------------- the memory


def known(task, annotation, sample_id=0):
    return Known(task, annotation, sample_id, f"who {annotation % 3}", annotation % 2 == 0)


def test_what_was_told_is_remembered_in_few_files(tmp_path):
    rng = np.random.default_rng(0)
    told, all_of_them = Told(tmp_path), []
    for number in range(100):
        new = [known(int(rng.integers(50)), 10 * number + i, number) for i in range(number % 4)]
        told.add(new)
        all_of_them += new
    again = Told(tmp_path)
    expected = sorted(all_of_them, key=lambda one: (one.task, one.annotation))
    for one in (told, again):
        assert one.between(-1, None) == expected
        assert one.between(10, 20) == [x for x in expected if 10 < x.task <= 20]
        assert one.of_tasks([3, 1]) == [x for t in (3, 1) for x in expected if x.task == t]
    assert len(list(tmp_path.iterdir())) < 10
    again.forget(np.array([5, 6, 7]))
    left = [one for one in expected if one.sample_id not in (5, 6, 7)]
    assert again.between(-1, None) == left
    assert Told(tmp_path).between(-1, None) == left
    again.add([known(99, 5000)])
    assert Told(tmp_path).between(90, None) == [known(99, 5000)]


def test_a_crash_between_two_files_leaves_every_row_once(tmp_path, monkeypatch):
    told = Told(tmp_path)
    told.add([known(1, 1)])
    real, calls = Told._write, []

    def dying(self, level, rows):
        calls.append(level)
        if len(calls) > 1:
            raise KeyboardInterrupt
        real(self, level, rows)

    monkeypatch.setattr(Told, "_write", dying)
    with pytest.raises(KeyboardInterrupt):
        told.add([known(2, 2)])
    monkeypatch.undo()
    assert Told(tmp_path).between(-1, None) == [known(1, 1), known(2, 2)]


# -------------------------------------------------------------------------------------- the reading

T1, T2 = "2026-01-01T00:01:00.000000Z", "2026-01-01T00:02:00.000000Z"


def test_a_place_is_read_again_once_when_nothing_late_can_come():
    place = ended(begun(Place(), T1, 5, 100.0, 60.0), 100.0, 60.0)
    assert (place.at, place.num_tasks, place.is_quiet) == (T1, 5, False)
    assert begun(place, T1, 5, 130.0, 60.0) == place
    again = begun(place, T1, 5, 161.0, 60.0)
    assert (again.is_reading, again.start) == (True, "2026-01-01T00:00:00.000000Z")
    quiet = ended(again, 161.0, 60.0)
    assert quiet.is_quiet
    assert begun(quiet, T1, 5, 9e9, 60.0) == quiet
    newer = begun(quiet, T2, 6, 200.0, 60.0)
    assert (newer.is_reading, newer.start, newer.to) == (True, "2026-01-01T00:00:00.000000Z", T2)
    assert not ended(newer, 200.0, 60.0).is_quiet


def test_a_project_that_lost_tasks_is_read_from_its_beginning():
    place = ended(begun(Place(), T1, 5, 100.0, 60.0), 100.0, 60.0)
    assert begun(place, T1, 4, 110.0, 60.0).start == ""
    assert begun(place, T1, 4, 110.0, 60.0).is_reading


def test_an_empty_project_is_a_place_too():
    place = ended(begun(Place(), "", 0, 100.0, 60.0), 100.0, 60.0)
    assert begun(place, "", 0, 101.0, 60.0) == place


def _task(*annotations, sample_id=7, key="bj-0000"):
    return {
        "id": 1,
        "meta": {"sample_id": sample_id, "rayal_chunk": key},
        "annotations": list(annotations),
    }


def _annotation(number, label, updated=T1, **more):
    said = {"id": number, "completed_by": {"id": 4, "email": "ann@example.org"}}
    return said | {
        "created_at": T1,
        "updated_at": updated,
        "result": [region("choices", choices=[label])],
        **more,
    }


def test_an_annotator_is_a_number_and_no_address():
    events, new = events_of(_task(_annotation(3, "cat")), {"bj-0000"}, [], Screen("text", PETS), 2)
    assert [(e.event_id, e.annotator, e.cost_minor) for e in events] == [("3", "4", 2)]
    assert new == [Known(1, 3, 7, "4", True)]


@pytest.mark.parametrize(
    "strange", [_task(key="other"), _task(sample_id="7"), _task(sample_id=True), {"id": 1}]
)
def test_tasks_that_are_not_ours_have_no_sample(strange):
    task = strange | {"annotations": [_annotation(3, "cat")]}
    (event,), _ = events_of(task, {"bj-0000"}, [], Screen("text", PETS), 0)
    assert event.sample_id == -1


def test_the_price_comes_once_whatever_was_seen_first():
    screen, keys = Screen("text", PETS), {"bj-0000"}
    edited = _annotation(3, "dog", T2)
    events, new = events_of(_task(edited), keys, [], screen, 2)
    assert [(e.event_id, e.value, e.cost_minor) for e in events] == [
        ("3", "dog", 0),
        ("3/price", None, 2),
    ]
    again, none = events_of(_task(edited), keys, new, screen, 2)
    assert (again, none) == (events, [])
    _, told = events_of(_task(_annotation(3, "cat")), keys, [], screen, 2)
    assert [e.cost_minor for e in events_of(_task(edited), keys, told, screen, 2)[0]] == [0]
    refused, told = events_of(_task(_annotation(3, "cat", was_cancelled=True)), keys, [], screen, 2)
    assert [(e.value, e.cost_minor) for e in refused] == [(None, 0)]
    assert sum(e.cost_minor for e in events_of(_task(edited), keys, told, screen, 2)[0]) == 2
    gone, _ = events_of(_task(), keys, told, screen, 2)
    assert [(e.event_id, e.value, e.revision) for e in gone] == [("3", None, DELETED)]


# ------------------------------------------------------------------------------------- the settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 0}, "1 or more answers"),
        ({"rows_per_chunk": 0}, "rows_per_chunk=0"),
        ({"title": ""}, "1 to 22"),
        ({"title": "x" * 23}, "1 to 22"),
        ({"columns": "text"}, "give a list"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LabelStudio(URL, **settings)


def test_a_run_without_a_token_ends_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.delenv("LABEL_STUDIO_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="LABEL_STUDIO_TOKEN is empty"):
        LabelStudio(URL).bind(None, PETS, str(tmp_path))


def test_a_chunk_that_no_server_takes_is_refused_when_it_is_planned():
    rows = pa.table({"sample_id": range(4), "text": ["x" * 40_000_000] * 4})
    with pytest.raises(LabelError, match=r"lower labeler.rows_per_chunk"):
        LabelStudio(URL, columns=["text"]).plan("bj", rows)
    assert len(LabelStudio(URL, columns=["text"], rows_per_chunk=2).plan("bj", rows)) == 2


def server_of(monkeypatch, answers):
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", "f" * 40)
    waits = []

    def handle(request):
        told = answers[(request.method, request.url.path)]
        return httpx.Response(200, json=told.pop(0) if len(told) > 1 else told[0])

    transport = httpx.MockTransport(handle)
    return Server(URL, "LABEL_STUDIO_TOKEN", 5.0, transport, waits.append), waits


def test_an_import_in_the_background_is_waited_for(monkeypatch):
    start = {("POST", "/api/projects/3/import"): [{"import": 9}]}
    place = ("GET", "/api/projects/3/imports/9")
    told = [{"status": "created"}, {"status": "in_progress"}, {"status": "completed"}]
    server, waits = server_of(monkeypatch, start | {place: told})
    server.import_tasks(3, [{"data": {}}])
    assert waits == [1.0, 1.0]
    server, _ = server_of(monkeypatch, start | {place: [{"status": "failed", "error": "bad row"}]})
    with pytest.raises(LabelError, match="could not import: bad row"):
        server.import_tasks(3, [{"data": {}}])
    server, _ = server_of(monkeypatch, start | {place: [{"status": "in_progress"}]})
    with pytest.raises(InDoubt, match="still imports"):
        server.import_tasks(3, [{"data": {}}])


def test_another_kind_of_server_is_named(monkeypatch):
    server, _ = server_of(monkeypatch, {("GET", "/api/tasks"): ["<html>hello</html>"]})
    with pytest.raises(LabelError, match=r"is labeler.url a Label Studio server"):
        server.count(1, [])
