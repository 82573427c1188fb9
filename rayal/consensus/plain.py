"""Several annotators of one sample, one label: majority for classes, mean for numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from rayal.types import Kind, Label


def agree(values: Sequence[Label], kind: Kind) -> Label:
    """Gives one label of a sample's answers, in an order that does not depend on their arrival.

    class: the most frequent, of equals the one that `repr` sorts first. multilabel: the labels that
    more than half of the answers hold, sorted. number: the mean.
    """
    if len(values) == 1:
        return values[0]
    if kind == "number":
        numbers: list[Any] = sorted(values)
        return float(sum(numbers)) / len(numbers)
    if kind == "class":
        counts: Counter[Any] = Counter(values)
        return min(counts, key=lambda value: (-counts[value], repr(value)))
    held: Counter[Any] = Counter(name for value in values for name in set(cast(list[Any], value)))
    return sorted((name for name, n in held.items() if 2 * n > len(values)), key=repr)
