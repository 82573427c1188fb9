"""The batches of a shard: read, padded and encoded by a thread that is one batch ahead.

Needs torch, numpy and pyarrow only, as the worker does.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rayal.columns import ids_of, odd_lists, tags, vectors
from rayal.pool import Pool, Shard
from rayal.types import Ids, Outputs, Predictor, source_of

T = TypeVar("T")

# What scores a batch takes 0.2 ms whatever its size, the interpreter's time; outputs that stay in a
# core's cache can wait for their neighbours, so that 4,096 rows of 10 classes take 3 % less in all.
_JOINED_BYTES = 1 << 20

_NO_VECTOR = "a column that the strategy reads holds no vector of the usual width there"


@dataclass(frozen=True)
class Batch:
    """Some rows of a shard, as a predictor takes them."""

    ids: Ids  # the real rows, without padding
    padded_ids: torch.Tensor
    encoded: Any
    columns: dict[str, torch.Tensor]
    odd: npt.NDArray[np.intp]  # positions of rows that a column has no value for


def encoded(
    pool: Pool,
    predictor: Predictor | None,
    shard: Shard,
    columns: Sequence[str],
    score_columns: Sequence[str],
    batch_rows: int,
    only: Ids | None = None,
    places: npt.NDArray[np.intp] | None = None,
) -> Iterator[Batch]:
    """Gives a shard's rows in batches, encoded if there is a predictor; `score_columns`, needs that
    are made of columns, also as tensors. `only`, or at these `places`: no other rows."""
    names = ("sample_id", *columns)

    def cut() -> Iterable[pa.RecordBatch]:
        if places is not None:
            rows = pool.read_places(shard, places, names).combine_chunks()
        elif only is not None:
            rows = pool.read_rows(shard, only, names).combine_chunks()
        else:
            return pool.batches(shard, names, batch_rows)
        return (some for some in rows.to_batches(batch_rows) if some.num_rows)

    def read() -> Iterator[Batch]:
        for rows in cut():
            # A short batch would change the bits of the forward pass, and reorder picks.
            padded = rows if predictor is None else pad(rows, batch_rows)
            ids = ids_of(padded)
            odd = _odd(rows, score_columns)
            extra = {name: _column(rows, name, odd) for name in score_columns}
            made = None if predictor is None else predictor.encode(padded)
            yield Batch(ids[: rows.num_rows], torch.from_numpy(ids), made, extra, odd)

    yield from (read() if predictor is None else read_ahead(read))


def with_columns(outputs: Outputs, batch: Batch) -> Outputs:
    """Gives the outputs of a batch's real rows, with its columns; rows without a vector there are
    rejected."""
    outputs = _unpadded(outputs, len(batch.ids), batch.columns)
    if not len(batch.odd):
        return outputs
    rejected = torch.zeros(len(outputs.ids), dtype=torch.bool, device=outputs.ids.device)
    rejected[torch.from_numpy(batch.odd)] = True
    if outputs.rejected is not None:
        rejected |= outputs.rejected
    reasons = dict.fromkeys(batch.odd.tolist(), _NO_VECTOR) | dict(outputs.reasons)
    return Outputs(outputs.ids, outputs.arrays, rejected, reasons)


def join_small(parts: Iterable[tuple[Ids, Outputs]]) -> Iterator[tuple[Ids, Outputs]]:
    """Joins neighbours to up to 1 MiB of outputs. How many depends on their shapes alone, so that a
    row's neighbours, which may change its last bits, are always the same."""
    room: _Room | None = None
    for ids, outputs in parts:
        if room is not None and not room.fits(outputs):
            yield room.joined()
            room = None
        if room is None:
            num_batches = _JOINED_BYTES // max(1, _num_bytes(outputs))
            if num_batches < 2:
                yield ids, outputs
                continue
            room = _Room(outputs, num_batches * len(ids))
        room.add(ids, outputs)
    if room is not None:
        yield room.joined()


