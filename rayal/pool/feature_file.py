"""One shard's features: a file of vectors that lies beside the shard, row by row as the shard does.

Uncompressed Arrow of fixed width, in pieces of 4,096 rows that each have a checksum: a file is a
memory map, some rows are read without the others, and a piece is checked when a process first
touches it. Rows without features, those that could not be decoded or were removed, are null.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayal.columns import vector_field
from rayal.errors import PlaceError, PoolError
from rayal.places import Place
from rayal.places.ranges import Blocks

PIECE_ROWS = 4096
_SHARD, _SET = b"rayal.shard", b"rayal.features"  # metadata of the file
_CRC, _CUT_OFF = b"rayal.crc32", b"rayal.cut_off"  # metadata of a piece
_COLUMN = "features"
_ADVICE = "run the same rayal embed again, which makes it anew"

# Pieces that this process found whole, by file and the time of its last change.
_WHOLE: dict[tuple[str, int | None], npt.NDArray[np.bool_]] = {}


@dataclass(frozen=True)
class FeatureForm:
    """What every file of a set has in common."""

    key: str  # of the set
    dtype: np.dtype
    width: int

    @property
    def row_bytes(self) -> int:
        """Gives the bytes of a row's vector."""
        return self.dtype.itemsize * self.width

    def size_bytes(self, num_rows: int) -> int:
        """Gives what a file of so many rows takes, at most: vectors, which rows have none, and
        1 KiB a piece for names, checksums and places."""
        num_pieces = -(-num_rows // PIECE_ROWS)
        return num_rows * self.row_bytes + num_rows // 8 + 1024 * (num_pieces + 2)


class Counts(NamedTuple):
    """What a file holds."""

    num_rows: int
    num_null: int
    num_cut_off: int  # numbers that were too large for the codes


class FeatureWriter:
    """Writes a file piece by piece: no more than a piece and a batch are in memory."""

    def __init__(self, path: Path, form: FeatureForm, shard_hash: str) -> None:
        self.form = form
        field = vector_field(_COLUMN, form.dtype, form.width, nullable=True)
        self._schema = pa.schema([field], {_SHARD: shard_hash, _SET: form.key})
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)
        self._values = np.zeros((PIECE_ROWS, form.width), form.dtype)
        self._null = np.zeros(PIECE_ROWS, bool)
        self._held = self._cut_off = 0
        self.counts = Counts(0, 0, 0)

    def add(self, values_ND: np.ndarray, null_N: npt.NDArray[np.bool_], num_cut_off: int) -> None:
        """Takes the next rows; what is null has its numbers set to 0, so that equal rows are equal
        bytes."""
        self._cut_off += num_cut_off
        start = 0
        while start < len(values_ND):
            number = min(PIECE_ROWS - self._held, len(values_ND) - start)
            here, there = slice(self._held, self._held + number), slice(start, start + number)
            self._values[here], self._null[here] = values_ND[there], null_N[there]
            self._held, start = self._held + number, start + number
            if self._held == PIECE_ROWS:
                self._write()

    def close(self) -> Counts:
        """Ends the file; gives what it holds."""
        if self._held:
            self._write()
        self._writer.close()
        self._sink.close()
        return self.counts

    def _write(self) -> None:
        values, null = self._values[: self._held], self._null[: self._held]
        values[null] = 0
        array = pa.Array.from_buffers(
            pa.binary(self.form.row_bytes),
            len(values),
            [_bits(null), pa.py_buffer(values.tobytes())],
        )
        note = {_CRC: str(_crc(array)), _CUT_OFF: str(self._cut_off)}
        batch = pa.record_batch([array], schema=self._schema)
        self._writer.write_batch(batch, custom_metadata=note)
        rows, nulls, cut_off = self.counts
        self.counts = Counts(rows + len(values), nulls + int(null.sum()), cut_off + self._cut_off)
        self._held = self._cut_off = 0


