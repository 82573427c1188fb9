"""Reads one shard file, and says what ails it where it is not what the manifest says.

Every page has a checksum. To verify them costs 70 ns a row of 64 float32 (3 GB/s), 8 % of what
the smallest model takes, so a process does it when it reads a column of a shard for the first time.
What comes out of a store is verified each time: it takes longer to come than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayal.columns import is_vector, vector_shape
from rayal.errors import PoolError
from rayal.places import Place
from rayal.pool.ahead import StoredFile
from rayal.pool.manifest import CONTENT_HASH, Manifest, Shard
from rayal.types import Ids

_ADVICE = "restore the file, or ingest the source again"

# (file, its time of change, column) that this process has read to the end, checksums and all.
_VERIFIED: set[tuple[str, int, str]] = set()


def sizes_of(root: Place, shards: Iterable[Shard]) -> dict[str, int]:
    """Gives what the folders of some shards hold: a file's size by its path. One listing each."""
    found: dict[str, int] = {}
    for folder in sorted({shard.path.partition("/")[0] for shard in shards}):
        for entry in (root / folder).list():
            found[f"{folder}/{entry.name}"] = entry.size_bytes
    return found


def check_whole(
    root: Place, shard: Shard, sizes: Mapping[str, int], *, to_its_end: bool = False
) -> None:
    """Refuses a shard that is not there as it was written. `to_its_end`: a power cut may have left
    a file of its size on a disk that has no footer.

    Raises:
        PoolError: it is missing, of another size, or has no footer.
    """
    _check_size(root / shard.path, shard, sizes.get(shard.path))
    if to_its_end and root.is_local:
        _open(root, shard, verify=False)


def _check_size(place: Place, shard: Shard, size_bytes: int | None) -> None:
    if size_bytes is None:
        raise PoolError(f"{place} is missing: {_named(shard)}; {_ADVICE}")
    if size_bytes != shard.size_bytes:
        raise PoolError(
            f"{place} has {size_bytes} bytes, expected {shard.size_bytes}, so it was cut short or "
            f"changed: {_named(shard)}; {_ADVICE}"
        )


def open_shard(root: Place, shard: Shard, schema: pa.Schema, verify: bool = True) -> pq.ParquetFile:
    """Gives the open file of a shard whose columns are `schema`; `verify` its pages when read.

    Raises:
        PoolError: the file is missing, of another size, no Parquet, of another schema, or of other
            rows, as its footer says.
    """
    place = root / shard.path
    file = _open(root, shard, verify)
    found = {field.name: field for field in file.schema_arrow}
    expected = {field.name: field for field in schema}
    differ = [
        name
        for name in {**expected, **found}
        if name not in found or name not in expected or not _alike(found[name], expected[name])
    ]
    if differ:
        said = ", ".join(
            f"{name} is {_described(found.get(name))}, expected {_described(expected.get(name))}"
            for name in differ
        )
        raise PoolError(
            f"{place} has another schema than the manifest ({said}): {_named(shard)}; {_ADVICE}"
        )
    said_hash = (file.metadata.metadata or {}).get(CONTENT_HASH.encode())
    if said_hash not in (None, shard.content_hash.encode()):  # None: of a pool from before
        raise PoolError(
            f"{place} holds other rows than those of the manifest (content hash "
            f"{said_hash.decode(errors='replace')[:12]}, expected {shard.content_hash[:12]}): "
            f"{_named(shard)}; {_ADVICE}"
        )
    return file


def _open(root: Place, shard: Shard, verify: bool) -> pq.ParquetFile:
    place = root / shard.path
    try:
        if not root.is_local:
            ranges = place.open_ranges()
            _check_size(place, shard, ranges.size_bytes)
            return StoredFile(ranges, verify)
        _check_size(place, shard, place.local.stat().st_size)
        # Mapped, vectors are read at 1.3 to 2 times the speed (setting as in writer.py).
        return pq.ParquetFile(place.open_input(), page_checksum_verification=verify)
    except FileNotFoundError:
        _check_size(place, shard, None)
        raise
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(root, shard, error) from error


