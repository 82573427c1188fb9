"""The folder of a pool: where it lies, and who writes there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rayal.errors import PoolError
from rayal.locks import holder, lock
from rayal.storage import explained

LOCK = ".lock"


def place_of(path: str) -> Path:
    """Gives the folder that a pool's path means.

    Raises:
        PoolError: it is a URI of something else than a folder.
    """
    local = path.removeprefix("file://")
    if "://" in local:
        raise PoolError(
            f"a pool lies in a folder that every worker can see, not at {path}; "
            "give a local or mounted path"
        )
    return Path(local).expanduser()


@contextlib.contextmanager
def alone_in(place: Path) -> Iterator[None]:
    """Keeps a pool's folder, made where there is none, for this process. One that is empty in the
    end goes again. The lock is the kernel's and ends with its process.

    Raises:
        PoolError: another process writes there.
        ConfigError: files cannot be locked there.
        RayalError: the disk is full.
    """
    with explained(place):
        is_given = place.is_dir() and not any(place.iterdir())  # else a kill may have left it
        file = lock(place / LOCK)
        if file is None:
            raise PoolError(
                f"{place} is being written by {holder(place / LOCK)}; wait for it or end it, "
                "then run the same command again"
            )
        with file:
            try:
                yield
            finally:
                _leave(place, keep_folder=is_given)


def _leave(place: Path, keep_folder: bool) -> None:
    (place / LOCK).unlink(missing_ok=True)
    if not keep_folder:
        with contextlib.suppress(OSError):  # it holds a pool, or somebody came meanwhile
            place.rmdir()
