"""Desks over a file drop of a few rows, and what lies in the inbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.columns import vector_field
from rayal.desk.desk import Desk, Where
from rayal.labelers.file_drop import FileDrop
from rayal.types import Label, LabelEvent, Order, Vocabulary

PETS = Vocabulary("class", ("cat", "dog", "emu"))


def texts(num_rows: int = 5, start: int = 10) -> pa.Table:
    """Rows of one text."""
    ids = pa.array(range(start, start + num_rows), pa.int64())
    return pa.table({"sample_id": ids, "text": [f"text {i}" for i in range(num_rows)]})


def images(num_rows: int = 3) -> pa.Table:
    """Rows of 8 x 8 grey pixels."""
    pixels = np.arange(num_rows * 64, dtype=np.uint8).reshape(num_rows, 64)
    column = vector_field("image", pixels.dtype, 64)
    table = pa.table({"sample_id": pa.array(range(num_rows), pa.int64())})
    return table.append_column(column, pa.array([row.tobytes() for row in pixels], column.type))


class Drop:
    """A file drop, as a run has it."""

    def __init__(self, folder: Path, vocabulary: Vocabulary = PETS, **settings: Any) -> None:
        self.outbox, self.inbox = folder / "outbox", folder / "inbox"
        settings = {"columns": "all", **settings}
        self.labeler = FileDrop(str(self.outbox), str(self.inbox), **settings)
        self.labeler.bind(None, vocabulary, str(folder))
        self.cursors: dict[str, str] = {}

    def order(self, rows: pa.Table, job_id: str = "b0") -> Order:
        """Places rows."""
        rows = self.labeler.gate.passed(rows)
        chunks = self.labeler.plan(job_id, rows)
        acks = [self.labeler.submit(x, rows.slice(x.start, x.stop - x.start)) for x in chunks]
        return Order(job_id, tuple(acks), rows.num_rows)

    def fetch(self, order: Order) -> list[LabelEvent]:
        """Gives what the run has not seen yet."""
        events, cursor = self.labeler.fetch(order, self.cursors.get(order.job_id, ""))
        self.cursors[order.job_id] = cursor
        return events

    def desk(self, annotator: str = "ann", **settings: Any) -> Desk:
        """Opens a desk."""
        settings = {"refresh_s": 0.0, **settings}
        return Desk(self.outbox, self.inbox, annotator, **settings)

    def lines(self, key: str = "b0-0000", annotator: str = "ann") -> list[tuple[Any, ...]]:
        """Gives (sample, label, revision) of the lines that were handed over."""
        path = self.inbox / key / f"{annotator}.jsonl"
        found = [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []
        return [(one["sample_id"], one["label"], one["revision"]) for one in found]


def say(desk: Desk, *labels: Label | None) -> list[Where]:
    """Answers the next rows; gives which they were."""
    rows: list[Where] = []
    for label in labels:
        where = desk.next_row()
        assert where is not None
        desk.answer(where, desk.version(where), label)
        rows.append(where)
    return rows


def take_back(desk: Desk) -> Where:
    """Takes the last answer back; gives which row is open again."""
    where = desk.last()
    assert where is not None
    desk.undo(where, desk.version(where))
    return where


def holding(events: Sequence[LabelEvent]) -> dict[int, Label | None]:
    """Gives what holds after these events, by sample."""
    found: dict[int, Label | None] = {}
    for event in sorted(events, key=lambda one: one.revision):
        found[event.sample_id] = event.value
    return found
