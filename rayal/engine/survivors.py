"""Survivors: what a shard leaves of a pass, one Arrow file, and the slices made of such files.

A file holds three Arrow streams, one after the other: the rows still above the threshold, the
labelled or pending rows of the shard, and the rows that could not be decoded. Features are fixed-
width bytes, so a slice of one file is a memory map and no copy. The shard's report rides in the
schema's metadata: a driver that starts again finds what is done. A checksum ends the file: it can
be made again, so it is not synced to the disk (10 ms a shard where the disk is busy), and one that
a power cut damaged is made again.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa

from rayal.engine.scoring import ShardReport
from rayal.errors import ScoringError
from rayal.journal import Journal
from rayal.ranking import Cut, Sketch, inside
from rayal.storage import atomic_path, here
from rayal.types import Float64s, Ids, Slice

Part = Literal["candidates", "labelled"]
PARTS: tuple[Part, ...] = ("candidates", "labelled")
_MAGIC, _END = b"rayal1", struct.Struct("<6sI")  # the end of a file: six bytes, then a checksum
_REPORT, _SHAPE = b"rayal.report", b"rayal.shape"

_REASON_CHARS = 200

# Smaller shards are joined into slices in memory; a shard of this size is a slice by itself, a map.
ROWS_PER_SLICE = 16_384


@dataclass(frozen=True)
class Rows:
    """Some rows of a pass in memory: ids, scores and one (n, ...) array a feature."""

    ids: Ids
    scores: Float64s
    features: Mapping[str, np.ndarray]

    def take(self, which: np.ndarray) -> Rows:
        """Gives the rows at these positions, or where a mask is true."""
        features = {name: array[which] for name, array in self.features.items()}
        return Rows(self.ids[which], self.scores[which], features)

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """Gives all rows of the parts in order; one part is not copied."""
        if len(parts) == 1:
            return parts[0]
        names = parts[0].features.keys()
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.scores for part in parts]),
            {name: np.concatenate([part.features[name] for part in parts]) for name in names},
        )


@dataclass(frozen=True)
class Rejected:
    """Rows of a shard that could not be decoded, ids ascending, and a few words on each."""

    ids: Ids
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, reasons: Mapping[int, str]) -> Rejected:
        """Gives them from a mapping of id to reason; long reasons are cut."""
        ids = np.asarray(sorted(reasons), np.int64)
        return cls(ids, tuple(reasons[one][:_REASON_CHARS] for one in ids.tolist()))


def path_of(folder: str, shard: int) -> Path:
    """Gives where a shard's survivors of a pass lie."""
    return Path(folder) / f"shard-{shard:05d}.arrow"


def write(
    folder: str, report: ShardReport, candidates: Rows, labelled: Rows, rejected: Rejected
) -> None:
    """Writes a shard's survivors and its report under their final name, or not at all."""
    metadata = {_REPORT: _report_to_json(report)}
    batches = [
        _to_batch(candidates).replace_schema_metadata(metadata),
        _to_batch(labelled),
        pa.record_batch(
            {"sample_id": rejected.ids, "reason": pa.array(rejected.reasons, pa.string())}
        ),
    ]
    with atomic_path(path_of(folder, report.shard), durable=False) as temporary:
        write_streams(temporary, batches)


def read_report(folder: str, shard: int) -> ShardReport | None:
    """Gives the report of a shard that an earlier attempt finished, or None."""
    path = here(path_of(folder, shard))
    if not path.exists() or not is_whole(path):
        return None
    with pa.memory_map(str(path)) as source:
        return _report_from_json(pa.ipc.open_stream(source).schema.metadata[_REPORT])


def read_rejected(folder: str, shard: int) -> Rejected:
    """Gives the rows of a shard that could not be decoded.

    Raises:
        ScoringError: the shard's file cannot be read.
    """
    batch = _read(folder, shard, len(PARTS))
    return Rejected(batch.column("sample_id").to_numpy(), tuple(batch.column("reason").to_pylist()))


