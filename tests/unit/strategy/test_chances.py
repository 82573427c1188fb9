"""Inclusion probabilities of noisy scores: what they say is what happens."""

import numpy as np
import pytest
import torch
from slices import cut, none_labelled

from rayal.keys import Keys
from rayal.scorers.margin import Margin
from rayal.scorers.power import Power
from rayal.scorers.softmax import Softmax
from rayal.selectors.top_k import TopK
from rayal.strategy import Strategy
from rayal.types import Outputs

N, BUDGET = 40, 8


@pytest.mark.parametrize("scorer", [Power(Margin(), 2.0), Softmax(Margin(), 3.0)], ids=repr)
def test_horvitz_thompson_sums_are_unbiased(scorer):
    rng = np.random.default_rng(0)
    probs = torch.from_numpy(rng.dirichlet(np.ones(4), N))
    ids = torch.arange(N)
    value = rng.random(N)
    strategy = Strategy(TopK(), scorer)
    sums, counts = [], np.zeros(N)
    for seed in range(3000):
        keys = Keys(seed, 1)
        scores = scorer.score(Outputs(ids, {"probs": probs}), keys).numpy()
        picks = strategy.select(cut(np.arange(N), scores, {}, 3), none_labelled(), BUDGET, keys)
        assert len(picks.ids) == BUDGET == len(picks.reasons)
        assert ((picks.probabilities > 0) & (picks.probabilities <= 1)).all()
        sums.append((value[picks.ids] / picks.probabilities).sum())
        counts[picks.ids] += 1
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - value.sum()) < 4 * error
    assert counts.std() > 50  # it is no uniform draw


def test_without_a_row_left_out_nothing_is_said():
    scorer = Power(Margin())
    scores = np.arange(5.0)
    picks = Strategy(TopK(), scorer).select(
        cut(np.arange(5), scores, {}), none_labelled(), 5, Keys(0, 0)
    )
    assert len(picks.ids) == 5
    assert np.isnan(picks.probabilities).all()


def test_one_more_row_changes_no_pick():
    scores = np.random.default_rng(1).random(50)
    rows = cut(np.arange(50), scores, {}, 3)
    noisy = Strategy(TopK(), Power(Margin())).select(rows, none_labelled(), 9, Keys(0, 0))
    plain = TopK().select(rows, none_labelled(), 9, Keys(0, 0))
    assert noisy.ids.tolist() == plain.ids.tolist()
    assert noisy.reasons == plain.reasons
