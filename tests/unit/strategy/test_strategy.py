from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from rayal.errors import ConfigError
from rayal.scorers.bald import Bald
from rayal.scorers.entropy import Entropy
from rayal.scorers.margin import Margin
from rayal.scorers.power import Power
from rayal.scorers.predictive_variance import PredictiveVariance
from rayal.scorers.random import Random
from rayal.scorers.softmax import Softmax
from rayal.selectors.badge import Badge
from rayal.selectors.gsy import GSy
from rayal.selectors.k_center import KCenter
from rayal.selectors.limits import Limits
from rayal.selectors.top_k import TopK
from rayal.strategy import Strategy
from rayal.types import Picks


@dataclass(frozen=True)
class Named:
    needs: tuple[str, ...] = ("probs",)


def test_number_of_candidates():
    assert Strategy(Named()).keep(10) is None
    assert Strategy(Named(), Named()).keep(10) == 100_000
    assert Strategy(Named(), Named()).keep(20_000) == 200_000
    assert Strategy(Named(), Named(), 500).keep(500) == 500


def test_needs_of_scorer():
    assert Strategy(Named()).needs_of_scorer == ()
    assert Strategy(Named(), Named(("draws",))).needs_of_scorer == ("draws",)


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ConfigError, match=r"budget is 501, more than strategy.num_candidates = 500"
    ):
        Strategy(Named(), Named(), 500).keep(501)
    with pytest.raises(ConfigError, match="num_candidates is 0, expected at least 1"):
        Strategy(Named(), Named(), 0)
    with pytest.raises(ConfigError, match="has no scorer"):
        Strategy(Named(), None, 500)


# ------------------------------------------------------------------------------ kinds of labels


@pytest.mark.parametrize(("kind", "is_multilabel"), [("class", False), ("multilabel", True)])
def test_the_kind_of_labels_reaches_every_part(kind, is_multilabel):
    told = Strategy(Badge(), Softmax(Power(Bald(), 3.0), 2.0), 50).for_kind(kind)
    assert told == Strategy(Badge(is_multilabel), Softmax(Power(Bald(is_multilabel), 3.0), 2.0), 50)
    assert told.for_kind(kind) == told
    assert repr(told.scorer) == (
        f"Softmax(scorer=Power(scorer=Bald(multilabel={is_multilabel}), beta=3.0), beta=2.0)"
    )


def test_a_value_that_agrees_with_the_labels_stays():
    assert Strategy(TopK(), Margin(True)).for_kind("multilabel").scorer == Margin(True)
    assert Strategy(TopK(), Margin(False)).for_kind("class").scorer == Margin(False)


@pytest.mark.parametrize(
    ("strategy", "kind", "message"),
    [
        (Strategy(TopK(), Margin(True)), "class", "^Margin has multilabel=True, but .* kind class"),
        (Strategy(TopK(), Power(Entropy(False))), "multilabel", "^Entropy has multilabel=False, "),
        (Strategy(Badge(True)), "class", "^Badge has multilabel=True, .* leave it out"),
    ],
)
def test_a_value_at_odds_with_the_labels_is_refused(strategy, kind, message):
    with pytest.raises(ConfigError, match=message):
        strategy.for_kind(kind)


@pytest.mark.parametrize(
    ("strategy", "kind", "message"),
    [
        (
            Strategy(TopK(), Softmax(Margin())),
            "number",
            "^Margin is for labels of kind class or multilabel, these are of kind number; "
            "take strategy=predictive_variance, lcmd, ",
        ),
        (Strategy(Badge()), "number", "^Badge is for labels of kind class or multilabel"),
        (
            Strategy(GSy()),
            "multilabel",
            "^GSy is for labels of kind number, these are of kind multilabel; "
            "take strategy=margin, entropy, ",
        ),
        (Strategy(TopK(), PredictiveVariance()), "class", "^PredictiveVariance is for labels of"),
    ],
)
def test_a_part_for_labels_of_another_kind_is_refused(strategy, kind, message):
    with pytest.raises(ConfigError, match=message):
        strategy.for_kind(kind)


class Plain:
    needs = ("probs",)


@dataclass(frozen=True)
class Mixture:
    scorers: Any
    made: int = field(default=0, init=False)
    needs = ("probs",)


@pytest.mark.parametrize("kind", ["class", "multilabel", "number"])
def test_parts_of_ones_own_are_let_through(kind):
    for part in (Plain(), Named(), Mixture([Plain(), 0.5]), Mixture(("a", "b"))):
        strategy = Strategy(Plain(), part)
        assert strategy.for_kind(kind).scorer is part
        assert strategy.for_kind(kind).selector is strategy.selector


def test_parts_inside_parts_of_ones_own_are_told():
    told = Strategy(TopK(), Mixture([Margin(), Plain(), Power(Bald())])).for_kind("multilabel")
    first, _, last = told.scorer.scorers
    assert (first, last) == (Margin(True), Power(Bald(True)))
    assert Strategy(TopK(), Mixture((Margin(),))).for_kind("class").scorer.scorers == (
        Margin(False),
    )
    with pytest.raises(ConfigError, match="Margin is for labels of kind class or multilabel"):
        Strategy(TopK(), Mixture([Margin()])).for_kind("number")


def test_the_names_of_classes_reach_every_part():
    limits = Limits(group="predicted_class", quotas={"cat": 1})
    told = Strategy(TopK(limits), Margin()).for_kind("class", ["cat", "dog"])
    assert told.selector.limits == replace(limits, classes=("cat", "dog"))
    assert told.for_kind("class", ["cat", "dog"]) == told
    assert Strategy(TopK(limits)).for_kind("class").selector.limits == limits
    with pytest.raises(ConfigError, match="no class: cat; the classes are ant, bee: "):
        Strategy(TopK(limits)).for_kind("class", ["ant", "bee"])


def test_only_a_uniform_draw_knows_its_chances() -> None:
    nan = np.full(3, np.nan)
    picks = Picks(np.arange(3), np.ones(3), np.ones(3), nan, ("why",) * 3)
    assert Strategy(TopK(), Random()).with_chances(picks, 12).probabilities.tolist() == [0.25] * 3
    for other in (Strategy(TopK(), Margin()), Strategy(KCenter(), Random()), Strategy(KCenter())):
        assert np.isnan(other.with_chances(picks, 12).probabilities).all()