def is_verified(root: Place, shard: Shard, columns: Sequence[str]) -> bool:
    """Whether this process has read these columns of the file as it is now by `cut_batches`."""
    return root.is_local and _VERIFIED.issuperset(_keys(root, shard, columns))


def _keys(root: Place, shard: Shard, columns: Sequence[str]) -> list[tuple[str, int, str]]:
    place = (root / shard.path).local
    changed = place.stat().st_mtime_ns
    return [(str(place), changed, name) for name in columns]


def cut_batches(
    root: Place, shard: Shard, file: pq.ParquetFile, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Gives the rows cut at multiples of `batch_rows`, whatever the row groups; last one short.

    Raises:
        PoolError: the file is damaged inside.
    """
    names = list(columns)
    keys = _keys(root, shard, names) if root.is_local else []
    held: list[pa.RecordBatch] = []
    num_held = 0
    try:
        # In one thread, which is faster here (55 against 34 million rows a second), and leaves the
        # other cores to those who own them.
        for rows in file.iter_batches(batch_rows, columns=names, use_threads=False):
            if rows.schema.names != names:
                rows = rows.select(names)
            if not held and rows.num_rows == batch_rows:
                yield rows
                continue
            # Arrow may cut shorter, for instance where a text column exceeds 2 GiB; what comes out
            # of a store is cut at row groups.
            held.append(rows)
            num_held += rows.num_rows
            while num_held >= batch_rows:
                whole = _one(held)
                yield whole.slice(0, batch_rows)
                num_held -= batch_rows
                held = [whole.slice(batch_rows)] if num_held else []
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(root, shard, error) from error
    _VERIFIED.update(keys)
    if held:
        yield _one(held)


def read_ids(
    root: Place, shard: Shard, file: pq.ParquetFile, ids: Ids, columns: Sequence[str]
) -> pa.Table:
    """Gives the rows of sorted unique ids that lie in the shard, in its order.

    A row group is opened if its id range holds one of them, and read whole if one is in it.

    Raises:
        PoolError: the file is damaged inside.
    """
    names = list(columns)
    parts = []
    try:
        for index, _, hits in _hits(file, ids):
            table = file.read_row_group(index, names, use_threads=False)
            parts.append(table.select(names).take(pa.array(hits)))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(root, shard, error) from error
    schema = pa.schema([file.schema_arrow.field(name) for name in names])
    return pa.concat_tables([schema.empty_table(), *parts])


def read_places(
    root: Place,
    shard: Shard,
    file: pq.ParquetFile,
    places: npt.NDArray[np.intp],
    columns: Sequence[str],
) -> pa.Table:
    """Gives the rows at these ascending places; row groups without one are not read.

    Raises:
        PoolError: the file is damaged inside.
    """
    names, first, parts = list(columns), 0, []
    try:
        for index in range(file.num_row_groups):
            number = file.metadata.row_group(index).num_rows
            here = between(places, first, first + number - 1) - first
            if len(here):
                table = file.read_row_group(index, names, use_threads=False)
                parts.append(table.select(names).take(pa.array(here)))
            first += number
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(root, shard, error) from error
    schema = pa.schema([file.schema_arrow.field(name) for name in names])
    return pa.concat_tables([schema.empty_table(), *parts])


def places_in(root: Place, shard: Shard, file: pq.ParquetFile, ids: Ids) -> npt.NDArray[np.intp]:
    """Gives the places in the shard, ascending, of the rows of sorted unique ids that lie in it.

    Raises:
        PoolError: the file is damaged inside.
    """
    try:
        parts = [first + hits for _, first, hits in _hits(file, ids)]
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(root, shard, error) from error
    return np.concatenate([np.empty(0, np.intp), *parts])


def _hits(file: pq.ParquetFile, ids: Ids) -> Iterator[tuple[int, int, npt.NDArray[np.intp]]]:
    """Gives the row groups that hold some of the ids, their first row, and which rows of them."""
    place, first = file.schema_arrow.names.index("sample_id"), 0
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        span = group.column(place).statistics
        within = between(ids, span.min, span.max)
        if len(within):
            there = file.read_row_group(index, ["sample_id"], use_threads=False).column(0)
            hits = np.flatnonzero(np.isin(there.to_numpy(), within))
            if len(hits):
                yield index, first, hits
        first += group.num_rows


def read_column(root: Place, shard: Shard, file: pq.ParquetFile, name: str) -> pa.ChunkedArray:
    """Gives a whole column of a shard.

    Raises:
        PoolError: the file is damaged inside.
    """
    try:
        return file.read([name], use_threads=False).column(0)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(root, shard, error) from error


def ids_in(root: Place, shard: Shard, schema: pa.Schema, name: str) -> Iterator[pa.Array]:
    """Gives a shard's column of ids, a row group at a time.

    Raises:
        PoolError: the file is not what the manifest says, or is damaged inside.
    """
    file = open_shard(root, shard, schema)
    try:
        for index in range(file.num_row_groups):
            column = file.read_row_group(index, [name], use_threads=False).column(0)
            yield from column.chunks
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(root, shard, error) from error


def removed_between(root: Place, manifest: Manifest, low: int, high: int) -> Ids:
    """Gives the removed ids in [low, high], ascending. Reads the row groups that hold some.

    Raises:
        PoolError: a list is missing or damaged.
    """
    parts = [np.empty(0, np.int64)]
    for removed in manifest.removed:
        place = root / removed.path
        try:
            file = pq.ParquetFile(place.open_input())
            if file.metadata.num_rows != removed.num_rows:
                raise OSError(f"it has {file.metadata.num_rows} rows, not {removed.num_rows}")
            for index in range(file.num_row_groups):
                span = file.metadata.row_group(index).column(0).statistics
                if span.min <= high and span.max >= low:
                    ids = file.read_row_group(index, ["sample_id"]).column(0).to_numpy()
                    parts.append(between(ids, low, high))
        except (pa.ArrowException, OSError) as error:
            text = " ".join(str(error).split())[:200]
            raise PoolError(
                f"{place}, a list of removed rows, cannot be read ({text}); restore it from a copy"
            ) from error
    return np.unique(np.concatenate(parts))


def still_there(root: Place, manifest: Manifest) -> pa.Array:
    """Gives the removed ids that lie in a shard still, before `compact`. O(removed) memory."""
    parts = [pa.array([], pa.int64())]
    for shard in manifest.shards:
        if shard.num_removed and shard.split != "labels":
            gone = pa.array(removed_between(root, manifest, shard.min_id, shard.max_id))
            for ids in ids_in(root, shard, manifest.schema, "sample_id"):
                parts.append(ids.filter(pc.is_in(ids, gone)))
    return pa.concat_arrays(parts)


def between(ids: Ids, low: int, high: int) -> Ids:
    """Gives those of the sorted ids that lie in [low, high]."""
    return ids[np.searchsorted(ids, low) : np.searchsorted(ids, high, "right")]


def _one(held: list[pa.RecordBatch]) -> pa.RecordBatch:
    # Joining copies, even what is one: a third of the time where every shard is one short batch.
    return held[0] if len(held) == 1 else pa.concat_batches(held)


def _named(shard: Shard) -> str:
    return (
        f"{shard.split} shard {shard.index}, {shard.num_rows} rows, first sample_id {shard.min_id}"
    )


def _unreadable(root: Place, shard: Shard, error: BaseException) -> PoolError:
    text = " ".join(str(error).split())[:200]
    return PoolError(f"{root / shard.path} is damaged ({text}): {_named(shard)}; {_ADVICE}")


def _alike(one: pa.Field, two: pa.Field) -> bool:
    # Parquet names the items of a list in its own way, which equality of types passes over.
    shapes = [vector_shape(field) if is_vector(field) else None for field in (one, two)]
    return bool(one.type == two.type) and shapes[0] == shapes[1]


def _described(field: pa.Field | None) -> str:
    if field is None:
        return "absent"
    if is_vector(field):
        dtype, width = vector_shape(field)
        return f"{width} x {dtype}"
    return str(field.type)
