"""A folder of a store for one process at a time, where no kernel keeps a lock.

Whoever wants it creates an object of the next number, and has the folder if no object of a smaller
number is alive. The owner writes its own object again and again; one that it did not write for a
while is dead. Ages are differences of times that the store gave, so no clock of a machine counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rayal.errors import PlaceError
from rayal.places.place import Entry, Place

STALE_S = 60.0
_BEATS = 6  # within the time after which an owner counts as dead
_TRIES = 20  # at a number that another took in the same moment


class Held(Exception):
    """Another process has the folder: `who` in words, and how long ago it last said so."""

    def __init__(self, who: str, age_s: float) -> None:
        super().__init__(who, age_s)
        self.who, self.age_s = who, age_s


@dataclass(frozen=True)
class Claim:
    """A folder of objects, of which one is ours."""

    folder: Place
    own: Place
    name: bytes  # what stands in it: numbers begin again once all are gone, and another has ours
    stale_s: float

    @property
    def is_ours(self) -> bool:
        """Whether the own object is there, and is not another's of the same number."""
        with contextlib.suppress(FileNotFoundError):
            return self.own.read_bytes() == self.name
        return False

    def check(self) -> None:
        """Refuses to go on where another took the folder, for this process was silent too long.

        Raises:
            PlaceError: it did.
        """
        if not self.is_ours or _alive(self, _entries(self.folder)):
            raise PlaceError(
                f"{self.folder.parent} was taken over by another process, for this one gave no "
                f"sign of life for {self.stale_s:g} s; nothing more is written: run the same "
                "command again"
            )


@contextlib.contextmanager
def claimed(folder: Place, stale_s: float = STALE_S) -> Iterator[Claim]:
    """Keeps a folder of a store for this process while the block runs.

    Raises:
        Held: another process has it.
        PlaceError: the store does not do as asked.
    """
    name = _name_of_this_process()
    claim = Claim(folder, _created(folder, name), name, stale_s)
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(claim, ended), daemon=True)
    try:
        entries = _entries(folder)
        alive = _alive(claim, entries)
        if alive:
            raise Held(*alive)
        for number in entries:
            if number < claim.own.name:
                (folder / number).remove()
        beats.start()
        yield claim
    finally:
        ended.set()
        if beats.ident is not None:
            beats.join()
        with contextlib.suppress(PlaceError):  # then it is dead after a while
            if claim.is_ours:
                claim.own.remove()


def _created(folder: Place, name: bytes) -> Place:
    """Gives the object that was made, of the number after all that are there."""
    for _ in range(_TRIES):
        numbers = _entries(folder)
        own = folder / f"{1 + int(max(numbers, default='0')):08d}"
        if own.create_bytes(name):
            return own
    raise PlaceError(f"{folder.parent} is asked for by too many processes at once; try again")


def _alive(claim: Claim, entries: dict[str, Entry]) -> tuple[str, float] | None:
    """Gives the words for an owner before us, and how long it was silent; None: there is none."""
    now_ns = entries[claim.own.name].changed_ns if claim.own.name in entries else None
    for number, entry in sorted(entries.items()):
        if number >= claim.own.name:
            break
        age_s = 0.0
        if now_ns is not None and entry.changed_ns is not None:
            age_s = (now_ns - entry.changed_ns) / 1e9
        with contextlib.suppress(FileNotFoundError):
            owner = json.loads((claim.folder / number).read_bytes())
            if age_s < claim.stale_s and not _is_gone(owner):
                return str(owner["who"]), max(0.0, age_s)
    return None


def _beat(claim: Claim, ended: threading.Event) -> None:
    """Writes the own object again, until the end or until it is there no more."""
    while not ended.wait(claim.stale_s / _BEATS):
        with contextlib.suppress(PlaceError):  # the next one may come through
            if not claim.is_ours:
                return
            claim.own.put_bytes(claim.name)


def _entries(folder: Place) -> dict[str, Entry]:
    return {entry.name: entry for entry in folder.list() if entry.name.isdigit()}


def _name_of_this_process() -> bytes:
    who = f"process {os.getpid()} on {socket.gethostname()}"
    started = psutil.Process().create_time()
    words: dict[str, Any] = {"who": who, "pid": os.getpid(), "started": started}
    return json.dumps({**words, "kernel": _kernel(), "key": uuid.uuid4().hex}).encode()


def _is_gone(owner: dict[str, Any]) -> bool:
    """Whether an owner was a process of this very kernel that has ended: nobody has to wait."""
    if not owner.get("kernel") or owner["kernel"] != _kernel():
        return False
    try:
        return bool(abs(psutil.Process(owner["pid"]).create_time() - owner["started"]) > 1.0)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _kernel() -> str:
    """Gives what two processes share only if they see each other's numbers; "" if unknown."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""
