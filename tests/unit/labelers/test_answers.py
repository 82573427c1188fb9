"""Answers through an inbox: partial, late, twice, against each other, wrong, in JSONL and CSV."""

import itertools
import json
import time

import pyarrow as pa
import pytest

from rayal.errors import LabelError
from rayal.labelers.file_drop import FileDrop
from rayal.types import LabelEvent, Order, Vocabulary

CLASSES = Vocabulary("class", ("cat", "dog", "7"))


def drop(folder, vocabulary=CLASSES, **settings):
    labeler = FileDrop(str(folder / "out"), str(folder / "in"), **{"columns": "all", **settings})
    labeler.bind(None, vocabulary, str(folder))
    return labeler


def ordered(labeler, ids, job_id="b0", **columns):
    rows = labeler.gate.passed(pa.table({"sample_id": pa.array(ids, pa.int64()), **columns}))
    chunks = labeler.plan(job_id, rows)
    acks = [labeler.submit(one, rows.slice(one.start, one.stop - one.start)) for one in chunks]
    return Order(job_id, tuple(acks), len(ids))


def answer(folder, name, *lines):
    path = folder / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines)
    path.write_text(text)


def values(events):
    return [(event.sample_id, event.value) for event in events]


def test_partial_late_and_repeated_answers(tmp_path):
    labeler = drop(tmp_path, rows_per_chunk=2)
    order = ordered(labeler, [1, 2, 3, 4])
    assert labeler.fetch(order, "")[0] == []
    one, two, three = ({"sample_id": i, "label": "cat"} for i in (1, 2, 3))
    answer(tmp_path, "b0-0000/first.jsonl", two, one)
    events, cursor = labeler.fetch(order, "")
    assert values(events) == [(1, "cat"), (2, "cat")]
    assert labeler.fetch(order, cursor) == ([], cursor)
    answer(tmp_path, "b0/late.csv", "label,sample_id", "dog,4", "cat,2")
    answer(tmp_path, "anywhere.jsonl", three, three, one)
    assert labeler.status(order).num_done == 4
    events, after = drop(tmp_path).fetch(order, cursor)
    assert values(events) == [(1, "cat"), (2, "cat"), (3, "cat"), (4, "dog")]
    assert drop(tmp_path).fetch(order, after) == ([], after)
    assert values(drop(tmp_path).fetch(order, "")[0]) == values(events)


def test_how_answers_are_split_into_files_does_not_matter(tmp_path):
    lines = [{"sample_id": i, "label": "cat", "annotator": a} for i in (1, 2, 3) for a in "xy"]
    found = []
    for place, split in enumerate(itertools.permutations(range(6), 3)):
        folder = tmp_path / str(place)
        labeler = drop(folder)
        order = ordered(labeler, [1, 2, 3])
        answer(folder, "a.jsonl", *(lines[i] for i in split))
        events, cursor = labeler.fetch(order, "")
        answer(folder, "b.jsonl", *(line for i, line in enumerate(lines) if i not in split))
        events += labeler.fetch(order, cursor)[0]
        found.append(sorted(events, key=lambda event: event.event_id))
    assert all(one == found[0] for one in found)
    assert [event.event_id for event in found[0]] == ["1/x", "1/y", "2/x", "2/y", "3/x", "3/y"]


def test_every_field_of_an_answer(tmp_path):
    labeler = drop(tmp_path, price_minor=5)
    order = ordered(labeler, [1, 2, 3, 4])
    full = {"annotator": "anna", "at": "2026-01-01T00:00:00Z", "event_id": "e9"}
    answer(
        tmp_path,
        "a.jsonl",
        {"sample_id": 1, "label": "cat", "revision": 2, "cost_minor": 7, "other": [1], **full},
        {"sample_id": "2", "label": "dog", "cost": "0.12"},
        {"sample_id": 3, "label": None},
        {"sample_id": 4, "label": "cat"},
        {"sample_id": 4, "label": "dog", "revision": 1},
    )
    assert labeler.fetch(order, "")[0] == [
        LabelEvent(1, "cat", "e9", 2, "anna", 7, "2026-01-01T00:00:00Z"),
        LabelEvent(2, "dog", "2", cost_minor=12),
        LabelEvent(3, None, "3"),
        LabelEvent(4, "cat", "4", cost_minor=5),
        LabelEvent(4, "dog", "4", revision=1),
    ]


