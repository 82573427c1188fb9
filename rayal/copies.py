"""Local copies of folders that lie in a store: whole files go up when they get their name, and come
down when they are asked for.

The path of a copy says what it is a copy of: SCRATCH/ATTEMPT/s3/bucket/run is s3://bucket/run. A
path is therefore all that a worker on another machine must be told. An attempt (a process that
opened the folder, and those that it told) has copies of its own, so that nothing in them is older
than the store. They are on the local disk, where slices are mapped; who ends last removes them.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rayal.errors import ConfigError
from rayal.locks import lock, lock_shared

if TYPE_CHECKING:
    from rayal.places import Entry, Place

_SCRATCH = f"rayal-copies-{os.getuid()}"
_held: dict[Path, BinaryIO] = {}  # by attempt: the lock that says that this process uses it
_own: list[Path] = []  # the attempt of this process, once there is one
_seen: dict[Path, Entry] = {}  # what the store said of a file when it was fetched
_grown: dict[Path, float] = {}  # when a file that grows was put
_EVERY_S = 5.0


def copy_of(url: str) -> Path:
    """Gives the folder of this process's copy of a folder in a store, made; nothing is fetched.

    Raises:
        ConfigError: the scratch folder is another user's.
    """
    from rayal.places import Place

    if not _own:
        _own.append(_scratch() / uuid.uuid4().hex[:12])
    scheme, _, rest = Place.of(url).url.partition("://")
    folder = _own[0].joinpath(scheme, *rest.strip("/").split("/"))
    _hold(_own[0])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def origin(path: Path) -> Place | None:
    """Gives the place in a store that a path is a copy of, or None."""
    parts = path.parts
    if _SCRATCH not in parts:
        return None
    at = parts.index(_SCRATCH)
    if len(parts) < at + 4:
        return None
    from rayal.places import Place

    _hold(Path(*parts[: at + 2]))
    return Place.of(f"{parts[at + 2]}://{'/'.join(parts[at + 3 :])}")


def put(made: Path, final: Path) -> None:
    """Puts a finished file or folder where `final` is a copy of; elsewhere does nothing."""
    place = origin(final)
    if place is None:
        return
    if not made.is_dir():
        place.put_file(made)
        return
    place.remove_folder()  # of an attempt that was not recorded
    for file in sorted(one for one in made.rglob("*") if one.is_file()):
        (place / file.relative_to(made).as_posix()).put_file(file)


def put_now_and_then(path: Path) -> None:
    """Puts a file that grows, unless that was done in the last seconds; elsewhere does nothing."""
    place, now = origin(path), time.monotonic()
    if place is not None and now - _grown.get(path, -math.inf) > _EVERY_S:
        place.put_file(path)
        _grown[path] = now


def fetch(path: Path, again: bool = False) -> None:
    """Gets a file that is not here, or `again` one that may be older than the store's, from where
    `path` is a copy of, if it is there."""
    place = origin(path)
    if place is not None and (again or not path.exists()):
        with contextlib.suppress(FileNotFoundError):
            place.get_file(path)


def fetch_folder(folder: Path) -> None:
    """Makes a copy of a folder what the folder in the store is now."""
    place = origin(folder)
    if place is None:
        return
    found = {folder / one.name: (place / one.name, one) for one in place.list()}
    for path, (there, said) in found.items():
        if not path.exists() or (path in _seen and _seen[path] != said):
            there.get_file(path)
            _seen[path] = said
    for path in [one for one in _seen if one.is_relative_to(folder) and one not in found]:
        path.unlink(missing_ok=True)
        del _seen[path]


def names_in(folder: Path) -> set[str]:
    """Gives the names of what lies in a folder of which there is a copy; none elsewhere."""
    place = origin(folder)
    return set() if place is None else {one.name.partition("/")[0] for one in place.list()}


def remove(folder: Path) -> None:
    """Removes what a folder is a copy of; elsewhere does nothing."""
    if (place := origin(folder)) is not None:
        place.remove_folder()


def drop(folder: Path) -> None:
    """Removes a copy of a folder, here alone; elsewhere does nothing."""
    if origin(folder) is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _scratch() -> Path:
    scratch = Path(tempfile.gettempdir()) / _SCRATCH
    scratch.mkdir(mode=0o700, exist_ok=True)
    if scratch.stat().st_uid != os.getuid():
        raise ConfigError(
            f"{scratch}, for local copies of what lies in a store, belongs to another user; set "
            "TMPDIR to a folder of your own"
        )
    return scratch


def _hold(attempt: Path) -> None:
    """Says that this process uses an attempt, and removes those that nobody uses."""
    if attempt in _held:
        return
    _held[attempt] = lock_shared(attempt.with_suffix(".lock"))
    attempt.mkdir(parents=True, exist_ok=True)
    if len(_held) == 1:
        atexit.register(_let_go)
        _sweep(attempt.parent)


def _sweep(scratch: Path) -> None:
    for path in scratch.glob("*.lock"):
        if path.with_suffix("") in _held or (alone := lock(path)) is None:
            continue
        with alone:
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)


def _let_go() -> None:
    scratches = {attempt.parent for attempt in _held}
    for file in _held.values():
        file.close()
    _held.clear()
    for scratch in scratches:
        _sweep(scratch)
