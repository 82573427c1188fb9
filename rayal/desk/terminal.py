"""The desk in a terminal: a row is printed, a line is typed. A pipe will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rayal.desk.choices import QUIT, SKIP, UNDO, Choices
from rayal.desk.desk import Desk, Stale, Where
from rayal.errors import LabelError

_SHADES = " .:-=+*#%@"
_WIDEST = 64
_MOST_FOUND = 12


def sit(desk: Desk, read: Callable[[], str], write: Callable[[str], None]) -> None:
    """Labels row by row until all are answered, `q` or the end of what is read.

    `read` gives a line with its end, or an empty text where there are no more.
    """
    shown: tuple[Where, int] | None = None
    while True:
        left = sum(open_rows for *_, open_rows in desk.counts())
        where = desk.next_row()
        if where is None:
            if not desk.is_holding:
                write("nothing is open")
                return
            write(f"all rows are answered: Enter hands the last one over, {UNDO} takes it back")
        elif shown != (where, desk.version(where)):
            shown = (where, desk.version(where))
            for line in _lines(desk, where, left):
                write(line)
        line = read()
        word = line.strip()
        if not line or word == QUIT or (where is None and not word):
            return
        try:
            _do(desk, where, word, write)
        except LabelError as error:
            write(str(error))
        except Stale as error:
            write(f"{error}; nothing was changed")
            shown = None


def _do(desk: Desk, where: Where | None, word: str, write: Callable[[str], None]) -> None:
    if word == UNDO:
        last = desk.last()
        if last is None:
            raise LabelError("there is nothing to take back")
        told = desk.choices(last).told(desk.label_of(last))
        desk.undo(last, desk.version(last))
        write(f"taken back: {told}")
        return
    if where is None:
        raise LabelError(f"nothing is open; Enter, {UNDO} or {QUIT}")
    choices = desk.choices(where)
    label = None if word == SKIP else choices.label(_said(choices, word))
    desk.answer(where, desk.version(where), label)
    write(choices.told(label))


def _said(choices: Choices, word: str) -> Any:
    """Gives what a line says, as `Choices.label` takes it."""
    if choices.kind == "number":
        return word
    if choices.kind == "class":
        return _place(choices, word)
    whole = [str(one).lower() for one in choices.classes]
    parts = [word] if word.lower() in whole else word.replace(",", " ").split()
    if len(parts) == 1 and parts[0].lower() not in whole and len(choices.keys):
        parts = list(parts[0])  # 13 is 1 and 3
    return [_place(choices, one) for one in parts]


def _place(choices: Choices, word: str) -> int:
    names, typed = [str(one).lower() for one in choices.classes], word.lower()
    if typed in choices.keys:
        return choices.keys.index(typed)
    if typed in names:
        return names.index(typed)
    found = [place for place, name in enumerate(names) if typed and typed in name]
    if len(found) == 1:
        return found[0]
    some = ", ".join(str(choices.classes[place]) for place in found[:_MOST_FOUND])
    raise LabelError(f"'{word}' is no class and no key" + (f"; there are {some}" if some else ""))


def _lines(desk: Desk, where: Where, num_open: int) -> Iterator[str]:
    row, choices = desk.row(where), desk.choices(where)
    yield ""
    yield f"sample_id {where[1]} of {where[0]}, {num_open} open"
    for one in desk.show.fields(row):
        if one.kind != "image":
            yield f"{one.name}: {_printable(one.text)}"
        elif isinstance(row[one.name], np.ndarray):
            yield f"{one.name}:"
            yield from _drawn(desk.show.grid(one.name, row[one.name]))
        else:
            yield f"{one.name}: an image; `rayal label` without --terminal shows it"
    words = [f"{key} {name}" for key, name in zip(choices.keys, choices.classes, strict=False)] or [
        f"one of {len(choices.classes)} classes by its name, or a part of it"
    ]
    if choices.kind == "number":
        words = ["a number"]
    if choices.kind == "multilabel":
        words.append("several at once, Enter for none")
    yield f"{'  '.join(words)}  |  {UNDO} undo  {SKIP} skip  {QUIT} quit"


def _printable(text: str) -> str:
    """Gives text without what a terminal would take for a command."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)


def _drawn(pixels: np.ndarray) -> Iterator[str]:
    """Gives an image in letters, two wide each so that it keeps its shape."""
    grey = pixels.mean(axis=2) if pixels.ndim == 3 else pixels.astype(np.float64)
    step = -(-2 * grey.shape[1] // _WIDEST)
    for line in grey[::step, ::step]:
        places = (line / 256 * len(_SHADES)).astype(int)
        yield "".join(_SHADES[place] * 2 for place in places).rstrip()
