"""Orders through an outbox: what leaves, and that it leaves once."""

import base64
import csv
import datetime
import decimal
import errno
import hashlib
import io
import json
import tempfile

import numpy as np
import pyarrow as pa
import pytest

from rayal import storage
from rayal.columns import vector_field
from rayal.errors import ConfigError, LabelError
from rayal.labelers import payload
from rayal.labelers.file_drop import FileDrop
from rayal.types import Ack, Order, Vocabulary

CLASSES = Vocabulary("class", ("cat", "dog"))


def batch(num_rows=3):
    vectors = np.arange(2 * num_rows, dtype=np.float32).reshape(num_rows, 2) / 4
    field = vector_field("vector", vectors.dtype, 2)
    columns = {
        "sample_id": pa.array(range(10, 10 + num_rows), pa.int64()),
        "source_id": [f"s{i}" for i in range(num_rows)],
        "rank": list(range(num_rows)),
        "score": [0.5] * num_rows,
        "reason": ["low margin"] * num_rows,
        "text": ['plain, "quoted"\nüber', None, "x"][:num_rows] + ["y"] * (num_rows - 3),
        "bytes": [bytes([i % 256, 255]) for i in range(num_rows)],
        "words": [["a", "b"]] * num_rows,
        "day": [datetime.date(2026, 1, 2)] * num_rows,
        "flag": [True] * num_rows,
    }
    table = pa.table(columns)
    return table.append_column(field, pa.array([row.tobytes() for row in vectors], field.type))


def drop(folder, vocabulary=CLASSES, **settings):
    settings = {"columns": "all", **settings}
    labeler = FileDrop(str(folder / "out"), str(folder / "in"), **settings)
    labeler.bind(None, vocabulary, str(folder))
    return labeler


def ordered(labeler, rows, job_id="b0"):
    rows = labeler.gate.passed(rows)
    chunks = labeler.plan(job_id, rows)
    acks = [labeler.submit(one, rows.slice(one.start, one.stop - one.start)) for one in chunks]
    return Order(job_id, tuple(acks), rows.num_rows)


