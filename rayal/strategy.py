"""A strategy: which score each row gets, how many rows stay candidates, and who picks of them; and
a proxy, which leaves rows out before a costly model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from rayal.errors import ConfigError
from rayal.keys import Keys
from rayal.models.explain import explained, is_own
from rayal.types import (
    Candidates,
    Kind,
    Needs,
    Picks,
    Predictor,
    Restriction,
    Scorer,
    Selector,
    Trainer,
)

_CANDIDATES_A_PICK = 10
_LEAST_CANDIDATES = 100_000
_FOR_CLASSES = "margin, entropy, bald, badge, cluster_margin or k_center"
_FITS: dict[Kind, str] = {
    "class": _FOR_CLASSES,
    "multilabel": _FOR_CLASSES,
    "number": "predictive_variance, lcmd, gsx, gsy, igs, k_center, kmeans or random",
}


@dataclass(frozen=True)
class Strategy:
    """The pair of a scorer and a selector, with M, the number of candidates.

    Without a scorer every row is a candidate (pure diversity). With one, M rows are: as many as
    `num_candidates` says, or max(10 x budget, 100,000); all rows where the selector says
    `wants_all`, since quotas or money may ask for rows of any score. A restriction leaves rows out
    before any is scored.
    """

    selector: Selector
    scorer: Scorer | None = None
    num_candidates: int | None = None
    restriction: Restriction | None = None

    def __post_init__(self) -> None:
        if self.num_candidates is not None and self.num_candidates < 1:
            raise ConfigError(
                f"strategy.num_candidates is {self.num_candidates}, expected at least 1; leave it "
                "null for the default"
            )
        if self.num_candidates is not None and self.scorer is None:
            raise ConfigError(
                f"strategy.num_candidates is {self.num_candidates}, but the strategy has no scorer "
                "to choose them by; name a scorer (rayal.scorers.random.Random for a uniform part "
                "of the pool), or leave it null to select among all rows"
            )

    def for_kind(self, kind: Kind, classes: Sequence[str | int] = ()) -> Strategy:
        """Gives the strategy for labels of this kind, of these classes where they are known.

        A scorer, a selector, a restriction, or a part inside one may name in `kinds` the labels
        that it is for, and have a field `multilabel`, which the kind fills in, or `classes`, which
        is what they are called, in the order of the probabilities. Other parts stay as they are.

        Raises:
            ConfigError: a part is for labels of another kind or of other classes, or its
                `multilabel` is at odds.
        """
        parts = {"selector": self.selector, "scorer": self.scorer, "restriction": self.restriction}
        told = {name: _told(part, kind, tuple(classes)) for name, part in parts.items()}
        return replace(self, **told)

    def with_chances(self, picks: Picks, num_rows: int) -> Picks:
        """Gives the picks with the probability that each had, where the strategy is a uniform draw
        among `num_rows` rows: the scorer says `is_uniform`, the selector `takes_best`."""
        is_draw = getattr(self.scorer, "is_uniform", False)
        if not (is_draw and getattr(self.selector, "takes_best", False) and len(picks.ids)):
            return picks
        return replace(picks, probabilities=np.full(len(picks.ids), len(picks.ids) / num_rows))

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives the selector's picks, with the probability that each was among the batch where the
        scorer's noise tells it (`Power`, `Softmax`) and the best scores are picked.

        Raises:
            ConfigError: the selector is the user's, and raised something.
        """
        chances = getattr(self.scorer, "chances", None)
        if chances is not None and getattr(self.selector, "takes_best", False):
            # The first row that is left out tells how high the others had to come.
            picks = self.selector.select(candidates, labelled, budget + 1, keys)
            if budget < 1 or len(picks.ids) <= budget:
                return picks
            edge, picks = float(picks.scores[-1]), picks.first(budget)
            return replace(picks, probabilities=chances(picks.ids, picks.scores, edge, keys))
        if not is_own(self.selector):
            return self.selector.select(candidates, labelled, budget, keys)
        with explained(f"{type(self.selector).__name__}.select failed", "mend it"):
            return self.selector.select(candidates, labelled, budget, keys)

    @property
    def needs_of_scorer(self) -> Needs:
        """What the scorer must be given; nothing where there is none."""
        return () if self.scorer is None else tuple(self.scorer.needs)

    @property
    def needs_of_restriction(self) -> Needs:
        """The columns that say which rows are scored; nothing where all are."""
        return () if self.restriction is None else tuple(self.restriction.needs)

    def keep(self, budget: int) -> int | None:
        """Gives M, the number of best-scored rows to keep, or None for all rows.

        Raises:
            ConfigError: the budget does not fit into `num_candidates`.
        """
        if self.num_candidates is not None:
            if budget > self.num_candidates:
                raise ConfigError(
                    f"budget is {budget}, more than strategy.num_candidates = "
                    f"{self.num_candidates}; raise num_candidates, or leave it null"
                )
            return self.num_candidates
        if self.scorer is None or getattr(self.selector, "wants_all", False):
            return None
        return max(_CANDIDATES_A_PICK * budget, _LEAST_CANDIDATES)


