"""The desk itself: which rows are open, what is said of them, and what is taken back."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rayal import locks
from rayal.desk.choices import Choices
from rayal.desk.part import Part
from rayal.desk.sheet import Held, Line, Sheet, is_open
from rayal.desk.show import Show
from rayal.errors import LabelError
from rayal.labelers.answers import AnswerReader
from rayal.labelers.inbox import Inbox
from rayal.labelers.outbox import Outbox
from rayal.types import Ack, Label, Order, Vocabulary

Where = tuple[str, int]  # a chunk's key, and a sample's id in it
_LONGEST_NAME = 64


class Stale(Exception):
    """What was written was about a row that has changed since it was read."""


@dataclass
class _Chunk:
    key: str
    stamp: tuple[int, int]  # of its manifest
    choices: Choices
    part: Part
    sheet: Sheet
    inbox: Inbox
    order: Order
    answers_a_row: int
    is_cancelled: bool
    num_others: Counter[int] = field(default_factory=Counter)


class Desk:
    """One person's desk over the two folders of a file drop.

    Answers are on disk when a method returns. The newest one is held back, so that it can be taken
    back as if it never was: until the next, for `hold_s` seconds (`settle`), or until `close`.

    Raises:
        LabelError: another desk of this name is open there.
    """

    def __init__(
        self,
        outbox: Path,
        inbox: Path,
        annotator: str,
        show: Show | None = None,
        hold_s: float = 30.0,
        refresh_s: float = 1.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.annotator, self.show, self.hold_s = file_name(annotator), show or Show(), hold_s
        self._refresh_s, self._now = refresh_s, now
        self._outbox, self._inbox = Outbox(outbox), inbox
        place = inbox / f".desk-{self.annotator}.lock"
        lock = locks.lock(place)
        if lock is None:
            raise LabelError(
                f"'{self.annotator}' labels here already ({locks.holder(place)}); end that one, or "
                "label under another --annotator"
            )
        self._lock_file, self._lock = lock, threading.RLock()
        try:
            self._held = Held(inbox / f".desk-{self.annotator}.held.jsonl")
            self._chunks: dict[str, _Chunk] = {}
            self._changes: Counter[Where] = Counter()
            self._done: list[Where] = []  # in the order answered
            self._looked_at = -refresh_s
            self.refresh()
            self._resume()
        except BaseException:
            lock.close()
            raise

    # ------------------------------------------------------------------------------- what there is

    def refresh(self) -> None:
        """Looks for new chunks, and for answers of others."""
        with self._lock:
            first = not self._chunks
            placed = self._outbox.placed()
            self._chunks = {key: one for key, one in self._chunks.items() if key in placed}
            for key in placed:
                path = self._outbox.folder / key / "manifest.json"
                stat = path.stat()
                stamp = (stat.st_mtime_ns, stat.st_size)
                known = self._chunks.get(key)
                if known is None or known.stamp != stamp:
                    self._chunks[key] = self._read(key, stamp)
                    if not first:
                        self._bring_back([key])
                chunk = self._chunks[key]
                chunk.is_cancelled = (path.parent / "cancelled.json").exists()
                chunk.num_others = self._others(chunk)
            self._chunks = dict(sorted(self._chunks.items(), key=self._age))
            self._looked_at = time.monotonic()

    def next_row(self) -> Where | None:
        """Gives the first open row in the order of the batches; None: all are answered."""
        with self._lock:
            for chunk in self._chunks.values():
                for sample_id in [] if chunk.is_cancelled else chunk.part.ids:
                    if self._is_open(chunk, sample_id):
                        return chunk.key, sample_id
        return None

    def version(self, where: Where) -> int:
        """Gives how often a row has changed, as a writer must have seen it."""
        return self._changes[where]

    def last(self) -> Where | None:
        """Gives the row that was answered last: what `undo` takes back."""
        return self._done[-1] if self._done else None

    def label_of(self, where: Where) -> Label | None:
        """Gives what was said of an answered row; None: it was skipped."""
        line = self._line(where)
        return None if line is None else line["label"]

    def choices(self, where: Where) -> Choices:
        """Gives what may be said of a row."""
        return self._chunks[where[0]].choices

    def row(self, where: Where) -> dict[str, Any]:
        """Gives a row's values by column.

        Raises:
            LabelError: there is no such row.
        """
        with self._lock:
            chunk = self._chunks.get(where[0])
            if chunk is None or where[1] not in chunk.part:
                raise LabelError(f"sample_id {where[1]} is no row of chunk {where[0]}")
            return chunk.part.row(where[1])

    def counts(self) -> list[tuple[str, int, int]]:
        """Gives (chunk, rows, open rows) of every chunk that is not cancelled."""
        with self._lock:
            if time.monotonic() - self._looked_at >= self._refresh_s:
                self.refresh()
            return [
                (
                    chunk.key,
                    len(chunk.part.ids),
                    sum(self._is_open(chunk, one) for one in chunk.part.ids),
                )
                for chunk in self._chunks.values()
                if not chunk.is_cancelled
            ]

    @property
    def is_holding(self) -> bool:
        """Whether the newest answer is not handed over yet."""
        return bool(self._held.lines)

    # -------------------------------------------------------------------------------- what is said

    def answer(self, where: Where, version: int, label: Label | None) -> None:
        """Records a label, or that the row was skipped: None.

        Raises:
            Stale: the row has changed since this version, or is not open.
            LabelError: there is no such row.
        """
        with self._lock:
            self.row(where)
            chunk = self._chunks[where[0]]
            if self._changes[where] != version or not self._is_open(chunk, where[1]):
                raise Stale(f"sample_id {where[1]} was answered or changed in between")
            before = chunk.sheet.newest.get(where[1])
            line = self._new_line(where, label, 0 if before is None else before["revision"] + 1)
            older = self._held.lines
            # Both first: whatever is killed after this line, no answer is lost.
            self._held.keep([*older, {"chunk": where[0], **line}])
            self._done.append(where)
            self._changes[where] += 1
            self._hand_over(older)
            self._held.lines = self._held.lines[len(older) :]

    def undo(self, where: Where, version: int) -> None:
        """Takes the last answer back: the row is open again.

        An answer that was handed over is withdrawn by a line of a higher revision, since a run may
        have read it. Rows come in the order of the batch, so the row is asked for next, and those
        after it stay unanswered until then: no round closes in between.

        Raises:
            Stale: this was not the last answer, or the row has changed since.
        """
        with self._lock:
            if self.last() != where or self._changes[where] != version:
                raise Stale(f"the answer to sample_id {where[1]} is not the last one any more")
            chunk = self._chunks[where[0]]
            if (held := self._held_line(where)) is not None:
                self._held.keep([one for one in self._held.lines if one is not held])
            else:
                revision = chunk.sheet.newest[where[1]]["revision"] + 1
                line = self._new_line(where, None, revision) | {"withdrawn": True}
                chunk.sheet.add([line], chunk.part)
            self._done.pop()
            self._changes[where] += 1

    def settle(self) -> None:
        """Hands the newest answer over once it has been held for `hold_s`."""
        with self._lock:
            for line in self._held.lines[-1:]:
                if self._now() - datetime.fromisoformat(line["at"]).timestamp() >= self.hold_s:
                    self.hand_over()

    def hand_over(self) -> None:
        """Hands the newest answer over now."""
        with self._lock:
            self._hand_over(self._held.lines)
            self._held.keep([])

    def close(self) -> None:
        """Hands everything over and leaves the desk to others."""
        with self._lock:
            if not self._lock_file.closed:
                self.hand_over()
                self._lock_file.close()

    # -------------------------------------------------------------------------------------- below

    def _read(self, key: str, stamp: tuple[int, int]) -> _Chunk:
        manifest = self._outbox.need(key)
        choices = Choices.of(manifest)
        vocabulary = Vocabulary(choices.kind, choices.classes)
        reader = AnswerReader(vocabulary, 0, str(manifest["currency"]))
        job = key.rpartition("-")[0]
        num_rows = int(manifest["rows"])
        return _Chunk(
            key=key,
            stamp=stamp,
            choices=choices,
            part=Part(self._outbox.folder / key, manifest),
            sheet=Sheet(self._inbox / key / f"{self.annotator}.jsonl"),
            inbox=Inbox(self._inbox, self._outbox, reader),
            order=Order(job, (Ack(key, key, num_rows),), num_rows),
            answers_a_row=int(manifest.get("answers_a_row", 1)),
            is_cancelled=False,
        )

    def _others(self, chunk: _Chunk) -> Counter[int]:
        mine = chunk.sheet.path.relative_to(self._inbox).as_posix()
        events = {
            (one.event.sample_id, one.event.event_id)
            for file in chunk.inbox.files(chunk.order)
            if file.name != mine
            for one in file.answers
        }
        return Counter(sample_id for sample_id, _ in events)

    def _age(self, item: tuple[str, _Chunk]) -> tuple[int, str]:
        """Jobs as they were placed, and a job's chunks by their number."""
        job = item[1].order.job_id
        begun = min(one.stamp[0] for one in self._chunks.values() if one.order.job_id == job)
        return begun, item[0]

    def _resume(self) -> None:
        # A desk that was killed may have held two: all but the newest were on their way.
        on_their_way = self._held.lines[:-1]
        self._hand_over(on_their_way)
        there = [one for one in self._held.lines[-1:] if not self._is_handed_over(one)]
        self._held.keep(there)
        self._bring_back(list(self._chunks))

    def _bring_back(self, keys: list[str]) -> None:
        """Remembers what was answered of these chunks, in the order of the answers."""
        known = [one for one in self._done if one[0] in self._chunks and one[0] not in keys]
        lines: list[tuple[str, Where]] = []
        for where in known:
            line = self._line(where)
            lines.append((str((line or {}).get("at", "")), where))
        for key in keys:
            chunk = self._chunks[key]
            for sample_id in chunk.part.ids:
                line = self._line((key, sample_id))
                if not is_open(line):
                    assert line is not None
                    lines.append((str(line.get("at", "")), (key, sample_id)))
                if line is not None and (key, sample_id) not in self._changes:
                    self._changes[key, sample_id] = int(line["revision"]) + 1
        self._done = [where for _, where in sorted(lines, key=lambda one: one[0])]

    def _is_handed_over(self, held: Line) -> bool:
        chunk = self._chunks.get(held["chunk"])
        if chunk is None or held["sample_id"] not in chunk.part:
            return True  # the order, or the sample, was put away
        known = chunk.sheet.newest.get(held["sample_id"])
        return known is not None and known["revision"] >= held["revision"]

    def _hand_over(self, held: list[Line]) -> None:
        for one in held:
            line = dict(one)
            chunk = self._chunks.get(line.pop("chunk"))
            if chunk is not None:
                chunk.sheet.add([line], chunk.part)

    def _is_open(self, chunk: _Chunk, sample_id: int) -> bool:
        return (
            is_open(self._line((chunk.key, sample_id)))
            and chunk.num_others[sample_id] < chunk.answers_a_row
        )

    def _line(self, where: Where) -> Line | None:
        return self._held_line(where) or self._chunks[where[0]].sheet.newest.get(where[1])

    def _held_line(self, where: Where) -> Line | None:
        for one in self._held.lines:
            if (one["chunk"], one["sample_id"]) == where:
                return one
        return None

    def _new_line(self, where: Where, label: Label | None, revision: int) -> Line:
        return {
            "sample_id": where[1],
            "label": label,
            "annotator": self.annotator,
            "at": datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="microseconds"),
            "event_id": f"{where[1]}/{self.annotator}",
            "revision": revision,
        }


def file_name(annotator: str) -> str:
    """Gives a person's name as a file's: letters, digits, dot, dash and underscore."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", annotator).strip(".-")[:_LONGEST_NAME]
    return plain or "me"
