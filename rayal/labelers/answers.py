"""Answers in files that people and vendors write: what each line says, or what is wrong with it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from rayal.currency import minor_a_unit
from rayal.errors import LabelError
from rayal.labelers.manifests import is_augmented, plain
from rayal.types import Label, LabelEvent, Vocabulary

SUFFIXES = (".jsonl", ".csv", ".manifest")


@dataclass(frozen=True)
class Asked:
    """The samples that an answer may be of."""

    ids: frozenset[int]
    by_source: Mapping[str, int]  # source_id -> sample_id
    elsewhere: frozenset[int] = frozenset()  # asked by other orders: theirs to read
    erased: frozenset[int] = frozenset()  # asked once, and not to be heard of again
    erased_marks: frozenset[str] = frozenset()  # `source_mark` of their source_ids


@dataclass(frozen=True)
class Answer:
    """One event and the line that it came from."""

    event: LabelEvent
    where: str


class AnswerReader:
    """Reads answer files. Columns: `sample_id` or `source_id`, `label`; optional `annotator`, `at`,
    `cost_minor` (or `cost`, in whole units of the currency), `event_id`, `revision`; others are
    passed over. An empty label is a refusal. The `event_id` defaults to sample and annotator. A
    line of an output manifest (`rayal.labelers.manifests`) is read as one of these."""

    def __init__(
        self,
        vocabulary: Vocabulary | None,
        price_minor: int,
        currency: str,
        attribute: str | None = None,
    ) -> None:
        self._attribute = attribute
        self._vocabulary = vocabulary
        self._price_minor = price_minor
        self._minor_a_unit = minor_a_unit(currency)
        classes = vocabulary.classes if vocabulary is not None else ()
        self._classes: dict[Any, str | int] = {name: name for name in classes}
        self._places = {name: place for place, name in enumerate(classes)}
        texts: dict[str, list[str | int]] = {}
        for name in classes:
            texts.setdefault(str(name), []).append(name)
        # Spreadsheets turn numbers into text and back: taken where only one class is written so.
        self._texts = {text: names[0] for text, names in texts.items() if len(names) == 1}

    def read(self, content: bytes, name: str, asked: Asked) -> tuple[list[Answer], list[str]]:
        """Gives the answers of a file, and a line for each thing that is wrong with it."""
        answers: list[Answer] = []
        problems: list[str] = []
        try:
            lines = lines_of(content, name)
        except LabelError as error:
            return [], [f"{name}: {error}"]
        for number, fields in lines:
            where = f"{name}:{number}"
            try:
                if isinstance(fields, str):
                    raise LabelError(fields)
                event = self.event_of(fields, asked, from_text=name.endswith(".csv"))
            except LabelError as error:
                problems.append(f"{where}: {error}")
                continue
            if event is not None:
                answers.append(Answer(event, where))
        return answers, problems

    def event_of(
        self, fields: Mapping[str, Any], asked: Asked, from_text: bool
    ) -> LabelEvent | None:
        """Gives the answer of a line; None: it is another order's, or of an erased sample.

        Raises:
            LabelError: the line is no answer to what was asked.
        """
        if is_augmented(fields):
            fields = plain(fields, self._attribute)
        sample_id = _sample_id(fields, asked)
        if sample_id is None or sample_id in asked.erased or sample_id in asked.elsewhere:
            return None
        value = self.label_of(fields, from_text)
        annotator = _text(fields, "annotator")
        revision = _count(fields, "revision", 0)
        # A correction and a refusal are not paid unless the file says so.
        usual = self._price_minor if revision == 0 and value is not None else 0
        return LabelEvent(
            sample_id=sample_id,
            value=value,
            event_id=_text(fields, "event_id")
            or (f"{sample_id}/{annotator}" if annotator else str(sample_id)),
            revision=revision,
            annotator=annotator,
            cost_minor=self._cost_minor(fields, usual),
            at=_text(fields, "at"),
        )

    def label_of(self, fields: Mapping[str, Any], from_text: bool) -> Label | None:
        """Gives the label of a line, None where it is empty; `from_text`: the line is CSV.

        Raises:
            LabelError: there is no label, or the vocabulary does not have it.
        """
        if "label" not in fields:
            raise LabelError(f"no 'label' (there are: {', '.join(map(str, fields))})")
        raw = fields["label"]
        if raw is None or (raw == "" and "" not in self._classes):
            return None
        vocabulary = self._vocabulary
        if vocabulary is None:
            return cast(Label, raw)
        if vocabulary.kind == "number":
            return _number(raw)
        if vocabulary.kind == "class":
            return self._class(raw)
        if from_text and str(raw).lstrip().startswith("["):
            try:
                raw = json.loads(raw)
            except json.JSONDecodeError as error:
                raise LabelError(f"label {raw!r} is not a JSON list ({error})") from error
        names = {self._class(item) for item in (raw if isinstance(raw, list) else [raw])}
        return sorted(names, key=self._places.__getitem__)

    def _class(self, raw: Any) -> str | int:
        if not isinstance(raw, str | int | float):
            raise LabelError(f"label {raw!r} is not one class")
        found = self._classes.get(raw)
        if found is not None and isinstance(found, bool) == isinstance(raw, bool):
            return found
        found = self._texts.get(str(raw).strip())
        if found is None:
            names = list(self._classes)
            some = ", ".join(repr(name) for name in names[:8])
            more = "" if len(names) <= 8 else f", ... ({len(names)} classes)"
            raise LabelError(f"label {raw!r} is outside the vocabulary ({some}{more})")
        return found

    def _cost_minor(self, fields: Mapping[str, Any], usual: int) -> int:
        if fields.get("cost") in (None, ""):
            return _count(fields, "cost_minor", usual)
        try:
            minor = Decimal(str(fields["cost"])) * self._minor_a_unit
            if minor != int(minor) or minor < 0:
                raise InvalidOperation
        except (InvalidOperation, ValueError, OverflowError) as error:
            raise LabelError(f"cost {fields['cost']!r} is not an amount of the currency") from error
        return int(minor)


def source_mark(source_id: str) -> str:
    """Gives what an outbox keeps of an erased source_id: enough to know it again, no more."""
    return hashlib.sha256(source_id.encode(errors="surrogatepass")).hexdigest()[:32]


def lines_of(content: bytes, name: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Gives the lines of a CSV or JSONL file, by number from 1: the fields, or what is wrong.

    Raises:
        LabelError: the file is no text.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"not UTF-8 text (byte {error.start})") from error
    return _csv_lines(text) if name.endswith(".csv") else _json_lines(text)


def named(fields: Mapping[str, Any]) -> tuple[int | None, str | None]:
    """Gives the sample_id and the source_id of a line, None for the one that is not there.

    Raises:
        LabelError: neither is there, or the sample_id is not a whole number.
    """
    raw, source = fields.get("sample_id"), fields.get("source_id")
    source_id = source.hex() if isinstance(source, bytes) else str(source)
    known = None if source in (None, "") else source_id
    if raw in (None, ""):
        if known is None:
            raise LabelError("neither 'sample_id' nor 'source_id'")
        return None, known
    try:
        sample_id = int(raw)
    except (TypeError, ValueError, OverflowError) as error:
        raise LabelError(f"sample_id {raw!r} is not a whole number") from error
    if isinstance(raw, bool) or (not isinstance(raw, str) and raw != sample_id):
        raise LabelError(f"sample_id {raw!r} is not a whole number")
    return sample_id, known


def _json_lines(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, f"not JSON ({error.msg} at column {error.colno})"
            continue
        except (ValueError, RecursionError) as error:  # a number or a nesting without end
            yield number, f"not JSON that can be read ({error})"
            continue
        yield number, fields if isinstance(fields, dict) else "not a JSON object"


def _csv_lines(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if None in fields or None in fields.values():
                found = sum(value is not None for value in fields.values())
                yield (
                    reader.line_num,
                    (
                        f"{found}{' or more' if None in fields else ''} cells under a header of "
                        f"{len(reader.fieldnames or ())}"
                    ),
                )
                continue
            yield reader.line_num, fields
    except csv.Error as error:
        yield reader.line_num + 1, f"not CSV ({error})"


def _sample_id(fields: Mapping[str, Any], asked: Asked) -> int | None:
    sample_id, source_id = named(fields)
    if sample_id is None:
        found = asked.by_source.get(str(source_id))
        if found is None and source_mark(str(source_id)) not in asked.erased_marks:
            raise LabelError(f"source_id {source_id!r} was never ordered")
        return found
    if not any(sample_id in ids for ids in (asked.ids, asked.elsewhere, asked.erased)):
        raise LabelError(f"sample_id {sample_id} was never ordered")
    if source_id is not None and asked.by_source.get(source_id, sample_id) != sample_id:
        raise LabelError(
            f"sample_id {sample_id} and source_id {source_id!r} are two samples "
            f"(source_id {source_id!r} is sample_id {asked.by_source[source_id]})"
        )
    return sample_id


def _number(raw: Any) -> float:
    try:
        number = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise LabelError(f"label {raw!r} is not a finite number")
    return number


def _count(fields: Mapping[str, Any], name: str, usual: int) -> int:
    raw = fields.get(name)
    if raw in (None, ""):
        return usual
    try:
        number = int(str(raw))
    except ValueError:
        number = -1
    if number < 0:
        raise LabelError(f"{name} {raw!r} is not a whole number of 0 or more")
    return number


def _text(fields: Mapping[str, Any], name: str) -> str:
    raw = fields.get(name)
    return "" if raw is None else str(raw)