@dataclass(frozen=True)
class Proxy:
    """Lets through the `num_rows` rows that a cheap model scores highest (selection via proxy).

    A round has two passes: `predictor`, of the checkpoint that `trainer` fits to the labels that
    the run's own model is fitted to, scores all rows; the run's model scores the rows that it lets
    through, and the strategy picks among these. `scorer` is the proxy's, None for the strategy's.
    What is let through is exact, with ties to the smallest id; whether the run's model would have
    picked other rows depends on how alike the two models rank them. Until there is a checkpoint,
    and in a cold start, there is no proxy.

    Costs a second training a round, and a pass of the cheap model; 8 bytes of memory a row let
    through, in the driver and in each worker as a memory map. The pass of the own model reads the
    row groups that hold a row let through, and computes these rows alone.

    Reference: Coleman et al., Selection via Proxy: Efficient Data Selection for Deep Learning, ICLR
    2020, arXiv:1906.11829.
    """

    predictor: Predictor
    trainer: Trainer
    num_rows: int
    scorer: Scorer | None = None

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise ConfigError(f"proxy.num_rows is {self.num_rows}, expected 1 or more")

    def for_kind(self, kind: Kind, classes: Sequence[str | int] = ()) -> Proxy:
        """Gives the proxy for labels of this kind, as `Strategy.for_kind` does."""
        return replace(self, scorer=_told(self.scorer, kind, tuple(classes)))

    def scorer_for(self, scorer: Scorer | None) -> Scorer:
        """Gives the scorer of the proxy's pass, where the strategy has this one.

        Raises:
            ConfigError: neither has one.
        """
        found = self.scorer or scorer
        if found is None:
            raise ConfigError(
                "the strategy scores no rows (it selects among all), so nothing says which of them "
                "the proxy should let through; set proxy.scorer, or proxy=null"
            )
        return found


def _told(part: Any, kind: Kind, classes: tuple[str | int, ...]) -> Any:
    """Gives the part with every `multilabel`, and `classes` that are None, in it filled in; the
    same object where there is none.

    A user's part may hold others in a field or in a list of them.
    """
    if type(part) in (list, tuple):
        told = [_told(one, kind, classes) for one in part]
        is_same = all(one is other for one, other in zip(told, part, strict=True))
        return part if is_same else type(part)(told)
    kinds = getattr(part, "kinds", None)
    if kinds is not None and kind not in kinds:
        raise ConfigError(
            f"{type(part).__name__} is for labels of kind {' or '.join(kinds)}, these are of kind "
            f"{kind}; take strategy={_FITS[kind]}, or say what the labels are (--kind of rayal "
            "ingest, kind of rayal select)"
        )
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changed = {}
    for field in fields(part):
        if not field.init:
            continue
        value = getattr(part, field.name)
        new: Any
        if field.name == "multilabel":
            new = _is_multilabel(part, value, kind)
        elif field.name == "classes" and value is None:
            new = classes or None
        else:
            new = _told(value, kind, classes)
        if new is not value:
            changed[field.name] = new
    return replace(part, **changed) if changed else part


def _is_multilabel(part: Any, given: bool | None, kind: Kind) -> bool:
    found = kind == "multilabel"
    if given is not None and given is not found:
        raise ConfigError(
            f"{type(part).__name__} has multilabel={given}, but labels are of kind {kind}; leave "
            "it out: the kind of the labels decides"
        )
    return found
