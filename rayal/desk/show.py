"""How a row is shown: images, text and a table of the rest; and the bytes of its images."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rayal.errors import LabelError, PlaceError
from rayal.labelers.images import kind_of, png

_IDS = ("sample_id", "source_id")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")
_LONG = 60  # characters from which on text stands by itself
_LEAST_PIXELS = 64
_MOST_BYTES = 64 << 20
_SOME = 6  # numbers of a vector


@dataclass(frozen=True)
class Field:
    """One column of a row: an image, a text that stands by itself, or a value in a table."""

    name: str
    kind: str  # image, text or value
    text: str = ""


@dataclass(frozen=True)
class Show:
    """What a run knows of its columns that their values do not say.

    pixels  (height, width) or (height, width, 3) of columns of uint8 vectors
    planes  the same of those that hold one colour after the other: (3, height, width)
    roots   the folder that a column of paths is below; None: it has URLs of a store alone
    """

    pixels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    planes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    roots: Mapping[str, str | None] = field(default_factory=dict)

    def fields(self, row: Mapping[str, Any]) -> list[Field]:
        """Gives what is shown of a row, images first, then texts, then the rest."""
        names = [name for name in row if name not in _IDS]
        found = []
        for name in names:
            value = row[name]
            if self._is_image(name, value):
                found.append(Field(name, "image"))
            elif isinstance(value, str) and (len(value) > _LONG or len(names) == 1):
                found.append(Field(name, "text", value))
            else:
                found.append(Field(name, "value", words(value)))
        return sorted(found, key=lambda one: ("image", "text", "value").index(one.kind))

    def image(self, row: Mapping[str, Any], name: str) -> tuple[bytes, str]:
        """Gives an image file, and its kind (png, jpeg, gif, bmp or webp).

        Raises:
            LabelError: there is none in this column, or it cannot be had.
        """
        value = row.get(name)
        if not self._is_image(name, value):
            raise LabelError(f"column '{name}' of sample_id {row.get('sample_id')} is no image")
        if isinstance(value, np.ndarray):
            return png(self.grid(name, value)), "png"
        content = value if isinstance(value, bytes) else self._fetched(name, str(value))
        kind = kind_of(content)
        if kind is None:
            raise LabelError(f"{value!r} of column '{name}' is no PNG, JPEG, GIF, BMP or WebP file")
        return content, kind

    def grid(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Gives (H, W) or (H, W, 3) uint8 of a vector of pixels."""
        if name in self.planes:
            return pixels.reshape(self.planes[name]).transpose(1, 2, 0)
        return pixels.reshape(self._shape(name, len(pixels)))

    def _shape(self, name: str, num_values: int) -> tuple[int, ...]:
        """The shape of an image of so many values, a square where nobody said; empty: of none."""
        shape = tuple(self.planes.get(name) or self.pixels.get(name) or ())
        if not shape:
            side = math.isqrt(num_values)
            shape = (side, side) if num_values >= _LEAST_PIXELS else ()
        return shape if shape and math.prod(shape) == num_values else ()

    def _is_image(self, name: str, value: Any) -> bool:
        if isinstance(value, np.ndarray):
            return value.dtype == np.uint8 and bool(self._shape(name, len(value)))
        if isinstance(value, bytes):
            return kind_of(value) is not None
        if not isinstance(value, str) or not value.lower().partition("?")[0].endswith(_SUFFIXES):
            return False
        scheme = value.partition("://")[0] if "://" in value else "file"
        # A page that fetched from the web would tell others what is looked at.
        return scheme not in ("http", "https") and (
            scheme != "file" or self.roots.get(name) is not None
        )

    def _fetched(self, name: str, uri: str) -> bytes:
        if "://" not in uri or uri.startswith("file://"):
            top = Path(os.path.realpath(Path(str(self.roots[name])).expanduser()))
            path = Path(os.path.realpath(top / uri.removeprefix("file://")))
            if not path.is_relative_to(top):
                raise LabelError(f"{uri!r} of column '{name}' leads out of {top}")
            try:
                with path.open("rb") as file:
                    return file.read(_MOST_BYTES)
            except (OSError, ValueError) as error:
                raise LabelError(f"{path} cannot be read ({error})") from error
        from rayal.places.opened import filesystem

        try:
            opened, inside = filesystem(uri)
            with opened.open_input_file(inside) as file:
                return bytes(file.read(_MOST_BYTES))
        except (OSError, ValueError, PlaceError) as error:
            raise LabelError(f"{uri} cannot be had ({error})") from error


def words(value: Any) -> str:
    """Gives a value as text, vectors and bytes shortened."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list) and len(value) > _SOME and not isinstance(value[0], str):
        some = ", ".join(_short(one) for one in value[:_SOME])
        return f"[{some}, ...] ({len(value)} numbers)"
    if isinstance(value, list):
        return f"[{', '.join(_short(one) for one in value)}]"
    return _short(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else "nan"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
