"""Wrong answers on purpose, each a function of (seed, sample_id) alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from rayal.keys import Keys
from rayal.types import Ids, Label, Vocabulary


def noisy(
    ids: Ids, labels: list[Any], vocabulary: Vocabulary, noise: float, keys: Keys
) -> list[Label]:
    """Gives the labels with noise: classes flip to any other class with this probability, entries
    of a multi-label turn over with it, numbers get Gaussian noise of this standard deviation.
    O(L), for multi-label O(L C)."""
    if not noise:
        return labels
    if vocabulary.kind == "number":
        return _blurred(ids, labels, noise, keys)
    if vocabulary.kind == "class":
        return _flipped(ids, labels, vocabulary, noise, keys)
    return _turned_over(ids, labels, vocabulary, noise, keys)


def _flipped(
    ids: Ids, labels: list[Any], vocabulary: Vocabulary, noise: float, keys: Keys
) -> list[Label]:
    classes = vocabulary.classes
    if len(classes) < 2:
        return labels
    place_L = vocabulary.encode(labels).astype(np.int64)
    other_L = (keys.stream("oracle other").uniform(ids) * (len(classes) - 1)).astype(np.int64)
    other_L += other_L >= place_L  # any class but the true one, all alike
    flips_L = keys.stream("oracle flip").uniform(ids) < noise
    return [classes[place] for place in np.where(flips_L, other_L, place_L)]


def _turned_over(
    ids: Ids, labels: list[Any], vocabulary: Vocabulary, noise: float, keys: Keys
) -> list[Label]:
    shown_LC = vocabulary.encode(labels) > 0.5
    for place in range(len(vocabulary.classes)):
        shown_LC[:, place] ^= keys.stream(f"oracle class {place}").uniform(ids) < noise
    return [[vocabulary.classes[place] for place in np.flatnonzero(row)] for row in shown_LC]


def _blurred(ids: Ids, labels: list[Any], noise: float, keys: Keys) -> list[Label]:
    # Box and Muller, Annals of Mathematical Statistics 29, 1958.
    radius_L = np.sqrt(-2.0 * np.log(keys.stream("oracle radius").uniform(ids)))
    angle_L = 2.0 * np.pi * keys.stream("oracle angle").uniform(ids)
    noise_L = noise * radius_L * np.cos(angle_L)
    return [float(label) + float(extra) for label, extra in zip(labels, noise_L, strict=True)]