class FeatureFile:
    """A file of features that is there: mapped, or read by range where it lies in a store.

    Raises:
        PoolError: it is missing, was cut short, is of another shard, set or form, or (when a piece
            is read) damaged.
    """

    def __init__(self, place: Place, form: FeatureForm, shard_hash: str, num_rows: int) -> None:
        self.place, self.form, self.num_rows = place, form, num_rows
        try:
            # The map lives as long as an array of it does.
            self._reader = pa.ipc.open_file(_opened(place))
            info = place.info() if place.is_local else None
        except FileNotFoundError:
            raise PoolError(f"{place} is missing: these rows have no features; {_ADVICE}") from None
        except PlaceError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(" ".join(str(error).split())[:200]) from error
        said = self._reader.schema.metadata or {}
        expected = {_SHARD: shard_hash.encode(), _SET: form.key.encode()}
        num_pieces = -(-num_rows // PIECE_ROWS)
        if {name: said.get(name) for name in expected} != expected:
            raise self._damaged("it says that it is of another shard or another set")
        if (
            self._reader.schema.field(0).type != pa.binary(form.row_bytes)
            or self._reader.num_record_batches != num_pieces
        ):
            raise self._damaged(
                f"it has {self._reader.num_record_batches} pieces of "
                f"{self._reader.schema.field(0).type}, expected {num_pieces} of {form.row_bytes} "
                "bytes a row"
            )
        self._whole = np.zeros(num_pieces, bool)
        if info is not None:  # what comes from a store was not there before
            self._whole = _WHOLE.setdefault((place.url, info.changed_ns), self._whole)

    def cut(self, batch_rows: int) -> Iterator[pa.Array]:
        """Gives the vectors of all rows, cut at multiples of `batch_rows`; the last one short."""
        if batch_rows == PIECE_ROWS:
            yield from (self._piece(at) for at in range(len(self._whole)))
            return
        for start in range(0, self.num_rows, batch_rows):
            stop = min(start + batch_rows, self.num_rows)
            parts = [
                self._piece(at)[max(start - at * PIECE_ROWS, 0) : stop - at * PIECE_ROWS]
                for at in range(start // PIECE_ROWS, -(-stop // PIECE_ROWS))
            ]
            yield parts[0] if len(parts) == 1 else pa.concat_arrays(parts)

    def take(self, places: npt.NDArray[np.intp]) -> pa.Array:
        """Gives the vectors of the rows at these ascending places; other pieces are not read."""
        parts = [pa.array([], pa.binary(self.form.row_bytes))]
        if len(places):
            edges = np.flatnonzero(np.diff(places // PIECE_ROWS)) + 1
            for some in np.split(places, edges):
                at = int(some[0]) // PIECE_ROWS
                parts.append(self._piece(at).take(pa.array(some - at * PIECE_ROWS)))
        return pa.concat_arrays(parts)

    def counts(self) -> Counts:
        """Reads the whole file, checks it, and gives what it holds."""
        rows = nulls = cut_off = 0
        for at in range(len(self._whole)):
            array = self._piece(at)
            rows, nulls = rows + len(array), nulls + array.null_count
            note = self._reader.get_batch_with_custom_metadata(at).custom_metadata
            cut_off += int(note[_CUT_OFF])
        return Counts(rows, nulls, cut_off)

    def _piece(self, at: int) -> pa.Array:
        expected = min(PIECE_ROWS, self.num_rows - at * PIECE_ROWS)
        try:
            if self._whole[at]:
                return self._reader.get_batch(at).column(0)
            found = self._reader.get_batch_with_custom_metadata(at)
            array = found.batch.column(0)
            is_whole = len(array) == expected and int(found.custom_metadata[_CRC]) == _crc(array)
        except PlaceError:
            raise
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(" ".join(str(error).split())[:200]) from error
        if not is_whole:
            raise self._damaged(f"the checksum of its piece {at} differs")
        self._whole[at] = True
        return array

    def _damaged(self, why: str) -> PoolError:
        return PoolError(
            f"{self.place}, features of {self.num_rows} rows, is damaged ({why}); {_ADVICE}"
        )


def _opened(place: Place) -> pa.NativeFile:
    if place.is_local:
        return place.open_input()
    return pa.PythonFile(Blocks(place.open_ranges()), mode="r")


def _bits(null_N: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    if not null_N.any():
        return None
    return pa.py_buffer(np.packbits(~null_N, bitorder="little").tobytes())


def _crc(array: pa.Array) -> int:
    """Gives the checksum of an array that begins at its buffers' start, padding left out."""
    valid, values = array.buffers()
    row_bytes = array.type.byte_width
    found = zlib.crc32(memoryview(values)[: len(array) * row_bytes]) if values else 0
    if array.null_count and valid is not None:
        found = zlib.crc32(memoryview(valid)[: -(-len(array) // 8)], found)
    return found
