"""Who writes a set of features, who reads it, and who may remove it.

On a disk by locks of the kernel, which end with their process. In a store by a claim (one process
writes) and by signs of life (many read): one without a sign for five minutes counts as dead.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from rayal.errors import PlaceError, PoolError
from rayal.locks import holder, lock
from rayal.places import Place
from rayal.places.claim import STALE_S, Held, claimed
from rayal.places.signs import Sign, is_used

USED = ".used"  # a file whose time of change is that of the last use; in a store a folder of signs
WRITER = ".lock"  # held by who writes a set
_AGAIN = "run rayal embed for this pool again"

# Sets that this process has open.
_OPEN: dict[str, BinaryIO | Sign] = {}


def keep_open(place: Place) -> None:
    """Marks a set as used now, and keeps it from being removed while this process lives.

    Raises:
        PoolError: it is being removed.
        ConfigError: files cannot be locked there.
    """
    if not place.is_local:
        if place.url not in _OPEN:
            with contextlib.suppress(PlaceError):  # who may not write cannot remove it, either
                _OPEN[place.url] = Sign(place / USED)
        return
    if not os.access(place.local, os.W_OK):  # nor can anybody like us remove it
        return
    path = place.local / USED
    if place.url not in _OPEN:
        file = lock(path, shared=True)
        if file is None:
            raise PoolError(f"the features {place} are being removed; {_AGAIN}")
        _OPEN[place.url] = file
    os.utime(path)


def let_go(place: Place) -> None:
    """Lets others remove a set that this process needs no more."""
    held = _OPEN.pop(place.url, None)
    if isinstance(held, Sign):
        held.end()
    elif held is not None:
        held.close()


@contextlib.contextmanager
def alone_in_set(place: Place, stale_s: float = STALE_S) -> Iterator[None]:
    """Keeps a set for this process to write while the block runs.

    Raises:
        PoolError: another process writes it.
        ConfigError: files cannot be locked there.
    """
    advice = "wait for it or end it, then run the same command again"
    if place.is_local:
        file = lock(place.local / WRITER)
        if file is None:
            who = holder(place.local / WRITER)
            raise PoolError(f"the features {place} are being written by {who}; {advice}")
        with file:
            yield
        return
    try:
        with claimed(place / WRITER, stale_s):
            yield
    except Held as held:
        raise PoolError(
            f"the features {place} are being written by {held.who}, which gave its last sign of "
            f"life {held.age_s:.0f} s ago; {advice}: after {stale_s:g} s without one it is passed "
            "over"
        ) from held


def keep_others_out(held: contextlib.ExitStack, place: Place) -> bool:
    """Whether nobody writes a set or has it open; then nobody can until `held` ends. In a store
    who comes meanwhile can: look with `is_open` once the set has no description any more."""
    if place.is_local:
        for name in (WRITER, USED):
            file = lock(place.local / name)
            if file is None:
                return False
            held.enter_context(file)
        return True
    try:
        held.enter_context(claimed(place / WRITER))
    except Held:
        return False
    return not is_open(place)


def is_open(place: Place) -> bool:
    """Whether a process has a set of a store open."""
    return not place.is_local and is_used(place / USED)


def last_used_ns(place: Place) -> int:
    """Gives when a set was used last, by the clock of the disk or store; 0: nothing tells."""
    if place.is_local:
        path = place.local / USED
        return path.stat().st_mtime_ns if path.exists() else 0
    return max((entry.changed_ns or 0 for entry in (place / USED).list()), default=0)


@atexit.register
def _let_all_go() -> None:
    for url in list(_OPEN):
        let_go(Place(url))
