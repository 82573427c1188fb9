"""Makes a pool of a source, in one pass: a block and a row group a split in memory.

Where a column turns out, late, not to be what its first rows said, the pass begins again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, get_args

import pyarrow as pa

from rayal.errors import ConfigError, PoolError
from rayal.pool import manifest as manifests
from rayal.pool import reader, recipes, sources
from rayal.pool.folder import making, place_of
from rayal.pool.formats import Reading, Unsettled
from rayal.pool.pool import Pool
from rayal.pool.pool_writer import Plan, PoolWriter
from rayal.types import Kind

Source: TypeAlias = sources.Files | recipes.RecipeSource


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
    progress: Callable[[int, int | None], None] | None = None,
) -> Pool:
    """Gives the pool at `path`, made of a source, or as it is if it was made of just this before.

    `source` is a file, folder, glob or URI, or `recipe:NAME`. Shards have 65,536 to 262,144 source
    rows, sized by bytes, unless `rows_per_shard` says how many. Columns of `drop` are left out.
    `progress` is told the rows so far and, where known, in all; it may begin again. O(rows) time;
    memory does not grow with the rows, but for the classes.

    Raises:
        PoolError: the source cannot be read or accepted, or something else is at `path`.
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
    place = place_of(path)
    _check(plan)
    origin = json.loads(json.dumps({**found.fingerprint, **vars(plan)}))
    if _already_there(place, origin):
        return Pool.open(str(place))
    unsettled: dict[str, str] = {}
    while not _made(source, found, place, plan, unsettled, origin, progress):
        pass  # at most once a column
    return Pool.open(str(place))


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
    except (PoolError, pa.ArrowException, OSError):
        return None


def _made(
    source: str,
    found: Source,
    place: Path,
    plan: Plan,
    unsettled: dict[str, str],
    origin: dict[str, Any],
    progress: Callable[[int, int | None], None] | None,
) -> bool:
    """Makes the pool; or adds a column to what is `unsettled`, and gives False."""
    how = Reading(plan.drop or (), tuple(unsettled), plan.id_column, plan.label_column, plan.kind)
    found = replace(found, reading=how)
    try:
        with making(place) as temporary:
            writer = PoolWriter(temporary, plan, unsettled)
            for piece in found.pieces():
                writer.add(piece)
                if progress is not None:
                    progress(writer.num_rows, found.num_rows)
            asked = {"source": source, "place": absolute(source), "sample": sample_of(found)}
            manifest = replace(writer.finish(source), source=origin, asked=asked)
            (temporary / manifests.NAME).write_text(manifest.to_json(), encoding="utf-8")
            _check_readable(temporary)
    except Unsettled as late:
        if late.column in unsettled:  # it would never end
            raise
        unsettled[late.column] = late.why
        return False
    return True


def _check_readable(folder: Path) -> None:
    """Reads what was just written, before anybody takes it for a pool: footers, not rows."""
    manifest = manifests.read(folder)
    for shard in manifest.shards:
        labels = shard.split == "labels"
        schema = manifests.labels_schema(manifest) if labels else manifest.schema
        reader.open_shard(str(folder), shard, schema)


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


def _already_there(place: Path, origin: dict[str, Any]) -> bool:
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    if not (place / manifests.NAME).exists():
        raise PoolError(f"{place} exists and is not a pool; choose another folder, or remove it")
    made_of = manifests.read(place).source
    differ = sorted(key for key in {*origin, *made_of} if origin.get(key) != made_of.get(key))
    if not differ:
        return True
    some = "; ".join(
        "files of another path, size or time of change"
        if key == "files"
        else f"{key}: {made_of.get(key)!r} there, {origin.get(key)!r} asked for"
        for key in differ
    )
    raise PoolError(
        f"{place} holds a pool that was made of something else ({some}); "
        "choose another folder, or remove it"
    )
