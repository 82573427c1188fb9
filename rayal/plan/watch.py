"""What this process and those it starts take: CPU seconds and memory, by what they are for.

Memory is counted as private pages and pages of files apart. Files, torch's libraries above all, are
shared: how large a process's share is depends on who else maps them, which a plan knows better.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_LOOK_S = 0.02  # a look takes 0.1 ms a process
DRIVER, SCORER, RANK, OTHER = "driver", "scorer", "rank", "other"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4_096


@dataclass(frozen=True)
class Memory:
    """Bytes in memory: private ones, and those of files, which processes share."""

    own: int = 0
    files: int = 0

    def max(self, other: Memory) -> Memory:
        """Gives the larger of each."""
        return Memory(max(self.own, other.own), max(self.files, other.files))


@dataclass
class Taken:
    """What was taken between two looks: CPU seconds, and the peak of the largest process a role."""

    cpu_s: float = 0.0
    peaks: dict[str, Memory] = field(default_factory=dict)


class Watch(threading.Thread):
    """Looks at this process and all below it until told to end."""

    def __init__(self, look_s: float = _LOOK_S) -> None:
        super().__init__(daemon=True, name="rayal-watch")
        self._look_s = look_s
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._me = psutil.Process()
        self._roles: dict[int, str] = {self._me.pid: DRIVER}
        self._cpu_s: dict[int, float] = {}
        self._peaks: dict[str, Memory] = {}
        self._turn = 0
        self._since_s = 0.0

    def run(self) -> None:
        """Looks again and again."""
        while not self._over.wait(self._look_s):
            self.look()

    def look(self, finds: bool = False) -> None:
        """Looks once; at new processes every tenth time, or where it `finds`."""
        with self._lock:
            if finds or self._turn % 10 == 0:
                self._find()
            self._turn += 1
            for pid, role in list(self._roles.items()):
                if role == OTHER and not finds:  # Ray has twenty of them
                    continue
                try:
                    size = memory_of(pid)
                    if finds or self._turn % 10 == 1:
                        self._cpu_s[pid] = _cpu_s(pid)
                except (OSError, psutil.Error):
                    del self._roles[pid]
                    continue
                self._peaks[role] = size.max(self._peaks.get(role, Memory()))

    def take(self) -> Taken:
        """Gives what was taken since the last time, and begins anew."""
        self.look(finds=True)
        with self._lock:
            total_s = sum(self._cpu_s.values())
            found = Taken(total_s - self._since_s, self._peaks)
            self._since_s, self._peaks = total_s, {}
        return found

    def end(self) -> None:
        """Ends the thread."""
        self._over.set()
        self.join()

    def _find(self) -> None:
        with contextlib.suppress(psutil.Error):
            for child in self._me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if self._roles.get(child.pid, OTHER) == OTHER:  # Ray names its workers late
                        self._roles[child.pid] = _role(child)


def memory_of(pid: int | None = None) -> Memory:
    """Gives the memory of a process, of this one by default."""
    place = Path(f"/proc/{'self' if pid is None else pid}/statm")
    if not place.exists() and not Path("/proc/self/statm").exists():
        return Memory(
            psutil.Process(pid).memory_info().rss
        )  # no Linux: all of it counts as its own
    resident, shared = (int(word) for word in place.read_text().split()[1:3])
    return Memory((resident - shared) * _PAGE_BYTES, shared * _PAGE_BYTES)


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _role(process: psutil.Process) -> str:
    words = process.cmdline() or [process.name()]
    first = re.split(r"[.( ]", words[0])[0]
    if first == "ray::_Carrier":
        return SCORER
    if first in ("ray::RayTrainWorker", "ray::RayTrainWorker__execute"):
        return RANK
    return RANK if any("rayal.trainers.group" in word for word in words[1:]) else OTHER
