import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rayal.errors import ConfigError, NeedsError, ScoringError
from rayal.keys import Keys
from rayal.scorers.bald import Bald
from rayal.scorers.consensus_kl import ConsensusKL
from rayal.scorers.entropy import Entropy
from rayal.scorers.least_confidence import LeastConfidence
from rayal.scorers.margin import Margin
from rayal.scorers.max_disagreement import MaxDisagreement
from rayal.scorers.power import Power
from rayal.scorers.predictive_variance import PredictiveVariance
from rayal.scorers.random import Random
from rayal.scorers.softmax import Softmax
from rayal.scorers.vote_entropy import VoteEntropy
from rayal.types import Outputs

KEYS = Keys(seed=3, round=2)
OF_PROBS = [LeastConfidence(), Margin(), Entropy()]
OF_MANY_LABELS = [LeastConfidence(True), Margin(True), Entropy(True)]
OF_DRAWS = [VoteEntropy(), ConsensusKL(), MaxDisagreement(), Bald()]
NOISY = [form(base, 2.0) for form in (Power, Softmax) for base in (*OF_PROBS, Bald())]
EVERY = [Random(), *OF_PROBS, *OF_MANY_LABELS, *OF_DRAWS, *NOISY, PredictiveVariance()]


def outputs(seed=0, n=64, k=5, c=7):
    gen = torch.Generator().manual_seed(seed)
    draws = torch.softmax(3 * torch.randn(n, k, c, generator=gen), dim=2)
    return Outputs(
        ids=torch.randperm(10 * n, generator=gen)[:n] - 100,
        arrays={"draws": draws, "probs": draws.mean(dim=1)},
    )


def one(scorer, name, rows):
    arrays = {name: torch.tensor(rows, dtype=torch.float32)}
    return scorer.score(Outputs(torch.arange(len(rows)), arrays), KEYS).tolist()


def take(out, rows):
    return Outputs(out.ids[rows], {name: array[rows] for name, array in out.arrays.items()})


def plain_entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def plain_kl(p, q):
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)


@pytest.mark.parametrize("scorer", EVERY, ids=lambda s: repr(s))
def test_every_scorer_gives_a_finite_number_a_row_that_no_order_changes(scorer):
    out = outputs()
    scores = scorer.score(out, KEYS)
    assert scores.shape == (64,)
    assert scores.dtype == torch.float64
    assert scores.isfinite().all()
    rows = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(scorer.score(take(out, rows), KEYS), scores[rows])
    pieces = [scorer.score(take(out, rows[lo : lo + 9]), KEYS) for lo in range(0, 64, 9)]
    assert torch.equal(torch.cat(pieces), scores[rows])
    assert torch.equal(scorer.score(outputs(), KEYS), scores)


@pytest.mark.parametrize("scorer", [*OF_PROBS, *OF_MANY_LABELS, *NOISY[:3]], ids=repr)
def test_exact_zeros_and_ones(scorer):
    scores = one(scorer, "probs", [[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0000001, 0.0, 0.0]])
    assert all(math.isfinite(score) for score in scores)


def test_sure_rows_are_worth_nothing():
    for scorer in OF_PROBS:
        assert one(scorer, "probs", [[0.0, 1.0], [1.0000001, 0.0]]) == [0.0, 0.0]
    for scorer in OF_MANY_LABELS:
        assert one(scorer, "probs", [[0.0, 1.0], [1.0000001, 0.0]]) == [0.0, 0.0]
    for scorer in OF_DRAWS:
        assert one(scorer, "draws", [[[0.0, 1.0], [0.0, 1.0]]]) == [0.0]


def test_numbers_by_hand():
    rows = [[0.5, 0.25, 0.25], [0.5, 0.5, 0.0], [0.125, 0.125, 0.75]]
    assert one(LeastConfidence(), "probs", rows) == [0.5, 0.5, 0.25]
    assert one(Margin(), "probs", rows) == [0.75, 1.0, 0.375]
    assert one(Entropy(), "probs", rows) == pytest.approx(
        [plain_entropy(r) for r in rows], rel=1e-6
    )
    assert one(LeastConfidence(True), "probs", [[0.5, 0.75]]) == [0.375]
    assert one(Margin(True), "probs", [[0.5, 0.75]]) == [0.75]
    both = (plain_entropy([0.5, 0.5]) + plain_entropy([0.75, 0.25])) / 2
    assert one(Entropy(True), "probs", [[0.5, 0.75]]) == pytest.approx([both])


def test_margin_of_any_shape_is_that_of_a_sort():
    probs = outputs(n=200).probs
    best = probs.double().sort(dim=1, descending=True).values
    expected = 1 - (best[:, 0] - best[:, 1])
    assert torch.equal(Margin().score(outputs(n=200), KEYS), expected)