def tree(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_part_holds_the_rows_and_its_manifest_says_so(tmp_path):
    labeler = drop(tmp_path, rows_per_chunk=2, price_minor=4, currency="EUR")
    order = ordered(labeler, batch())
    assert order.chunks == (Ack("b0-0000", "b0-0000", 2), Ack("b0-0001", "b0-0001", 1))
    folder = tmp_path / "out" / "b0-0000"
    part = (folder / "part-00000.jsonl").read_bytes()
    assert [json.loads(line) for line in part.splitlines()] == [
        {
            "sample_id": 10 + i,
            "source_id": f"s{i}",
            "text": ['plain, "quoted"\nüber', None][i],
            "bytes": base64.b64encode(bytes([i, 255])).decode(),
            "words": ["a", "b"],
            "day": "2026-01-02",
            "flag": True,
            "vector": [i / 2, i / 2 + 0.25],
        }
        for i in range(2)
    ]
    manifest = json.loads((folder / "manifest.json").read_text())
    sha256 = hashlib.sha256(part).hexdigest()
    assert manifest["parts"] == [
        {"name": "part-00000.jsonl", "rows": 2, "size_bytes": len(part), "sha256": sha256}
    ]
    passed = labeler.gate.passed(batch())
    assert labeler.plan("b0", passed)[0].payload_sha256 == manifest["payload_sha256"] == sha256
    assert manifest["answer"]["label"] == {"kind": "class", "classes": ["cat", "dog"]}
    assert (manifest["rows"], manifest["cost_minor"], manifest["currency"]) == (2, 8, "EUR")
    assert str(tmp_path) not in json.dumps(manifest)


def test_csv_parts(tmp_path):
    ordered(drop(tmp_path, format="csv"), batch())
    with open(tmp_path / "out/b0-0000/part-00000.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "sample_id", "source_id", "text", "bytes", "words", "day", "flag", "vector",
    ]  # fmt: skip
    assert rows[0]["text"] == 'plain, "quoted"\nüber'
    assert rows[1]["text"] == ""
    assert json.loads(rows[2]["vector"]) == [1.0, 1.25]
    assert (rows[0]["sample_id"], rows[0]["flag"], rows[0]["day"]) == ("10", "true", "2026-01-02")


def test_only_named_columns_leave(tmp_path):
    ordered(drop(tmp_path, columns=["text", "score"]), batch())
    line = (tmp_path / "out/b0-0000/part-00000.jsonl").read_text().splitlines()[2]
    assert json.loads(line) == {"sample_id": 12, "text": "x", "score": 0.5}
    with pytest.raises(LabelError, match=r"is to send title, which the batch does not have"):
        ordered(drop(tmp_path, columns=["title"]), batch(), "b1")
    ordered(drop(tmp_path, columns=["text", "source_id"]), batch(), "b2")
    line = (tmp_path / "out/b2-0000/part-00000.jsonl").read_text().splitlines()[2]
    assert list(json.loads(line)) == ["sample_id", "source_id", "text"]


def test_a_chunk_is_placed_once_whatever_died_between(tmp_path, monkeypatch):
    whole = drop(tmp_path / "whole")
    ordered(whole, batch())
    rows = whole.gate.passed(batch())
    commit, count = storage.commit_file, [0]

    for at in (1, 2):
        for after in (False, True):
            folder = tmp_path / f"{at}{after}"
            labeler = drop(folder)
            (chunk,) = labeler.plan("b0", rows)
            count[0] = 0

            def stopping(temporary, final, at=at, after=after):
                count[0] += 1
                if count[0] == at and not after:
                    raise KeyboardInterrupt
                commit(temporary, final)
                if count[0] == at:
                    raise KeyboardInterrupt

            monkeypatch.setattr(storage, "commit_file", stopping)
            with pytest.raises(KeyboardInterrupt):
                labeler.submit(chunk, rows)
            monkeypatch.setattr(storage, "commit_file", commit)
            again = drop(folder)
            found = again.lookup(chunk.key)
            assert (found is not None) == (at == 2 and after)
            assert (
                again.submit(chunk, rows) == again.lookup(chunk.key) == Ack("b0-0000", "b0-0000", 3)
            )
            assert tree(folder) == tree(tmp_path / "whole")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole").rglob("*")}
    ordered(whole, rows)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "whole").rglob("*")} == before


def test_other_rows_under_the_same_key_are_refused(tmp_path):
    labeler = drop(tmp_path)
    ordered(labeler, batch(3))
    with pytest.raises(LabelError, match=r"placed before with payload .* give each run its own"):
        ordered(labeler, batch(4))
    (chunk,) = labeler.plan("b1", batch(4))
    with pytest.raises(LabelError, match=r"planned as rows 0 to 4 .*but 3 rows"):
        labeler.submit(chunk, batch(3))


def test_cancel_marks_and_erase_takes_out(tmp_path, monkeypatch):
    for format in ("jsonl", "csv"):
        folder = tmp_path / format
        labeler = drop(folder, format=format)
        order = ordered(labeler, batch())
        labeler.cancel(order)
        chunk = folder / "out/b0-0000"
        assert json.loads((chunk / "cancelled.json").read_text())["cancelled"]
        lines = (chunk / f"part-00000.{format}").read_bytes()
        labeler.erase(order, np.array([10, 999]))
        left = (chunk / f"part-00000.{format}").read_bytes()
        assert b"quoted" not in left
        assert lines.endswith(left.removeprefix(lines[: lines.index(b"\n") + 1]))
        manifest = json.loads((chunk / "manifest.json").read_text())
        assert (manifest["rows"], manifest["erased"], manifest["parts"][0]["rows"]) == (3, [10], 2)
        assert manifest["parts"][0]["sha256"] == hashlib.sha256(left).hexdigest()
        assert "s0" not in json.dumps(manifest)
        # Placing it again does not bring the row back.
        assert ordered(drop(folder, format=format), batch()) == order
        assert (chunk / f"part-00000.{format}").read_bytes() == left
        (folder / "in").mkdir(exist_ok=True)
        (folder / "in/a.jsonl").write_text(
            '{"sample_id": 10, "label": "cat"}\n{"source_id": "s0", "label": "cat"}\n'
            '{"sample_id": 11, "label": "dog"}\n'
        )
        events, _ = labeler.fetch(order, "")
        assert [event.sample_id for event in events] == [11]


