"""Round 0 of one run taken over by another, so that strategies are compared from the same start."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from rayal.errors import ConfigError
from rayal.gold import GOLD
from rayal.identity import MAY_CHANGE, MAY_GROW
from rayal.ledger import Event, Ledger, compare_configs
from rayal.rundir import RunDir
from rayal.storage import atomic_path, folder_here
from rayal.test_split import TEST

# Round 0 is chosen by the cold start: the strategy has no part in it.
NOT_IN_ROUND_0 = ("strategy.", "stopping.", "num_rounds")
# Its labels were ordered before there was a model.
NOT_IN_ITS_LABELS = (
    *NOT_IN_ROUND_0, "model.module.", "predictor.", "trainer.", "metric", "proxy"
)  # fmt: skip
_LABEL_STEPS = ("selected", "gold", "ordered", "labelled")


def adopt_round_0(
    ledger: Ledger,
    run_dir: RunDir,
    other_path: str,
    config: Mapping[str, Any],
) -> None:
    """Copies round 0 of another run, unless this run has one already.

    All of it where both runs are configured alike but for the strategy. Where model, predictor or
    trainer differ, its batch and labels alone: what was bought serves the mended run.

    Raises:
        ConfigError: the other run has no labels of round 0, or was configured otherwise in anything
            that they depend on.
    """
    if ledger.event(0, "selected") is not None:
        return
    other_dir = RunDir(other_path)
    with Ledger.open(other_dir.ledger_url, other_dir.read_id(), writer=False) as other:
        theirs = other.run().config
        differ = compare_configs(theirs, config, (*MAY_CHANGE, *NOT_IN_ITS_LABELS), MAY_GROW)
        if differ:
            raise ConfigError(
                f"begin_from={other_path} was run with another configuration; put these keys "
                f"right, or start without it: {'; '.join(differ)}"
            )
        alike = not compare_configs(theirs, config, (*MAY_CHANGE, *NOT_IN_ROUND_0), MAY_GROW)
        whole = alike and other.event(0, "tested") is not None
        if other.event(0, "labelled") is None:
            raise ConfigError(
                f"begin_from={other_path} has not got all labels of its round 0; run it first, or "
                "start without it"
            )
        folders = [run_dir.round(TEST), run_dir.round(0)]
        models = [run_dir.checkpoint(0), run_dir.checkpoint(0, "proxy")]
        for folder in [*folders, *models] if whole else folders:
            source = folder_here(other_dir.inside(run_dir.relative(folder)))
            if source.exists():
                with atomic_path(folder) as temporary:
                    shutil.copytree(source, temporary)
        steps = [step for step in other.events(0) if whole or _is_of_labels(step)]
        jobs = {one.result.job_id for one in steps if one.step.startswith(("ordered", "again/"))}
        gold = [one for one in other.labels(GOLD) if one.job_id in jobs]
        labels = [*other.labels(TEST), *gold, *other.labels(0)]
        ledger.adopt([*other.events(TEST), *steps], labels)


def _is_of_labels(event: Event) -> bool:
    return event.step in _LABEL_STEPS or event.step.startswith(("intent/", "ack/"))