@pytest.mark.parametrize(
    ("vocabulary", "csv_label", "json_label", "value"),
    [
        (CLASSES, "cat", "cat", "cat"),
        (CLASSES, "7", 7, "7"),
        (Vocabulary("class", (0, 1, 7)), "7", 7, 7),
        (Vocabulary("class", (0, 1, 7)), " 7", "7", 7),
        (Vocabulary("class", (0, 1, 7)), "7", 7.0, 7),
        (Vocabulary("class", ("", "x")), "", "", ""),
        (CLASSES, "", "", None),
        (Vocabulary("number"), "-1.5e2", -150, -150.0),
        (Vocabulary("multilabel", ("b", "a")), '"[""a"", ""b""]"', ["a", "b", "a"], ["b", "a"]),
        (Vocabulary("multilabel", ("b", "a")), "a", ["a"], ["a"]),
        (Vocabulary("multilabel", (1, 2)), '"[2]"', [2], [2]),
        (Vocabulary("multilabel", (1, 2)), "[]", [], []),
        (None, "free text", "free text", "free text"),
    ],
)
def test_labels_in_csv_and_jsonl(tmp_path, vocabulary, csv_label, json_label, value):
    for name, lines in (
        ("csv", ("sample_id,label", f"1,{csv_label}")),
        ("jsonl", ({"sample_id": 1, "label": json_label},)),
    ):
        labeler = drop(tmp_path / name, vocabulary)
        order = ordered(labeler, [1])
        answer(tmp_path / name, f"a.{name}", *lines)
        (event,) = labeler.fetch(order, "")[0]
        assert event.value == value
        assert type(event.value) is type(value)


def test_what_leaves_can_come_back_with_labels_added(tmp_path):
    """As a person does it: open the part, add a column, save it in the inbox."""
    for format in ("jsonl", "csv"):
        labeler = drop(tmp_path / format, format=format)
        order = ordered(labeler, [5, 6], text=['a,"b"\nc', "d"], source_id=["x", "y"])
        part = (tmp_path / format / f"out/b0-0000/part-00000.{format}").read_text()
        if format == "csv":
            text = part.replace("text\n", "text,label\n").replace('c"\n', 'c",cat\n')
            text = "\ufeff" + text.replace("y,d\n", "y,d,dog\n").replace("\n", "\r\n")
        else:
            objects = [json.loads(line) for line in part.splitlines()]
            labelled = zip(objects, ("cat", "dog"), strict=True)
            text = "\n".join(json.dumps(one | {"label": label}) for one, label in labelled)
        (tmp_path / format / "in").mkdir(exist_ok=True)
        (tmp_path / format / "in" / f"done.{format}").write_text(text, newline="")
        assert values(labeler.fetch(order, "")[0]) == [(5, "cat"), (6, "dog")]


def test_source_ids_name_samples(tmp_path):
    labeler = drop(tmp_path)
    order = ordered(labeler, [5, 6], source_id=["x", "6"])
    answer(tmp_path, "a.csv", "source_id,label", "6,cat", "x,dog")
    assert values(labeler.fetch(order, "")[0]) == [(5, "dog"), (6, "cat")]
    answer(tmp_path, "a.csv", "source_id,sample_id,label", "x,6,cat", "z,,dog")
    with pytest.raises(LabelError) as error:
        labeler.fetch(order, "")
    assert "a.csv:2: sample_id 6 and source_id 'x' are two samples" in str(error.value)
    assert "a.csv:3: source_id 'z' was never ordered" in str(error.value)


