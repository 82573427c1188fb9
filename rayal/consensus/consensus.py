"""What a run makes of its answers: a label a sample, how much it counts, and who is worth what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from rayal.consensus.agreement import alpha
from rayal.consensus.answers import Answers, Report
from rayal.consensus.multilabel import Aggregation, agree_on_each_class
from rayal.consensus.numbers import RobustMean
from rayal.consensus.one_coin import OneCoin
from rayal.consensus.quarantine import Quarantine, without
from rayal.errors import ConfigError
from rayal.types import Label, Told, Vocabulary


@dataclass(frozen=True)
class Decided:
    """Labels and weights by sample_id; what annotators are worth where answers can be compared."""

    labels: dict[int, Label]
    weights: dict[int, float]
    reports: tuple[Report, ...] = ()
    alpha: float = math.nan
    quarantined: tuple[str, ...] = ()  # annotators whose answers were not heard


def agreement_of(decided: Decided) -> dict[str, Any]:
    """Gives what a ledger notes of the annotators: how far they agree, and of each of the 100 that
    answered most how often the labels bear it out."""
    most = sorted(decided.reports, key=lambda one: (-one.num_answers, one.annotator))[:100]
    return {
        "num": len(decided.reports),
        "alpha": None if math.isnan(decided.alpha) else decided.alpha,
        "each": [asdict(one) for one in most],
        "quarantined": list(decided.quarantined),
    }


@dataclass(frozen=True)
class Consensus:
    """Makes one label of a sample's answers.

    by        for classes, and for several classes a sample: each of those is decided by itself
    numbers   for numbers
    quarantine  whose answers are not heard, of classes; None: everybody's are
    weights   what a label counts in training: `probability`, that it is true (of several classes
              the mean over them), or `none`: 1, as numbers always do

    Where no sample has two answers nobody can be compared: every answer is the label, and counts 1.
    """

    by: Aggregation = field(default_factory=OneCoin)
    numbers: RobustMean = field(default_factory=RobustMean)
    weights: Literal["probability", "none"] = "probability"
    quarantine: Quarantine | None = None

    def __post_init__(self) -> None:
        if self.weights not in ("probability", "none"):
            raise ConfigError(
                f"consensus.weights is {self.weights!r}, expected probability or none; correct it"
            )

    def decide(
        self,
        told: Told,
        vocabulary: Vocabulary,
        gold: Mapping[int, Label] | None = None,
        settled: Mapping[int, Label] | None = None,
    ) -> Decided:
        """Gives the labels of the answers that hold. O(A log A) and the aggregation's own cost;
        nothing depends on the order of the answers.

        gold     by sample_id the labels of gold questions: they tell who is right, and are not
                 among the labels that are given
        settled  what somebody decided of a sample: it is that sample's label, with weight 1, and
                 tells who is right like a gold one

        Raises:
            LabelError: an answer is outside the vocabulary.
        """
        gold, settled = gold or {}, settled or {}
        found = self._decided(told, vocabulary, {**gold, **settled})
        labels = {i: label for i, label in found.labels.items() if i not in gold} | dict(settled)
        weights = {i: found.weights[i] for i in labels if i not in settled}
        return replace(found, labels=labels, weights=weights | dict.fromkeys(settled, 1.0))

    def _decided(self, told: Told, vocabulary: Vocabulary, known: Mapping[int, Label]) -> Decided:
        is_compared = not known.keys().isdisjoint(told.ids.tolist())
        if len(np.unique(told.ids)) == len(told.ids) and not is_compared:
            values = [told.values[place] for place in told.value_A.tolist()]
            labels: dict[int, Any] = dict(zip(told.ids.tolist(), values, strict=True))
            return Decided(labels, dict.fromkeys(labels, 1.0))
        encoded = vocabulary.encode(told.values)
        if vocabulary.kind == "number":
            agreed = self.numbers.agree(
                told.ids, told.annotators, told.annotator_A, encoded[told.value_A]
            )
            labels = dict(zip(agreed.ids.tolist(), agreed.value_L.tolist(), strict=True))
            return Decided(labels, dict.fromkeys(labels, 1.0))
        if vocabulary.kind == "multilabel":
            return self._several(told, encoded > 0.5, vocabulary, known)
        return self._classes(told, encoded.astype(np.int64), vocabulary, known)

    def _classes(
        self, told: Told, place_V: Any, vocabulary: Vocabulary, known: Mapping[int, Label]
    ) -> Decided:
        """Decides, sets those apart who are worse than they may be, and decides again, until all
        who are heard are good enough."""
        outcasts: dict[str, Report] = {}
        truths = vocabulary.encode(list(known.values())).astype(np.int64).tolist()
        true_places = dict(zip(known, truths, strict=True))
        agreement = math.nan
        while True:
            heard = without(told, set(outcasts))
            answers = Answers.coded(
                heard.ids,
                [name for name in heard.annotators if name not in outcasts] or heard.annotators,
                _places(heard, outcasts),
                place_V[heard.value_A],
                len(vocabulary.classes),
                true_places,
            )
            found = self.by.agree(answers)
            reports = found.reports()
            agreement = alpha(answers) if not outcasts else agreement
            bad = set() if self.quarantine is None else self.quarantine.outcasts(reports)
            if not bad:
                break
            outcasts |= {one.annotator: one for one in reports if one.annotator in bad}
        asked = answers.ids.tolist()
        names = [vocabulary.classes[place] for place in found.place_L.tolist()]
        weights = self._weights(asked, found.probability_L)
        everybody = sorted([*reports, *outcasts.values()], key=lambda one: one.annotator)
        labels = dict(zip(asked, names, strict=True))
        return Decided(labels, weights, tuple(everybody), agreement, tuple(sorted(outcasts)))

    def _several(
        self, told: Told, said_VC: Any, vocabulary: Vocabulary, known: Mapping[int, Label]
    ) -> Decided:
        truths_GC = vocabulary.encode(list(known.values())) > 0.5
        true_classes = dict(zip(known, truths_GC, strict=True))
        ids, probs_LC = agree_on_each_class(self.by, told, said_VC, true_classes)
        classes = vocabulary.classes
        labels: dict[int, Any] = {
            int(sample_id): [classes[place] for place in np.flatnonzero(probs_C >= 0.5)]
            for sample_id, probs_C in zip(ids, probs_LC, strict=True)
        }
        sure_L = np.maximum(probs_LC, 1.0 - probs_LC).mean(1)
        return Decided(labels, self._weights(ids.tolist(), sure_L))

    def _weights(self, ids: Sequence[int], probability_L: Any) -> dict[int, float]:
        if self.weights == "none":
            return dict.fromkeys(ids, 1.0)
        return dict(zip(ids, probability_L.tolist(), strict=True))


def _places(heard: Told, outcasts: dict[str, Report]) -> Any:
    """Gives (A,) places among the annotators that are left."""
    if not outcasts:
        return heard.annotator_A
    place_W = np.cumsum([name not in outcasts for name in heard.annotators]) - 1
    return place_W[heard.annotator_A]
