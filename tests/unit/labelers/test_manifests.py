"""Ground-Truth manifests: what goes out, and what comes back with answers added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rayal.errors import ConfigError, LabelError
from rayal.labelers.file_drop import FileDrop
from rayal.types import Order, Vocabulary

ROWS = pa.table(
    {
        "sample_id": pa.array([5, 6, 7], pa.int64()),
        "uri": ["s3://b/a.png", "s3://b/b.png", "s3://b/c.png"],
        "text": ["a", "b", "c"],
    }
)


def _drop(folder: Path, words: Vocabulary, **more: Any) -> tuple[FileDrop, Order]:
    labeler = FileDrop(
        str(folder / "out"), str(folder / "in"), "manifest", ["uri", "text"], price_minor=3, **more
    )
    labeler.check(ROWS.schema)
    labeler.bind(None, words, str(folder))
    rows = labeler.gate.passed(ROWS)
    (chunk,) = labeler.plan("b0", rows)
    return labeler, Order("b0", (labeler.submit(chunk, rows),), 3)


def _lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "out/b0-0000/part-00000.manifest").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _answer(folder: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "in" / "output.manifest").write_text(text)


def test_an_input_manifest_comes_back_with_classes(tmp_path: Path) -> None:
    labeler, order = _drop(tmp_path, Vocabulary("class", ("cat", "dog")), source_ref="uri")
    lines = _lines(tmp_path)
    assert lines[0] == {"sample_id": 5, "source-ref": "s3://b/a.png", "text": "a"}
    about = {
        "class-name": "dog", "confidence": 0.93, "job-name": "labeling-job/x", "type":
        "groundtruth/image-classification", "human-annotated": "yes",
        "creation-date": "2026-11-24T10:00:00.000000",
    }  # fmt: skip
    _answer(
        tmp_path,
        [
            lines[0] | {"animal": 1, "animal-metadata": about},
            lines[1] | {"animal": 0, "animal-metadata": about | {"human-annotated": "no"}},
            lines[2] | {"animal": -1, "animal-metadata": {"failure-reason": "ClientError"}},
        ],
    )
    events, _ = labeler.fetch(order, "")
    assert [(one.sample_id, one.value, one.annotator, one.cost_minor) for one in events] == [
        (5, "dog", "", 3), (6, "dog", "machine", 3), (7, None, "", 0),
    ]  # fmt: skip
    assert events[0].at == "2026-11-24T10:00:00.000000"
    labeler.erase(order, [5])
    assert [line["sample_id"] for line in _lines(tmp_path)] == [6, 7]


def test_several_classes_and_numbers(tmp_path: Path) -> None:
    words = Vocabulary("multilabel", ("art", "law", "war"))
    labeler, order = _drop(tmp_path / "m", words, source="text")
    lines = _lines(tmp_path / "m")
    assert lines[1] == {"sample_id": 6, "uri": "s3://b/b.png", "source": "b"}
    about = {"class-map": {"0": "art", "2": "war"}, "human-annotated": "yes"}
    _answer(tmp_path / "m", [lines[0] | {"topic": [0, 2], "topic-metadata": about}])
    assert labeler.fetch(order, "")[0][0].value == ["art", "war"]
    labeler, order = _drop(tmp_path / "n", Vocabulary("number"), source="text")
    _answer(tmp_path / "n", [_lines(tmp_path / "n")[0] | {"age": 4.5, "age-metadata": {}}])
    assert labeler.fetch(order, "")[0][0].value == 4.5


def test_which_attribute_is_the_answer(tmp_path: Path) -> None:
    words = Vocabulary("class", ("cat", "dog"))
    labeler, order = _drop(tmp_path / "a", words, source="text")
    line = _lines(tmp_path / "a")[0]
    line |= {"one": 0, "one-metadata": {"class-name": "cat"}}
    line |= {"two": 1, "two-metadata": {"class-name": "dog"}}
    _answer(tmp_path / "a", [line])
    with pytest.raises(LabelError, match=r"2 attributes with metadata \(one, two\), expected one"):
        labeler.fetch(order, "")
    labeler, order = _drop(tmp_path / "b", words, source="text", attribute="two")
    _answer(tmp_path / "b", [line])
    assert labeler.fetch(order, "")[0][0].value == "dog"
    labeler, order = _drop(tmp_path / "c", words, source="text", attribute="three")
    _answer(tmp_path / "c", [line])
    with pytest.raises(LabelError, match=r"no attribute 'three' \(there are: one, two\)"):
        labeler.fetch(order, "")


def test_settings_that_cannot_be_meant() -> None:
    for words in ({"format": "manifest"}, {"source_ref": "uri"},
                  {"format": "manifest", "source_ref": "uri", "source": "text"}):  # fmt: skip
        with pytest.raises(ConfigError, match="give format=manifest and one of the two"):
            FileDrop(**words)
    labeler = FileDrop(format="manifest", source_ref="uri", columns=["text"])
    with pytest.raises(ConfigError, match="source is column 'uri', which does not leave"):
        labeler.check(ROWS.schema)
