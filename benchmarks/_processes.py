"""What a command takes: CPU seconds and memory of its process and of all below it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_LOOK_S = 0.5


@dataclass(frozen=True)
class Ran:
    """A command that ended well."""

    wall_s: float
    cpu_s: float
    peak_bytes: int  # PSS of all processes together
    output: str
    peaks: Mapping[str, int] = field(default_factory=dict)  # PSS of the largest process of a role


class Watch(threading.Thread):
    """Looks at a process and all that it started, over and over: what ended counts as last seen."""

    def __init__(self, pid: int, looks_at_memory: bool, look_s: float = _LOOK_S) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.peaks: dict[str, int] = {}  # PSS of the largest process of a role
        self._root, self._look_s = pid, look_s
        self._read_bytes: dict[tuple[int, float], int] = {}
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._known = {pid: psutil.Process(pid)}
        self._looks_at_memory = looks_at_memory
        self._over = threading.Event()

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return sum(self._cpu_s.values())

    @property
    def read_bytes(self) -> int:
        """Bytes that disks gave so far, of mapped files too; what lay in memory is none."""
        return sum(self._read_bytes.values())

    def run(self) -> None:
        """Looks until told to end."""
        while not self._over.wait(self._look_s):
            self.look()

    def look(self) -> None:
        """Looks once."""
        for process in list(self._known.values()):
            with contextlib.suppress(psutil.Error):
                if process.pid != self._root and process.ppid() in self._known:
                    continue  # its children are found with its parent's: one scan of the system
                for child in process.children(recursive=True):
                    self._known.setdefault(child.pid, child)
        total_bytes = 0
        for pid, process in list(self._known.items()):
            try:
                times = process.cpu_times()
                one = pid, process.create_time()
                self._cpu_s[one] = times.user + times.system
                self._read_bytes[one] = process.io_counters().read_bytes
                if self._looks_at_memory:
                    size_bytes = _pss_bytes(pid)
                    total_bytes += size_bytes
                    role = "" if pid == self._root else _role(process)
                    self.peaks[role] = max(self.peaks.get(role, 0), size_bytes)
            except (psutil.Error, OSError):
                del self._known[pid]
        self.peak_bytes = max(self.peak_bytes, total_bytes)

    def end(self) -> None:
        """Ends the thread."""
        self._over.set()
        self.join()


def run(command: Sequence[str], environment: Mapping[str, str], looks_at_memory: bool) -> Ran:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    start_s = time.monotonic()
    running = subprocess.Popen(
        list(command),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watch = Watch(running.pid, looks_at_memory)
    watch.start()
    output, _ = running.communicate()
    wall_s = time.monotonic() - start_s
    watch.end()
    if running.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {running.returncode}: {output[-800:]}")
    return Ran(wall_s, watch.cpu_s, watch.peak_bytes, output, watch.peaks)


def _role(process: psutil.Process) -> str:
    """Gives what a process is for, as its command line says: a class of actors, or a program."""
    words = process.cmdline() or [process.name()]
    if words[0].startswith("ray::"):
        return re.split(r"[.( ]", words[0])[0]
    script = next((word for word in words[1:3] if word.endswith(".py")), words[0])
    return Path(script.split()[0]).name


def _pss_bytes(pid: int) -> int:
    """Gives a process's share of what it has mapped, files included."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1_024
    return 0
