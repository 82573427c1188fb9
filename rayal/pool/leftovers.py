"""What lies in a pool's folder and is not named by its manifest: it is no part of the pool."""

from __future__ import annotations

from pathlib import Path

from rayal import storage
from rayal.pool.files import FOLDER as FILES
from rayal.pool.manifest import FOLDERS, REMOVED, Manifest
from rayal.pool.pool_writer import SEEN
from rayal.storage import sync

_ALL = (*FOLDERS.values(), FILES, REMOVED)


def remove_unnamed(place: Path, manifest: Manifest | None) -> None:
    """Removes what a manifest does not name from the folders that rayal writes."""
    named = set[str]()
    if manifest is not None:
        named = {shard.path for shard in manifest.shards}
        named |= {version.files for version in manifest.versions}
        named |= {removed.path for removed in manifest.removed}
    storage.remove_folder(place / SEEN)
    for name in _ALL:
        for path in (place / name).glob("*"):
            if f"{name}/{path.name}" not in named:
                path.unlink()
        if (place / name).is_dir() and not any((place / name).iterdir()):
            (place / name).rmdir()
    for path in place.glob(".tmp-*"):  # a manifest on its way
        path.unlink()


def sync_folders(place: Path) -> None:
    """Makes the names of the files in a pool survive a power cut."""
    for folder in (place / name for name in _ALL):
        if folder.is_dir():
            sync(folder)
    sync(place)
    sync(place.parent)
