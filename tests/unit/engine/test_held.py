"""The engine that writes nothing gives what the local one gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from passes import Stage

from rayal.engine.held import HeldEngine
from rayal.engine.local import LocalEngine
from rayal.engine.scoring import ShardReport
from rayal.engine.survivors import Rows


def _open(engine: LocalEngine, stage: Stage, strategy: str) -> LocalEngine:
    loop = stage.loop(strategy)
    engine.open(stage.pool, loop.predictor, loop.trainer)
    return engine


@pytest.mark.parametrize("strategy", ["margin", "k_center", "badge", "cluster_margin", "seals"])
def test_picks_are_those_of_files(strategy: str, class_stage: Stage, tmp_path: Path) -> None:
    parts = class_stage.loop(strategy).strategy
    if parts.scorer is not None:
        parts = replace(parts, num_candidates=100)
    found = []
    for name, engine in (("files", LocalEngine()), ("held", HeldEngine())):
        opened = _open(engine, class_stage, strategy)
        done, picks = class_stage.select(opened, parts, tmp_path / name, 12)
        found.append((picks.ids.tolist(), picks.reasons, done.tallies))
        assert done.labelled.num_rows == len(class_stage.taken.ids)
        opened.close()
    assert found[0] == found[1]
    assert list(tmp_path.rglob("files*/shard-*.arrow"))
    assert not list(tmp_path.rglob("held*/shard-*.arrow"))


def test_rows_that_are_held_are_not_scored_and_passes_do_not_mix(
    class_stage: Stage, tmp_path: Path
) -> None:
    engine = _open(HeldEngine(), class_stage, "margin")
    strategy = class_stage.loop("margin").strategy
    scoring = class_stage.scoring(strategy, tmp_path / "one", 12)
    rows = Rows(np.array([-5]), np.array([0.25]), {})
    assert isinstance(engine, HeldEngine)
    engine.hold(
        scoring.folder, ShardReport(0, 1, 1, 1, 0, None), rows, rows.take(np.array([], int))
    )
    first = engine.score(scoring)
    ids = np.concatenate([one.ids for one in first.candidates.slices])
    assert -5 in ids
    assert first.candidates.num_rows < class_stage.pool.num_rows - 200 + 2
    second = engine.score(class_stage.scoring(strategy, tmp_path / "two", 12))
    ids = np.concatenate([one.ids for one in second.candidates.slices])
    assert -5 not in ids
    assert second.candidates.num_rows == class_stage.pool.num_rows - len(class_stage.taken.ids)
