"""Signs of life: who uses a folder of a store, where no kernel keeps a shared lock.

Each process that uses it writes an object of its own again and again. Ages are differences of times
that the store gave, so no clock of a machine counts.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Sequence

from rayal.errors import PlaceError
from rayal.places.place import Entry, Place

STALE_S = 300.0
_BEATS = 5  # within the time after which a process counts as dead
_LAST = "last"  # written by who ends, so that it is known when the folder was used


class Sign:
    """This process's object in a folder, written until `end`."""

    def __init__(self, folder: Place, stale_s: float = STALE_S) -> None:
        self.own = folder / uuid.uuid4().hex
        self._folder, self._stale_s = folder, stale_s
        self._ended = threading.Event()
        self.own.put_bytes(b"")
        for entry in _stale(folder.list(), self.own.name, stale_s):  # of processes that were killed
            (folder / entry.name).remove()
        self._beats = threading.Thread(target=self._beat, daemon=True, name="rayal-sign")
        self._beats.start()

    def end(self) -> None:
        """Takes the object away, and notes that the folder was used until now."""
        self._ended.set()
        self._beats.join()
        with contextlib.suppress(PlaceError):  # then it is stale after a while
            (self._folder / _LAST).put_bytes(b"")
            self.own.remove()

    def _beat(self) -> None:
        while not self._ended.wait(self._stale_s / _BEATS):
            with contextlib.suppress(PlaceError):  # the next one may come through
                self.own.put_bytes(b"")


def is_used(folder: Place, stale_s: float = STALE_S) -> bool:
    """Whether a process gave a sign of life there within `stale_s`. Writes an object, to know what
    time it is in the store."""
    now = folder.parent / f".now-{uuid.uuid4().hex}"
    now.put_bytes(b"")
    try:
        entry, entries = now.info(), folder.list()
    finally:
        now.remove()
    now_ns = None if entry is None else entry.changed_ns
    return any(one.name != _LAST and _age_s(one, now_ns) < stale_s for one in entries)


def _stale(entries: Sequence[Entry], own: str, stale_s: float) -> list[Entry]:
    now_ns = next((one.changed_ns for one in entries if one.name == own), None)
    others = [one for one in entries if one.name not in (own, _LAST)]
    return [one for one in others if _age_s(one, now_ns) >= stale_s]


def _age_s(entry: Entry, now_ns: int | None) -> float:
    """Gives how old an object is; 0 where the store gives no times: nothing counts as dead."""
    if now_ns is None or entry.changed_ns is None:
        return 0.0
    return (now_ns - entry.changed_ns) / 1e9
