"""Images as people see them: a PNG file of pixels, and what kind of image some bytes are."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
)


def png(pixels: np.ndarray) -> bytes:
    """Gives the PNG file of an image: (H, W) grey or (H, W, 3) colours, uint8."""
    height, width = pixels.shape[:2]
    colour = 0 if pixels.ndim == 2 else 2
    lines = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return _MAGIC[0][0] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def kind_of(content: bytes) -> str | None:
    """Gives png, jpeg, gif, bmp or webp by how the bytes begin; None: none of them."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), None)
