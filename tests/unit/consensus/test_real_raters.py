"""EM beside majority: on people who rated words, and on a simulated crowd over real labels."""

from __future__ import annotations

import ast
import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rayal.consensus import Answers, DawidSkene, Majority, OneCoin

_FASHION = "/usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz"


def _ratings() -> np.ndarray:
    """(7520, 10) ratings from -4 to 4 of words and emoticons (Hutto and Gilbert, ICWSM 2014)."""
    found = importlib.util.find_spec("vaderSentiment")
    if found is None or found.origin is None:
        pytest.skip("vaderSentiment is not installed")
    text = (Path(found.origin).parent / "vader_lexicon.txt").read_text(encoding="utf-8")
    lists = [ast.literal_eval(line.split("\t")[-1]) for line in text.split("\n") if line.strip()]
    return np.asarray(lists)


def _in_three(ratings: np.ndarray) -> np.ndarray:
    return np.sign(ratings).astype(int) + 1


def _in_nine(ratings: np.ndarray) -> np.ndarray:
    return np.rint(ratings).astype(int) + 4


@pytest.mark.parametrize(
    ("classes", "num_classes", "gain"), [(_in_three, 3, -0.001), (_in_nine, 9, 0.03)]
)
@pytest.mark.parametrize("seed", range(10))
def test_three_raters_against_the_other_seven(
    seed: int, classes: Callable[[np.ndarray], np.ndarray], num_classes: int, gain: float
) -> None:
    """Negative, neutral, positive: as good as majority (measured: within 0.0009 either way, where
    chance alone makes 0.004). All nine ratings: far better, as three people rarely agree."""
    ratings = _ratings()
    assert ratings.shape == (7_520, 10)
    rng = np.random.default_rng(seed)
    turn = np.argsort(rng.random(ratings.shape), axis=1)
    mine, others = turn[:, :3], turn[:, 3:]
    rows = np.arange(len(ratings))[:, None]
    truth = classes(ratings[rows, others].mean(1))
    said = classes(ratings[rows, mine])
    names = [f"rater {one}" for one in mine.ravel()]
    answers = Answers.of(np.repeat(np.arange(len(ratings)), 3), names, said.ravel(), num_classes)
    votes, coin = (
        float((one.agree(answers).place_L == truth).mean()) for one in (Majority(), OneCoin())
    )
    assert coin >= votes + gain
    assert votes > 1.5 / num_classes


def _labels() -> np.ndarray:
    if not Path(_FASHION).exists():
        return np.arange(10_000) % 10  # Fashion-MNIST's test labels: each class a thousand times
    return np.frombuffer(gzip.decompress(Path(_FASHION).read_bytes())[8:], np.uint8).astype(int)


@pytest.mark.parametrize("seed", range(3))
def test_a_crowd_that_confuses_classes(seed: int) -> None:
    """Tables of errors drawn for each annotator: a true class is taken for a few others."""
    truth, rng = _labels(), np.random.default_rng(seed)
    num_annotators = 30
    skill = rng.uniform(0.35, 0.95, num_annotators)
    errors = rng.dirichlet(np.full(9, 0.3), (num_annotators, 10))
    tables = np.zeros((num_annotators, 10, 10))
    for who in range(num_annotators):
        for true in range(10):
            tables[who, true, np.arange(10) != true] = (1 - skill[who]) * errors[who, true]
            tables[who, true, true] = skill[who]
    who = np.stack([rng.permutation(num_annotators)[:3] for _ in range(len(truth))]).ravel()
    rows = np.repeat(np.arange(len(truth)), 3)
    ends = tables[who, truth[rows]].cumsum(1)
    said = np.minimum((ends < rng.random((len(rows), 1))).sum(1), 9)
    answers = Answers.of(rows, [f"a{one:02d}" for one in who], said, 10)
    votes, coin, tabled = (
        float((one.agree(answers).place_L == truth).mean())
        for one in (Majority(), OneCoin(), DawidSkene())
    )
    assert coin > votes + 0.01
    assert tabled > votes + 0.01
