"""Labels of test rows in a user's file: how rows are named, what a label is, what is refused."""

from __future__ import annotations

import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import write_embeddings

from rayal.errors import LabelError
from rayal.pool import Pool, ingest
from rayal.test_split import read_file
from rayal.types import Vocabulary

WORDS = Vocabulary("class", ("ant", "bee", "cat", "dog"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Pool:
    """A pool without labels, its sample_ids the places of its rows."""
    folder = tmp_path_factory.mktemp("bare")
    source = write_embeddings(folder / "rows.parquet", 200)
    pq.write_table(pq.read_table(source).drop_columns(["label"]), source)
    return ingest(str(source), str(folder / "pool"))


def _test_column(pool: Pool, name: str) -> list:
    batches = [rows for shard in pool.test_shards for rows in pool.batches(shard, (name,), 999)]
    return [value for rows in batches for value in rows.column(name).to_pylist()]


def test_rows_named_by_the_ids_of_the_source(tmp_path):
    """Text, integers of 32 bits and bytes are source_ids: what the user knows the rows by."""
    for number, (ids, said) in enumerate(
        [
            ([f"k{i}" for i in range(200)], str),
            (pa.array(range(200), pa.int32()), int),
            (pa.array([bytes([i, 7]) for i in range(200)], pa.binary()), bytes),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = write_embeddings(folder / "rows.parquet", 200)
        table = pq.read_table(source).drop_columns(["label"])
        pq.write_table(table.append_column("key", pa.array(ids)), source)
        pool = ingest(str(source), str(folder / "pool"), id_column="key")
        sources = _test_column(pool, "source_id")
        by_source = dict(zip(sources, _test_column(pool, "sample_id"), strict=True))
        names = [
            x if said is str else said(x) if said is int else bytes.fromhex(x) for x in sources
        ]
        labels = ["ant", "bee"] * len(names)
        rows = dict(zip(sources, labels, strict=False))
        pq.write_table(
            pa.table({"source_id": names, "label": labels[: len(names)]}), folder / "e.parquet"
        )
        (folder / "e.csv").write_text(
            "label,source_id\n" + "".join(f"{x},{name}\n" for name, x in rows.items())
        )
        (folder / "e.jsonl").write_text(
            "".join(json.dumps({"source_id": name, "label": x}) + "\n" for name, x in rows.items())
        )
        expected = sorted((by_source[name], x) for name, x in rows.items())
        for suffix in ("parquet", "csv", "jsonl"):
            found = read_file(str(folder / f"e.{suffix}"), pool, WORDS)
            assert list(zip(*found.to_pydict().values(), strict=True)) == expected
        assert len(expected) > 10


@pytest.mark.parametrize("classes", [("0", "1"), (0, 1)])
def test_labels_that_look_like_numbers(bare, tmp_path, classes):
    """A CSV file cannot say whether its 0 is text; the vocabulary does."""
    ids = _test_column(bare, "sample_id")[:4]
    (tmp_path / "e.csv").write_text("sample_id,label\n" + "".join(f"{i},{i % 2}\n" for i in ids))
    (tmp_path / "e.jsonl").write_text(
        "".join(json.dumps({"sample_id": i, "label": i % 2}) + "\n" for i in ids)
    )
    pq.write_table(
        pa.table({"sample_id": ids, "label": [str(i % 2) for i in ids]}), tmp_path / "e.parquet"
    )
    for suffix in ("csv", "jsonl", "parquet"):
        found = read_file(str(tmp_path / f"e.{suffix}"), bare, Vocabulary("class", classes))
        assert found.column("label").to_pylist() == [classes[i % 2] for i in sorted(ids)]
        assert found.schema.field("sample_id").type == pa.int64()


def test_lists_numbers_and_rows_without_a_label(bare, tmp_path):
    one, two, three = _test_column(bare, "sample_id")[:3]
    (tmp_path / "e.csv").write_text(f'sample_id,label\n{two},"[""x""]"\n{one},\n{three},[]\n')
    tags = read_file(str(tmp_path / "e.csv"), bare, Vocabulary("multilabel", ("x", "y")))
    assert tags.to_pydict() == {"sample_id": [two, three], "label": [["x"], []]}
    pq.write_table(
        pa.table({"sample_id": pa.array([two, one], pa.uint8()), "label": [1, None]}),
        tmp_path / "e.parquet",
    )
    numbers = read_file(str(tmp_path / "e.parquet"), bare, Vocabulary("number"))
    assert numbers.to_pydict() == {"sample_id": [two], "label": [1.0]}


BAD_FILES = [
    ("csv", "sample_id,label\nx,ant\n", "exam.csv:2: sample_id 'x' is not a whole number"),
    ("csv", "sample_id,label\n{0},ant,bee\n", "exam.csv:2: 3 or more cells under a header of 2"),
    ("csv", "sample_id,label\n{0},cow\n{1},cow\n",
     "exam.csv:2: label 'cow' is outside the vocabulary ('ant', 'bee', 'cat', 'dog'), and 1 more "
     "such rows; correct the test labels"),
    ("csv", "sample_id;label\n{0};ant\n", "has no column 'sample_id' (it has: sample_id;label)"),
    ("csv", "sample_id,lable\n{0},ant\n", "has no column 'label' (it has: sample_id, lable)"),
    ("csv", "", "exam.csv has no label in any of its 0 rows"),
    ("csv", "sample_id,label\n{0},\n", "exam.csv has no label in any of its 1 rows"),
    ("csv", b"sample_id,label\n1,c\xe9t\n", "exam.csv: not UTF-8 text (byte 19); save it as UTF-8"),
    ("csv", "source_id,label\na,ant\n", "exam.csv:2: source_id 'a', but the pool has no source_id"),
    ("jsonl", "", "exam.jsonl has no label in any of its 0 rows"),
    ("jsonl", '{"sample_id": 1, ', "exam.jsonl:1: not JSON ("),
    ("jsonl", '\n{"sample_id": null, "label": "ant"}',
     "exam.jsonl:2: neither 'sample_id' nor 'source_id'"),
    ("jsonl", '{"sample_id": {0}, "labels": "ant"}', "exam.jsonl:1: no 'label' (there are: sample"),
    ("jsonl", '{"sample_id": {0}, "label": ["ant"]}', "exam.jsonl:1: label ['ant'] is not one cla"),
    ("jsonl", '{"sample_id": 1e30, "label": "ant"}', "is not in the test split (1 of 1 rows are"),
    ("jsonl", '{"sample_id": {0}, "label": "ant"}\n{"sample_id": "{0}", "label": "ant"}',
     "exam.jsonl:2 gives sample_id {0} twice (before: "),
    ("jsonl", "[" * 100_000, "exam.jsonl:1: not JSON"),
    ("parquet", b"PAR1", "exam.parquet is not a Parquet file, or is damaged ("),
    ("parquet", b"", "exam.parquet is not a Parquet file, or is damaged ("),
    ("parquet", {"id": [1], "label": ["ant"]}, "has no column 'sample_id' (it has: id, label)"),
    ("parquet", {"sample_id": [-5], "label": ["ant"]},
     "exam.parquet row 0 (counted from 0): sample_id -5 is not in the test split (1 of 1 rows are "
     "not); give labels of test rows only, those of "),
    ("parquet", {"sample_id": [1, None], "label": ["ant"] * 2},
     "exam.parquet row 1 (counted from 0): neither 'sample_id' nor 'source_id'"),
    ("parquet", {"sample_id": ["a1"], "label": ["ant"]}, "sample_id 'a1' is not a whole number"),
    ("parquet", {"sample_id": [0.5], "label": ["ant"]}, "sample_id 0.5 is not a whole number"),
    ("parquet", {"sample_id": [decimal.Decimal("1.5")], "label": ["ant"]}, "is not a whole number"),
    ("txt", "sample_id,label\n", "is not there, or is none of .parquet, .csv, .jsonl"),
    ("csv", None, "is not there, or is none of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "content", "expected"), BAD_FILES, ids=map(str, range(len(BAD_FILES)))
)
def test_a_wrong_file_is_explained(bare, tmp_path, suffix, content, expected):
    ids = _test_column(bare, "sample_id")[:2]
    path = tmp_path / f"exam.{suffix}"
    if isinstance(content, str):
        for place, sample_id in enumerate(ids):
            content = content.replace(f"{{{place}}}", str(sample_id))
            expected = expected.replace(f"{{{place}}}", str(sample_id))
        path.write_text(content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        pq.write_table(pa.table(content), path)
    with pytest.raises(LabelError) as error:
        read_file(str(path), bare, WORDS)
    assert expected in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_rows_that_are_not_in_the_test_split_are_counted(tmp_path):
    source = write_embeddings(tmp_path / "rows.parquet", 200)
    table = pq.read_table(source).drop_columns(["label"])
    pq.write_table(table.append_column("key", pa.array([f"k{i}" for i in range(200)])), source)
    pool = ingest(str(source), str(tmp_path / "pool"), id_column="key")
    keys, ids = _test_column(pool, "source_id"), _test_column(pool, "sample_id")
    others = sorted({f"k{i}" for i in range(200)} - set(keys))
    path = tmp_path / "exam.csv"
    path.write_text(f"source_id,label\n{keys[0]},ant\n{others[0]},ant\nK,bee\n")
    with pytest.raises(LabelError) as error:
        read_file(str(path), pool, WORDS)
    assert f"exam.csv:3: source_id '{others[0]}' is not in the test split (2 of 3" in str(
        error.value
    )
    path.write_text(f"source_id,sample_id,label\n{keys[0]},{ids[1]},ant\n")
    with pytest.raises(LabelError) as error:
        read_file(str(path), pool, WORDS)
    assert f"exam.csv:2: sample_id {ids[1]} and source_id '{keys[0]}' are two" in str(error.value)
    path.write_text(f"source_id,sample_id,label\n{keys[0]},{ids[0]},ant\n{keys[0]},,bee\n")
    with pytest.raises(LabelError, match=rf"exam.csv:3 gives sample_id {ids[0]} twice"):
        read_file(str(path), pool, WORDS)
