"""The folder of a pool: where it lies, and who writes there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rayal.errors import PoolError
from rayal.storage import explained

LOCK = ".lock"
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


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
        PoolError: another process writes there, or files cannot be locked there.
        RayalError: the disk is full.
    """
    with explained(place):
        is_given = place.is_dir() and not any(place.iterdir())  # else a kill may have left it
        file = _locked(place)
        if file is None:
            raise PoolError(
                f"{place} is being written by {_holder(place)}; wait for it or end it, then run "
                "the same command again"
            )
        with file:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            file.flush()
            try:
                yield
            finally:
                _leave(place, keep_folder=is_given)


def _leave(place: Path, keep_folder: bool) -> None:
    (place / LOCK).unlink(missing_ok=True)
    if not keep_folder:
        with contextlib.suppress(OSError):  # it holds a pool, or somebody came meanwhile
            place.rmdir()


def _locked(place: Path) -> BinaryIO | None:
    """Gives the lock's file, held until it is closed; None: another holds it."""
    while True:
        place.mkdir(parents=True, exist_ok=True)
        try:
            file = (place / LOCK).open("a+b")
        except FileNotFoundError:  # the folder was removed meanwhile
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), (place / LOCK).stat()):
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            file.close()
            if error.errno in _HELD:
                return None
            raise PoolError(
                f"files in {place} cannot be locked ({error.strerror}), so that two ingests could "
                "spoil each other there; name a folder on another disk"
            ) from error
        file.close()  # whoever held it removed it: the next is another file


def _holder(place: Path) -> str:
    with contextlib.suppress(OSError):
        return (place / LOCK).read_text(errors="replace").strip() or "another process"
    return "another process"
