"""Room for features: a budget over a folder of sets, and what goes when it is spent."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from rayal.errors import ConfigError
from rayal.places import Place
from rayal.pool.feature_users import is_open, keep_others_out, last_used_ns
from rayal.pool.features import NAME, FeatureSet, sets_in, write_set
from rayal.pool.manifest import Manifest, Shard
from rayal.storage import remove_folder

_GIB = 2**30
_KEY = re.compile("[0-9a-f]{16}")


def size_bytes(features: FeatureSet, shards: Sequence[Shard]) -> int:
    """Gives what a set takes on disk when it is whole."""
    return sum(features.form.size_bytes(shard.num_rows) for shard in shards)


def make_room(
    folder: Place, features: FeatureSet, shards: Sequence[Shard], limit_gib: float | None
) -> list[str]:
    """Sees that a set will fit, before anything is computed: removes other sets from the folder,
    least recently used first, as far as the budget asks for it. None that a process has open goes,
    and none goes where that would not be enough. Gives the names of those removed. Nobody uses
    this set yet, or whoever calls has it open.

    Raises:
        ConfigError: it does not fit into the budget, or on the disk.
    """
    need = size_bytes(features, shards)
    own = _size_of(features.place)
    sum_of = _arithmetic(features, shards)
    if limit_gib is not None and need > limit_gib * _GIB:
        raise ConfigError(
            f"these features take {need / _GIB:.3g} GiB ({sum_of}), more than features_gib="
            f"{limit_gib:g}; raise it{_smaller(features, shards, limit_gib)}"
        )
    with contextlib.ExitStack() as held:
        going = [] if limit_gib is None else _going(held, folder, features, need, limit_gib)
        freed = sum(_size_of(one.place) for one in going)
        free = shutil.disk_usage(_there(folder.local)).free + freed if folder.is_local else math.inf
        if need - own > free:
            raise ConfigError(
                f"these features take {(need - own) / _GIB:.3g} GiB more ({sum_of}), and "
                f"{folder} has {free / _GIB:.3g} GiB free; free some space, or name a folder on "
                f"another disk{_smaller(features, shards, free / _GIB)}"
            )
        return [one.place.name for one in going if _removed(one)]


def clear_leftovers(folder: Place) -> None:
    """Removes what a kill left of sets that were begun or removed: folders without a description
    that nobody writes or has open."""
    for name in folder.children():
        place = folder / name
        if not _KEY.fullmatch(name) or (place / NAME).exists():
            continue
        with contextlib.ExitStack() as held:
            if keep_others_out(held, place) and not (place / NAME).exists():
                _remove(place)


def _removed(features: FeatureSet) -> bool:
    """Removes a set that others are kept out of; gives whether it went. Its description goes
    first: what is half removed is no set. In a store somebody may have opened it just before: then
    it is described again, and stays."""
    (features.place / NAME).remove()
    if is_open(features.place):
        write_set(features)
        return False
    _remove(features.place)
    return True


def _remove(place: Place) -> None:
    remove_folder(place.local) if place.is_local else place.remove_folder()


def remove_unfinished(features: FeatureSet) -> None:
    """Removes what a kill left half written in a set; whoever calls writes it alone."""
    if features.place.is_local:  # a store has only what is whole
        for path in features.folder.glob(".tmp-*"):
            remove_folder(path) if path.is_dir() else path.unlink(missing_ok=True)


def remove_superseded(features: FeatureSet, manifest: Manifest) -> int:
    """Removes files of shards that the pool has no more; gives how many."""
    names = {features.place_of(shard).name for shard in manifest.shards}
    there = [name for name in features.sizes() if "/" not in name and name.endswith(".arrow")]
    old = [name for name in there if name not in names]
    for name in old:
        (features.place / name).remove()
    return len(old)


def _going(
    held: contextlib.ExitStack, folder: Place, features: FeatureSet, need: int, limit_gib: float
) -> list[FeatureSet]:
    """Gives the sets to remove, which others are kept out of until `held` ends."""
    others = [one for one in sets_in(folder) if one.key != features.key]
    others.sort(key=lambda one: (last_used_ns(one.place), one.key))
    sizes = {one.key: _size_of(one.place) for one in others}
    surplus = need + sum(sizes.values()) - limit_gib * _GIB
    going: list[FeatureSet] = []
    open_ones: list[FeatureSet] = []
    for one in others:
        if surplus <= 0:
            break
        if not keep_others_out(held, one.place):
            open_ones.append(one)
            continue
        going.append(one)
        surplus -= sizes[one.key]
    if surplus > 0:
        in_use = ", ".join(f"{one.key} ({sizes[one.key] / _GIB:.3g} GiB)" for one in open_ones)
        raise ConfigError(
            f"these features take {need / _GIB:.3g} GiB, and features_gib={limit_gib:g} leaves "
            f"less beside sets that are in use: {in_use}; wait for who uses them, raise it, or "
            "name another folder in features"
        )
    return going


def _size_of(place: Place) -> int:
    return sum(entry.size_bytes for entry in place.list())


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
