import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from rayal.errors import ConfigError, NeedsError, ScoringError
from rayal.keys import Keys
from rayal.scorers.asked import scores_of
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
OF_MANY_DRAWS = [VoteEntropy(True), ConsensusKL(True), MaxDisagreement(True), Bald(True)]
NOISY = [form(base, 2.0) for form in (Power, Softmax) for base in (*OF_PROBS, Bald())]
EVERY = [
    Random(), *OF_PROBS, *OF_MANY_LABELS, *OF_DRAWS, *OF_MANY_DRAWS, *NOISY, PredictiveVariance(),
]  # fmt: skip


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
    for scorer in (*OF_DRAWS, *OF_MANY_DRAWS):
        assert one(scorer, "draws", [[[0.0, 1.0], [0.0, 1.0]]]) == [0.0]
    for scorer in OF_MANY_DRAWS:
        assert one(scorer, "draws", [[[0.0, 1.0000001], [0.0, 1.0]]]) == [
            pytest.approx(0, abs=1e-6)
        ]


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


def test_committees_on_many_labels_by_hand():
    draws = [
        [[0.75, 0.25], [0.25, 0.5], [0.5, 0.875]],
        [[1.0, 0.0], [0.0, 0.0], [1.0, 0.125]],
        [[0.5, 0.25]] * 3,
    ]

    def binary(p):
        return plain_entropy([p, 1 - p])

    expected = []
    for row in draws:
        of_labels = []
        for ps in zip(*row, strict=True):
            mean = sum(ps) / 3
            kls = [plain_kl([p, 1 - p], [mean, 1 - mean]) for p in ps]
            yes = sum(p > 0.5 for p in ps) / 3
            information = binary(mean) - sum(map(binary, ps)) / 3
            of_labels.append([binary(yes), sum(kls) / 3, max(kls), information])
        expected.append(np.mean(of_labels, axis=0))
    assert expected[0][0] == pytest.approx(plain_entropy([1 / 3, 2 / 3]))  # 1/2 votes no
    for column, scorer in enumerate(OF_MANY_DRAWS):
        by_hand = [row[column] for row in expected]
        assert one(scorer, "draws", draws) == pytest.approx(by_hand, abs=1e-15), scorer


@pytest.mark.parametrize("scorer", [*OF_MANY_LABELS, *OF_MANY_DRAWS], ids=repr)
def test_many_labels_are_the_mean_of_as_many_yes_or_no_questions(scorer):
    gen = torch.Generator().manual_seed(5)
    # Sixteenths, so that float32 holds 1 - p; and sure ones among them.
    draws_NKC = torch.randint(0, 17, (50, 4, 3), generator=gen) / 16
    out = Outputs(torch.arange(50), {"draws": draws_NKC, "probs": draws_NKC.mean(dim=1)})
    plain = replace(scorer, multilabel=False)
    of_labels = []
    for place in range(3):
        arrays = {
            name: torch.stack((1 - array[..., place], array[..., place]), dim=-1)
            for name, array in out.arrays.items()
        }
        of_labels.append(plain.score(Outputs(out.ids, arrays), KEYS))
    expected = torch.stack(of_labels).mean(dim=0)
    torch.testing.assert_close(scorer.score(out, KEYS), expected, rtol=1e-6, atol=1e-7)
    assert expected.max() > 0


def test_consensus_kl_and_bald_are_one_number():
    out = outputs(seed=4)
    torch.testing.assert_close(Bald().score(out, KEYS), ConsensusKL().score(out, KEYS))
    torch.testing.assert_close(Bald(True).score(out, KEYS), ConsensusKL(True).score(out, KEYS))


def test_a_scorer_that_nobody_told_of_the_labels_takes_them_for_classes():
    out = outputs()
    for scorer in (*OF_PROBS, *OF_DRAWS):
        assert scorer.multilabel is None
        told = replace(scorer, multilabel=False)
        assert torch.equal(told.score(out, KEYS), scorer.score(out, KEYS))


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
    for scorer in (*OF_DRAWS, *OF_MANY_DRAWS):
        assert math.isnan(one(scorer, "draws", [[[0.5, math.nan], [0.5, 0.5]]])[0])


@dataclass(frozen=True)
class Answers:
    answer: Any
    needs = ()

    def score(self, outputs, keys):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (torch.zeros(3, 1), r"Tensor of shape \(3, 1\)"),
        (torch.zeros(2), r"Tensor of shape \(2,\)"),
        (torch.tensor(0.5), r"Tensor of shape \(\)"),
        (np.zeros(3), r"ndarray of shape \(3,\)"),
        ([0.0, 1.0, 2.0], "list"),
        (None, "NoneType"),
    ],
)
def test_an_answer_that_is_not_a_number_a_row_is_refused(answer, found):
    out = Outputs(torch.tensor([7, 8, 9]), {})
    expected = (
        rf"^Answers gave {found} for 3 rows \(first sample_id 7\), expected a torch.Tensor of "
        r"shape \(3,\); mend its score\(\), which owes one number a row$"
    )
    for ask in (
        lambda: scores_of(Answers(answer), out, KEYS),
        lambda: Power(Answers(answer)).score(out, KEYS),
        lambda: Softmax(Answers(answer)).score(out, KEYS),
    ):
        with pytest.raises(ScoringError, match=expected):
            ask()


def test_an_answer_of_another_precision_becomes_float64():
    out = Outputs(torch.tensor([7, 8, 9]), {})
    for dtype in (torch.float16, torch.int64, torch.bool):
        scores = scores_of(Answers(torch.tensor([0, 1, 1], dtype=dtype)), out, KEYS)
        assert scores.dtype == torch.float64
        assert scores.tolist() == [0.0, 1.0, 1.0]
    assert scores_of(Answers(torch.zeros(0)), Outputs(torch.arange(0), {}), KEYS).shape == (0,)
