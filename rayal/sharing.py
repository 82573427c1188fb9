"""Round 0 of one run taken over by another, so that strategies are compared from the same start."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from rayal.errors import ConfigError
from rayal.ledger import Ledger, compare_configs
from rayal.rundir import RunDir
from rayal.storage import atomic_path
from rayal.test_split import TEST

# Round 0 is chosen by the cold start: the strategy has no part in it.
NOT_IN_ROUND_0 = ("strategy.", "begin_from")


def adopt_round_0(
    ledger: Ledger,
    run_dir: RunDir,
    other_path: str,
    config: Mapping[str, Any],
    may_change: Sequence[str],
    may_grow: Sequence[str],
) -> None:
    """Copies round 0 of another run, its labels included, unless this run has one already.

    Raises:
        ConfigError: the other run has no finished round 0, or was configured otherwise in anything
            that round 0 depends on.
    """
    if ledger.event(0, "selected") is not None:
        return
    other_dir = RunDir(other_path)
    with Ledger.open(other_dir.ledger_url, other_dir.read_id(), writer=False) as other:
        differ = compare_configs(
            other.run().config, config, (*may_change, *NOT_IN_ROUND_0), may_grow
        )
        if differ:
            raise ConfigError(
                f"begin_from={other_path} was run with another configuration; put these keys "
                "right, or start without it:\n  " + "\n  ".join(differ)
            )
        if other.event(0, "tested") is None:
            raise ConfigError(
                f"begin_from={other_path} has not finished its round 0; run it first, or start "
                "without it"
            )
        for folder in (run_dir.round(TEST), run_dir.round(0), run_dir.checkpoint(0)):
            source = other_dir.inside(run_dir.relative(folder))
            if source.exists():
                with atomic_path(folder) as temporary:
                    shutil.copytree(source, temporary)
        taken = [*other.events(TEST), *other.events(0)]
        ledger.adopt(taken, [*other.labels(TEST), *other.labels(0)])
