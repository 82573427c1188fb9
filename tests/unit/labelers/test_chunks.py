"""Chunk keys are what every vendor takes, and the same for the same rows."""

import re

import pyarrow as pa
import pytest

from rayal.errors import LabelError
from rayal.labelers.chunks import chunk_key, cut

NAMES = ["b0", "r-12", "Run_1/round 3", "x" * 56, "x" * 57, "-a", "a-", "", "ünïcode", "UPPER"]


@pytest.mark.parametrize("job_id", NAMES)
def test_keys(job_id):
    for place in (0, 7, 123_456):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", chunk_key(job_id, place))
        assert len(chunk_key(job_id, place)) <= 63


def test_keys_are_unlike():
    keys = {chunk_key(job_id, place) for job_id in NAMES for place in range(3)}
    assert len(keys) == 3 * len(NAMES)
    assert chunk_key("b0", 7) == "b0-0007"


def test_cut():
    rows = pa.table({"sample_id": list(range(7))})
    chunks = cut("b0", rows, 3, 2, lambda part: str(part.column("sample_id").to_pylist()))
    assert [(one.key, one.start, one.stop, one.cost_minor) for one in chunks] == [
        ("b0-0000", 0, 3, 6),
        ("b0-0001", 3, 6, 6),
        ("b0-0002", 6, 7, 2),
    ]
    assert chunks[1].payload_sha256 == "[3, 4, 5]"
    assert cut("b0", rows.slice(0, 0), 3, 2, str) == ()
    with pytest.raises(LabelError, match="has no column sample_id"):
        cut("b0", pa.table({"x": [1]}), 3, 2, str)
