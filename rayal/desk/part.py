"""The rows of one chunk, as its part in the outbox has them: what has passed the run's gate."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rayal.errors import LabelError

_BYTES = ("binary", "large_binary", "fixed_size_binary")
_NESTED = ("list", "large_list", "fixed_size_list", "struct", "map")


class Part:
    """A part's rows by id, in the order of the batch.

    What is shown is what left: redacted, under the ids of the order, without columns that were not
    named and without samples that were erased. The batch itself has all of these.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.types = {str(one["name"]): str(one["type"]) for one in manifest["columns"]}
        name = str(manifest["parts"][0]["name"])
        self._is_csv = name.endswith(".csv")
        path = folder / name
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise LabelError(f"{path} is missing, though its manifest is there; restore it") from (
                None
            )
        self._lines: dict[int, str | dict[str, Any]] = {}
        if self._is_csv:
            for row in csv.DictReader(io.StringIO(text, newline="")):
                self._lines[int(row["sample_id"])] = dict(row)
        else:  # kept as text: a row of 784 numbers is eight times as large as a list
            for line in filter(None, text.split("\n")):
                self._lines[int(json.loads(line)["sample_id"])] = line

    @property
    def ids(self) -> list[int]:
        """The ids, in the order of the batch."""
        return list(self._lines)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._lines

    def row(self, sample_id: int) -> dict[str, Any]:
        """Gives the values of a row by column: vectors as arrays, bytes as bytes, other values as
        JSON has them.

        Raises:
            KeyError: there is no such row.
        """
        line = self._lines[sample_id]
        fields = json.loads(line) if isinstance(line, str) else line
        return {
            name: _typed(value, self.types.get(name, ""), self._is_csv)
            for name, value in fields.items()
        }


def _typed(value: Any, kind: str, is_text: bool) -> Any:
    if value is None or (is_text and value == ""):
        return None
    is_list = isinstance(value, list) or (is_text and value.startswith("["))
    try:
        if kind.startswith(_BYTES):
            if not is_list:
                return base64.b64decode(value, validate=True)
            values = np.asarray(json.loads(value) if is_text else value)
            # Their width in bytes says whether they were uint8, as pixels are.
            width = int(kind.partition("[")[2].rstrip("]") or 0)
            is_pixels = width == len(values) and values.dtype.kind == "i" and values.min() >= 0
            return values.astype(np.uint8) if is_pixels else values
        if is_text and kind.startswith(_NESTED):
            value = json.loads(value)
        if kind.startswith("struct<bytes: ") and isinstance(value.get("bytes"), str):
            return base64.b64decode(value["bytes"], validate=True)
    except (ValueError, TypeError, AttributeError, binascii.Error):
        return value  # shown as it came
    return value