BAD_LINES = [
    ("not json", "not JSON ("),
    ("[1]", "not a JSON object"),
    ({"label": "cat"}, "neither 'sample_id' nor 'source_id'"),
    ({"sample_id": 99, "label": "cat"}, "sample_id 99 was never ordered"),
    ({"sample_id": 1.5, "label": "cat"}, "sample_id 1.5 is not a whole number"),
    ({"sample_id": True, "label": "cat"}, "sample_id True is not a whole number"),
    ({"sample_id": 1}, "no 'label' (there are: sample_id)"),
    ({"sample_id": 1, "label": "cow"}, "label 'cow' is outside the vocabulary ('cat', 'dog', '7')"),
    ({"sample_id": 1, "label": ["cat"]}, "label ['cat'] is not one class"),
    ({"sample_id": 1, "label": "cat", "revision": -1}, "revision -1 is not a whole number"),
    ({"sample_id": 1, "label": "cat", "cost": "0.001"}, "cost '0.001' is not an amount"),
    ({"sample_id": 1, "label": "cat", "cost": "much"}, "cost 'much' is not an amount"),
    ({"sample_id": 1, "label": "cat", "cost_minor": "1.5"}, "cost_minor '1.5' is not a whole"),
]


@pytest.mark.parametrize(("line", "what"), BAD_LINES)
def test_a_wrong_line_is_named_and_nothing_is_lost(tmp_path, line, what):
    labeler = drop(tmp_path)
    order = ordered(labeler, [1, 2])
    answer(tmp_path, "good.jsonl", {"sample_id": 2, "label": "dog"})
    answer(tmp_path, "b0/bad.jsonl", "", {"sample_id": 1, "label": "cat"}, line)
    with pytest.raises(LabelError) as error:
        labeler.fetch(order, "")
    assert f"b0/bad.jsonl:3: {what}" in str(error.value)
    assert "correct these lines and run the same command again, nothing is lost" in str(error.value)
    assert labeler.status(order).num_done == 2
    answer(tmp_path, "b0/bad.jsonl", {"sample_id": 1, "label": "cat"})
    assert values(labeler.fetch(order, "")[0]) == [(1, "cat"), (2, "dog")]


@pytest.mark.parametrize(
    ("vocabulary", "label", "what"),
    [
        (Vocabulary("number"), "nan", "label 'nan' is not a finite number"),
        (Vocabulary("number"), True, "label True is not a finite number"),
        (Vocabulary("multilabel", ("a",)), ["a", "z"], "label 'z' is outside the vocabulary ('a')"),
        (Vocabulary("class", (0, 1)), True, "label True is outside the vocabulary (0, 1)"),
        (Vocabulary("class", tuple(range(20))), 99, "... (20 classes))"),
        (Vocabulary("class", (1, 2)), "1.0", "label '1.0' is outside the vocabulary (1, 2)"),
    ],
)
def test_labels_outside_the_vocabulary(tmp_path, vocabulary, label, what):
    labeler = drop(tmp_path, vocabulary)
    order = ordered(labeler, [1])
    answer(tmp_path, "a.jsonl", {"sample_id": 1, "label": label})
    with pytest.raises(LabelError) as error:
        labeler.fetch(order, "")
    assert what in str(error.value)


def test_bad_csv_and_bad_bytes(tmp_path):
    labeler = drop(tmp_path)
    order = ordered(labeler, [1, 2])
    answer(tmp_path, "a.csv", "sample_id,label", "1,cat,extra", "2")
    (tmp_path / "in/b.csv").write_bytes(b"sample_id,label\n1,c\xe9t\n")
    answer(tmp_path, "c.csv", "sample_id,label", '1,"cat', "2,dog")
    answer(tmp_path, "d.csv", "id,label", "1,cat")
    with pytest.raises(LabelError) as error:
        labeler.fetch(order, "")
    text = str(error.value)
    assert "a.csv:2: 3 or more cells under a header of 2" in text
    assert "a.csv:3: 1 cells under a header of 2" in text
    assert "b.csv: not UTF-8 text (byte 19)" in text
    assert "c.csv:2: not CSV (unexpected end of data)" in text
    assert "d.csv:2: neither 'sample_id' nor 'source_id'" in text


def test_many_problems_are_counted(tmp_path):
    labeler = drop(tmp_path)
    order = ordered(labeler, [1])
    answer(tmp_path, "a.jsonl", *({"sample_id": i, "label": "cat"} for i in range(100, 125)))
    with pytest.raises(LabelError, match=r"a.jsonl:5: [^|]* \| and 20 more; correct"):
        labeler.fetch(order, "")


