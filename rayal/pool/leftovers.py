"""What lies in a pool's folder and is not named by its manifest: it is no part of the pool."""

from __future__ import annotations

from pathlib import Path

from rayal import disk
from rayal.disk import sync
from rayal.places import Place
from rayal.pool.files import FOLDER as FILES
from rayal.pool.folder import Bench
from rayal.pool.manifest import FOLDERS, REMOVED, Manifest
from rayal.pool.pool_writer import SEEN

_ALL = (*FOLDERS.values(), FILES, REMOVED)


def remove_unnamed(bench: Bench, manifest: Manifest | None) -> None:
    """Removes what a manifest does not name from the folders that rayal writes.

    Raises:
        PlaceError: another took the pool meanwhile, whose files it may not name.
    """
    bench.check()
    named = set[str]()
    if manifest is not None:
        named = {shard.path for shard in manifest.shards}
        named |= {version.files for version in manifest.versions}
        named |= {removed.path for removed in manifest.removed}
    disk.remove_folder(bench.folder / SEEN)
    for name in _ALL:
        for entry in (bench.place / name).list():
            if f"{name}/{entry.name}" not in named:
                (bench.place / name / entry.name).remove()
        _remove_if_empty(bench.folder / name)
    for path in bench.folder.glob(".tmp-*"):  # a manifest on its way
        path.unlink()


def sync_folders(place: Place) -> None:
    """Makes the names of the files in a pool survive a power cut; a store does by itself."""
    if not place.is_local:
        return
    for folder in (place.local / name for name in _ALL):
        if folder.is_dir():
            sync(folder)
    sync(place.local)
    sync(place.local.parent)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
