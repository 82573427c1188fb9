"""crowd-kit's classifiers as a consensus. Where it is not installed, only the error is tested."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from rayal.consensus import Answers, Consensus, CrowdKit, DawidSkene, Majority
from rayal.errors import ConfigError
from rayal.types import Told, Vocabulary


def _crowd(num_rows: int = 400) -> tuple[Answers, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, num_rows)
    accuracy = np.asarray([0.9, 0.8, 0.85, 0.3, 0.7])
    who = np.stack([rng.permutation(5)[:3] for _ in range(num_rows)])
    wrong = (truth[:, None] + rng.integers(1, 4, who.shape)) % 4
    said = np.where(rng.random(who.shape) < accuracy[who], truth[:, None], wrong)
    ids = np.repeat(np.arange(num_rows), 3)
    names = tuple("abcde")
    return Answers.coded(ids, names, who.reshape(-1), said.reshape(-1), 4), truth


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crowdkit", None)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pip install 'rayal\[crowdkit\]'"):
        CrowdKit().agree(_crowd(10)[0])


@pytest.mark.parametrize(
    ("name", "ours"), [("MajorityVote", Majority()), ("DawidSkene", DawidSkene(strength=0.0))]
)
def test_what_both_have_is_equal(name: str, ours: Any) -> None:
    pytest.importorskip("crowdkit", reason="crowd-kit is an extra of its own: rayal[crowdkit]")
    answers, _ = _crowd()
    theirs, mine = CrowdKit(name, {}).agree(answers), ours.agree(answers)
    assert np.mean(theirs.place_L == mine.place_L) > (0.9 if name == "MajorityVote" else 0.98)
    assert np.allclose(theirs.share_P, mine.share_P, atol=1e-9 if name == "MajorityVote" else 0.1)


@pytest.mark.parametrize("name", ["MMSR", "GLAD", "MACE"])
def test_others_find_the_truth(name: str) -> None:
    pytest.importorskip("crowdkit", reason="crowd-kit is an extra of its own: rayal[crowdkit]")
    answers, truth = _crowd()
    found = CrowdKit(name).agree(answers)
    assert np.mean(found.place_L == truth) > 0.85
    assert ((found.share_P >= 0) & (found.share_P <= 1 + 1e-9)).all()
    reports = {one.annotator: one.accuracy for one in found.reports()}
    assert min(reports, key=reports.__getitem__) == "d"


def test_gold_answers_overrule(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("crowdkit", reason="crowd-kit is an extra of its own: rayal[crowdkit]")
    told = Told(
        np.asarray([0, 0, 1, 1]), ("x", "y"), np.asarray([0, 1, 0, 1]), ("a", "b"),
        np.asarray([0, 1, 0, 1]),
    )  # fmt: skip
    decided = Consensus(by=CrowdKit("MajorityVote")).decide(
        told, Vocabulary("class", ("a", "b")), settled={0: "b"}
    )
    assert decided.labels[0] == "b"
    assert decided.weights[0] == 1.0


def test_names_and_options_that_are_not_there() -> None:
    pytest.importorskip("crowdkit", reason="crowd-kit is an extra of its own: rayal[crowdkit]")
    answers, _ = _crowd(10)
    with pytest.raises(ConfigError, match="no classifier 'Oracle'"):
        CrowdKit("Oracle").agree(answers)
    with pytest.raises(ConfigError, match="does not take"):
        CrowdKit("MMSR", {"speed": 3}).agree(answers)
