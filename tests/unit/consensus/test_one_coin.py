"""One-coin EM and majority: against a plain form, on simulated annotators, in any order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rayal.consensus import Answers, Majority, OneCoin
from rayal.errors import ConfigError, LabelError


def simulated(
    num_rows: int, num_classes: int, accuracies: np.ndarray, overlap: int, seed: int
) -> tuple[np.ndarray, Answers]:
    """Gives the truth, and answers of `overlap` annotators a row drawn from all."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, num_rows)
    who = np.stack([rng.permutation(len(accuracies))[:overlap] for _ in range(num_rows)])
    other = (truth[:, None] + rng.integers(1, num_classes, who.shape)) % num_classes
    said = np.where(rng.random(who.shape) < accuracies[who], truth[:, None], other)
    rows = np.repeat(np.arange(num_rows), overlap)
    names = [f"a{one:03d}" for one in who.ravel()]
    return truth, Answers.of(rows, names, said.ravel(), num_classes)


def plain(answers: Answers, one: OneCoin, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """EM over (L, C), answer by answer."""
    num_rows, num_classes = len(answers.ids), answers.num_classes
    triples = list(
        zip(
            answers.row_A.tolist(),
            answers.annotator_A.tolist(),
            answers.said_A.tolist(),
            strict=True,
        )
    )
    probs = np.zeros((num_rows, num_classes))
    for row, _, said in triples:
        probs[row, said] += 1
    probs /= probs.sum(1, keepdims=True)
    for _ in range(num_steps):
        right = np.zeros(len(answers.annotators))
        num = np.zeros(len(answers.annotators))
        for row, who, said in triples:
            right[who] += probs[row, said]
            num[who] += 1
        accuracy = (right + one.strength * right.sum() / num.sum()) / (num + one.strength)
        accuracy = np.clip(accuracy, 1e-6, 1 - 1e-6)
        prior = probs.sum(0) + 1 / num_classes
        prior /= prior.sum()
        logs = np.tile(np.log(prior), (num_rows, 1))
        for row, who, said in triples:
            wrong = math.log((1 - accuracy[who]) / (num_classes - 1))
            logs[row] += wrong
            logs[row, said] += math.log(accuracy[who]) - wrong
        probs = np.exp(logs - logs.max(1, keepdims=True))
        probs /= probs.sum(1, keepdims=True)
    return probs, accuracy


@pytest.mark.parametrize(("num_classes", "seed"), [(2, 0), (3, 1), (10, 2), (40, 3)])
def test_equals_the_plain_form(num_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, answers = simulated(150, num_classes, rng.uniform(0.4, 0.95, 9), 3, seed)
    one = OneCoin(max_steps=7, tolerance=0.0)
    agreed = one.agree(answers)
    probs, accuracy = plain(answers, one, 7)
    assert agreed.num_steps == 7
    np.testing.assert_allclose(agreed.posterior(np.arange(150)), probs, atol=1e-9)
    np.testing.assert_allclose(agreed.accuracy_W, accuracy, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_beats_majority_and_knows_the_annotators(seed: int) -> None:
    accuracies = np.random.default_rng(seed + 50).uniform(0.4, 0.95, 40)
    truth, answers = simulated(4_000, 10, accuracies, 3, seed)
    by_em, by_votes = OneCoin().agree(answers), Majority().agree(answers)
    right_em = float((by_em.place_L == truth).mean())
    right_votes = float((by_votes.place_L == truth).mean())
    assert right_em > right_votes + 0.01
    # Of 300 answers each: how often they were right strays from this by 0.027 itself.
    assert np.abs(by_em.accuracy_W - accuracies).mean() < 0.04
    # What it is sure of is true as often as it says.
    assert abs(float(by_em.probability_L.mean()) - right_em) < 0.02


def test_arrival_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    rows, said = rng.integers(0, 300, 2_000), rng.integers(0, 5, 2_000)
    names = [f"w{one}" for one in rng.integers(0, 20, 2_000)]
    first = OneCoin().agree(Answers.of(rows, names, said, 5))
    for seed in range(3):
        turn = np.random.default_rng(seed).permutation(2_000)
        names_too = [names[place] for place in turn]
        again = OneCoin().agree(Answers.of(rows[turn], names_too, said[turn], 5))
        assert first.share_P.tobytes() == again.share_P.tobytes()
        assert first.accuracy_W.tobytes() == again.accuracy_W.tobytes()


def test_a_liar_is_found_out() -> None:
    accuracies = np.array([0.9, 0.85, 0.9, 0.1])
    truth, answers = simulated(1_000, 2, accuracies, 4, 0)
    agreed = OneCoin().agree(answers)
    assert np.abs(agreed.accuracy_W - accuracies).max() < 0.05
    report = agreed.reports()[3]
    assert report.annotator == "a003"
    assert report.num_answers == 1_000
    assert report.low < report.accuracy < report.high < 0.2
    assert float((agreed.place_L == truth).mean()) > 0.95


def test_gold_answers_judge_and_are_not_estimated() -> None:
    # Both say the same of all but the gold rows: only those tell which of the two is right.
    rows = [*range(20), *range(20), *range(100, 120), *range(100, 120)]
    said = [0] * 20 + [1] * 20 + [0] * 20 + [1] * 20
    names = (["good"] * 20 + ["bad"] * 20) * 2
    gold = dict.fromkeys(range(100, 120), 0)
    agreed = OneCoin().agree(Answers.of(rows, names, said, 2, gold))
    assert agreed.accuracy_W[1] > 0.9 > 0.1 > agreed.accuracy_W[0]
    assert agreed.place_L.tolist() == [0] * 40
    assert agreed.probability_L[20:].tolist() == [1.0] * 20
    unnamed = Answers.of([5, 5], ["a", "b"], [0, 1], 3, {5: 2})
    assert OneCoin().agree(unnamed).place_L.tolist() == [2]
    assert OneCoin().agree(unnamed).posterior(np.array([0])).tolist() == [[0.0, 0.0, 1.0]]


def test_majority_counts_and_breaks_ties_by_the_vocabulary() -> None:
    answers = Answers.of([7, 7, 7, 3, 3], ["a", "b", "c", "a", "b"], [2, 2, 0, 1, 0], 3)
    agreed = Majority().agree(answers)
    assert answers.ids.tolist() == [3, 7]
    assert agreed.place_L.tolist() == [0, 2]
    np.testing.assert_allclose(agreed.probability_L, [1 / 2, 2 / 3])
    np.testing.assert_allclose(agreed.posterior(np.array([1])), [[1 / 3, 0, 2 / 3]])


def test_one_answer_a_sample_is_the_label() -> None:
    agreed = OneCoin().agree(Answers.of([1, 2, 3], ["a", "b", "a"], [4, 0, 2], 5))
    assert agreed.place_L.tolist() == [4, 0, 2]
    assert (agreed.probability_L > 0.9).all()


def test_nothing_and_one_class() -> None:
    assert OneCoin().agree(Answers.of([], [], [], 3)).place_L.tolist() == []
    assert OneCoin().agree(Answers.of([1, 1], ["a", "b"], [0, 0], 1)).place_L.tolist() == [0]


def test_words() -> None:
    with pytest.raises(LabelError, match=r"answer 1 \(sample_id 8\) is class 3 of 3"):
        Answers.of([7, 8], ["a", "b"], [0, 3], 3)
    with pytest.raises(LabelError, match="2 sample_ids, 1 annotators and 2 answers"):
        Answers.of([7, 8], ["a"], [0, 1], 3)
    with pytest.raises(ConfigError, match="max_steps=0"):
        OneCoin(max_steps=0)
