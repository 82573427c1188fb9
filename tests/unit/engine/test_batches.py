"""Outputs of small batches are joined with their neighbours', and nothing else of them changes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from rayal.engine.batches import join_small
from rayal.probabilities import softmax
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


def outputs_of(seed: int, num_rows: int, rejected: bool = False, **arrays: object) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    made = {"probs": softmax(torch.randn(num_rows, 10, generator=generator)), **arrays}
    odd = torch.arange(num_rows) % 2 == 0 if rejected else None
    reasons = {at: f"{seed}.{at}" for at in range(0, num_rows, 2)} if rejected else {}
    return Outputs(100 * seed + torch.arange(num_rows), made, odd, reasons)  # type: ignore[arg-type]


@pytest.mark.parametrize("which", [(), (0,), (1,), (0, 1, 2)])
def test_joined_is_one_part_after_the_other(which: tuple[int, ...]) -> None:
    parts = []
    for at, num_rows in enumerate((7, 7, 1)):
        draws = torch.rand(num_rows, 3, 2)
        parts.append(outputs_of(at, num_rows, at in which, draws=draws, size=draws[:, 0, 0]))
    ((ids, out),) = join_small((part.ids.numpy(), part) for part in parts)
    assert ids.tolist() == out.ids.tolist() == torch.cat([part.ids for part in parts]).tolist()
    assert set(out.arrays) == {"probs", "draws", "size"}
    for name in out.arrays:
        assert torch.equal(out[name], torch.cat([part[name] for part in parts]))
    assert out.probs.stride(0) == 1  # class by class, as the parts are
    if not which:
        assert out.rejected is None
    else:
        assert out.rejected is not None
        wanted = [
            at in which and row % 2 == 0 for at, n in enumerate((7, 7, 1)) for row in range(n)
        ]
        assert out.rejected.tolist() == wanted
        assert sorted(out.reasons) == [at for at, is_odd in enumerate(wanted) if is_odd]
        names = [f"{at}.{row}" for at, n in enumerate((7, 7, 1)) for row in range(n)]
        assert all(names[at] == why for at, why in out.reasons.items())


def test_a_predictor_may_use_its_memory_again() -> None:
    buffer = torch.empty(4, 3)

    def reused() -> Iterator[tuple[Ids, Outputs]]:
        for at in range(5):
            ids = np.arange(4 * at, 4 * at + 4)
            yield ids, Outputs(torch.from_numpy(ids), {"probs": buffer.fill_(at)})

    ((_, out),) = join_small(reused())
    assert out.probs[:, 0].tolist() == [at for at in range(5) for _ in range(4)]


@pytest.mark.parametrize(
    "other",
    [
        Outputs(torch.arange(4), {}),
        Outputs(torch.arange(4), {"probs": torch.zeros(4, 7)}),
        Outputs(torch.arange(4), {"probs": torch.zeros(4, 10, dtype=torch.float64)}),
        Outputs(torch.arange(4), {"probs": torch.zeros(3, 10)}),
        Outputs(torch.arange(4), {"probs": torch.tensor(1.0)}),
        Outputs(torch.arange(4), {"probs": None}),  # type: ignore[dict-item]
        outputs_of(8, 4, more=torch.zeros(4)),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_outputs_of_another_kind_stay_apart(other: Outputs, place: int) -> None:
    parts = [outputs_of(at, 4) for at in range(2)]
    parts.insert(place, other)
    found = [out for _, out in join_small((part.ids.numpy(), part) for part in parts)]
    wanted = {0: [1, 2], 1: [1, 1, 1], 2: [2, 1]}[place]
    assert [len(out.ids) // 4 for out in found] == wanted
    alone = found[place if place < 2 else 1]
    assert alone.arrays.keys() == other.arrays.keys()
    assert [getattr(a, "shape", None) for a in alone.arrays.values()] == [
        getattr(a, "shape", None) for a in other.arrays.values()
    ]