@pytest.mark.parametrize("same_file", [True, False])
def test_answers_against_each_other_are_refused(tmp_path, same_file):
    labeler = drop(tmp_path)
    order = ordered(labeler, [1])
    first, second = {"sample_id": 1, "label": "cat"}, {"sample_id": 1, "label": "dog"}
    answer(tmp_path, "a.jsonl", first)
    _, cursor = labeler.fetch(order, "")
    if same_file:
        answer(tmp_path, "a.jsonl", first, second)
    else:
        answer(tmp_path, "b.jsonl", second)
    with pytest.raises(LabelError, match=r"says 'dog' of sample_id 1 where a.jsonl:1 says 'cat'"):
        labeler.fetch(order, cursor)
    answer(tmp_path, "b.jsonl", second | {"revision": 1})
    answer(tmp_path, "a.jsonl", first)
    assert values(labeler.fetch(order, cursor)[0]) == [(1, "dog")]
    answer(tmp_path, "c.jsonl", second | {"annotator": "x"})
    assert len(labeler.fetch(order, "")[0]) == 3


def test_orders_are_kept_apart(tmp_path):
    labeler = drop(tmp_path)
    first, second = ordered(labeler, [1, 2]), ordered(labeler, [3], "b1")
    answer(tmp_path, "a.jsonl", *({"sample_id": i, "label": "cat"} for i in (1, 3)))
    answer(tmp_path, "b1-0000/a.jsonl", {"sample_id": 3, "label": "cat"})
    assert values(labeler.fetch(first, "")[0]) == [(1, "cat")]
    assert values(labeler.fetch(second, "")[0]) == [(3, "cat")]
    answer(tmp_path, "b1-0000/b.jsonl", {"sample_id": 1, "label": "cat"})
    with pytest.raises(LabelError, match=r"b1-0000/b.jsonl:1: sample_id 1 was never ordered"):
        labeler.fetch(second, "")


def test_unfinished_files_are_not_read_and_strange_ones_are_named(tmp_path):
    labeler = drop(tmp_path)
    order = ordered(labeler, [1])
    for name in (".a.jsonl", "a.jsonl.tmp", "b0-0000/.tmp-x.csv"):
        answer(tmp_path, name, "half a li")
    assert labeler.fetch(order, "")[0] == []
    answer(tmp_path, "answers.xlsx", "x")
    answer(tmp_path, "b0-0001/a.jsonl", {"sample_id": 1, "label": "cat"})
    with pytest.raises(LabelError) as error:
        labeler.fetch(order, "")
    assert "answers.xlsx: none of .jsonl, .csv" in str(error.value)
    assert "b0-0001/: no chunk or job of this name" in str(error.value)


def test_50k_answers_are_fast(tmp_path):
    labeler = drop(tmp_path)
    order = ordered(labeler, list(range(50_000)))
    answer(tmp_path, "a.jsonl", *({"sample_id": i, "label": "cat"} for i in range(50_000)))
    start = time.process_time()
    events, cursor = labeler.fetch(order, "")
    first_s = time.process_time() - start
    assert len(events) == 50_000
    assert labeler.fetch(order, cursor)[0] == []
    again_s = time.process_time() - start - first_s
    print(f"first {first_s:.2f} CPU-s, again {again_s:.2f} CPU-s")
    assert first_s < 5.0


def test_a_sample_that_two_orders_asked_for_is_answered_in_both(tmp_path):
    labeler = drop(tmp_path)
    first, second = ordered(labeler, [1, 2]), ordered(labeler, [1], "b1")
    answer(tmp_path, "a.jsonl", {"sample_id": 1, "label": "cat"})
    assert (
        values(labeler.fetch(first, "")[0]) == values(labeler.fetch(second, "")[0]) == [(1, "cat")]
    )
    labeler.erase(first, [1])
    assert labeler.fetch(first, "")[0] == []
    assert values(labeler.fetch(second, "")[0]) == [(1, "cat")]