def test_an_erasure_that_was_cut_off_is_finished_by_the_same_call(tmp_path, monkeypatch):
    whole = drop(tmp_path / "whole")
    order = ordered(whole, batch())
    whole.erase(order, np.array([11]))
    commit = storage.commit_file
    for at in (1, 2, 3):
        for after in (False, True):
            labeler = drop(tmp_path / f"{at}{after}")
            ordered(labeler, batch())
            left = [at]

            def stopping(temporary, final, after=after, left=left):
                left[0] -= 1
                if left[0] == 0 and not after:
                    raise KeyboardInterrupt
                commit(temporary, final)
                if left[0] == 0:
                    raise KeyboardInterrupt

            monkeypatch.setattr(storage, "commit_file", stopping)
            with pytest.raises(KeyboardInterrupt):
                labeler.erase(order, np.array([11]))
            monkeypatch.setattr(storage, "commit_file", commit)
            drop(tmp_path / f"{at}{after}").erase(order, np.array([11]))
            assert tree(tmp_path / f"{at}{after}") == tree(tmp_path / "whole")


def test_settings_that_cannot_be_meant(tmp_path):
    with pytest.raises(ConfigError, match="cannot write 'xml'; choose jsonl, csv, manifest"):
        FileDrop(format="xml")
    with pytest.raises(ConfigError, match="rows_per_chunk=0"):
        FileDrop(rows_per_chunk=0)
    with pytest.raises(LabelError, match="not bound"):
        FileDrop().lookup("k")
    labeler = FileDrop(columns="all")
    labeler.bind(None, None, str(tmp_path))
    ordered(labeler, batch())
    assert (tmp_path / "outbox/b0-0000/manifest.json").exists()


def test_an_outbox_that_lost_a_file_is_said(tmp_path):
    order = ordered(drop(tmp_path), batch())
    (tmp_path / "out/b0-0000/part-00000.jsonl").unlink()
    with pytest.raises(LabelError, match=r"part-00000\.jsonl is missing, though its manifest is"):
        drop(tmp_path).fetch(order, "")
    (tmp_path / "out/b0-0000/manifest.json").unlink()
    with pytest.raises(LabelError, match="chunk b0-0000 has no manifest"):
        drop(tmp_path).status(order)


def schema_with(**types):
    return pa.schema({"sample_id": pa.int64(), "source_id": pa.string(), **types})


def test_a_column_that_is_not_there_is_refused_before_an_order():
    schema = schema_with(text=pa.string())
    with pytest.raises(ConfigError) as error:
        FileDrop(columns=["text", "foo"]).check(schema)
    assert "is to send foo, which the batch does not have" in str(error.value)
    assert "(it has: sample_id, source_id, text, rank, score" in str(error.value)
    assert "correct labeler.columns" in str(error.value)
    FileDrop(columns=["text", "score"]).check(schema)
    with pytest.raises(ConfigError, match=r"labeler.columns is 'text'; give a list: \[text\]"):
        FileDrop(columns="text")


FORMLESS = [
    pa.duration("s"),
    pa.list_(pa.duration("ms")),
    pa.struct({"a": pa.int64(), "b": pa.map_(pa.string(), pa.duration("s"))}),
]


