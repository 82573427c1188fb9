"""What a command takes: CPU seconds and memory of its process and of all below it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


class Watch(threading.Thread):
    """Looks at a process and all that it started, over and over: what ended counts as last seen."""

    def __init__(self, pid: int, looks_at_memory: bool) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._known = {pid: psutil.Process(pid)}
        self._looks_at_memory = looks_at_memory
        self._over = threading.Event()

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return sum(self._cpu_s.values())

    def run(self) -> None:
        """Looks until told to end."""
        while not self._over.wait(_LOOK_S):
            self.look()

    def look(self) -> None:
        """Looks once."""
        for process in list(self._known.values()):
            with contextlib.suppress(psutil.Error):
                for child in process.children(recursive=True):
                    self._known.setdefault(child.pid, child)
        total_bytes = 0
        for pid, process in list(self._known.items()):
            try:
                times = process.cpu_times()
                self._cpu_s[pid, process.create_time()] = times.user + times.system
                if self._looks_at_memory:
                    total_bytes += _pss_bytes(pid)
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
    return Ran(wall_s, watch.cpu_s, watch.peak_bytes, output)


def _pss_bytes(pid: int) -> int:
    """Gives a process's share of what it has mapped, files included."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1_024
    return 0
