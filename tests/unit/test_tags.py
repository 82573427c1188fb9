"""Columns whose values are only told apart, from the pool to a selector."""

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from rayal.columns import TAG_BYTES, tag_of, tags, vector_field
from rayal.errors import PoolError
from rayal.types import PREDICTED_CLASS, source_of, tags_of

TEXTS = ["", "a", "Zürich", "x" * 32, "x" * 33, "x" * 33, "a", "\0", "Grüße aus einer langen Gaße"]


def same(rows):
    """Which rows are equal."""
    return [[bool((x == y).all()) for y in rows] for x in rows]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS).dictionary_encode(),
        pa.array([text.encode() for text in TEXTS]),
        pa.chunked_array([pa.array(TEXTS[:4]), pa.array(TEXTS[4:])]),
        pa.chunked_array([pa.array(TEXTS[:4]).dictionary_encode(), pa.array(TEXTS[4:])
                          .dictionary_encode()]),
    ],
    ids=lambda column: str(column.type),
)  # fmt: skip
def test_text_is_told_apart_by_its_hash_and_named_by_its_beginning(column):
    found = tags(pa.table({"a": column}), "a")
    assert found.shape == (len(TEXTS), TAG_BYTES)
    assert found.dtype == np.uint8
    assert same(found) == [[x == y for y in TEXTS] for x in TEXTS]
    assert same(found[:, :8]) == same(found)
    assert found[2, 8:].tobytes().rstrip(b"\0").decode() == "Zürich"
    assert found[2, :8].view(np.int64)[0] == tag_of("Zürich") == tag_of("Zürich".encode())


def test_tags_are_the_same_on_every_machine_and_for_every_batch():
    assert tag_of("cat") == 1480604469589577708
    assert tag_of(7) == 7
    whole = tags(pa.table({"a": TEXTS}), "a")
    batches = pa.table({"a": TEXTS}).to_batches(max_chunksize=2)
    assert (np.concatenate([tags(batch, "a") for batch in batches]) == whole).all()
    assert tags(pa.table({"a": pa.array([], pa.string())}), "a").shape == (0, TAG_BYTES)


def test_numbers_stay_numbers():
    def of(column):
        return tags(pa.table({"a": column}), "a")

    assert of(pa.array([3, -1], pa.int16())).tolist() == [3, -1]
    assert of(pa.array([1.5])).tolist() == [1.5]
    assert of(pa.array([True, False])).tolist() == [1, 0]
    days = [datetime.date(1970, 1, 3), datetime.date(2026, 1, 1)]
    assert of(pa.array(days)).tolist() == [2, 20454]
    assert of(pa.array([datetime.datetime(1970, 1, 1, 0, 0, 1)], pa.timestamp("ms"))) == [1000]
    field = vector_field("a", np.dtype(np.int8), 3)
    rows = pa.table([pa.array([b"\1\2\3", b"\4\5\6"], field.type)], pa.schema([field]))
    assert tags(rows, "a").tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tags(pa.table({"a": pa.array([b"\1\2\3"], pa.binary(3))}), "a").shape == (1, TAG_BYTES)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array(["a", None]), "column 'a' has 1 nulls in 2 rows"),
        (pa.array([1, None]), "column 'a' has 1 nulls in 2 rows"),
        (pa.array([True, None]), "column 'a' has 1 nulls in 2 rows"),
        (pa.array(["a", None]).dictionary_encode(), "column 'a' has 1 nulls in 2 rows"),
        (pa.array([Decimal("1.5")]), "column 'a' is decimal128"),
        (pa.array([{"x": 1}]), "column 'a' is struct"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(column, problem):
    with pytest.raises(PoolError, match=problem):
        tags(pa.table({"a": column}), "a")
    with pytest.raises(PoolError, match="has no column 'b'"):
        tags(pa.table({"a": column}), "b")


def test_a_need_is_made_of_something():
    assert source_of(tags_of("country")) == "country"
    assert source_of(PREDICTED_CLASS) == "probs"
    assert source_of("embeds") == "embeds"
