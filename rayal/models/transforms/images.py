"""Encoded images (PNG, JPEG, ...) as tensors of one size."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from rayal.errors import ConfigError, PoolError
from rayal.models.transform import Undecodable

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # other decoders of Pillow are not let near bytes
_CHANNELS = {"L": 1, "RGB": 3}
_NUM_REASONS = 3
_PILLOWS_LIMIT = 2 * (1 << 30) // 12
# What Pillow's decoders raise for bytes that are not what they say.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AssertionError,  # such as: a palette that is not there
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Images:
    """Gives (N, C, height, width) float32 of a column of encoded images; C is 1 for mode L, else 3.

    Each image is decoded, brought to the mode (transparency is left out, the first frame of several
    is taken, a camera's orientation mark is not followed) and resized to height x width, whatever
    its shape was. Pixels are brought to [0, 1], then `mean` is taken off and the rest divided by
    `std`, one number or one a channel. The column holds bytes, or struct<bytes, ...> as Hugging
    Face `datasets` write it. O(pixels of the encoded images).

    `max_pixels` is looked at in the header, before memory is taken for what a few bytes declare.

    Raises:
        Undecodable: an image is null, broken, of another format, or has more than `max_pixels`.
        PoolError: the column is missing, or holds no bytes.
        ConfigError: an argument is out of its range, or Pillow is not installed.
    """

    column: str = "image"
    height: int = 224
    width: int = 224
    mode: Literal["L", "RGB"] = "RGB"
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    max_pixels: int = 1 << 26  # 67 million, 268 MB as RGBA

    def __post_init__(self) -> None:
        if self.mode not in _CHANNELS:
            raise ConfigError(f"Images got mode={self.mode}, expected L (grey) or RGB")
        for name in ("height", "width", "max_pixels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Images got {name}={getattr(self, name)}, expected 1 or more")
        if self.max_pixels > _PILLOWS_LIMIT:
            raise ConfigError(
                f"Images got max_pixels={self.max_pixels}, expected at most {_PILLOWS_LIMIT}: "
                "Pillow itself refuses more"
            )
        for name in ("mean", "std"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.ndim > 1 or (value.ndim and len(value) != _CHANNELS[self.mode]):
                raise ConfigError(
                    f"Images got {name}={value.tolist()}, expected one number or "
                    f"{_CHANNELS[self.mode]}, one a channel of mode {self.mode}"
                )
            if not np.isfinite(value).all() or (name == "std" and (value <= 0).any()):
                raise ConfigError(
                    f"Images got {name}={value.tolist()}, expected finite numbers, std above 0"
                )
        _pillow()

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of images."""
        return (self.column,)

    def __call__(self, rows: pa.RecordBatch) -> torch.Tensor:
        """Gives (N, C, height, width) float32."""
        pillow = _pillow()
        channels = _CHANNELS[self.mode]
        pixels_NHWC = np.empty((len(rows), self.height, self.width, channels), np.uint8)
        bad: dict[int, str] = {}
        for at, value in enumerate(self._bytes(rows)):
            try:
                if value is None:
                    raise _Refused("it is null")
                pixels = self._decoded(pillow, value.as_buffer())
                pixels_NHWC[at] = pixels.reshape(self.height, self.width, channels)
            except _Refused as error:
                bad[at] = str(error)
        if bad:
            reasons = list(dict.fromkeys(bad.values()))
            some = "; ".join(reasons[:_NUM_REASONS]) + "; ..." * (len(reasons) > _NUM_REASONS)
            why = f"column '{self.column}' holds no image there: "
            raise Undecodable(list(bad), why + some, [why + said for said in bad.values()])
        images_NCHW = pixels_NHWC.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        mean, std = (
            np.broadcast_to(np.asarray(value, np.float64), channels).reshape(-1, 1, 1)
            for value in (self.mean, self.std)
        )
        images_NCHW *= (1 / (255 * std)).astype(np.float32)
        if mean.any():
            images_NCHW -= (mean / std).astype(np.float32)
        return torch.from_numpy(images_NCHW)

    def _bytes(self, rows: pa.RecordBatch) -> list[Any]:
        if self.column not in rows.schema.names:
            raise PoolError(
                f"the pool has no column '{self.column}' (it has: {', '.join(rows.schema.names)}); "
                "name the right one in the transform"
            )
        column = rows.column(self.column)
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = column.flatten()[column.type.get_field_index("bytes")]
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            raise PoolError(
                f"column '{self.column}' is {column.type}, expected the bytes of encoded images; "
                "use a transform that reads this type"
            )
        return [value if value.is_valid else None for value in column]

    def _decoded(self, pillow: Any, content: pa.Buffer) -> np.ndarray:
        """Gives the (height, width, channels) pixels of one image."""
        try:
            with pillow.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.width * image.height > self.max_pixels:
                    raise _Refused(
                        f"{image.width} x {image.height} pixels are declared, expected at most "
                        f"{self.max_pixels:,} (max_pixels)"
                    )
                if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
                    image = pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                plain = image.convert(self.mode)
                if plain.size != (self.width, self.height):
                    plain = plain.resize((self.width, self.height), pillow.Resampling.BILINEAR)
                return np.asarray(plain)
        except pillow.UnidentifiedImageError:
            raise _Refused(f"the bytes are none of {', '.join(_FORMATS)}") from None
        except (pillow.DecompressionBombError, *_BROKEN) as error:
            said = " ".join(str(error).split())[:100] or type(error).__name__
            raise _Refused(f"the image is broken ({said})") from error


class _Refused(Exception):
    """One image that is none, and why."""


def _pillow() -> Any:
    try:
        import PIL.Image
    except ImportError:
        raise ConfigError(
            "model.transform Images needs Pillow; install it with: pip install 'rayal[images]'"
        ) from None
    return PIL.Image