@pytest.mark.parametrize("kind", FORMLESS)
@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_column_without_a_form_is_refused_before_an_order(kind, format):
    schema = schema_with(text=pa.string(), took=kind, day=pa.date32())
    with pytest.raises(ConfigError) as error:
        FileDrop(columns="all", format=format).check(schema)
    assert "cannot write column 'took', which is " in str(error.value)
    assert "'labeler.columns=[text, day]'" in str(error.value)
    FileDrop(format=format, columns=["text", "day"]).check(schema)
    with pytest.raises(LabelError):  # nor can it be written
        payload.encode(pa.table({"took": pa.array([sample(kind)], kind)}), ["took"], format)


def sample(kind):
    minute = datetime.timedelta(minutes=1)
    if pa.types.is_list(kind):
        return pa.scalar([minute], kind)
    if pa.types.is_struct(kind):
        return pa.scalar({"a": 1, "b": [("x", minute)]}, kind)
    return pa.scalar(minute, kind)


FORMS = [
    (pa.decimal128(6, 2), decimal.Decimal("12.50"), "12.50", "12.50"),
    (pa.list_(pa.binary()), [b"a"], ["YQ=="], '["YQ=="]'),
    (
        pa.struct({"a": pa.list_(pa.decimal128(3, 1))}),
        {"a": [decimal.Decimal("0.5")]},
        {"a": ["0.5"]},
        '{"a": ["0.5"]}',
    ),
    (pa.map_(pa.string(), pa.date32()), [("x", datetime.date(2026, 1, 2))], [["x", "2026-01-02"]],
     '[["x", "2026-01-02"]]'),
    (pa.dictionary(pa.int8(), pa.string()), "red", "red", "red"),
    (pa.time32("s"), datetime.time(12, 30), "12:30:00", "12:30:00"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "in_json", "in_csv"), FORMS)
def test_a_column_that_passes_the_check_can_be_written(kind, value, in_json, in_csv):
    FileDrop(columns="all").check(schema_with(extra=kind))
    rows = pa.table({"sample_id": [1, 2], "extra": pa.array([value, None], kind)})
    lines = payload.encode(rows, rows.schema.names, "jsonl").decode().splitlines()
    assert [json.loads(line)["extra"] for line in lines] == [in_json, None]
    text = payload.encode(rows, rows.schema.names, "csv").decode()
    assert [row["extra"] for row in csv.DictReader(io.StringIO(text))] == [in_csv, ""]


def test_folders_that_cannot_be_told_apart(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "one")
    for outbox, inbox in (("one", "one"), ("one", "one/../link"), ("one/out", "one")):
        labeler = FileDrop(str(tmp_path / outbox), str(tmp_path / inbox))
        with pytest.raises(ConfigError, match=r"outbox=.* lies in labeler.inbox=.*two folders"):
            labeler.bind(None, None, str(tmp_path))
    for outbox, inbox in ((str(tmp_path / "inbox"), None), (None, str(tmp_path))):
        with pytest.raises(ConfigError, match="lies in"):
            FileDrop(outbox, inbox).bind(None, None, str(tmp_path))
    FileDrop(str(tmp_path / "one"), str(tmp_path / "one/in")).bind(None, None, str(tmp_path))


def test_folders_that_cannot_be_made_or_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        path = str(tmp_path / place)
        with pytest.raises(ConfigError, match=r"labeler.outbox=.*file.* cannot be written \("):
            FileDrop(outbox=path).bind(None, None, str(tmp_path))
        with pytest.raises(ConfigError, match=r"labeler.inbox=.*file.* cannot be read \("):
            FileDrop(inbox=path).bind(None, None, str(tmp_path))
    labeler = drop(tmp_path)
    assert tree(tmp_path) == {"file": b""}

    def refused(dir):
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with pytest.raises(ConfigError, match=r"out cannot be written \(Permission denied\)"):
        labeler.bind(None, None, str(tmp_path))


def test_folders_below_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    labeler = FileDrop("~/to", "~/from", columns="all")
    labeler.bind(None, None, str(tmp_path / "run"))
    ordered(labeler, batch())
    assert (tmp_path / "to/b0-0000/manifest.json").exists()
    assert (tmp_path / "from").is_dir()
