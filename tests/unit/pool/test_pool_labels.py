"""What a label column becomes, by type and kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayal.errors import PoolError
from rayal.pool import Pool, ingest
from rayal.pool import secrets as secrets_module


def _pool(tmp_path: Path, labels: pa.Array, **options: Any) -> Pool:
    table = pa.table({"x": range(len(labels)), "y": labels})
    pq.write_table(table, tmp_path / "in.parquet")
    return ingest(str(tmp_path / "in.parquet"), str(tmp_path / "pool"), label_column="y", **options)


@pytest.mark.parametrize(
    ("labels", "options", "kind", "classes", "stored"),
    [
        (pa.array(["b", "a", "b"]), {}, "class", ("a", "b"), ["b", "a", "b"]),
        (pa.array(["b", "a", "b"], pa.large_string()), {}, "class", ("a", "b"), ["b", "a", "b"]),
        (pa.array(["b", "a"]).dictionary_encode(), {}, "class", ("a", "b"), ["b", "a"]),
        (pa.array([10, 2, 10], pa.uint8()), {}, "class", (2, 10), [10, 2, 10]),
        (pa.array([True, False]), {}, "class", (0, 1), [1, 0]),
        (pa.array([1.5, -2.0]), {}, "number", (), [1.5, -2.0]),
        (pa.array([1.5, -2.0], pa.float32()), {}, "number", (), [1.5, -2.0]),
        (pa.array([3, 4]), {"kind": "number"}, "number", (), [3.0, 4.0]),
        (pa.array([3.0, 4.0]), {"kind": "class"}, "class", (3, 4), [3, 4]),
        (pa.array([["b"], [], ["a", "b"]]), {}, "multilabel", ("a", "b"), [["b"], [], ["a", "b"]]),
        (pa.array([[5], [1, 5]]), {}, "multilabel", (1, 5), [[5], [1, 5]]),
    ],
)
def test_kinds(
    tmp_path: Path, labels: pa.Array, options: dict, kind: str, classes: tuple, stored: list
) -> None:
    pool = _pool(tmp_path, labels, **options)
    assert pool.vocabulary is not None
    assert (pool.vocabulary.kind, pool.vocabulary.classes) == (kind, classes)
    got = pool.secret_labels(np.arange(len(labels)))
    assert got == stored
    assert [type(label) for label in got] == [type(label) for label in stored]
    assert pool.vocabulary.encode([label for label in got if label is not None]) is not None
    again = Pool.open(pool.path)
    assert again.vocabulary == pool.vocabulary


def test_a_null_label_is_not_known_and_counted(tmp_path: Path) -> None:
    labels = pa.array([None if i % 3 == 0 else f"c{i % 2}" for i in range(60)])
    labels = pa.concat_arrays([labels, pa.array([""])])
    pool = _pool(tmp_path, labels, test_share=0.5)
    assert pool.manifest.num_null_labels == 21
    expected = [label or None for label in labels.to_pylist()]
    assert pool.secret_labels(np.arange(61)) == expected
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == ("c0", "c1")
    shard = pool.test_shards[0]
    ids = [i for rows in pool.batches(shard, ["sample_id"], 7) for i in rows[0].to_pylist()]
    assert pool.test_labels(shard) == [expected[i] for i in ids]


def test_a_test_shard_whose_range_has_no_label_gives_none_a_row(tmp_path: Path) -> None:
    pool = _pool(tmp_path, pa.array([1] * 50 + [None] * 50), rows_per_shard=50, test_share=0.5)
    assert pool.test_labels(pool.test_shards[1]) == [None] * pool.test_shards[1].num_rows


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (pa.array([1.0, float("nan")]), {}, r"label column 'y' holds nan at .*in.parquet row 1"),
        (pa.array([1.0, float("inf")]), {}, r"holds inf at .*row 1 .*write null where no label"),
        (pa.array([1.5, 2.0]), {"kind": "class"}, r"'y' cannot be read as int64 .*truncated"),
        (pa.array(["a"]), {"kind": "number"}, r"'y' is string, expected numbers for kind 'number'"),
        (pa.array(["a"]), {"kind": "multilabel"}, r"'y' is string, expected lists of text"),
        (pa.array([["a"]]), {"kind": "class"}, r"'y' is list<.*expected text, integers or bool"),
        (pa.array([[0.5]]), {}, r"'y' is list<.*expected lists of text or of integers"),
        (pa.array([["a", None]]), {}, r"null inside a list in the 1 rows from .*in.parquet row 0"),
        (pa.array([None, None], pa.string()), {}, r"'y' has no label in any row; name the right"),
        (pa.nulls(3), {}, r"'y' has no label in its first rows, so its type is not known"),
        (pa.array([2**63], pa.uint64()), {}, r"'y' cannot be read as int64"),
        (pa.array([b"a"]), {}, r"'y' is binary, expected text, integers or booleans"),
    ],
)
def test_labels_that_are_refused(
    tmp_path: Path, labels: pa.Array, options: dict, message: str
) -> None:
    with pytest.raises(PoolError, match=message):
        _pool(tmp_path, labels, **options)
    assert not (tmp_path / "pool").exists()


def test_too_many_classes_are_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets_module, "MAX_CLASSES", 50)
    assert _pool(tmp_path, pa.array(range(50))).vocabulary is not None
    with pytest.raises(PoolError, match=r"more than 50 distinct labels by .* pass kind 'number'"):
        ingest(_pool_source(tmp_path), str(tmp_path / "pool2"), label_column="y")


def _pool_source(tmp_path: Path) -> str:
    place = tmp_path / "many.parquet"
    pq.write_table(pa.table({"x": range(51), "y": range(51)}), place)
    return str(place)


def test_labels_asked_of_a_pool_without_any(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": range(100)}), tmp_path / "in.parquet")
    pool = ingest(str(tmp_path / "in.parquet"), str(tmp_path / "pool"))
    assert pool.vocabulary is None
    assert pool.test_labels(pool.test_shards[0]) is None
    with pytest.raises(PoolError, match="has no kept-apart labels; ingest with --label-column"):
        pool.secret_labels(np.array([0]))


def test_the_label_of_an_unknown_id_is_refused(tmp_path: Path) -> None:
    pool = _pool(tmp_path, pa.array(["a", None, "b"]), test_share=0.0)
    assert pool.secret_labels(np.array([1, 2])) == [None, "b"]
    with pytest.raises(PoolError, match=r"1 of 1 sample_ids are not in the pool .*first: 3"):
        pool.secret_labels(np.array([0, 3]))
