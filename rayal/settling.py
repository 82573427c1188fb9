"""Disputed samples: those whose label is not sure, and what somebody decided of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.errors import LabelError
from rayal.history import SETTLED, History
from rayal.ledger import Ledger
from rayal.rundir import sample_ids
from rayal.types import PICK_COLUMNS, Ids, LabelEvent

_JOB = "settled"


@dataclass(frozen=True)
class Disputes:
    """What a run's answers leave open."""

    ledger: Ledger
    history: History

    def table(self, below: float, most: int | None = None) -> pa.Table:
        """Gives the samples whose label is true with less than this probability, or that have none
        though all are refusals, the least sure first: sample_id, likeliest, probability, answers
        ("who: what" each), the batch's columns, and an empty `label` to fill in. O(answers).

        Raises:
            LabelError: labels are numbers, or no sample has an answer.
        """
        if self.history.vocabulary.kind == "number":
            raise LabelError("labels of this run are numbers, which have no probability")
        rounds = self._rounds()
        sure = replace(self.history.consensus, weights="probability")
        decided = replace(self.history, consensus=sure).decided(max(rounds) + 1, min(rounds))
        settled = self.history.settled()
        answered = set[int]().union(*(self.ledger.answered_ids(t) for t in rounds))
        found = {i: decided.weights.get(i, 0.0) for i in answered - settled.keys()}
        open_ones = sorted((p, i) for i, p in found.items() if p < below)[:most]
        said = self._said({i for _, i in open_ones})
        ids = np.asarray([i for _, i in open_ones], np.int64)
        rows = self._rows(ids)
        front = {
            "sample_id": pa.array(ids),
            "label": pa.array([""] * len(ids)),
            "likeliest": pa.array([_text(decided.labels.get(int(i))) for i in ids], pa.string()),
            "probability": pa.array([round(p, 4) for p, _ in open_ones], pa.float64()),
            "answers": pa.array(["; ".join(sorted(said[int(i)])) for i in ids], pa.string()),
        }
        others = {name: rows.column(name) for name in rows.schema.names if name not in front}
        return pa.table({**front, **others})

    def settle(self, labels: Mapping[int, Any], by: str) -> int:
        """Records what somebody decided of samples, by sample_id; None takes an earlier decision
        back. The newest snapshot stays as it is: the next one has them. Gives how many are new.

        Raises:
            LabelError: a sample was never ordered.
        """
        known = np.concatenate([self.history.ids_of(t) for t in self._rounds()])
        strange = sorted(labels.keys() - set(known.tolist()))
        if strange:
            raise LabelError(
                f"{len(strange)} of {len(labels)} samples were never ordered (first: sample_id "
                f"{strange[0]}); nothing was taken. Leave them out"
            )
        before = self.history.settled()
        now = datetime.now(UTC)
        new = [
            LabelEvent(
                sample_id=sample_id,
                value=label,
                event_id=f"{sample_id}",
                revision=int(now.timestamp() * 1e6),  # above what was decided before
                annotator=by,
                cost_minor=0,
                at=now.isoformat(timespec="milliseconds"),
            )
            for sample_id, label in sorted(labels.items())
            if before.get(sample_id) != label
        ]
        if new:
            self.ledger.append_labels(SETTLED, _JOB, new)
            self.ledger.log(0, _JOB, "settled", {"by": by, "num": len(new)})
        return len(new)

    def _rounds(self) -> Sequence[int]:
        rounds = [event.round for event in self.ledger.events(step="ordered") if event.round >= 0]
        if not rounds:
            raise LabelError("this run has ordered nothing yet; run it first")
        return rounds

    def _said(self, ids: set[int]) -> dict[int, list[str]]:
        said: dict[int, list[str]] = {i: [] for i in ids}
        for one in self.ledger.labels():
            event = one.event
            if event.sample_id in said and one.round >= 0:
                said[event.sample_id].append(f"{event.annotator or '-'}: {_text(event.value)}")
        return said

    def _rows(self, ids: Ids) -> pa.Table:
        """Gives the batches' columns of these samples that a table on paper can hold, in order."""
        parts = []
        for t in self._rounds():
            rows = self.history.dir.read(self.history.record(t, "selected"))
            wanted = rows.filter(pa.array(np.isin(sample_ids(rows), ids)))
            names = [
                field.name
                for field in rows.schema
                if field.name not in PICK_COLUMNS and (_is_plain(field.type) or _is_id(field))
            ]
            parts.append(wanted.select(names))
        table = pa.concat_tables(parts)
        for number, field in enumerate(table.schema):
            if not _is_plain(field.type):
                texts = [one and one.hex() for one in table.column(number).to_pylist()]
                table = table.set_column(number, field.name, pa.array(texts, pa.string()))
        place = {int(i): row for row, i in enumerate(sample_ids(table))}
        return table.take(pa.array([place[int(i)] for i in ids], pa.int64()))


def _is_plain(kind: pa.DataType) -> bool:
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return is_text or pa.types.is_primitive(kind)


def _is_id(field: pa.Field) -> bool:
    return bool(field.name == "source_id")  # bytes, where the source's ids are: written as hex


def _text(label: Any) -> str:
    if isinstance(label, list):
        return ", ".join(map(str, label))
    return "" if label is None else str(label)
