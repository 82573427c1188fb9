"""The folder of a pool: where it lies, who writes there, and where its files are made.

On a disk files are made where they lie, and the kernel keeps others out. For a store they are made
in a folder of this machine and put there whole; objects with a sign of life keep others out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rayal import disk
from rayal.errors import PoolError
from rayal.locks import holder, lock
from rayal.places import Place
from rayal.places.claim import STALE_S, Held, claimed
from rayal.pool import manifest as manifests
from rayal.pool.manifest import Manifest

LOCK = ".lock"
LOCK_HELP = (
    "in a store: seconds without a sign of life after which another process that writes the pool "
    f"counts as dead (default {STALE_S:g})"
)
__all__ = ["LOCK", "LOCK_HELP", "STALE_S", "Bench", "alone_in"]


@dataclass(frozen=True)
class Bench:
    """Where the one process that writes a pool makes its files."""

    place: Place  # of the pool
    folder: Path  # on a disk, with the same names in it
    check: Callable[[], None] = lambda: None  # refuses where another took the pool meanwhile

    def put(self, name: str) -> int:
        """Puts a finished file in its place, where a power cut leaves it whole; gives its bytes.

        Raises:
            PlaceError: another took the pool meanwhile.
        """
        made = self.folder / name
        size_bytes = made.stat().st_size
        if self.place.is_local:
            disk.sync(made)
        else:
            self.check()  # or it lies over another's file of the same name
            (self.place / name).put_file(made)
            made.unlink()
        return size_bytes

    def commit(self, manifest: Manifest, base: Manifest | None) -> None:
        """Puts a manifest in its place, last of all.

        Raises:
            PoolError: the one that is there is not the one that this process began with.
        """
        self.check()
        place = self.place / manifests.NAME
        there = manifests.read(self.place) if place.exists() else None
        if there != base:
            raise PoolError(
                f"{place} has changed while this process wrote to the pool, which is as the other "
                "writer left it; run the same command again"
            )
        place.put_bytes(manifest.to_json().encode())


@contextlib.contextmanager
def alone_in(place: Place, stale_s: float = STALE_S) -> Iterator[Bench]:
    """Keeps a pool's folder, made where there is none, for this process. One that is empty in the
    end goes again. In a store a process that gives no sign of life for `stale_s` counts as dead.

    Raises:
        PoolError: another process writes there.
        ConfigError: files cannot be locked there.
        RayalError: the disk is full.
    """
    with _alone_on_disk(place) if place.is_local else _alone_in_store(place, stale_s) as bench:
        yield bench


@contextlib.contextmanager
def _alone_on_disk(place: Place) -> Iterator[Bench]:
    folder = place.local
    with disk.explained(folder):
        is_given = folder.is_dir() and not any(folder.iterdir())  # else a kill may have left it
        file = lock(folder / LOCK)
        if file is None:
            raise PoolError(
                f"{folder} is being written by {holder(folder / LOCK)}; wait for it or end it, "
                "then run the same command again"
            )
        with file:
            try:
                yield Bench(place, folder)
            finally:
                _leave(folder, keep_folder=is_given)


def _leave(folder: Path, keep_folder: bool) -> None:
    (folder / LOCK).unlink(missing_ok=True)
    if not keep_folder:
        with contextlib.suppress(OSError):  # it holds a pool, or somebody came meanwhile
            folder.rmdir()


@contextlib.contextmanager
def _alone_in_store(place: Place, stale_s: float) -> Iterator[Bench]:
    try:
        with claimed(place / LOCK, stale_s) as claim:
            folder = _beside(place)
            disk.remove_folder(folder)  # what a kill left
            folder.mkdir(mode=0o700)  # fails where it is another user's
            try:
                with disk.explained(folder):
                    yield Bench(place, folder, claim.check)
            finally:
                disk.remove_folder(folder)
    except Held as held:
        raise PoolError(
            f"{place} is being written by {held.who}, which gave its last sign of life "
            f"{held.age_s:.0f} s ago; wait for it or end it, then run the same command again: "
            f"after {stale_s:g} s without one it is passed over"
        ) from held


def _beside(place: Place) -> Path:
    """Gives the folder on this machine in which the files for a store are made: always the same,
    so that those of a killed process are found."""
    key = hashlib.sha256(place.url.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"rayal-pool-{os.getuid()}-{key}"
