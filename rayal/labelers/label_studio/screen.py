"""What an annotator sees and may say: a project's label config, and labels there and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from xml.sax.saxutils import quoteattr

from rayal.errors import ConfigError, LabelError
from rayal.types import Label, Vocabulary

SHOWN, MORE, LABEL = "shown", "more", "label"  # the names of the tags, and of a task's fields
KINDS = ("text", "image", "table")
_OBJECTS = {
    "text": f'<Text name="{SHOWN}" value="${SHOWN}"/>',
    "image": f'<Image name="{SHOWN}" value="${SHOWN}" zoom="true"/>',
    "table": f'<Table name="{SHOWN}" value="${SHOWN}"/>',
}


@dataclass(frozen=True)
class Screen:
    """One project's page.

    kind        what is shown: text, image, or a table of all columns
    vocabulary  class: one choice; multilabel: any number of choices; number: a number; None: text
    boxes       rectangles on an image, each with a class: a label is a list of {label, x, y,
                width, height}, in shares of the image from its upper left corner, and rotation
                (degrees) where there is one
    has_more    whether a table of further columns stands below what is shown

    Raises:
        ConfigError: these do not fit each other, or a class has no text.
    """

    kind: str
    vocabulary: Vocabulary | None
    boxes: bool = False
    has_more: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"labeler.kind is '{self.kind}'; choose {', '.join(KINDS)}")
        if self.boxes and (self.kind != "image" or not self._names):
            raise ConfigError(
                f"labeler.boxes asks for rectangles with a class on an image, but labeler.kind is "
                f"'{self.kind}' and the vocabulary has {len(self._names)} classes; give an image "
                "and classes, or leave boxes out"
            )
        for name in self._names:
            if name != name.strip() or not name:
                raise ConfigError(
                    f"the class {name!r} is empty or has blanks around it, and Label Studio would "
                    "give it back without; rename it in vocabulary.classes"
                )

    def config(self) -> str:
        """Gives the label config, as XML."""
        parts = [_OBJECTS[self.kind]]
        if self.has_more:
            parts.append(f'<Table name="{MORE}" value="${MORE}"/>')
        names, link = self._names, f'name="{LABEL}" toName="{SHOWN}"'
        if self.boxes:
            labels = "".join(f"<Label value={quoteattr(name)}/>" for name in names)
            parts.append(f"<RectangleLabels {link}>{labels}</RectangleLabels>")
        elif names:
            choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in names)
            how = 'choice="single" required="true"' if self._is_one else 'choice="multiple"'
            parts.append(f'<Choices {link} {how} showInline="true">{choices}</Choices>')
        elif self.vocabulary is not None:
            parts.append(f'<Number {link} required="true"/>')
        else:
            parts.append(f'<TextArea {link} maxSubmissions="1" required="true"/>')
        return f"<View>{''.join(parts)}</View>"

    def label_of(self, result: Sequence[Mapping[str, Any]]) -> Label | None:
        """Gives what an annotation says; None: nothing. What is no label of the vocabulary comes
        as it is, or where that is a list or a struct as its JSON."""
        values = [region.get("value") for region in result if region.get("from_name") == LABEL]
        try:
            return self._label(cast(list[Any], values), result)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):  # another control
            return json.dumps(list(result), sort_keys=True)

    def result_of(self, label: Any) -> list[dict[str, Any]]:
        """Gives a label as an annotation or a prediction says it; none for None."""
        if label is None:
            return []
        if self.boxes:
            return [self._region("rectanglelabels", _rectangle(box)) for box in label]
        if self._names:
            several = isinstance(label, list | tuple)
            said = [str(one) for one in (label if several else [label])]
            return [self._region("choices", {"choices": said})]
        if self.vocabulary is not None:
            return [self._region("number", {"number": float(label)})]
        return [self._region("textarea", {"text": [str(label)]})]

    # -------------------------------------------------------------------------------------- below

    @property
    def _names(self) -> list[str]:
        return [] if self.vocabulary is None else [str(one) for one in self.vocabulary.classes]

    @property
    def _is_one(self) -> bool:
        return self.vocabulary is not None and self.vocabulary.kind == "class"

    def _label(self, values: list[Any], result: Sequence[Mapping[str, Any]]) -> Label | None:
        if self.boxes:
            return [self._box(value) for value in values]
        if self._names:
            said = [self._class(name) for value in values for name in value["choices"]]
            if not self._is_one:
                return self._in_order(said)
            if len(said) > 1:
                return json.dumps(said)
            return said[0] if said else None
        if self.vocabulary is not None:
            numbers = [value["number"] for value in values]
            return cast(Label, numbers[0]) if len(numbers) == 1 else _as_text(numbers)
        texts = [text for value in values for text in value["text"]]
        return "\n".join(texts) if texts else None

    def _in_order(self, said: Sequence[str | int]) -> list[str | int]:
        classes = () if self.vocabulary is None else self.vocabulary.classes
        place = {name: at for at, name in enumerate(classes)}
        return sorted(dict.fromkeys(said), key=lambda one: (place.get(one, len(place)), str(one)))

    def _class(self, name: Any) -> str | int:
        classes = () if self.vocabulary is None else self.vocabulary.classes
        found = [one for one in classes if str(one) == name]
        return found[0] if found else str(name)

    def _box(self, value: Mapping[str, Any]) -> dict[str, Any]:
        names = value["rectanglelabels"]
        box: dict[str, Any] = {"label": self._class(names[0]) if len(names) == 1 else list(names)}
        box |= {name: float(value[name]) / 100 for name in ("x", "y", "width", "height")}
        if value.get("rotation"):
            box["rotation"] = float(value["rotation"])
        return box

    def _region(self, kind: str, value: dict[str, Any]) -> dict[str, Any]:
        return {"from_name": LABEL, "to_name": SHOWN, "type": kind, "value": value}


def _rectangle(box: Mapping[str, Any]) -> dict[str, Any]:
    try:
        percent = {name: 100 * float(box[name]) for name in ("x", "y", "width", "height")}
        rotation = float(box.get("rotation", 0))
        return {**percent, "rotation": rotation, "rectanglelabels": [str(box["label"])]}
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"a box is {box!r}; expected label, x, y, width and height, in shares of the image"
        ) from error


def _as_text(numbers: Sequence[Any]) -> str | None:
    return json.dumps(numbers) if numbers else None
