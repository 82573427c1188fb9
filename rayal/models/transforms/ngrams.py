"""Hashed character n-grams of a string column, without a Python loop over rows or n-grams."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rayal.errors import ConfigError, PoolError
from rayal.models.transform import Undecodable

MARK = 0x110000  # stands before and after every text; one past the last Unicode code point
SEED, STEP, MIX = 0x9E3779B9, 0x01000193, 0x85EBCA6B  # golden ratio; FNV prime; MurmurHash3's mixer
_CHUNK = 4096  # rows hashed at once, so that scratch arrays stay in the second-level cache

Codes: TypeAlias = npt.NDArray[np.uint32]
Offsets: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ngrams:
    """Gives (indices, offsets) for an EmbeddingBag: all n-grams of each text, hashed to buckets.

    A text is read as Unicode code points with a mark before and after, so that "^ab" and "ab$" are
    n-grams of their own; an n-gram of length 1 is never the mark. The hash is a polynomial modulo
    2**32, mixed, of which the top bits are the bucket. indices (T,) int32, T n-grams in the order
    (row, position, length); offsets (N,) int32, where each row starts. O(characters x lengths).

    Reference: Bojanowski et al., Enriching Word Vectors with Subword Information, TACL 2017
    (character n-grams with boundary marks, hashed), without its extra whole-word vector.

    Raises:
        Undecodable: a text is null or is not UTF-8.
        PoolError: the column is missing or holds no text.
    """

    column: str = "text"
    num_buckets: int = 65_536
    min_length: int = 1
    max_length: int = 4

    def __post_init__(self) -> None:
        buckets = self.num_buckets
        if not 2 <= buckets <= 2**31 or buckets & (buckets - 1):
            raise ConfigError(
                f"Ngrams got num_buckets={buckets}, expected a power of two from 2 to 2**31; "
                f"try {2 ** min(max(buckets, 2).bit_length() - 1, 31)}"
            )
        if not 1 <= self.min_length <= self.max_length <= 16:
            raise ConfigError(
                f"Ngrams got lengths {self.min_length} to {self.max_length}, "
                "expected 1 <= min_length <= max_length <= 16"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of texts."""
        return (self.column,)

    def __call__(self, rows: pa.RecordBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Gives (indices, offsets), both int32."""
        column = _texts(rows, self.column)
        pieces = [
            self._hash(*_code_points(column.slice(lo, _CHUNK), lo))
            for lo in range(0, len(column), _CHUNK)
        ]
        indices = [piece[0] for piece in pieces] or [np.empty(0, np.int32)]
        counts = [piece[1] for piece in pieces] or [np.empty(0, np.int64)]
        ends = np.cumsum(np.concatenate(counts))
        offsets = np.zeros(len(column), np.int32)
        offsets[1:] = ends[:-1]
        flat = indices[0] if len(indices) == 1 else np.concatenate(indices)
        return torch.from_numpy(flat), torch.from_numpy(offsets)

    def _hash(self, codes: Codes, starts: Offsets) -> tuple[npt.NDArray[np.int32], Offsets]:
        """Gives the buckets of all n-grams, and how many each row has."""
        num_rows = len(starts) - 1
        # One mark between neighbours serves both: ^ab^c^. Windows over an inner mark are dropped.
        marks = starts + np.arange(num_rows + 1)
        num_places = int(marks[-1])  # the last mark starts no window
        text = np.full(num_places + self.max_length, MARK, np.uint32)
        is_char = np.ones(num_places, bool)
        is_char[marks[:-1]] = False
        text[:num_places][is_char] = codes
        to_mark = np.repeat(marks[1:], np.diff(marks)) - np.arange(num_places)

        num_lengths = self.max_length - self.min_length + 1
        buckets = np.empty((num_places, num_lengths), np.uint32)
        inside = np.empty((num_places, num_lengths), bool)
        shift = np.uint32(33 - self.num_buckets.bit_length())
        rolling = np.full(num_places, SEED, np.uint32)
        for length in range(1, self.max_length + 1):
            rolling *= np.uint32(STEP)
            rolling += text[length - 1 : length - 1 + num_places]
            if length < self.min_length:
                continue
            mixed = (rolling ^ (rolling >> np.uint32(15))) * np.uint32(MIX)
            np.right_shift(mixed, shift, out=buckets[:, length - self.min_length])
            fits = is_char if length == 1 else to_mark >= length - 1
            inside[:, length - self.min_length] = fits
        return buckets[inside].view(np.int32), self._counts(np.diff(starts))

    def _counts(self, num_chars: Offsets) -> Offsets:
        """Gives how many n-grams texts of so many characters have."""
        counts = np.zeros(len(num_chars), np.int64)
        for length in range(self.min_length, self.max_length + 1):
            # A window of one character is never a mark; longer ones may start or end with one.
            counts += num_chars if length == 1 else np.maximum(num_chars + 3 - length, 0)
        return counts


def _texts(rows: pa.RecordBatch, name: str) -> pa.Array:
    if name not in rows.schema.names:
        raise PoolError(
            f"the pool has no column '{name}' (it has: {', '.join(rows.schema.names)}); "
            "name the right one in the transform"
        )
    column = rows.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise PoolError(
            f"column '{name}' is {column.type}, expected text; use a transform that reads this type"
        )
    if column.null_count:
        nulls = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        raise Undecodable(nulls.tolist(), f"column '{name}' is null there")
    return column


def _code_points(column: pa.Array, first: int) -> tuple[Codes, Offsets]:
    """Gives all characters of the texts, and (N + 1,) where each text starts among them."""
    _, offsets_buffer, data_buffer = column.buffers()
    width = np.dtype(np.int64 if pa.types.is_large_string(column.type) else np.int32)
    bounds = slice(column.offset, column.offset + len(column) + 1)
    offsets: Offsets = np.frombuffer(offsets_buffer, width)[bounds].astype(np.int64)
    if data_buffer is None:
        return np.empty(0, np.uint32), np.zeros(len(column) + 1, np.int64)
    data = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
    offsets -= offsets[0]
    is_first_byte = (data & 0xC0) != 0x80
    try:
        codes = np.frombuffer(data.tobytes().decode().encode("utf-32-le"), "<u4")
    except UnicodeDecodeError:
        _raise_undecodable(data, offsets, first)
    begins = offsets[:-1][np.diff(offsets) > 0]
    if not is_first_byte[begins].all():  # a character cut in two by a row's end
        _raise_undecodable(data, offsets, first)
    if len(codes) == len(data):
        return codes, offsets
    before = np.zeros(len(data) + 1, np.int64)
    np.cumsum(is_first_byte, out=before[1:])
    return codes, before[offsets]


def _raise_undecodable(data: npt.NDArray[np.uint8], offsets: Offsets, first: int) -> NoReturn:
    bad = []
    for row, (lo, hi) in enumerate(itertools.pairwise(offsets)):
        try:
            data[lo:hi].tobytes().decode()
        except UnicodeDecodeError:
            bad.append(first + row)
    raise Undecodable(bad, "the text is not UTF-8")
