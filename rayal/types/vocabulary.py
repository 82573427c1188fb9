"""What a label may be, and labels as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from rayal.errors import ConfigError, LabelError
from rayal.types.names import Kind, Label


@dataclass(frozen=True)
class Vocabulary:
    """What a label may be: the classes in order (class, multilabel), or a number.

    Raises:
        ConfigError: a class is given twice, or some classes are text and others whole numbers.
    """

    kind: Kind
    classes: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        classes = tuple(self.classes)
        object.__setattr__(self, "classes", classes)  # a configuration gives a list
        if self.kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise ConfigError(f"vocabulary.kind is {self.kind!r}, expected one of {known}")
        if self.kind == "number" and classes:
            raise ConfigError(
                f"vocabulary.classes has {_some(classes)}, but vocabulary.kind is number, which "
                "has no classes; leave one of them out"
            )
        for one in classes:
            if isinstance(one, bool) or not isinstance(one, str | int):
                raise ConfigError(
                    f"vocabulary.classes has {one!r}, expected text or whole numbers; quote it "
                    "for text"
                )
        if len({isinstance(one, str) for one in classes}) > 1:
            raise ConfigError(
                f"vocabulary.classes mixes text and whole numbers ({_some(classes)}), expected one "
                "or the other, as the labels are; quote the numbers for text"
            )
        if len(set(classes)) < len(classes):
            twice = Counter(classes).most_common(1)[0][0]
            raise ConfigError(
                f"vocabulary.classes has {twice!r} twice, expected each class once; remove one"
            )

    @property
    def num_outputs(self) -> int:
        """The width of the model's last layer."""
        return 1 if self.kind == "number" else len(self.classes)

    def encode(self, labels: Sequence[Label]) -> np.ndarray:
        """Gives (L,) float64 class indices or numbers, or (L, C) float64 0/1 for multi-label.

        Raises:
            LabelError: a label is outside the vocabulary; the message names the first one.
        """
        if self.kind == "number":
            numbers = np.asarray([_number(label) for label in labels], np.float64)
            if not np.isfinite(numbers).all():
                at = int(np.flatnonzero(~np.isfinite(numbers))[0])
                raise LabelError(
                    f"label {labels[at]!r} is not a finite number; correct it at its source"
                )
            return numbers
        place = {name: index for index, name in enumerate(self.classes)}
        if self.kind == "class":
            return np.asarray([self._place(place, label) for label in labels], np.float64)
        out_LC = np.zeros((len(labels), len(self.classes)), np.float64)
        for row, label in enumerate(labels):
            for name in label if isinstance(label, list | tuple | np.ndarray) else [label]:
                out_LC[row, self._place(place, name)] = 1.0
        return out_LC

    def _place(self, place: Mapping[str | int, int], label: Any) -> int:
        found = place.get(label.item() if isinstance(label, np.generic) else label)
        if found is None:
            raise LabelError(
                f"label {label!r} is outside the vocabulary ({_some(self.classes)}); correct the "
                "label, or take a vocabulary that has it"
            )
        return found


def _some(classes: Sequence[str | int]) -> str:
    more = "" if len(classes) <= 8 else f", ... ({len(classes)} classes)"
    return ", ".join(repr(name) for name in classes[:8]) + more


def _number(label: Any) -> float:
    try:
        return float(label)
    except (TypeError, ValueError):
        raise LabelError(f"label {label!r} is not a number; correct it at its source") from None
