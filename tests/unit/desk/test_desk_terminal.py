"""The desk in a terminal, line by line; and how rows are shown."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from desks import Drop, images, texts
from pngs import PIXELS, encoded

from rayal.columns import vector_field
from rayal.desk.show import Field, Show, words
from rayal.desk.terminal import sit
from rayal.errors import LabelError
from rayal.types import Vocabulary


def typed(drop: Drop, *lines: str, show: Show | None = None) -> str:
    """Gives what is printed when these lines are typed; the desk is closed then."""
    desk, said = drop.desk(show=show), []
    sit(desk, io.StringIO("".join(f"{line}\n" for line in lines)).readline, said.append)
    desk.close()
    return "\n".join(said)


def test_classes_by_key_by_name_and_by_a_part_of_it(tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(5))
    said = typed(drop, "2", "EMU", "do", "nope", "s", "u", "1", "q", "3")
    assert "1 cat  2 dog  3 emu  |  u undo  s skip  q quit" in said
    assert "sample_id 10 of b0-0000, 5 open" in said
    assert "'nope' is no class and no key" in said
    assert "taken back: skipped" in said
    assert drop.lines() == [(10, "dog", 0), (11, "emu", 0), (12, "dog", 0), (13, "cat", 0)]
    said = typed(drop, "u", "u", "3", "1", "2", "u", "1", "")
    assert "all rows are answered: Enter hands the last one over, u takes it back" in said
    assert drop.lines()[4:] == [
        (13, None, 1),
        (12, None, 1),
        (12, "emu", 2),
        (13, "cat", 2),
        (14, "cat", 0),
    ]
    assert typed(drop) == "nothing is open"


def test_the_end_of_what_is_read_loses_nothing(tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(2))
    assert "there is nothing to take back" in typed(drop, "u", "1")
    assert drop.lines() == [(10, "cat", 0)]
    assert "nothing is open; Enter, u or q" in typed(drop, "2", "1", "q")
    assert drop.lines() == [(10, "cat", 0), (11, "dog", 0)]


def test_several_classes_and_numbers(tmp_path: Path):
    drop = Drop(tmp_path / "m", Vocabulary("multilabel", ("art", "law", "war")))
    drop.order(texts(5))
    said = typed(drop, "13", "law, 1", "", "art", "9", "2 2", "q")
    assert "several at once, Enter for none" in said
    assert "'9' is no class and no key" in said
    wanted = [["art", "war"], ["art", "law"], [], ["art"], ["law"]]
    assert [label for _, label, _ in drop.lines()] == wanted
    drop = Drop(tmp_path / "n", Vocabulary("number"))
    drop.order(texts(2))
    said = typed(drop, "1,5", "-1.5", "s")
    assert "'1,5' is not a finite number" in said
    assert [label for _, label, _ in drop.lines()] == [-1.5, None]


def test_more_classes_than_keys_go_by_name(tmp_path: Path):
    drop = Drop(tmp_path, Vocabulary("class", tuple(f"kind {i:02d}" for i in range(40))))
    drop.order(texts(2))
    said = typed(drop, "kind 3", "39", "kind 07")
    assert "one of 40 classes by its name, or a part of it" in said
    assert "'kind 3' is no class and no key; there are kind 30, kind 31" in said
    assert [label for _, label, _ in drop.lines()] == ["kind 39", "kind 07"]


def test_a_terminal_is_given_no_commands_by_samples(tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(1).set_column(1, "text", pa.array(["a\x1b[2Jb\nc\x07"])))
    said = typed(drop)
    assert "text: a\ufffd[2Jb\nc\ufffd" in said
    assert "\x1b" not in said


def test_pixels_are_drawn_in_letters(tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(images(1))
    said = typed(drop)
    assert "image:\n" in said
    assert "  " * 8 not in said.split("image:")[1].split("\n")[8]


# ------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_row_is_shown_as_what_it_is(tmp_path: Path, form: str):
    drop = Drop(tmp_path, format=form)
    image = encoded(PIXELS)
    table = pa.table(
        {
            "sample_id": pa.array([1], pa.int64()),
            "source_id": ["s1"],
            "file": pa.array([image], pa.binary()),
            "note": ["x" * 61],
            "age": [3.5],
            "town": ["<b>Ulm</b>"],
            "none": pa.array([None], pa.string()),
            "blob": [b"abc"],
            "tags": [["a", "b"]],
            "hf": pa.array([{"bytes": image, "path": None}]),
        }
    )
    for name, values in (("pixels", np.arange(100, dtype=np.uint8)), ("vec", np.arange(9.0) / 3)):
        column = vector_field(name, values.dtype, len(values))
        table = table.append_column(column, pa.array([values.tobytes()], column.type))
    drop.order(table)
    desk = drop.desk()
    row = desk.row(("b0-0000", 1))
    shown = {one.name: one for one in desk.show.fields(row)}
    images = ["file", "hf", "pixels"]
    assert [one.name for one in shown.values()][:4] == [*images, "note"]
    assert [name for name, one in shown.items() if one.kind == "image"] == images
    assert shown["note"].kind == "text"
    assert {name: one.text for name, one in shown.items() if one.kind == "value"} == {
        "age": "3.5",
        "town": "<b>Ulm</b>",
        "none": "-",
        "blob": "3 bytes",
        "tags": "[a, b]",
        "vec": "[0, 0.3333, 0.6667, 1, 1.333, 1.667, ...] (9 numbers)",
    }
    assert desk.show.image(row, "file") == desk.show.image(row, "hf") == (image, "png")
    assert desk.show.image(row, "pixels")[1] == "png"
    desk.close()


def test_images_by_shape():
    grey, rgb = np.arange(64, dtype=np.uint8), np.arange(12, dtype=np.uint8)
    assert Show().grid("x", grey).shape == (8, 8)
    assert Show({"x": (4, 16)}).grid("x", grey).shape == (4, 16)
    assert Show({"x": (2, 2, 3)}).grid("x", rgb)[0, 0].tolist() == [0, 1, 2]
    assert Show({}, {"x": (3, 2, 2)}).grid("x", rgb)[0, 0].tolist() == [0, 4, 8]
    for values, shape in ((grey, (3, 3)), (rgb, None), (grey.astype(np.int16), None)):
        show = Show({} if shape is None else {"x": shape})
        assert show.fields({"x": values})[0].kind == "value"


def test_images_that_lie_in_a_folder(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encoded(PIXELS))
    (tmp_path / "in" / "text.png").write_bytes(b"secret")
    (tmp_path / "b.png").write_bytes(encoded(PIXELS))
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "b.png")
    show = Show(roots={"uri": str(tmp_path / "in"), "web": None})
    for name in ("a.png", f"file://{tmp_path}/in/a.png"):
        assert show.image({"uri": name}, "uri") == (encoded(PIXELS), "png")
    for name, part in [
        ("../b.png", "leads out of"),
        ("link.png", "leads out of"),
        ("/etc/x.png", "leads out of"),
        ("text.png", "is no PNG, JPEG, GIF, BMP or WebP file"),
        ("c.png", "cannot be read"),
        ("http://x.example/a.png", "is no image"),
        ("nowhere://x/a.png", "cannot be had"),
        ("a.txt", "is no image"),
    ]:
        with pytest.raises(LabelError, match=part):
            show.image({"uri": name}, "uri")
    assert show.fields({"web": "/etc/a.png"}) == [Field("web", "text", "/etc/a.png")]


def test_values_in_words():
    assert words(["a"] * 7) == "[a, a, a, a, a, a, a]"
    assert words({"a": 1}) == '{"a": 1}'
    assert words(True) == "true"
    assert words(12345678) == "12345678"
