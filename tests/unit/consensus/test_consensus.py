"""What a run makes of its answers: labels, weights and reports for every kind of label."""

from __future__ import annotations

import math
import random

import pytest

from rayal.consensus import Consensus, DawidSkene, Majority, agreement_of
from rayal.errors import ConfigError, LabelError
from rayal.types import Label, LabelEvent, Told, Vocabulary

CATS = Vocabulary("class", ("cat", "dog", "fox"))


def told(*said: tuple[int, str, Label | None]) -> Told:
    return Told.of([LabelEvent(i, value, f"{i}/{who}", annotator=who) for i, who, value in said])


def test_one_answer_each_is_taken_as_it_is() -> None:
    decided = Consensus().decide(told((3, "a", "dog"), (1, "b", "cat"), (2, "a", None)), CATS)
    assert decided.labels == {3: "dog", 1: "cat"}
    assert decided.weights == {3: 1.0, 1: 1.0}
    assert decided.reports == ()


def test_majority_and_its_weights() -> None:
    said = told((1, "a", "cat"), (1, "b", "cat"), (1, "c", "fox"), (2, "a", "dog"))
    decided = Consensus(by=Majority()).decide(said, CATS)
    assert decided.labels == {1: "cat", 2: "dog"}
    assert decided.weights == {1: pytest.approx(2 / 3), 2: 1.0}
    assert [one.annotator for one in decided.reports] == ["a", "b", "c"]
    alike = Consensus(by=Majority(), weights="none").decide(said, CATS)
    assert alike.weights == {1: 1.0, 2: 1.0}


@pytest.mark.parametrize("by", [Consensus(), Consensus(by=Majority()), Consensus(by=DawidSkene())])
def test_the_order_of_arrival_changes_nothing(by: Consensus) -> None:
    draw = random.Random(0)
    said = [(i, f"w{who}", draw.choice(CATS.classes)) for i in range(60) for who in range(i % 4)]
    first = by.decide(told(*said), CATS)
    for _ in range(3):
        draw.shuffle(said)
        again = by.decide(told(*said), CATS)
        assert (again.labels, again.weights) == (first.labels, first.weights)
        assert again.reports == first.reports


def test_numbers_and_several_classes() -> None:
    number = Vocabulary("number")
    decided = Consensus().decide(
        told((1, "a", 2.0), (1, "b", 4.0), (2, "a", 1.0), (2, "b", 3.0)), number
    )
    assert decided.labels == {1: pytest.approx(3.0), 2: pytest.approx(2.0)}
    several = Vocabulary("multilabel", ("x", "y"))
    said = told((1, "a", ["x"]), (1, "b", ["x", "y"]), (1, "c", ["x"]), (2, "a", []))
    decided = Consensus(by=Majority()).decide(said, several)
    assert decided.labels == {1: ["x"], 2: []}
    assert decided.weights == {1: pytest.approx((1 + 2 / 3) / 2), 2: 1.0}


def test_what_a_ledger_notes() -> None:
    said = told(*((i, f"w{who:03d}", "cat") for i in range(2) for who in range(150)))
    noted = agreement_of(Consensus().decide(said, CATS))
    assert noted["num"] == 150
    assert len(noted["each"]) == 100
    assert noted["alpha"] is None  # all name one class
    assert not math.isnan(noted["each"][0]["accuracy"])


def test_words() -> None:
    with pytest.raises(ConfigError, match=r"consensus\.weights is 'all'"):
        Consensus(weights="all")  # type: ignore[arg-type]
    with pytest.raises(LabelError, match="'wolf' is outside the vocabulary"):
        Consensus().decide(told((1, "a", "wolf"), (1, "b", "cat")), CATS)
