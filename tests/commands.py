"""A command in a process of its own, to be killed: start it, watch it, end it, count the rest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from rayal.errors import ConfigError, LedgerError
from rayal.ledger import Ledger
from rayal.rundir import RunDir

TESTS = Path(__file__).parent
WAIT_S = 240.0


class Command:
    """One attempt at `rayal run` or another command; its output lies in a file."""

    def __init__(self, overrides: Sequence[str], log: Path, command: str = "run") -> None:
        path = os.pathsep.join((str(TESTS), str(TESTS.parent)))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rayal.cli.main", command, *overrides],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=log.parent,
            )

    def wait(self) -> int:
        """Gives the exit code."""
        return self.process.wait(timeout=WAIT_S)

    def until(self, condition: Callable[[], bool]) -> bool:
        """Waits for the condition; gives whether it came true before the command ended."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"nothing came of it: {self.text()}"
            time.sleep(0.01)
        return True

    def family(self) -> list[psutil.Process]:
        """Gives the processes that this one started, Ray's among them."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """Gives the Ray actors that score."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_Carrier"):
                    found.append(process)
        return found

    def kill(self) -> list[psutil.Process]:
        """Ends the driver by SIGKILL; gives its orphans."""
        family = self.family()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=WAIT_S)
        return family

    def text(self) -> str:
        """Gives what the command said."""
        return self.log.read_text(errors="replace")


def left_over(orphans: Sequence[psutil.Process], within_s: float = 150.0) -> list[str]:
    """Gives which of the processes are there after a while, zombies left out.

    Two agents of a Ray whose driver was killed go last: they try for a minute to report it.
    """
    _, alive = psutil.wait_procs(list(orphans), timeout=within_s)
    found = []
    for process in alive:
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()[:2]))
    return found


def num_steps(run_dir: Path | str) -> int:
    """Gives how many steps and labels the ledger of a run has, 0 where there is none yet."""
    folder = RunDir(str(run_dir))
    if not folder.has_run:
        return 0
    try:
        with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
            return len(ledger.events()) + len(ledger.labels())
    except (LedgerError, ConfigError):  # its tables are not made yet, or it is not noted where
        return 0
