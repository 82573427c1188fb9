"""Encoded images for tests."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """Gives the bytes of an image file."""
    sink = io.BytesIO()
    PIL.Image.fromarray(pixels).save(sink, form, **options)
    return sink.getvalue()
