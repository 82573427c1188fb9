"""Recorded steps as rows: (run_id, seq), and each step of a round once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from rayal.ledger import chain, records, schema


@dataclass(frozen=True)
class Event:
    """A recorded step; `notes` (seconds, attempts, hosts) are no part of a digest."""

    seq: int
    round: int
    step: str
    fingerprint: str  # of the step's inputs
    result: Any  # the noun or plain value that the step gave
    notes: Mapping[str, Any]
    epoch: int
    at: str


def append(
    connection: Connection,
    run_id: str,
    *,
    round: int,
    step: str,
    fingerprint: str,
    record: str,
    notes: Mapping[str, Any],
    epoch: int,
    at: str,
) -> None:
    """Inserts a step behind the last one."""
    mine = schema.events.c.run_id == run_id
    last = connection.scalar(select(func.max(schema.events.c.seq)).where(mine))
    row = {
        "run_id": run_id,
        "seq": 0 if last is None else last + 1,
        "round": round,
        "step": step,
        "fingerprint": fingerprint,
        "record": record,
        "notes": records.to_json(records.canonical(notes)),
        "epoch": epoch,
        "at": at,
    }
    connection.execute(insert(schema.events).values(**row))
    seal = {"fingerprint": fingerprint, "record": hashlib.sha256(record.encode()).hexdigest()}
    chain.append(connection, run_id, epoch, round, step, "step", seal, at)


def recorded(
    connection: Connection, run_id: str, round: int | None = None, step: str | None = None
) -> Iterator[Event]:
    """Gives the steps in the order of recording, all or those of a round or a name."""
    wanted = select(schema.events).where(schema.events.c.run_id == run_id)
    if round is not None:
        wanted = wanted.where(schema.events.c.round == round)
    if step is not None:
        wanted = wanted.where(schema.events.c.step == step)
    for row in connection.execute(wanted.order_by(schema.events.c.seq)):
        yield Event(
            row.seq,
            row.round,
            row.step,
            row.fingerprint,
            records.decode(row.record),
            json.loads(row.notes),
            row.epoch,
            row.at,
        )


def digest_lines(connection: Connection, run_id: str) -> Iterator[str]:
    """Gives one line a step by (round, name), without notes, times and epochs."""
    for event in sorted(recorded(connection, run_id), key=lambda event: (event.round, event.step)):
        result = records.canonical(event.result)
        yield records.to_json([event.round, event.step, event.fingerprint, result])
