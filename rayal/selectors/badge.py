"""Rows whose labels would move the last layer far, and in different directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayal.errors import ConfigError
from rayal.keys import Keys
from rayal.selectors.arguments import check_counts
from rayal.selectors.d_squared import Drawn, First, work_of_draws
from rayal.selectors.draws import draw_batch
from rayal.selectors.gradients import Gradients, SparseGradients, left_out, top_errors
from rayal.selectors.grid import AFTER_FIT, Grid, fit
from rayal.selectors.lazy import TAKEN
from rayal.selectors.limits import Limits
from rayal.selectors.space import blocks
from rayal.selectors.within import needs_within
from rayal.types import Candidates, Float64s, Needs, Picks, Slice, Work, top_of_probs


@dataclass(frozen=True)
class Badge:
    """Picks B rows by D^2 sampling on gradient embeddings, with the exact law of k-means++.

    The gradient of the last layer under the model's own answer is the outer product of
    a = p - onehot(argmax p) (multi-label: p - round(p)) and the features h. The squared distance of
    two is |a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a.a')(h.h'), so nothing of size C x D is made. Without
    labelled rows the first pick has the largest gradient, as in the authors' code; each next one is
    drawn in proportion to its squared distance to the nearest labelled, pending or picked row.

    `top_classes`: only a row's m likeliest classes count, where C is very large. Slices keep 2 m
    numbers a row instead of C, and a distance costs m + D. The batch's note says how much
    probability that leaves out of a row at most; `SparseGradients` bounds what that does.

    Draws are by rejection (`rayal.selectors.d_squared`): about B^2 / (2 x acceptance) distances of
    C + D products each, instead of M B; 40 bytes a row stay in the slices, 48 beside labelled rows.
    Rows without distance to the picks are left for last, by id. The deciding key is D^2 (the
    squared norm for a first pick); the probability is that of the draw given those before it, D^2 /
    (sum of all D^2) of the rows that limits leave, from a sum over all rows (up to 4,096) or over
    some thousand drawn ones (see `rayal.selectors.potential`). It is left out where it may be off
    by more than 10 %, for a first pick by norm, and for rows without distance.

    Departures: labelled and pending rows are centers, which they are not in the paper, so with
    labels the first pick is drawn, too; `top_classes` leaves out the small probabilities of a row.

    Raises:
        ConfigError: `multilabel` is neither true, false nor left out.
        ScoringError: probs or features hold NaN or infinite numbers.

    Reference: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds,
    ICLR 2020, arXiv:1906.03671; Arthur & Vassilvitskii, k-means++, SODA 2007.
    """

    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind
    top_classes: int | None = None  # None: the probabilities of all classes
    limits: Limits | None = None

    @property
    def needs(self) -> Needs:
        """Probabilities and features, and what the limits must know."""
        return needs_within(self.limits, self._probs, "embeds")

    @property
    def _probs(self) -> str:
        return "probs" if self.top_classes is None else top_of_probs(self.top_classes)

    def __post_init__(self) -> None:
        if self.top_classes is not None:
            check_counts(self, top_classes=self.top_classes)
            if self.multilabel:
                raise ConfigError(
                    f"Badge.top_classes is {self.top_classes} for multi-label rows, whose labels "
                    "are not shares of one; leave it out"
                )
        if self.multilabel not in (None, False, True):
            raise ConfigError(
                f"Badge.multilabel is {self.multilabel!r}, expected true or false; leave it out, "
                "so that it follows the labels"
            )

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives its work, see `work_of_draws`. Rows are read where they lie."""
        return work_of_draws(num_candidates, budget, width, 0.0)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order drawn."""
        errors: Callable[[Float64s], Float64s] = class_errors
        if self.multilabel:
            errors = label_errors
        if self.top_classes is not None:
            errors = top_errors
        errors_and_features = Grid(self._probs, of=errors, moves=False), Grid("embeds", moves=False)

        def space() -> tuple[Gradients, str]:
            grids = fit(errors_and_features, candidates, labelled)
            if self.top_classes is None:
                return Gradients((grids[0], grids[1])), ""
            sides = candidates, labelled
            most = [one for side in sides for one in side.each(left_out, AFTER_FIT, self._probs)]
            said = (
                f"the {self.top_classes} likeliest classes of a row, which leave out at most "
                f"{max(most, default=0.0):.3g} of its probability"
            )
            return SparseGradients((grids[0], grids[1])), said

        return draw_batch(
            candidates,
            labelled,
            budget,
            space,
            keys.stream("badge"),
            first=largest,
            what="gradient",
            names=(self, keys),
            limits=self.limits,
        )


def class_errors(probs_NC: Float64s) -> Float64s:
    """Gives (N, C) p - onehot(argmax p): cross-entropy's gradient under the model's answer."""
    rows_N = np.arange(len(probs_NC))
    probs_NC[rows_N, probs_NC.argmax(axis=1)] -= 1.0
    return probs_NC


def label_errors(probs_NC: Float64s) -> Float64s:
    """Gives (N, C) p - (p > 1/2): the same for binary cross-entropy, label by label."""
    errors_NC: Float64s = probs_NC - (probs_NC > 0.5)
    return errors_NC


# ------------------------------------------------------------------------- what slices answer


def largest(part: Slice, step: int, space: Any, stream: None) -> First | None:
    """Asks a slice for its row of the largest gradient."""
    if not len(part):
        return None
    norms = np.empty(len(part))
    for lo, hi in blocks(len(part)):
        norms[lo:hi] = space.rows(part, np.arange(lo, hi)).norms
    norms[part.cache["state"].bounds == TAKEN] = TAKEN  # limits close them
    row = int(norms.argmax())  # ids ascend: the first of equals has the smallest
    norm = float(norms[row])
    if norm == TAKEN:
        return None
    drawn = Drawn(int(part.ids[row]), float(part.scores[row]), norm, np.nan, -1, np.inf)
    return First(drawn, norm, 0)
