"""Rows that are to be forgotten: listed, so that nothing reads them, and gone after `compact`.

A list stays when its rows are gone: their ids are never given again, and a source file that brings
a row of the user's own id once more is refused. Of an own id that is text only a hash is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayal.errors import PoolError
from rayal.places import Place
from rayal.pool import manifest as manifests
from rayal.pool import reader
from rayal.pool.folder import STALE_S, Bench, alone_in
from rayal.pool.leftovers import remove_unnamed, sync_folders
from rayal.pool.manifest import REMOVED, Manifest, Removed, Shard
from rayal.pool.pool import Pool
from rayal.pool.writer import ShardWriter

_GROUP_ROWS = 1 << 16
_SCHEMA = pa.schema({"sample_id": pa.int64(), "mark": pa.binary(16)})


def delete(
    path: str, ids: Sequence[str], lock_stale_s: float = STALE_S, by_sample_id: bool = False
) -> int:
    """Makes the pool forget rows, named by source_id where it has that and by sample_id where not,
    or where that is asked for; gives how many it had not forgotten before. O(rows) time, O(ids)
    memory.

    Raises:
        PoolError: an id is of no row, or another process writes there.
    """
    place = Place.of(path)
    manifests.read(place)  # or a folder that is no pool would get a lock
    with alone_in(place, lock_stale_s) as bench:
        pool = Pool.open(str(place))
        has_source = "source_id" in pool.schema.names
        by_source = has_source and not by_sample_id
        wanted = _wanted(ids, by_source)
        key = "source_id" if by_source else "sample_id"
        found = [
            _found(pool, shard, wanted, key, has_source) for shard in _data_shards(pool.manifest)
        ]
        table = pa.concat_tables([_SCHEMA.empty_table(), *found]).sort_by("sample_id")
        if len(table) < len(wanted):
            _refuse_strangers(pool, wanted, table, found, by_source)
        if not len(table):
            return 0
        version = len(pool.manifest.versions) + 1
        name = f"{REMOVED}/v{version:05d}.parquet"
        out = pa.BufferOutputStream()
        pq.write_table(table, out, row_group_size=_GROUP_ROWS)
        bench.check()
        (place / name).put_bytes(out.getvalue())
        after = _with(pool.manifest, name, table.column("sample_id").to_numpy(), pool)
        _commit(bench, after, pool.manifest)
    return len(table)


def compact(path: str, lock_stale_s: float = STALE_S) -> int:
    """Writes the shards that hold forgotten rows anew without them; gives how many shards. Killed
    at any moment, the pool is as before or as after. No run may be scoring the pool meanwhile.

    Raises:
        PoolError: a shard is not what the manifest says, or another process writes there.
    """
    place = Place.of(path)
    manifests.read(place)
    with alone_in(place, lock_stale_s) as bench:
        pool = Pool.open(str(place))
        remove_unnamed(bench, pool.manifest)
        version = len(pool.manifest.versions) + 1
        shards: list[Shard] = []
        for shard in pool.manifest.shards:
            kept = shard if not shard.num_removed else _rewritten(bench, pool, shard, version)
            shards += [] if kept is None else [kept]
        num_changed = sum(shard.num_removed > 0 for shard in pool.manifest.shards)
        if num_changed:
            after = replace(pool.manifest, shards=tuple(shards))
            _commit(bench, after, pool.manifest)
            remove_unnamed(bench, after)
    return num_changed


def _commit(bench: Bench, manifest: Manifest, base: Manifest) -> None:
    last = manifest.versions[-1]
    sync_folders(bench.place)
    bench.commit(manifest.grown(last.end_index, last.end_row, ""), base)


def _data_shards(manifest: Manifest) -> Iterator[Shard]:
    return (shard for shard in manifest.shards if shard.split != "labels")


def _wanted(ids: Sequence[str], by_source: bool) -> pa.Array:
    names = sorted({name.strip() for name in ids} - {""})
    if by_source:
        return pa.array(names, pa.string())
    try:
        return pa.array(sorted({int(name) for name in names}), pa.int64())
    except (ValueError, OverflowError, pa.ArrowInvalid) as error:
        raise PoolError(
            f"an id to delete is no sample_id, an int64 ({error}); give one id a line"
        ) from error


def _found(pool: Pool, shard: Shard, wanted: pa.Array, key: str, has_source: bool) -> pa.Table:
    """Gives (sample_id, mark) of those rows of a shard that are wanted and not forgotten yet."""
    names = ["sample_id", *(["source_id"] if has_source else [])]
    parts = [_SCHEMA.empty_table()]
    for rows in pool.batches(shard, names, _GROUP_ROWS):
        rows = rows.filter(pc.is_in(rows.column(key), wanted))
        marks: list[bytes | None] = [None] * rows.num_rows
        if has_source:
            marks = [mark_of(name) for name in rows.column("source_id").to_pylist()]
        parts.append(pa.table([rows.column("sample_id"), pa.array(marks, pa.binary(16))], _SCHEMA))
    return pa.concat_tables(parts)


def mark_of(name: str) -> bytes:
    """Gives what is kept of an own id that is text."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _refuse_strangers(
    pool: Pool, wanted: pa.Array, table: pa.Table, found: Sequence[pa.Table], by_source: bool
) -> None:
    """Refuses ids that were never there; those that were forgotten before are passed by."""
    column = "mark" if by_source else "sample_id"
    asked = [mark_of(name) for name in wanted.to_pylist()] if by_source else wanted.to_pylist()
    known = set(table.column(column).to_pylist())
    for one in pool.manifest.removed:
        known |= set(pq.read_table((pool.place / one.path).open_input()).column(column).to_pylist())
    names = zip(wanted.to_pylist(), asked, strict=True)
    missing = [name for name, key in names if key not in known]
    if missing:
        kind = "source_id" if by_source else "sample_id"
        raise PoolError(
            f"{len(missing)} of {len(wanted)} ids to delete are no {kind} of the pool {pool.path} "
            f"(first: {missing[0]!r}); nothing was deleted: correct or leave out these ids"
        )


