"""Opening a run that is there, for reading."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from rayal.ledger import Ledger
from rayal.rundir import RunDir


@contextlib.contextmanager
def open_run(path: str, ledger_url: str | None = None) -> Iterator[tuple[Ledger, RunDir]]:
    """Gives ledger and folder of a run; a ledger elsewhere comes from RAYAL_LEDGER_URL."""
    run_dir = RunDir(path)
    run_id = run_dir.read_id()
    url = ledger_url or os.environ.get("RAYAL_LEDGER_URL") or run_dir.ledger_url
    with Ledger.open(url, run_id, writer=False) as ledger:
        yield ledger, run_dir
