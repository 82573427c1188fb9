"""What a person may say of a row, and the keys that say it."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayal.errors import LabelError
from rayal.types import Kind, Label, Vocabulary

UNDO, SKIP, QUIT = "u", "s", "q"
_OTHERS = [one for one in string.ascii_lowercase if one not in (UNDO, SKIP, QUIT)]
_KEYS = (*"123456789", *_OTHERS)


@dataclass(frozen=True)
class Choices:
    """What a label of one chunk may be: one of the classes, any of them, or a number."""

    kind: Kind
    classes: tuple[str | int, ...] = ()

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Choices:
        """Gives the choices that a chunk's manifest names.

        Raises:
            LabelError: it names none that a desk can offer.
        """
        form = manifest.get("answer", {}).get("label", {})
        try:
            vocabulary = Vocabulary(form.get("kind"), tuple(form.get("classes") or ()))
        except Exception as error:
            raise LabelError(
                f"chunk {manifest.get('key')} asks for labels of kind {form.get('kind')!r}, and a "
                "desk takes class, multilabel and number; give the run a vocabulary"
            ) from error
        return cls(vocabulary.kind, vocabulary.classes)

    @property
    def keys(self) -> tuple[str, ...]:
        """One key a class, in their order: digits, then letters but u, s and q. Classes that are
        one digit or letter each are their own keys; of more than 32 classes none has a key."""
        names = [str(one).lower() for one in self.classes]
        fit = set(string.digits) | set(_OTHERS)
        if len(set(names)) == len(names) and fit.issuperset(names):
            return tuple(names)
        return _KEYS[: len(names)] if len(names) <= len(_KEYS) else ()

    def label(self, said: Any) -> Label:
        """Gives the label of what was said: a class's place, the places of several, or a number's
        text.

        Raises:
            LabelError: it is no such thing.
        """
        if self.kind == "number":
            return self._number(said)
        places: Sequence[Any] = [said] if self.kind == "class" else said
        if not isinstance(places, list) or not all(
            isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(self.classes)
            for one in places
        ):
            what = "a place" if self.kind == "class" else "a list of places"
            raise LabelError(f"{said!r} is not {what} among the {len(self.classes)} classes")
        if self.kind == "class":
            return self.classes[places[0]]
        return [self.classes[place] for place in sorted(set(places))]

    def _number(self, said: Any) -> float:
        try:
            number = float(said) if isinstance(said, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number) or isinstance(said, bool):
            raise LabelError(f"{said!r} is not a finite number; write it as 3 or -0.25")
        return number

    def told(self, label: Label | None) -> str:
        """Gives a label in words."""
        if label is None:
            return "skipped"
        if isinstance(label, list | tuple):
            return ", ".join(map(str, label)) or "none of them"
        return f"{label:g}" if isinstance(label, float) else str(label)
