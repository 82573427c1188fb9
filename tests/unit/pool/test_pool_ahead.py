"""Row groups out of a store: each byte once, one group ahead, and what is not needed never."""

from __future__ import annotations

import time
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import Bucket

from rayal.places import Place
from rayal.pool.ahead import StoredFile

NUM_GROUPS, GROUP_ROWS = 5, 20_000


@pytest.fixture
def place(bucket: Bucket) -> Place:
    """A file of five row groups; beside what is needed lie columns that are not."""
    place = Place.of(bucket.url) / uuid.uuid4().hex
    rng = np.random.default_rng(0)
    num_rows = NUM_GROUPS * GROUP_ROWS
    names = ("left", "a", "b", "between", "c", "right")
    table = pa.table({name: rng.normal(size=num_rows) for name in names})
    out = pa.BufferOutputStream()
    pq.write_table(table, out, row_group_size=GROUP_ROWS, use_dictionary=False, compression="none")
    place.put_bytes(out.getvalue())
    bucket.requests.clear()
    return place


def _starts(bucket: Bucket) -> list[int]:
    """Gives where the requests for row groups begin, in the order of the file."""
    starts = [int(one.range.removeprefix("bytes=").partition("-")[0]) for one in bucket.got()]
    return sorted(starts)


def test_what_is_needed_comes_once_and_the_rest_never(bucket: Bucket, place: Place) -> None:
    whole = pq.read_table(pa.BufferReader(place.read_bytes()), columns=["c", "a", "b"])
    file = StoredFile(place.open_ranges(), verify=False)
    bucket.requests.clear()
    rows = pa.Table.from_batches(file.iter_batches(3_000, columns=["c", "a", "b"]))
    assert rows.select(whole.column_names).equals(whole)
    requests = bucket.got()
    assert len(requests) == 2 * NUM_GROUPS  # a and b lie side by side, c apart
    needed = 3 * 8 * NUM_GROUPS * GROUP_ROWS
    assert needed <= sum(one.num_bytes for one in requests) <= 1.01 * needed
    assert not [one for one in bucket.requests if one.method == "HEAD"]


def test_the_next_group_comes_while_one_is_decoded_and_no_other(
    bucket: Bucket, place: Place
) -> None:
    file = StoredFile(place.open_ranges(), verify=False)
    starts = [file.metadata.row_group(i).column(1).data_page_offset for i in range(NUM_GROUPS)]
    bucket.requests.clear()
    batches = file.iter_batches(GROUP_ROWS // 2, columns=["a"])
    for group in range(NUM_GROUPS):
        for _ in range(2):
            next(batches)
            asked = starts[: group + 2]
            deadline = time.monotonic() + 20.0
            while len(bucket.got()) < len(asked) and time.monotonic() < deadline:
                time.sleep(0.005)
            assert _starts(bucket) == asked
    assert list(batches) == []


def test_a_row_group_by_itself_is_a_request_a_neighbourhood(bucket: Bucket, place: Place) -> None:
    file = StoredFile(place.open_ranges(), verify=False)
    bucket.requests.clear()
    rows = file.read_row_group(3, ["a", "b"])
    assert len(rows) == GROUP_ROWS
    assert len(bucket.got()) == 1
