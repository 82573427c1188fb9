"""Every strategy in conf/ on the kinds of labels that it takes."""

from __future__ import annotations

import numpy as np
import pytest
from passes import Stage
from runs import FOR_NUMBERS, STRATEGIES

from rayal.engine.local import LocalEngine

BUDGET = 12
# They look at neither probs nor preds.
OF_INPUTS = ("gsx", "k_center", "kmeans", "lcmd", "random", "typiclust")


@pytest.fixture(scope="module")
def multilabel_stage(multilabel_pool, tmp_path_factory):
    """Lists of labels: an ensemble of three, 30 rows taken."""
    folder = tmp_path_factory.mktemp("multilabel-stage")
    return Stage.build(multilabel_pool, folder, "model.kind=multilabel")


def _select(stage, name, kind, folder, reverse=False):
    loop = stage.loop(name)
    engine = LocalEngine(reverse)
    engine.open(stage.pool, loop.predictor, loop.trainer)
    return stage.select(engine, loop.strategy.for_kind(kind), folder, BUDGET)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in FOR_NUMBERS])
def test_many_labels_a_row(name, multilabel_stage, tmp_path):
    done, picks = _select(multilabel_stage, name, "multilabel", tmp_path / "a")
    assert len(set(picks.ids.tolist())) == BUDGET
    assert not np.isin(picks.ids, multilabel_stage.taken.ids).any()
    scores = np.concatenate([one.scores for one in done.candidates.slices])
    assert np.isfinite(scores).all()
    again = _select(multilabel_stage, name, "multilabel", tmp_path / "b", reverse=True)[1]
    np.testing.assert_array_equal(picks.ids, again.ids)
    np.testing.assert_array_equal(picks.keys, again.keys)


@pytest.mark.parametrize("name", OF_INPUTS)
def test_numbers_for_strategies_that_look_at_inputs(name, number_stage, tmp_path):
    _, picks = _select(number_stage, name, "number", tmp_path)
    assert len(set(picks.ids.tolist())) == BUDGET
