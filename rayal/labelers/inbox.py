"""The folder that answers come back by: which files there are for an order, and what they say."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rayal.labelers.answers import SUFFIXES, Answer, AnswerReader, Asked
from rayal.labelers.chunks import job_key
from rayal.labelers.outbox import Outbox
from rayal.storage import folder_here
from rayal.types import Order

_Place = tuple[str, str, int]


@dataclass(frozen=True)
class AnswerFile:
    """A complete file: what it says, and a line for each thing that is wrong with it."""

    name: str  # below the inbox
    sha256: str
    answers: list[Answer]
    problems: list[str]


class Inbox:
    """Answer files, each read once as long as its content stays."""

    def __init__(self, folder: Path, outbox: Outbox, reader: AnswerReader) -> None:
        self.folder = folder
        self._outbox, self._reader = outbox, reader
        self._parsed: dict[_Place, tuple[list[Answer], list[str]]] = {}

    def files(self, order: Order) -> list[AnswerFile]:
        """Gives the files that may answer an order: its chunks' folders, its job's, the inbox."""
        folder_here(self.folder)
        manifests = {ack.key: self._outbox.need(ack.key) for ack in order.chunks}
        whole = self._outbox.asked(list(manifests.values()))
        places = [(self.folder / key, self._outbox.asked([one])) for key, one in manifests.items()]
        places.append((self.folder / job_key(order.job_id), whole))
        if any(True for _ in _complete(self.folder)):
            keys = [key for key in self._outbox.placed() if key not in manifests]
            others = self._outbox.asked([self._outbox.need(key) for key in keys])
            places.append((self.folder, _beside(whole, others)))
        parsed: dict[_Place, tuple[list[Answer], list[str]]] = {}
        files = [one for folder, asked in places for one in self._folder(folder, asked, parsed)]
        self._parsed = parsed
        return files

    def strangers(self, order: Order) -> list[str]:
        """Gives a line for each file that would never be read, so that nobody waits for it."""
        keys = self._outbox.placed()
        names = {*keys, *(key.rpartition("-")[0] for key in keys), job_key(order.job_id)}
        problems = [
            f"{path.name}/: no chunk or job of this name; give the folder the name of its chunk"
            for path in _visible(self.folder)
            if path.is_dir() and path.name not in names and any(True for _ in _visible(path))
        ]
        mine = [job_key(order.job_id), *(ack.key for ack in order.chunks)]
        for folder in (self.folder, *(self.folder / name for name in mine)):
            for path in _visible(folder):
                if path.is_file() and path.suffix not in SUFFIXES:
                    name = path.relative_to(self.folder).as_posix()
                    problems.append(
                        f"{name}: none of .jsonl, .csv, .manifest; save it so, or remove it"
                    )
        return problems

    def _folder(
        self, folder: Path, asked: Asked, parsed: dict[_Place, tuple[list[Answer], list[str]]]
    ) -> Iterator[AnswerFile]:
        for path in _complete(folder):
            with contextlib.suppress(FileNotFoundError):  # moved away meanwhile
                content = path.read_bytes()
                name = path.relative_to(self.folder).as_posix()
                sha256 = hashlib.sha256(content).hexdigest()[:32]
                place = (name, sha256, hash((asked.ids, asked.elsewhere, asked.erased)))
                found = self._parsed.get(place) or self._reader.read(content, name, asked)
                parsed[place] = found
                yield AnswerFile(name, sha256, *found)


def _beside(mine: Asked, others: Asked) -> Asked:
    return Asked(
        ids=mine.ids,
        by_source={**others.by_source, **mine.by_source},
        elsewhere=(others.ids | others.erased) - mine.ids,
        erased=mine.erased,
        erased_marks=mine.erased_marks | others.erased_marks,
    )


def _visible(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.name.startswith(".") and path.suffix != ".tmp":
            yield path


def _complete(folder: Path) -> Iterator[Path]:
    return (path for path in _visible(folder) if path.is_file() and path.suffix in SUFFIXES)
