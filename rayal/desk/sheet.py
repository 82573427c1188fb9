"""What one person has answered: a file a chunk in the inbox, and the answer that is held back.

A line once handed over may have been read: it stays as it is, and what changes is a line of a
higher revision. So the newest answer waits in a file that no run reads until the next one comes,
and to take it back costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from rayal.errors import LabelError
from rayal.storage import write_text

Line = dict[str, Any]


class Sheet:
    """The lines of one person to one chunk, every revision, in the order handed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = _read(path)
        self.newest = _newest(self._lines)  # the highest revision, by sample

    def add(self, lines: Sequence[Line], known: Container[int]) -> None:
        """Hands lines over, on disk when this returns; those that are there change nothing. Lines
        of samples that are not `known` any more, since they were erased, are forgotten."""
        there = {(line["sample_id"], line["revision"]) for line in self._lines}
        fresh = [one for one in lines if (one["sample_id"], one["revision"]) not in there]
        kept = [line for line in [*self._lines, *fresh] if line["sample_id"] in known]
        if kept != self._lines:
            write_text(self.path, "".join(_line(one) for one in kept))
            self._lines, self.newest = kept, _newest(kept)


class Held:
    """The answers that are not handed over yet, oldest first: each with its chunk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = _read(path)

    def keep(self, lines: Sequence[Line]) -> None:
        """Replaces them, on disk when this returns."""
        if list(lines) != self.lines:
            write_text(self.path, "".join(_line(one) for one in lines))
            self.lines = list(lines)


def is_open(line: Line | None) -> bool:
    """Whether a sample with this newest line has no answer: none came, or it was taken back."""
    return line is None or bool(line.get("withdrawn"))


def _newest(lines: Sequence[Line]) -> dict[int, Line]:
    found: dict[int, Line] = {}
    for line in lines:
        known = found.get(line["sample_id"])
        if known is None or line["revision"] > known["revision"]:
            found[line["sample_id"]] = line
    return found


def _line(fields: Line) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _read(path: Path) -> list[Line]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    found: list[Line] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        try:
            fields = json.loads(line)
            fields = {**fields, "sample_id": int(fields["sample_id"])}
            fields["revision"] = int(fields.get("revision", 0))
        except (ValueError, KeyError, TypeError) as error:
            raise LabelError(
                f"{path}:{number} is no answer that a desk wrote ({error}); it keeps this file for "
                "itself: move the file away, or label under another --annotator"
            ) from error
        found.append(fields)
    return found