def _with(manifest: Manifest, name: str, ids: np.ndarray, pool: Pool) -> Manifest:
    """Gives the manifest with one more list, counted in the shards that hold its rows."""
    shards = []
    for shard in manifest.shards:
        within = reader.between(ids, shard.min_id, shard.max_id)
        num_more = 0
        if len(within):
            schema = manifests.labels_schema(manifest) if shard.split == "labels" else pool.schema
            for there in reader.ids_in(pool.place, shard, schema, "sample_id"):
                num_more += int(np.isin(there.to_numpy(), within).sum())
        shards.append(replace(shard, num_removed=shard.num_removed + num_more))
    digest = hashlib.sha256(np.ascontiguousarray(ids).tobytes()).hexdigest()
    removed = (*manifest.removed, Removed(name, len(ids), digest))
    return replace(manifest, shards=tuple(shards), removed=removed)


def _rewritten(bench: Bench, pool: Pool, shard: Shard, version: int) -> Shard | None:
    """Gives a shard without its forgotten rows, in a file of its own; None where none is left."""
    is_label = shard.split == "labels"
    schema = manifests.labels_schema(pool.manifest) if is_label else pool.schema
    file = reader.open_shard(pool.place, shard, schema)
    group = file.metadata.row_group(0).num_rows
    writer = ShardWriter(bench, shard.split, shard.index, schema, group, f".v{version:05d}")
    gone = pool.removed_in(shard)
    for rows in reader.cut_batches(pool.place, shard, file, schema.names, group):
        is_gone = np.isin(rows.column("sample_id").to_numpy(), gone)
        kept = rows.filter(pa.array(~is_gone))
        writer.write(pa.RecordBatch.from_arrays(kept.columns, schema=schema))
    return writer.close(shard.first_id)
