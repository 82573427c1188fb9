"""Rows as Label Studio's tasks: our tag, what is shown, and what a model says beforehand."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.columns import is_vector, vectors
from rayal.errors import ConfigError, LabelError
from rayal.labelers import payload
from rayal.labelers.images import kind_of, png
from rayal.labelers.label_studio.screen import MORE, SHOWN, Screen

TAG, SAMPLE = "rayal_chunk", "sample_id"
MODEL = "rayal"  # the model version that predictions come under


@dataclass(frozen=True)
class Layout:
    """Which columns of a row are what.

    show     the column with the text or the image; None: a table of all columns
    pixels   height and width (and 3 channels) of an image that is a vector of bytes
    prelabel the column with the model's label, which annotators see as a suggestion
    """

    kind: str
    show: str | None
    pixels: tuple[int, ...] = ()
    prelabel: str | None = None

    def more(self, names: Sequence[str]) -> list[str]:
        """Gives the columns that stand in a table below, of those that leave."""
        if self.kind == "table":
            return []
        return [name for name in names if name not in (SAMPLE, self.show, self.prelabel)]

    def check(self, names: Sequence[str], schema: pa.Schema) -> None:
        """Refuses columns that cannot be shown.

        Raises:
            ConfigError: a column does not leave, or its type has no form in a task.
        """
        if (self.show is None) != (self.kind == "table"):
            raise ConfigError(
                f"labeler.kind is '{self.kind}' and labeler.show is {self.show}; name the column "
                "with the text or the image, and none for a table"
            )
        for name in (self.show, self.prelabel):
            if name is not None and name not in names:
                raise ConfigError(
                    f"the labeler is to show column '{name}', which does not leave (there are: "
                    f"{', '.join(names)}); add it to labeler.columns"
                )
        for name in names:
            if name in schema.names and not payload.has_form(schema.field(name).type):
                raise ConfigError(
                    f"labeler.columns names '{name}', which is {schema.field(name).type} and has "
                    "no form in JSON; leave it out"
                )
        if self.kind == "image" and self.show in schema.names:
            self._check_image(schema.field(self.show))

    def _check_image(self, field: pa.Field) -> None:
        types = pa.types
        is_bytes = types.is_binary(field.type) or types.is_large_binary(field.type)
        is_text = types.is_string(field.type) or types.is_large_string(field.type)
        if self.pixels and not is_vector(field):
            raise ConfigError(
                f"labeler.pixels is for images that are vectors, but column '{field.name}' is "
                f"{field.type}; leave it out"
            )
        if not (is_bytes or is_text) and not (self.pixels and is_vector(field)):
            raise ConfigError(
                f"labeler.show names '{field.name}', which is {field.type}; an image is a column "
                "of encoded bytes (PNG, JPEG, ...), of URLs, or a vector with labeler.pixels"
            )


def tasks(rows: pa.Table, key: str, layout: Layout, screen: Screen) -> list[dict[str, Any]]:
    """Gives one task a row, in row order, under a chunk's key. O(bytes).

    Raises:
        LabelError: a value has no form in a task.
    """
    show, prelabel = layout.show, layout.prelabel
    names = [name for name in rows.schema.names if name not in (show, prelabel)]
    images = layout.kind == "image"
    plain = names if images or show is None else [*names, show]
    if prelabel is not None:
        plain.append(prelabel)
    lines = payload.encode(rows, plain, "jsonl").decode().split("\n")
    shown = _images(rows, str(show), layout.pixels) if images else None
    found = []
    for place, line in enumerate(line for line in lines if line):
        row = json.loads(line)
        data: dict[str, Any] = {TAG: key, SAMPLE: row.pop(SAMPLE)}
        said = None if prelabel is None else row.pop(prelabel)
        if shown is not None:
            data[SHOWN] = shown[place]
        elif show is not None:
            value = row.pop(show)
            data[SHOWN] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        else:
            data[SHOWN] = row
        if show is not None and row:
            data[MORE] = row
        # Again where it can be read without the image; filters look at the data alone.
        task: dict[str, Any] = {"data": data, "meta": {TAG: key, SAMPLE: data[SAMPLE]}}
        if said is not None:
            task["predictions"] = [{"model_version": MODEL, "result": screen.result_of(said)}]
        found.append(task)
    return found


def _images(rows: pa.Table, name: str, pixels: Sequence[int]) -> list[str]:
    """Gives (N,) URLs: those of the column, or data: URLs that hold the image itself."""
    if is_vector(rows.schema.field(name)):
        vectors_ND = vectors(rows, name)
        if vectors_ND.dtype != np.uint8 or vectors_ND.shape[1] != int(np.prod(pixels)):
            raise LabelError(
                f"column '{name}' has {vectors_ND.shape[1]} values of {vectors_ND.dtype} a row, "
                f"and labeler.pixels={list(pixels)} asks for {int(np.prod(pixels))} of uint8; "
                "correct labeler.pixels, or give encoded images"
            )
        return [_data_url(png(row.reshape(pixels)), "png") for row in vectors_ND]
    found = []
    for place, value in enumerate(rows.column(name).to_pylist()):
        if isinstance(value, str):
            found.append(value)
            continue
        kind = kind_of(value or b"")
        if kind is None:
            raise LabelError(
                f"column '{name}' of sample_id {rows.column(SAMPLE)[place]} is no PNG, JPEG, GIF, "
                "BMP or WebP image; mend it at its source, or leave these rows out of the pool"
            )
        found.append(_data_url(value, kind))
    return found


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
