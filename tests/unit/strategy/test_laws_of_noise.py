"""Rows that noisy scores take: the law of draws without replacement, by chi-square."""

import itertools

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

N, NUM_SEEDS = 6, 3000


@pytest.mark.parametrize(
    ("scorer", "weights_of"),
    [
        (Power(Margin(), 1.5), lambda margin: margin**1.5),
        (Softmax(Margin(), 3.0), lambda margin: np.exp(3.0 * margin)),
    ],
    ids=["power", "softmax"],
)
def test_batches_are_drawn_without_replacement_in_proportion_to_weights(scorer, weights_of):
    probs = np.random.default_rng(0).dirichlet(np.full(4, 0.7), N)
    top = np.sort(probs, axis=1)
    weights = weights_of(1.0 - (top[:, -1] - top[:, -2]))
    law = {}
    for pair in itertools.combinations(range(N), 2):
        law[pair] = sum(
            weights[a] / weights.sum() * weights[b] / (weights.sum() - weights[a])
            for a, b in (pair, pair[::-1])
        )
    assert sum(law.values()) == pytest.approx(1.0)
    strategy, counts = Strategy(TopK(), scorer), dict.fromkeys(law, 0)
    outputs = Outputs(torch.arange(N), {"probs": torch.from_numpy(probs)})
    for seed in range(NUM_SEEDS):
        keys = Keys(seed, 1)
        scores = scorer.score(outputs, keys).numpy()
        picks = strategy.select(cut(np.arange(N), scores, {}, 2), none_labelled(), 2, keys)
        counts[tuple(sorted(picks.ids.tolist()))] += 1
    chi2 = sum((counts[p] - NUM_SEEDS * q) ** 2 / (NUM_SEEDS * q) for p, q in law.items())
    assert chi2 < 36.1  # 14 degrees of freedom: p = 0.001
