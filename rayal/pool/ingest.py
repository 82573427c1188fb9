"""Makes a pool of a source, or adds what is new in it: a block and a row group a split in memory.

Shards are written under their own names, a journal tells of each that is whole, and the manifest is
put in place last: killed at any moment, the same command goes on after the last whole shard. Where
a column turns out, late, not to be what its first rows said, a new pool's pass begins again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args

from rayal.errors import ConfigError, PoolError
from rayal.places import Place
from rayal.pool import files as file_tables
from rayal.pool import manifest as manifests
from rayal.pool import recipes, sources
from rayal.pool.faults import is_of_a_file
from rayal.pool.folder import LOCK, STALE_S, alone_in
from rayal.pool.manifest import Manifest
from rayal.pool.pool import Pool
from rayal.pool.pool_writer import Plan
from rayal.pool.under_way import UnderWay
from rayal.pool.version import Found, Making
from rayal.types import Kind

Source: TypeAlias = Found


def ingest(
    source: str,
    path: str,
    *,
    id_column: str | None = None,
    label_column: str | None = None,
    kind: Kind | None = None,
    test_share: float = 0.1,
    rows_per_shard: int | None = None,
    shard_size_bytes: int = 32 << 20,
    seed: int = 0,
    drop: Sequence[str] = (),
    lock_stale_s: float = STALE_S,
    progress: Callable[[int, int | None], None] | None = None,
) -> Pool:
    """Gives the pool at `path`: made of a source; with the rows of its new files, which become new
    shards, where it was made of it before; or as it is where nothing is new.

    `source` is a file, folder, glob or URI, or `recipe:NAME`. Shards have 65,536 to 262,144 source
    rows, sized by bytes, unless `rows_per_shard` says how many. Columns of `drop` are left out.
    `progress` is told the rows so far and, where known, in all; it may begin again. O(rows) time;
    memory does not grow with the rows, but for the classes and the list of files. What is refused
    leaves a pool as it was. What a kill, a full disk or a lost store interrupts goes on when the
    same is asked for again.

    Raises:
        PoolError: the source cannot be read or accepted, a file that was taken holds something else
            by now, something else is at `path`, or another ingest is under way there.
        RayalError: the disk is full.
        ConfigError: an argument is out of its range.
    """
    found = find(source)
    if isinstance(found, recipes.RecipeSource):
        label_column = label_column or found.defaults.label_column
        if label_column == found.defaults.label_column:
            kind = kind or found.defaults.kind
        rows_per_shard = rows_per_shard or found.defaults.rows_per_shard
    elif found.id_column not in (*drop, label_column):
        id_column = id_column or found.id_column
    plan = Plan(
        id_column,
        label_column,
        kind,
        float(test_share),
        rows_per_shard,
        shard_size_bytes,
        seed,
        tuple(sorted(drop)) or None,
    )
    place = Place.of(path)
    _check(plan)
    _refuse_inside(place, source)
    if _is_settled(place, found, plan, source):
        return Pool.open(str(place))
    _refuse_stranger(place)  # before the lock is put there
    with alone_in(place, lock_stale_s) as bench:
        while not _is_settled(place, found, plan, source):
            before = _manifest_at(place)
            making = Making(bench, source, found, plan, before, asked_of(source, found))
            if not making.run(progress):
                break
    return Pool.open(str(place))


def asked_of(source: str, found: Source) -> dict[str, Any]:
    """Gives what a manifest notes of what was asked for."""
    return {"source": source, "place": absolute(source), "sample": sample_of(found)}


def absolute(source: str) -> str:
    """Gives the name of a source that means the same from any folder."""
    if source.startswith(recipes.PREFIX) or "://" in source:
        return source
    return os.path.abspath(Path(source).expanduser())


def find(source: str) -> Source:
    """Gives what the name of a source means.

    Raises:
        PoolError: there is no such thing.
    """
    return (recipes if source.startswith(recipes.PREFIX) else sources).find(source)


def sample_of(found: Source) -> str | None:
    """Gives what tells the contents of a source apart, None where they cannot be had."""
    try:
        return found.sample
    except Exception as error:
        if isinstance(error, PoolError) or is_of_a_file(error):
            return None
        raise


def _check(plan: Plan) -> None:
    if not 0.0 <= plan.test_share < 1.0:
        raise ConfigError(f"test_share is {plan.test_share}, expected 0 or more and below 1")
    if plan.rows_per_shard is not None and plan.rows_per_shard < 1:
        raise ConfigError(f"rows_per_shard is {plan.rows_per_shard}, expected 1 or more")
    if plan.shard_size_bytes < 1:
        raise ConfigError(f"shard_size_bytes is {plan.shard_size_bytes}, expected 1 or more")
    if plan.kind is not None and plan.kind not in get_args(Kind):
        raise ConfigError(f"kind is '{plan.kind}', expected one of {', '.join(get_args(Kind))}")
    if plan.kind is not None and plan.label_column is None:
        raise ConfigError(f"kind is '{plan.kind}', but no label column is named; name one")
    if plan.id_column is not None and plan.id_column == plan.label_column:
        raise ConfigError(f"'{plan.id_column}' is named as id column and as label column")
    for name in plan.drop or ():
        if name in (plan.id_column, plan.label_column):
            raise ConfigError(f"'{name}' is to be dropped, and is named as id or label column")


def _manifest_at(place: Place) -> Manifest | None:
    return manifests.read(place) if (place / manifests.NAME).exists() else None


def _refuse_stranger(place: Place) -> None:
    """Refuses a folder with something in it that is neither a pool nor on its way to be one."""
    known = (manifests.NAME, manifests.UNDER_WAY)
    if any((place / name).exists() for name in known):
        return
    if place.exists() or set(place.children()) - {LOCK}:
        raise PoolError(f"{place} exists and is not a pool; choose another folder, or remove it")


def _refuse_inside(place: Place, source: str) -> None:
    """Refuses a pool whose own files the next ingest of its source would take for rows.

    Raises:
        PoolError: it would lie there.
    """
    a_file = place.absolute / "shards" / "shard-00000.parquet"
    if source.startswith(recipes.PREFIX):
        return
    if place.is_local:
        is_inside = sources.is_meant(source, str(a_file.local))
    else:
        is_inside = a_file.url.startswith(source.rstrip("/") + "/")
    if is_inside:
        raise PoolError(
            f"the pool {place} would lie in its own source {source}, and its files would be taken "
            "for new rows; choose a folder outside of it, or give a glob that leaves it out"
        )


def _is_settled(place: Place, found: Source, plan: Plan, source: str) -> bool:
    """Whether a pool is there that has all of the source, and no ingest is under way.

    Raises:
        PoolError: it was made otherwise, or of something else.
    """
    manifest = _manifest_at(place)
    if manifest is None:
        return False
    made, asked = manifest.source, json.loads(json.dumps({**found.fingerprint, **vars(plan)}))
    is_of_files = isinstance(found, sources.Files)
    noted = bool(manifest.versions[0].files) and "files" in made
    keys = sorted({*asked, *made} - ({"files"} if noted and is_of_files else set()))
    differ = [key for key in keys if asked.get(key) != made.get(key)]
    if differ:
        some = "; ".join(
            "files of another path, size or time of change; it is of an earlier version of rayal, "
            "which did not note its files, so that new ones cannot be told from them"
            if key == "files"
            else f"{key}: {made.get(key)!r} there, {asked.get(key)!r} asked for"
            for key in differ
        )
        raise PoolError(
            f"{place} holds a pool that was made of something else ({some}); "
            "choose another folder, or remove it"
        )
    if UnderWay(place).is_there:
        return False
    if not isinstance(found, sources.Files) or not noted:
        return True
    taken = file_tables.read(place, manifest)
    was = manifest.asked.get("place")
    if absolute(source) != was and not file_tables.shares(found, taken):
        raise PoolError(
            f"{place} holds a pool that was made of something else ({was} there, {source} asked "
            "for, and no file of it was taken before); choose another folder, or add the files "
            f"under a name that {was} takes in"
        )
    return not file_tables.untaken(found, taken)
