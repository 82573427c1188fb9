"""Encoded images as tensors: what a decoder gives, and what it refuses row by row."""

import contextlib
import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pngs import PIXELS, encoded

from rayal.errors import ConfigError, PoolError
from rayal.models.modules import SmallCnn
from rayal.models.transform import Undecodable
from rayal.models.transforms import Images


def rows_of(*values: bytes | None) -> pa.RecordBatch:
    return pa.record_batch([pa.array(values, pa.binary())], names=["image"])


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def bomb(width: int, height: int, colour_type: int = 0, more: bytes = b"") -> bytes:
    """A PNG of a few bytes that declares so many pixels."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + head + more + body + _chunk(b"IEND", b"")


GREY = PIXELS
COLOURS = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)


def test_pixels_are_what_was_encoded() -> None:
    grey = Images(height=3, width=4, mode="L")
    found = grey(rows_of(encoded(GREY), encoded(GREY[::-1], "BMP")))
    assert found.shape == (2, 1, 3, 4)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0, 0], torch.from_numpy(GREY) / 255)
    torch.testing.assert_close(found[1, 0], torch.from_numpy(GREY[::-1].copy()) / 255)
    colours = Images(height=3, width=4)(rows_of(encoded(COLOURS)))
    torch.testing.assert_close(colours[0], torch.from_numpy(COLOURS).permute(2, 0, 1) / 255)
    assert colours.is_contiguous()


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF"])
def test_other_formats_are_near(form: str) -> None:
    flat = np.full((8, 8), 100, np.uint8)
    found = Images(height=8, width=8, mode="L")(rows_of(encoded(flat, form)))
    assert (found * 255 - 100).abs().max() <= 2


def test_every_image_becomes_of_one_size_and_mode() -> None:
    tall = np.full((40, 10, 4), 51, np.uint8)  # RGBA
    palette = PIL.Image.fromarray(np.full((5, 5, 3), 51, np.uint8)).convert("P")
    sink = io.BytesIO()
    palette.save(sink, "PNG")
    deep = np.full((6, 6), 51 * 256, np.uint16)
    values = [encoded(tall), sink.getvalue(), encoded(deep), encoded(np.full((9, 7), 51, np.uint8))]
    for mode, channels in (("L", 1), ("RGB", 3)):
        found = Images(height=8, width=6, mode=mode)(rows_of(*values))
        assert found.shape == (4, channels, 8, 6)
        torch.testing.assert_close(found, torch.full_like(found, 0.2), atol=0.005, rtol=0)


def test_means_and_deviations_of_channels() -> None:
    plain = Images(height=3, width=4)(rows_of(encoded(COLOURS)))
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    found = Images(height=3, width=4, mean=mean, std=std)(rows_of(encoded(COLOURS)))
    expected = (plain - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(found, expected)
    one = Images(height=3, width=4, mean=0.5, std=0.5)(rows_of(encoded(COLOURS)))
    torch.testing.assert_close(one, plain * 2 - 1)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    images = Images(height=5, width=5)
    many = images(rows_of(*[encoded(np.roll(COLOURS, at)) for at in range(7)]))
    for at in range(7):
        assert torch.equal(images(rows_of(encoded(np.roll(COLOURS, at))))[0], many[at])


def test_images_as_datasets_write_them() -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = pa.array([{"bytes": encoded(GREY), "path": "a.png"}, None], kind)
    rows = pa.record_batch([values], names=["image"])
    images = Images(height=3, width=4, mode="L")
    assert torch.equal(images(rows.slice(0, 1)), images(rows_of(encoded(GREY))))
    with pytest.raises(Undecodable, match="it is null") as caught:
        images(rows)
    assert caught.value.positions == (1,)


def test_rows_that_are_no_images_are_named_and_not_the_others() -> None:
    whole = encoded(COLOURS)
    broken = whole[: len(whole) // 2]
    sink = io.BytesIO()
    PIL.Image.fromarray(COLOURS).save(sink, "TIFF")
    rows = rows_of(whole, None, b"", b"<html>404</html>", broken, sink.getvalue(), whole)
    with pytest.raises(Undecodable) as caught:
        Images()(rows)
    assert caught.value.positions == (1, 2, 3, 4, 5)
    assert "column 'image' holds no image there: it is null; the bytes are none of PNG" in str(
        caught.value
    )
    assert "the image is broken (" in str(caught.value)


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(PIL.Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(Undecodable, match="9000 x 9000 pixels are declared, expected at most 67"):
        Images()(rows_of(bomb(9000, 9000)))
    with pytest.raises(Undecodable, match=r"the image is broken \(Image size .* exceeds limit"):
        Images()(rows_of(bomb(60_000, 60_000)))
    with pytest.raises(Undecodable, match="10 x 11 pixels are declared, expected at most 109 "):
        Images(max_pixels=109)(rows_of(bomb(10, 11)))


def test_an_image_of_a_palette_that_lacks_it_is_refused() -> None:
    transparent = _chunk(b"tRNS", b"\0")
    with pytest.raises(Undecodable, match=r"the image is broken \(AssertionError\)"):
        Images()(rows_of(bomb(10, 10, colour_type=3, more=transparent)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_are_decoded_or_refused_and_raise_nothing_else(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF"]))
    content = bytearray(encoded(COLOURS, form))
    for at, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=5)
    ):
        content[at] = value
    cut = data.draw(st.integers(0, len(content)))
    images = Images(height=4, width=4, max_pixels=1 << 16)
    with contextlib.suppress(Undecodable):
        assert torch.isfinite(images(rows_of(bytes(content[:cut])))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "CMYK"}, r"mode=CMYK, expected L \(grey\) or RGB"),
        ({"height": 0}, "height=0, expected 1 or more"),
        ({"max_pixels": 0}, "max_pixels=0, expected 1 or more"),
        ({"max_pixels": 1 << 30}, "max_pixels=1073741824, expected at most 178956970: Pillow"),
        ({"mean": [0.1, 0.2]}, r"mean=\[0.1, 0.2\], expected one number or 3, one a channel"),
        ({"std": 0.0}, "std=0.0, expected finite numbers, std above 0"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Images(**options)


def test_columns_that_are_not_there_or_no_bytes() -> None:
    with pytest.raises(PoolError, match=r"no column 'png' \(it has: image\)"):
        Images(column="png")(rows_of(b""))
    with pytest.raises(PoolError, match="column 'image' is string, expected the bytes of encoded"):
        Images()(pa.record_batch([pa.array(["x"])], names=["image"]))


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ConfigError, match=r"needs Pillow; .* pip install 'rayal\[images\]'"):
        Images()


def test_small_cnn_takes_colours() -> None:
    logits, embeds = SmallCnn(5, channels=2, hidden=11, in_channels=3)(torch.rand(2, 3, 8, 8))
    assert logits.shape == (2, 5)
    assert embeds.shape == (2, 11)
