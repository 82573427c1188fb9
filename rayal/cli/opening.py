"""Opening a run that is there, for reading."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from rayal.ledger import Ledger
from rayal.rundir import RunDir


@contextlib.contextmanager
def open_run(path: str, ledger_url: str | None = None) -> Iterator[tuple[Ledger, RunDir]]:
    """Gives ledger and folder of a run; a ledger that is not in the folder is where
    RAYAL_LEDGER_URL says, else where the run noted it."""
    run_dir = RunDir(path)
    run_id = run_dir.read_id()
    own, noted = run_dir.path / "ledger.db", run_dir.ledger_url
    is_here = noted == f"sqlite:///{own}" and own.exists()
    elsewhere = None if is_here else os.environ.get("RAYAL_LEDGER_URL")
    with Ledger.open(ledger_url or elsewhere or noted, run_id, writer=False) as ledger:
        yield ledger, run_dir
