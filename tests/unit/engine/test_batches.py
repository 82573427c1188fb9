"""Outputs of small batches are joined with their neighbours', and nothing else of them changes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from rayal.engine.batches import join_small
from rayal.types import Ids, Outputs


def batches(num_batches: int, num_rows: int, width: int) -> list[tuple[Ids, Outputs]]:
    made = []
    for at in range(num_batches):
        ids = np.arange(at * num_rows, (at + 1) * num_rows)
        values = torch.from_numpy(ids)[:, None] + torch.zeros(width)
        made.append((ids, Outputs(torch.from_numpy(ids), {"probs": values})))
    return made


@pytest.mark.parametrize(
    ("num_rows", "width", "most"),
    [(1024, 30, 8), (1024, 254, 1), (1024, 2**12, 1), (2**17, 1, 1), (1, 2, 2**16)],
)
@pytest.mark.parametrize("num_batches", [0, 1, 7, 8, 9, 17])
def test_neighbours_are_joined_up_to_a_mebibyte(
    num_batches: int, num_rows: int, width: int, most: int
) -> None:
    parts = batches(num_batches, num_rows, width)
    found = list(join_small(iter(parts)))
    sizes = [len(ids) // num_rows for ids, _ in found]
    assert sizes == [most] * (num_batches // most) + [num_batches % most] * (num_batches % most > 0)
    for name in ("ids", "probs"):
        wanted = [getattr(outputs, name) for _, outputs in parts]
        assert torch.equal(
            torch.cat([getattr(outputs, name) for _, outputs in found] or [torch.empty(0)]),
            torch.cat(wanted or [torch.empty(0)]),
        )
    for ids, outputs in found:
        assert np.array_equal(ids, outputs.ids.numpy())


def test_what_cannot_be_read_raises_once() -> None:
    def broken() -> Iterator[tuple[Ids, Outputs]]:
        yield from batches(3, 4, 2)
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        list(join_small(broken()))
