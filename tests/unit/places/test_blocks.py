"""A file that is read in blocks: the same bytes, each asked for once by who reads on."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest

from rayal.places.ranges import Blocks


class Counted:
    """Ranges of some bytes, which remember what was asked for."""

    def __init__(self, content: bytes) -> None:
        self.content, self.size_bytes = content, len(content)
        self.asked: list[tuple[int, int]] = []

    def read_at(self, start: int, num_bytes: int) -> pa.Buffer:
        self.asked.append((start, num_bytes))
        return pa.py_buffer(self.content[start : start + num_bytes])


def blocks(size_bytes: int, block_bytes: int = 1 << 14) -> tuple[Blocks, Counted]:
    content = np.random.default_rng(0).integers(0, 256, size_bytes).astype(np.uint8).tobytes()
    counted = Counted(content)
    return Blocks(counted, block_bytes), counted  # type: ignore[arg-type]


@pytest.mark.parametrize("size_bytes", [0, 1, 4096, 4097, 1 << 14, 100_003])
@pytest.mark.parametrize("piece", [1_000, 1 << 14, 40_000])
def test_who_reads_on_gets_all_bytes_once(size_bytes: int, piece: int) -> None:
    file, counted = blocks(size_bytes)
    parts = []
    while part := file.read(piece):
        parts.append(part)
        assert file.tell() == sum(map(len, parts))
    assert b"".join(parts) == counted.content
    assert sum(number for _, number in counted.asked) == size_bytes


def test_any_place_may_be_read() -> None:
    file, counted = blocks(100_003)
    rng = np.random.default_rng(1)
    for at, number in rng.integers(0, 100_003, (200, 2)).tolist():
        file.seek(at)
        assert file.read(number) == counted.content[at : at + number]
    file.seek(-10, io.SEEK_END)
    assert file.read() == counted.content[-10:]
    file.seek(5, io.SEEK_CUR)
    assert file.read(3) == b""


def test_the_end_is_looked_at_without_losing_the_place() -> None:
    """As a reader of Arrow files does: the end first, then piece by piece."""
    file, counted = blocks(100_003)
    for at in range(0, 90_000, 1_000):
        file.seek(-100, io.SEEK_END)
        file.read(100)
        file.seek(at)
        file.read(1_000)
    assert sum(number for _, number in counted.asked) <= 100_003
