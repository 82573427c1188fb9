"""The reader thread hands over every piece in order, its errors too, and ends whoever stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rayal.engine.batches import read_ahead


def _readers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "rayal-reader"]


@pytest.mark.parametrize("num_pieces", [0, 1, 2, 500])
@pytest.mark.parametrize("slow", ["reader", "user", "nobody"])
def test_every_piece_in_order(num_pieces: int, slow: str) -> None:
    num_pieces = min(num_pieces, 20 if slow != "nobody" else num_pieces)

    def read() -> Iterator[Any]:
        for piece in range(num_pieces):
            time.sleep(0.002 if slow == "reader" else 0)
            yield piece

    found = []
    for piece in read_ahead(read):
        time.sleep(0.002 if slow == "user" else 0)
        found.append(piece)
    assert found == list(range(num_pieces))
    assert _readers() == []


@pytest.mark.parametrize("at", [0, 1, 5])
def test_an_error_of_the_reader_comes_after_what_it_read(at: int) -> None:
    def read() -> Iterator[Any]:
        yield from range(at)
        raise KeyError("lost")

    found: list[Any] = []
    with pytest.raises(KeyError, match="lost"):
        found.extend(read_ahead(read))
    assert found == list(range(at))
    assert _readers() == []


@pytest.mark.parametrize("wait_s", [0.0, 0.02])
@pytest.mark.parametrize("num_taken", [1, 2, 7])
def test_the_reader_ends_with_its_user(num_taken: int, wait_s: float) -> None:
    read_so_far = []

    def read() -> Iterator[Any]:
        for piece in range(1_000):
            read_so_far.append(piece)
            yield piece

    for _ in range(20):
        read_so_far.clear()
        pieces = read_ahead(read)
        for _ in range(num_taken):
            next(pieces)
        time.sleep(wait_s)  # by now it waits to hand the next piece over, or does not yet
        pieces.close()
        assert _readers() == []
        assert len(read_so_far) <= num_taken + 2  # one ahead, and one in hand