class _Room:
    """Memory for the outputs of several batches. They are copied as they come: a predictor may use
    its own memory again, and a slice may hold on to far more than its rows."""

    def __init__(self, first: Outputs, most_rows: int) -> None:
        self.num_rows, self.most_rows = 0, most_rows
        self.ids, self.ids_N = np.empty(most_rows, np.int64), _empty_like(first.ids, most_rows)
        self.arrays = {name: _empty_like(array, most_rows) for name, array in first.arrays.items()}
        self.rejected: torch.Tensor | None = None
        self.reasons: dict[int, str] = {}

    def fits(self, outputs: Outputs) -> bool:
        """Whether these are of the same kind as the first, and there is room for them."""
        arrays = outputs.arrays
        return (
            self.num_rows + len(outputs.ids) <= self.most_rows
            and _num_bytes(outputs) < _JOINED_BYTES
            and arrays.keys() == self.arrays.keys()
            and all(
                array.dtype == arrays[name].dtype and array.shape[1:] == arrays[name].shape[1:]
                for name, array in self.arrays.items()
            )
        )

    def add(self, ids: Ids, outputs: Outputs) -> None:
        rows = slice(self.num_rows, self.num_rows + len(ids))
        self.ids[rows], self.ids_N[rows] = ids, outputs.ids
        for name, array in outputs.arrays.items():
            self.arrays[name][rows] = array
        if outputs.rejected is not None:
            if self.rejected is None:
                self.rejected = torch.zeros_like(self.ids_N, dtype=torch.bool)
            self.rejected[rows] = outputs.rejected
            self.reasons |= {rows.start + at: why for at, why in outputs.reasons.items()}
        self.num_rows = rows.stop

    def joined(self) -> tuple[Ids, Outputs]:
        arrays = {name: array[: self.num_rows] for name, array in self.arrays.items()}
        rejected = None if self.rejected is None else self.rejected[: self.num_rows]
        outputs = Outputs(self.ids_N[: self.num_rows], arrays, rejected, self.reasons)
        return self.ids[: self.num_rows], outputs


def _num_bytes(outputs: Outputs) -> int:
    """Gives the bytes of a batch's outputs, and more than may be joined where one has not a row for
    each id: who asks for it says so."""
    arrays = (outputs.ids, *outputs.arrays.values())
    if any(getattr(array, "shape", ())[:1] != outputs.ids.shape for array in arrays):
        return _JOINED_BYTES
    return sum(array.nbytes for array in arrays)


def _empty_like(array: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Gives room for so many rows; few classes lie class by class there, too."""
    if array.ndim == 2 and array.stride(0) == 1:
        return array.new_empty(array.shape[1], num_rows).t()
    return array.new_empty(num_rows, *array.shape[1:])


def read_ahead(read: Callable[[], Iterator[T]]) -> Iterator[T]:
    """Gives what `read` yields, made in a thread that is one piece ahead.

    More would leave a core's cache before it is used. Two bare locks hand the piece over: a
    `queue.Queue` takes ten times as long, which a small model's pass would feel.
    """
    taken, made = threading.Lock(), threading.Lock()
    made.acquire()
    place: list[T | _Stop] = []
    is_over = False

    def hand_over(piece: T | _Stop) -> bool:
        taken.acquire()
        if is_over:
            return False
        place.append(piece)
        made.release()
        return True

    def run() -> None:
        try:
            for piece in read():
                if not hand_over(piece):
                    return
            hand_over(_Stop(None))
        except BaseException as error:  # handed to the main thread, which raises it
            hand_over(_Stop(error))

    thread = threading.Thread(target=run, name="rayal-reader", daemon=True)
    thread.start()
    try:
        while True:
            made.acquire()
            piece = place.pop()
            taken.release()
            if not isinstance(piece, _Stop):
                yield piece
            elif piece.error is None:
                return
            else:
                raise piece.error
    finally:
        is_over = True
        with contextlib.suppress(RuntimeError):
            taken.release()  # it may wait there
        thread.join()


@dataclass(frozen=True)
class _Stop:
    error: BaseException | None


def _unpadded(outputs: Outputs, num_rows: int, columns: dict[str, torch.Tensor]) -> Outputs:
    if num_rows == len(outputs.ids) and not columns:
        return outputs
    arrays = {name: tensor[:num_rows] for name, tensor in outputs.arrays.items()}
    device = outputs.ids.device
    arrays.update({name: tensor.to(device) for name, tensor in columns.items()})
    rejected = None if outputs.rejected is None else outputs.rejected[:num_rows]
    reasons = {at: why for at, why in outputs.reasons.items() if at < num_rows}
    return Outputs(outputs.ids[:num_rows], arrays, rejected, reasons)


def pad(rows: pa.RecordBatch, batch_rows: int) -> pa.RecordBatch:
    """Gives a batch of the full size: its last row again and again."""
    missing = batch_rows - rows.num_rows
    if missing <= 0:
        return rows
    last = np.full(missing, rows.num_rows - 1)
    return rows.take(pa.array(np.concatenate([np.arange(rows.num_rows), last])))


def _odd(rows: pa.RecordBatch, columns: Sequence[str]) -> npt.NDArray[np.intp]:
    """Gives the positions of rows that one of these columns has no vector for."""
    odd = [odd_lists(rows, source_of(name)) for name in columns]
    return np.unique(np.concatenate(odd)) if odd else np.empty(0, np.intp)


def _column(rows: pa.RecordBatch, need: str, odd: npt.NDArray[np.intp]) -> torch.Tensor:
    read, name = vectors if need == source_of(need) else tags, source_of(need)
    if not len(odd):
        return torch.from_numpy(read(rows, name).copy())
    good = np.setdiff1d(np.arange(rows.num_rows), odd)
    values = read(rows.take(pa.array(good)), name)
    filled = np.zeros((rows.num_rows, *values.shape[1:]), values.dtype)
    filled[good] = values
    return torch.from_numpy(filled)
