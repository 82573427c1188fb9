"""Dawid and Skene's EM: an annotator has a whole table of what it takes for what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rayal.consensus.answers import Agreed, Answers
from rayal.errors import ConfigError
from rayal.types import Float64s

_LEAST = 1e-12
_ROWS = 65_536  # of (rows, C) at a time
_MOST_CELLS = 2**27  # of all tables together: 1 GiB


@dataclass(frozen=True)
class DawidSkene:
    """EM over (C, C) tables, one an annotator: row true class, column class said. A step costs
    O(A C) and holds 65,536 x C; the tables are W x C x C.

    strength   answers' worth of belief, a true class, that an annotator errs as all do together. 0
               is the paper's own estimate, which needs about 50 answers an annotator and class
    tolerance  of the mean log-likelihood an answer: a step that gains less is the last

    Reference: Dawid and Skene, Applied Statistics 28, 1979. Starts from the shares of the answers,
    as there. The belief is ours.
    """

    max_steps: int = 100
    tolerance: float = 1e-6
    strength: float = 2.0

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.tolerance < 0 or self.strength < 0:
            raise ConfigError(
                f"dawid_skene has max_steps={self.max_steps}, tolerance={self.tolerance:g} and "
                f"strength={self.strength:g}; give at least 1, 0 and 0"
            )

    def agree(self, answers: Answers) -> Agreed:
        """Gives the label of every sample, and how often an annotator says the true class.

        Raises:
            ConfigError: the tables would take more than 1 GiB.
        """
        tables_WCC, prior_C, probs_P, num_steps = self._fitted(answers)
        right_WC = np.einsum("wcc->wc", tables_WCC)
        return Agreed(answers, probs_P, prior_C, right_WC @ prior_C, num_steps)

    def tables(self, answers: Answers) -> tuple[Float64s, Float64s]:
        """Gives (W, C, C) what each annotator says of each true class, and (C,) how frequent the
        true classes are."""
        tables_WCC, prior_C, _, _ = self._fitted(answers)
        return tables_WCC, prior_C

    def _fitted(self, answers: Answers) -> tuple[Float64s, Float64s, Float64s, int]:
        num_classes, num_annotators = answers.num_classes, len(answers.annotators)
        if num_annotators * num_classes**2 > _MOST_CELLS:
            raise ConfigError(
                f"dawid_skene needs a table of {num_classes} x {num_classes} for each of "
                f"{num_annotators} annotators, {num_annotators * num_classes**2 * 8 / 2**30:.1f} "
                "GiB; take one_coin, which needs one number each"
            )
        model: tuple[Float64s, Float64s] | None = None
        before, step = -np.inf, 0
        for step in range(1, self.max_steps + 1):
            counts_WCC = np.zeros((num_annotators, num_classes, num_classes))
            class_C, total, shares = np.zeros(num_classes), 0.0, []
            for block in _blocks(answers):
                probs_LC, likelihood = block.expect(model)
                total += likelihood
                class_C += probs_LC.sum(0)
                block.count(probs_LC, counts_WCC)
                shares.append(block.of_pairs(probs_LC))
            if model is not None and total / len(answers.row_A) - before < self.tolerance:
                return model[0], model[1], np.concatenate(shares), step
            before = total / len(answers.row_A) if model is not None else -np.inf
            model = self._tables(counts_WCC), class_C / class_C.sum()
        if model is None:
            raise AssertionError
        probs_P = [block.of_pairs(block.expect(model)[0]) for block in _blocks(answers)]
        return model[0], model[1], np.concatenate(probs_P), step

    def _tables(self, counts_WCC: Float64s) -> Float64s:
        pooled_CC = counts_WCC.sum(0) + _LEAST
        pooled_CC /= pooled_CC.sum(1, keepdims=True)
        raw_WCC = counts_WCC + self.strength * pooled_CC + _LEAST
        return np.asarray(raw_WCC / raw_WCC.sum(2, keepdims=True))


@dataclass(frozen=True)
class _Block:
    """Some rows in a row, with their answers and pairs."""

    answers: Answers
    rows: slice
    mine: slice  # answers
    pairs: slice

    def expect(self, model: tuple[Float64s, Float64s] | None) -> tuple[Float64s, float]:
        """Gives (rows, C) probabilities and the sum of the log-likelihoods; without a model the
        shares of the answers."""
        one, first = self.answers, self.rows.start
        shape = self.rows.stop - first, one.num_classes
        row_A, said_A = one.row_A[self.mine] - first, one.said_A[self.mine]
        flat = row_A.astype(np.int64) * shape[1]
        if model is None:
            votes_LC = np.bincount(flat + said_A, minlength=shape[0] * shape[1]).reshape(shape)
            return self._sure(votes_LC / votes_LC.sum(1, keepdims=True)), 0.0
        logs_WCC, prior_C = np.log(model[0]), model[1]
        scores_LC = np.tile(np.log(prior_C + _LEAST), (shape[0], 1))
        for place in range(shape[1]):
            logs_A = logs_WCC[one.annotator_A[self.mine], place, said_A]
            scores_LC[:, place] += np.bincount(row_A, logs_A, minlength=shape[0])
        top_L1 = scores_LC.max(1, keepdims=True)
        exp_LC = np.exp(scores_LC - top_L1)
        sum_L1 = exp_LC.sum(1, keepdims=True)
        return self._sure(exp_LC / sum_L1), float((np.log(sum_L1) + top_L1).sum())

    def count(self, probs_LC: Float64s, counts_WCC: Float64s) -> None:
        """Adds up what was said of which true class."""
        one, width = self.answers, self.answers.num_classes
        row_A = one.row_A[self.mine] - self.rows.start
        cell_A = one.annotator_A[self.mine].astype(np.int64) * width + one.said_A[self.mine]
        tells_A = one.is_telling_A[self.mine].astype(np.float64)
        for place in range(width):
            weights_A = probs_LC[row_A, place] * tells_A
            sums = np.bincount(cell_A, weights_A, len(one.annotators) * width)
            counts_WCC[:, place, :] += sums.reshape(-1, width)

    def of_pairs(self, probs_LC: Float64s) -> Float64s:
        """Gives the probabilities of the classes that were named."""
        one = self.answers
        row_P, said_P = one.row_P[self.pairs] - self.rows.start, one.said_P[self.pairs]
        return np.asarray(probs_LC[row_P, said_P])

    def _sure(self, probs_LC: Float64s) -> Float64s:
        truth_L = self.answers.truth_L[self.rows]
        known_L = truth_L >= 0
        if known_L.any():
            probs_LC[known_L] = np.eye(probs_LC.shape[1])[truth_L[known_L]]
        return probs_LC


def _blocks(answers: Answers) -> Iterator[_Block]:
    num_rows = len(answers.ids)
    for start in range(0, num_rows, _ROWS):
        stop = min(start + _ROWS, num_rows)
        mine = slice(*np.searchsorted(answers.row_A, [start, stop]).tolist())
        pairs = slice(*np.searchsorted(answers.row_P, [start, stop]).tolist())
        yield _Block(answers, slice(start, stop), mine, pairs)
