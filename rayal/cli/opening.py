"""Opening a run that is there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from rayal.ledger import Ledger
from rayal.rundir import RunDir
from rayal.types import Vocabulary


@contextlib.contextmanager
def open_run(
    path: str, ledger_url: str | None = None, writer: bool = False
) -> Iterator[tuple[Ledger, RunDir]]:
    """Gives ledger and folder of a run, for reading unless `writer` is true; a ledger that is not
    in the folder is where RAYAL_LEDGER_URL says, else where the run noted it."""
    run_dir = RunDir(path)
    run_id = run_dir.read_id()
    own, noted = run_dir.path / "ledger.db", run_dir.ledger_url
    is_here = noted == f"sqlite:///{own}" and own.exists()
    elsewhere = None if is_here else os.environ.get("RAYAL_LEDGER_URL")
    with Ledger.open(ledger_url or elsewhere or noted, run_id, writer=writer) as ledger:
        yield ledger, run_dir


def labeler_of(config: Mapping[str, Any], run_dir: RunDir) -> tuple[Any, Vocabulary]:
    """Gives a run's labeler, bound to the run's folder, and what a label of the run may be.

    Raises:
        ConfigError: it cannot be built from the recorded configuration.
    """
    from rayal.cli.config import build

    vocabulary = Vocabulary(config["kind"], tuple(config["classes"]))
    labeler = build(config["labeler"])
    if (bind := getattr(labeler, "bind", None)) is not None:
        # No labels are looked up: an oracle has written down what it was asked.
        bind(lambda ids: [None] * len(ids), vocabulary, str(run_dir.path / "labeler"))
    return labeler, vocabulary
