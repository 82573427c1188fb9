"""Rows with probabilities and labels, and the whole line of a class laid out at once."""

from __future__ import annotations

import numpy as np
from slices import cut, labelled


class World:
    """`n` candidates, then labelled rows; some pending, some rows equal, one class rare."""

    def __init__(self, seed, n=300, num_known=25, num_classes=4, ties=False, multilabel=False):
        rng = np.random.default_rng(seed)
        total = n + num_known
        logits = 2 * rng.standard_normal((total, num_classes)) + np.linspace(1, -2, num_classes)
        if multilabel:
            probs = 1 / (1 + np.exp(-logits))
        else:
            probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        if ties:
            probs = np.round(4 * probs) / 4
        self.probs = probs.astype(np.float32)
        self.ids = rng.choice(np.arange(-5 * total, 5 * total), total, replace=False)
        self.scores = rng.random(n)
        self.n, self.multilabel = n, multilabel
        noisy = logits[n:] + rng.standard_normal((num_known, num_classes))
        self.label = (noisy > 0).astype(float) if multilabel else noisy.argmax(1).astype(float)
        self.pending = rng.random(num_known) < 0.2
        self.label[self.pending] = np.nan

    def sides(self, num_slices=1, seed=None, known_slices=2):
        mine, known = {"probs": self.probs[: self.n]}, {"probs": self.probs[self.n :]}
        return (
            cut(self.ids[: self.n], self.scores, mine, num_slices, seed),
            labelled(self.ids[self.n :], known, self.label, self.pending, known_slices),
        )

    def margins(self, k):
        probs = self.probs.astype(np.float64)
        if self.multilabel:
            return 2 * probs[:, k] - 1
        return probs[:, k] - np.delete(probs, k, axis=1).max(axis=1)

    def positive(self, k):
        """Of every labelled row that is not pending: its place, and whether it is of the class."""
        rows = self.n + np.flatnonzero(~self.pending)
        label = self.label[rows - self.n]
        return rows, label[:, k] == 1 if self.multilabel else label == k

    def line(self, k, rows):
        """Rows in the order of the line of class k."""
        return rows[np.lexsort((self.ids[rows], -self.margins(k)[rows]))]

    def rarest_first(self):
        num_classes = self.probs.shape[1]
        counts = [int(self.positive(k)[1].sum()) for k in range(num_classes)]
        return sorted(range(num_classes), key=lambda k: (counts[k], k))

    def shares(self, budget):
        """Deals the budget one by one, round and round."""
        order = self.rarest_first()
        dealt = [order[i % len(order)] for i in range(min(budget, self.n))]
        return [(k, dealt.count(k)) for k in order if k in dealt]