def test_committees_by_hand():
    draws = [
        [[0.75, 0.25, 0.0], [0.25, 0.75, 0.0], [0.5, 0.25, 0.25]],
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.5, 0.25, 0.25]] * 3,
    ]
    means = [np.mean(row, axis=0) for row in draws]
    kls = [[plain_kl(p, mean) for p in row] for row, mean in zip(draws, means, strict=True)]
    votes = [plain_entropy([2 / 3, 1 / 3]), math.log(3), 0.0]
    assert one(VoteEntropy(), "draws", draws) == pytest.approx(votes)
    assert one(ConsensusKL(), "draws", draws) == pytest.approx([np.mean(kl) for kl in kls])
    assert one(MaxDisagreement(), "draws", draws) == pytest.approx([max(kl) for kl in kls])
    information = [
        plain_entropy(mean) - np.mean([plain_entropy(p) for p in row])
        for row, mean in zip(draws, means, strict=True)
    ]
    assert one(Bald(), "draws", draws) == pytest.approx(information)


def test_consensus_kl_and_bald_are_one_number():
    out = outputs(seed=4)
    torch.testing.assert_close(Bald().score(out, KEYS), ConsensusKL().score(out, KEYS))


def test_predictive_variance_sums_over_targets():
    draws = [[[1.0, 0.0], [3.0, 2.0], [5.0, 4.0], [7.0, 6.0]]]
    assert one(PredictiveVariance(), "draws", draws) == [10.0]


def test_noise_is_the_papers():
    out = outputs()
    score = Margin().score(out, KEYS).numpy()
    ids = out.ids.numpy()
    power = Power(Margin(), 4.0).score(out, KEYS).numpy()
    np.testing.assert_allclose(
        power, np.log(score) + KEYS.stream("power Margin").gumbel(ids) / 4.0, rtol=1e-12
    )
    soft = Softmax(Margin(), 4.0).score(out, KEYS).numpy()
    np.testing.assert_allclose(
        soft, score + KEYS.stream("softmax Margin").gumbel(ids) / 4.0, rtol=1e-12
    )


def test_power_samples_in_proportion_to_utility():
    probs = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.875, 0.125]])  # margin utilities 1, 1/2, 1/4
    wins = np.zeros(3)
    for seed in range(3000):
        out = Outputs(torch.arange(3), {"probs": probs})
        wins[int(Power(Margin(), 1.0).score(out, Keys(seed, 0)).argmax())] += 1
    expected = 3000 * np.array([4, 2, 1]) / 7
    assert ((wins - expected) ** 2 / expected).sum() < 13.8  # chi-square, 2 degrees: p = 0.001


def test_large_beta_is_the_plain_order():
    out = outputs(seed=9)
    plain = Entropy().score(out, KEYS).argsort()
    for form in (Power, Softmax):
        assert torch.equal(form(Entropy(), 1e9).score(out, KEYS).argsort(), plain)


def test_random_needs_nothing_and_changes_with_the_round():
    out = Outputs(torch.arange(10), {})
    assert Random().needs == ()
    assert not torch.equal(Random().score(out, KEYS), Random().score(out, Keys(3, 3)))


def test_needs_are_those_of_the_scorer_under_the_noise():
    assert Power(Bald()).needs == ("draws",)
    assert Softmax(Margin()).needs == ("probs",)
    with pytest.raises(NeedsError, match="output 'probs' was asked for"):
        Margin().score(Outputs(torch.arange(2), {}), KEYS)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("form", [Power, Softmax])
def test_a_beta_without_meaning_is_refused(form, beta):
    with pytest.raises(ConfigError, match=r"beta is .*, expected a finite number above 0"):
        form(Margin(), beta)


@dataclass(frozen=True)
class Signed:
    needs = ()

    def score(self, outputs, keys):
        return torch.tensor([1.0, -2.0, -3.0], dtype=torch.float64)


def test_power_refuses_scores_below_zero():
    out = Outputs(torch.tensor([7, 8, 9]), {})
    with pytest.raises(
        ScoringError, match=r"Signed gave 2 scores below 0 of 3 \(first sample_id 8: -2"
    ):
        Power(Signed()).score(out, KEYS)
    assert Softmax(Signed()).score(out, KEYS).isfinite().all()
    rejected = Outputs(out.ids, {}, rejected=torch.tensor([False, True, True]))
    assert Power(Signed()).score(rejected, KEYS).isfinite().all()


def test_nan_is_passed_on_for_the_engine_to_refuse():
    for scorer in (*OF_PROBS, *OF_MANY_LABELS):
        assert math.isnan(one(scorer, "probs", [[0.5, math.nan, 0.5]])[0])
    for scorer in OF_DRAWS:
        assert math.isnan(one(scorer, "draws", [[[0.5, math.nan], [0.5, 0.5]]])[0])
