"""What this machine gives a run: cores, memory as far as a container allows, room on a disk."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

# Of a control group, version 2 and 1; "max" or a huge number where there is no limit.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Machine:
    """Cores, bytes of memory that processes may have together, bytes free on the run's disk."""

    num_cores: int
    memory_bytes: int
    disk_bytes: int
    disk: str  # which folder's


def machine_of(run_dir: Path) -> Machine:
    """Gives this machine, with the disk that a folder lies on, or would."""
    place = existing(run_dir)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_bytes = min([psutil.virtual_memory().total, *_allowed()])
    return Machine(cores or 1, memory_bytes, shutil.disk_usage(place).free, str(run_dir))


def existing(folder: Path) -> Path:
    """Gives the folder, or the nearest one above that is there."""
    return next(one for one in (folder, *folder.parents) if one.is_dir())


def _allowed() -> list[int]:
    found = []
    for name in _LIMITS:
        path = Path(name)
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdecimal() and int(text) > 0:
            found.append(int(text))
    return found
