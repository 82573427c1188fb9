"""Room for features: a budget over a folder of sets, and what goes when it is spent."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from rayal.errors import ConfigError
from rayal.locks import lock
from rayal.pool.features import NAME, USED, FeatureSet, sets_in
from rayal.pool.manifest import Manifest, Shard
from rayal.storage import remove_folder

WRITER = ".lock"  # held by who writes a set
_GIB = 2**30
_KEY = re.compile("[0-9a-f]{16}")


def size_bytes(features: FeatureSet, shards: Sequence[Shard]) -> int:
    """Gives what a set takes on disk when it is whole."""
    return sum(features.form.size_bytes(shard.num_rows) for shard in shards)


def make_room(
    folder: Path, features: FeatureSet, shards: Sequence[Shard], limit_gib: float | None
) -> list[str]:
    """Sees that a set will fit, before anything is computed: removes other sets from the folder,
    least recently used first, as far as the budget asks for it. None that a process has open goes,
    and none goes where that would not be enough. Gives the names of those removed. Nobody uses
    this set yet, or whoever calls has it open.

    Raises:
        ConfigError: it does not fit into the budget, or on the disk.
    """
    need = size_bytes(features, shards)
    own = _on_disk(Path(features.path))
    sum_of = _arithmetic(features, shards)
    if limit_gib is not None and need > limit_gib * _GIB:
        raise ConfigError(
            f"these features take {need / _GIB:.3g} GiB ({sum_of}), more than features_gib="
            f"{limit_gib:g}; raise it{_smaller(features, shards, limit_gib)}"
        )
    with contextlib.ExitStack() as held:
        going = [] if limit_gib is None else _going(held, folder, features, need, limit_gib)
        freed = sum(_on_disk(place) for place in going)
        free = shutil.disk_usage(_there(folder)).free + freed
        if need - own > free:
            raise ConfigError(
                f"these features take {(need - own) / _GIB:.3g} GiB more ({sum_of}), and "
                f"{folder} has {free / _GIB:.3g} GiB free; free some space, or name a folder on "
                f"another disk{_smaller(features, shards, free / _GIB)}"
            )
        for place in going:
            (place / NAME).unlink()  # first: what is half removed is no set
            remove_folder(place)
    return [place.name for place in going]


def clear_leftovers(folder: Path) -> None:
    """Removes what a kill left of sets that were begun or removed: folders without a description
    that nobody writes or has open."""
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not _KEY.fullmatch(place.name) or (place / NAME).exists():
            continue
        with contextlib.ExitStack() as held:
            locks = [lock(place / name) for name in (WRITER, USED)]
            for file in locks:
                if file is not None:
                    held.enter_context(file)
            if None not in locks and not (place / NAME).exists():
                remove_folder(place)


def remove_unfinished(features: FeatureSet) -> None:
    """Removes what a kill left half written in a set; whoever calls writes it alone."""
    for path in Path(features.path).glob(".tmp-*"):
        remove_folder(path) if path.is_dir() else path.unlink(missing_ok=True)


def remove_superseded(features: FeatureSet, manifest: Manifest) -> int:
    """Removes files of shards that the pool has no more; gives how many."""
    names = {features.path_of(shard).name for shard in manifest.shards}
    old = [path for path in Path(features.path).glob("*.arrow") if path.name not in names]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _going(
    held: contextlib.ExitStack, folder: Path, features: FeatureSet, need: int, limit_gib: float
) -> list[Path]:
    """Gives the folders of the sets to remove, locked until `held` ends."""
    others = [Path(one.path) for one in sets_in(folder) if one.key != features.key]
    others.sort(key=lambda place: (_last_used(place), place.name))
    sizes = {place: _on_disk(place) for place in others}
    surplus = need + sum(sizes.values()) - limit_gib * _GIB
    going: list[Path] = []
    open_ones: list[Path] = []
    for place in others:
        if surplus <= 0:
            break
        files = [_held(held, place / name) for name in (WRITER, USED)]
        if None in files:
            open_ones.append(place)
            continue
        going.append(place)
        surplus -= sizes[place]
    if surplus > 0:
        in_use = ", ".join(f"{one.name} ({sizes[one] / _GIB:.3g} GiB)" for one in open_ones)
        raise ConfigError(
            f"these features take {need / _GIB:.3g} GiB, and features_gib={limit_gib:g} leaves "
            f"less beside sets that are in use: {in_use}; wait for who uses them, raise it, or "
            "name another folder in features"
        )
    return going


def _held(held: contextlib.ExitStack, path: Path) -> BinaryIO | None:
    file = lock(path)
    return None if file is None else held.enter_context(file)


def _on_disk(place: Path) -> int:
    found = 0
    for path in place.rglob("*") if place.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def _last_used(place: Path) -> float:
    path = place / USED
    return path.stat().st_mtime if path.exists() else 0.0


def _there(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.is_dir())


def _arithmetic(features: FeatureSet, shards: Sequence[Shard]) -> str:
    rows, form = sum(shard.num_rows for shard in shards), features.form
    return f"{rows:,} rows x {form.width:,} x {form.dtype.itemsize} bytes"


def _smaller(features: FeatureSet, shards: Sequence[Shard], room_gib: float) -> str:
    """Gives the advice to take int8 where that would do."""
    rows = sum(shard.num_rows for shard in shards)
    is_smaller = features.form.dtype.itemsize > 1
    return ", or take dtype=int8" if is_smaller and rows * features.width < room_gib * _GIB else ""
