"""The folder of a pool while it is made: under a name that tells whose it is, then renamed."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from rayal.errors import PoolError
from rayal.storage import commit_file, explained, remove_folder, sync


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
def making(final: Path) -> Iterator[Path]:
    """Gives a new folder beside `final`; what the block leaves there is renamed into place.

    On an error nothing appears under `final` and the folder is removed. One whose process was
    killed is removed by the next that makes the same pool on the same machine.

    Raises:
        RayalError: the disk is full.
    """
    mine = f".tmp-{final.name}-{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = final.parent / mine
    try:
        with explained(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            _remove_dead(final)
            temporary.mkdir()
            yield temporary
            for path in temporary.rglob("*"):
                sync(path)
            commit_file(temporary, final)
            sync(final.parent)
    finally:
        remove_folder(temporary)


def _remove_dead(final: Path) -> None:
    beginning = re.escape(f".tmp-{final.name}-{_machine()}-")
    for folder in final.parent.iterdir():
        found = re.fullmatch(beginning + r"([0-9]+)-[0-9a-f]{8}", folder.name)
        if found is not None and not _is_alive(int(found.group(1))):
            remove_folder(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", socket.gethostname()) or "localhost"