@dataclass(frozen=True)
class SliceSpec:
    """How to make a slice again anywhere that the files can be read."""

    key: int
    folder: str
    shards: tuple[int, ...]
    part: Part
    cut: Cut | None
    with_features: bool = True

    def load(self, read: Callable[[int, Part], Rows] | None = None) -> Slice:
        """Gives the slice, ids ascending, memory-mapped where it is whole and in order. `read`
        gives the survivors of a shard that are not in a file."""
        parts = [self._inside(read(s, self.part) if read else self._read(s)) for s in self.shards]
        rows = Rows.concat(parts)
        if np.any(np.diff(rows.ids) <= 0):
            rows = rows.take(np.argsort(rows.ids, kind="stable"))
        return Slice(self.key, rows.ids, rows.scores, rows.features)

    def _inside(self, rows: Rows) -> Rows:
        if self.cut is None or self.part != "candidates":
            return rows
        keep = inside(rows.scores, rows.ids, self.cut)
        return rows if keep.all() else rows.take(keep)

    def _read(self, shard: int) -> Rows:
        batch = _read(self.folder, shard, PARTS.index(self.part))
        return _from_batch(batch, self.with_features)


class ListedCandidates:
    """Slices in one process, asked in a for-loop: what every other `Candidates` must equal."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        self.slices = sorted(slices, key=lambda one: one.key)
        self.journal = Journal()

    @property
    def num_rows(self) -> int:
        return sum(len(one) for one in self.slices)

    def each(self, ask: Callable[..., Any], step: int, *args: Any) -> list[Any]:
        """Asks every slice in key order."""
        return [ask(one, step, *args) for one in self.slices]


def plan_slices(
    counts: Sequence[int],
    folder: str,
    part: Part,
    cut: Cut | None,
    rows_per_slice: int = ROWS_PER_SLICE,
) -> list[SliceSpec]:
    """Gives slices of consecutive shards with about `rows_per_slice` rows each.

    `counts[i]` is the number of rows of shard i after the cut: a property of pool and pass, not of
    workers, so slices (and with them the last bits of a matrix product) do not depend on workers.
    """
    specs: list[SliceSpec] = []
    open_shards: list[int] = []
    num_rows = 0
    for shard, count in enumerate(counts):
        if count:
            open_shards.append(shard)
            num_rows += count
        if open_shards and (num_rows >= rows_per_slice or shard == len(counts) - 1):
            specs.append(SliceSpec(len(specs), folder, tuple(open_shards), part, cut))
            open_shards, num_rows = [], 0
    return specs


def count_inside(part: Slice, step: int, cut: Cut | None) -> int:
    """Ask: gives how many rows of a slice are inside the cut."""
    return len(part) if cut is None else int(inside(part.scores, part.ids, cut).sum())


# ------------------------------------------------------------------------------- taken rows


@dataclass(frozen=True)
class Taken:
    """Rows that were picked before: ids ascending, the encoded label (NaN while pending)."""

    ids: Ids  # (L,)
    labels: np.ndarray  # (L,) or (L, C) float64
    pending: np.ndarray  # (L,) bool

    def find(self, ids: Ids) -> tuple[np.ndarray, np.ndarray]:
        """Gives which positions of `ids` (N,) are taken, ascending, and their places among the
        taken: two arrays of one length."""
        # A batch's ids lie close together, and few of the taken lie among them.
        if len(self.ids) and len(ids):
            first = np.searchsorted(self.ids, ids.min())
            near = self.ids[first : np.searchsorted(self.ids, ids.max(), "right")]
            if len(near):
                at = np.flatnonzero(np.isin(ids, near))
                return at, first + np.searchsorted(near, ids[at])
        return np.empty(0, np.intp), np.empty(0, np.intp)


def write_taken(path: Path, taken: Taken) -> None:
    """Writes the taken rows where every worker can map them."""
    features = {"label": taken.labels, "pending": taken.pending.astype(np.uint8)}
    with atomic_path(path) as temporary:
        write_streams(temporary, [_to_batch(Rows(taken.ids, np.zeros(len(taken.ids)), features))])


def read_taken(path: str) -> Taken:
    """Gives what `write_taken` wrote, memory-mapped."""
    rows = _from_batch(read_stream(Path(path), 0), True)
    return Taken(rows.ids, rows.features["label"], rows.features["pending"].astype(bool))


def write_allowed(path: Path, ids: Ids) -> None:
    """Writes the ids of the only rows to score, ascending, where every worker can map them."""
    with atomic_path(path) as temporary:
        write_streams(temporary, [_to_batch(Rows(ids, np.zeros(len(ids)), {}))])


def read_allowed(path: str) -> Ids:
    """Gives what `write_allowed` wrote, memory-mapped."""
    return _from_batch(read_stream(Path(path), 0), False).ids


# ------------------------------------------------------------------------------- Arrow forms


def write_streams(path: Path, batches: Sequence[pa.RecordBatch]) -> None:
    """Writes Arrow streams one after the other, and a checksum."""
    with pa.OSFile(str(path), "wb") as sink:
        for batch in batches:
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
    with path.open("r+b") as file:
        file.write(_END.pack(_MAGIC, _checksum(file, path.stat().st_size)))


def is_whole(path: Path) -> bool:
    """Whether a file's checksum is that of what `write_streams` left."""
    size_bytes = path.stat().st_size - _END.size
    if size_bytes < 0:
        return False
    with path.open("rb") as file:
        found = _checksum(file, size_bytes)
        return file.read() == _END.pack(_MAGIC, found)


