"""Numbers of several annotators, several classes a sample, and how far annotators agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from rayal.consensus import AgreedNumbers, Answers, OneCoin, RobustMean, agree_on_each_class, alpha
from rayal.errors import LabelError
from rayal.types import Told


def agree(rows: Sequence[int], names: Sequence[str], said: Sequence[float]) -> AgreedNumbers:
    known = sorted(set(names), reverse=True)  # any order
    return RobustMean().agree(rows, known, [known.index(name) for name in names], said)


def test_bias_spread_and_outliers() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 10, 800)
    bias, spread = np.array([2.0, -1.0, 0.0, -1.0]), np.array([0.3, 0.5, 3.0, 0.5])
    rows = np.repeat(np.arange(800), 4)
    who = np.tile(np.arange(4), 800)
    said = truth[rows] + bias[who] + spread[who] * rng.normal(size=3_200)
    wild = rng.random(3_200) < 0.03
    said[wild] += rng.choice([-200.0, 200.0], int(wild.sum()))
    agreed = agree(rows, [f"a{one}" for one in who], said)
    plain = said.reshape(800, 4).mean(1)
    assert np.sqrt(np.mean((agreed.value_L - truth) ** 2)) < 0.6
    assert np.sqrt(np.mean((plain - truth) ** 2)) > 8
    np.testing.assert_allclose(agreed.bias_W, bias, atol=0.25)
    assert agreed.spread_W[2] > 3 * agreed.spread_W[0]


def test_numbers_in_any_order_and_alone() -> None:
    rng = np.random.default_rng(1)
    rows, said = rng.integers(0, 50, 400), rng.normal(size=400)
    names = [f"a{one}" for one in rng.integers(0, 6, 400)]
    turn = rng.permutation(400)
    first = agree(rows, names, said)
    again = agree(rows[turn], [names[one] for one in turn], said[turn])
    assert first.value_L.tobytes() == again.value_L.tobytes()
    alone = agree([4, 2], ["a", "b"], [1.5, -3.0])
    assert (alone.ids.tolist(), alone.value_L.tolist()) == ([2, 4], [-3.0, 1.5])
    same = agree([1, 1, 2, 2], ["a", "b", "a", "b"], [1.0, 1.0, 5.0, 5.0])
    assert same.value_L.tolist() == [1.0, 5.0]
    with pytest.raises(LabelError, match=r"answer 1 \(sample_id 9\) is nan"):
        agree([8, 9], ["a", "a"], [1.0, math.nan])


def test_each_class_is_a_question_of_its_own() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random((600, 3)) < [0.5, 0.2, 0.7]
    # The third annotator sees the first class well and guesses the others.
    errors = np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.05, 0.5, 0.5], [0.2, 0.1, 0.2]])
    rows, who = np.repeat(np.arange(600), 4), np.tile(np.arange(4), 600)
    said = truth[rows] ^ (rng.random((2_400, 3)) < errors[who])
    everything = Told(rows, ("a0", "a1", "a2", "a3"), who, (), np.arange(2_400))
    ids, probs = agree_on_each_class(OneCoin(), everything, said, {})
    votes = said.reshape(600, 4, 3).mean(1) >= 0.5
    assert ids.tolist() == list(range(600))
    assert ((probs >= 0.5) == truth).mean() > (votes == truth).mean() + 0.02


def test_alpha_of_the_books_example() -> None:
    # Krippendorff, Computing Krippendorff's alpha-reliability, 2011, section C: four observers,
    # twelve units, some not answered; nominal alpha is .743.
    told = {
        "a": "1 2 3 3 2 1 4 1 2 . . .",
        "b": "1 2 3 3 2 2 4 1 2 5 . 3",
        "c": ". 3 3 3 2 3 4 2 2 5 1 .",
        "d": "1 2 3 3 2 4 4 1 2 5 1 .",
    }
    triples = [
        (unit, who, int(said) - 1)
        for who, line in told.items()
        for unit, said in enumerate(line.split())
        if said != "."
    ]
    rows, names, said = zip(*triples, strict=True)
    assert round(alpha(Answers.of(rows, names, said, 5)), 3) == 0.743


def test_alpha_at_its_ends() -> None:
    perfect = Answers.of([1, 1, 2, 2], ["a", "b", "a", "b"], [0, 0, 1, 1], 2)
    assert alpha(perfect) == 1.0
    assert math.isnan(alpha(Answers.of([1, 2], ["a", "b"], [0, 1], 2)))
    assert math.isnan(alpha(Answers.of([1, 1], ["a", "b"], [0, 0], 2)))
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(5_000), 2)
    chance = Answers.of(rows, ["a", "b"] * 5_000, rng.integers(0, 4, 10_000), 4)
    assert abs(alpha(chance)) < 0.03