def _checksum(file: BinaryIO, size_bytes: int) -> int:
    """Gives the checksum of a file's first bytes, and leaves it behind them."""
    found = 0
    while size_bytes > 0:
        piece = file.read(min(size_bytes, 1 << 20))
        if not piece:
            break
        found, size_bytes = zlib.crc32(piece, found), size_bytes - len(piece)
    return found


def _read(folder: str, shard: int, place: int) -> pa.RecordBatch:
    path = path_of(folder, shard)
    try:
        return read_stream(path, place)
    except (OSError, pa.ArrowInvalid) as error:
        raise ScoringError(
            f"survivors of shard {shard} cannot be read from {path} ({error}); "
            "run the same command again: they will be made anew"
        ) from error


def read_stream(path: Path, place: int) -> pa.RecordBatch:
    """Gives the only batch of one of the streams, mapped."""
    with pa.memory_map(str(here(path))) as source:
        for _ in range(place):
            pa.ipc.open_stream(source).read_all()  # a memory map: nothing is copied
        return pa.ipc.open_stream(source).read_next_batch()


def _to_batch(rows: Rows) -> pa.RecordBatch:
    fields = [pa.field("sample_id", pa.int64()), pa.field("score", pa.float64())]
    arrays = [pa.array(rows.ids), pa.array(rows.scores)]
    for name, array in rows.features.items():
        array = np.ascontiguousarray(array)
        width = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
        shape = json.dumps({"dtype": array.dtype.str, "shape": array.shape[1:]})
        fields.append(pa.field(name, pa.binary(width), metadata={_SHAPE: shape}))
        flat = pa.py_buffer(array.reshape(-1).view(np.uint8))
        arrays.append(pa.Array.from_buffers(pa.binary(width), len(array), [None, flat]))
    return pa.record_batch(arrays, schema=pa.schema(fields))


def _from_batch(batch: pa.RecordBatch, with_features: bool) -> Rows:
    features = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if not with_features or field.metadata is None or _SHAPE not in field.metadata:
            continue
        form = json.loads(field.metadata[_SHAPE])
        buffer = column.buffers()[1]
        flat = np.frombuffer(buffer if buffer is not None else b"", form["dtype"])
        features[field.name] = flat.reshape(len(column), *form["shape"])
    ids, scores = (batch.column(name).to_numpy() for name in ("sample_id", "score"))
    return Rows(ids, scores, features)


def _report_to_json(report: ShardReport) -> bytes:
    sketch = None if report.sketch is None else report.sketch.to_json()
    fields = {**vars(replace(report, sketch=None)), "sketch": sketch}
    return json.dumps(fields).encode()


def _report_from_json(text: bytes) -> ShardReport:
    fields: dict[str, Any] = json.loads(text)
    sketch = fields.pop("sketch")
    for name in ("class_counts", "rejected"):
        fields[name] = tuple(fields[name])
    return ShardReport(sketch=None if sketch is None else Sketch.from_json(sketch), **fields)
