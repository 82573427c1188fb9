"""The hash chain: every step, order and portion of answers, each entry sealed by the one before.

An entry's hash is the SHA-256 of the one before it and of all it says, so that whoever changes,
removes or adds an entry has to change all that follow. The last hash, written down elsewhere, is
proof of the whole. Answers are sealed by portions: the sum of their hashes, whatever their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from rayal.ledger import records
from rayal.ledger.schema import chain

_START = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One thing that happened. `what`: step, attempt, in doubt, not taken, not found, surplus,
    assume-sent, assume-lost, cancel, erase, received."""

    seq: int
    round: int
    subject: str
    what: str
    detail: Mapping[str, Any]
    epoch: int
    at: str  # ISO 8601, UTC
    previous: str
    hash: str

    @property
    def should_be(self) -> str:
        """The hash that an entry with this content has."""
        said = [self.seq, self.round, self.subject, self.what, self.detail, self.epoch, self.at]
        return hashlib.sha256(f"{self.previous}{records.to_json(said)}".encode()).hexdigest()


def append(
    connection: Connection,
    run_id: str,
    epoch: int,
    round: int,
    subject: str,
    what: str,
    detail: Mapping[str, Any],
    at: str | None = None,
) -> None:
    """Adds an entry behind the last one."""
    mine = chain.c.run_id == run_id
    seq = connection.scalar(select(func.max(chain.c.seq)).where(mine))
    last = None
    if seq is not None:
        last = connection.scalar(select(chain.c.hash).where(mine, chain.c.seq == seq))
    plain = json.loads(records.to_json(records.canonical(detail)))
    number = 0 if seq is None else seq + 1
    at = at or now()
    entry = Entry(number, round, subject, what, plain, epoch, at, last or _START, "")
    connection.execute(
        insert(chain).values(
            run_id=run_id,
            seq=entry.seq,
            round=round,
            subject=subject,
            what=what,
            detail=records.to_json(plain),
            epoch=epoch,
            at=at,
            previous=entry.previous,
            hash=entry.should_be,
        )
    )


def now() -> str:
    """Gives the time as the ledger writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def entries(connection: Connection, run_id: str, subject: str | None = None) -> Iterator[Entry]:
    """Gives the entries in order, all or those of a subject."""
    wanted = select(chain).where(chain.c.run_id == run_id).order_by(chain.c.seq)
    if subject is not None:
        wanted = wanted.where(chain.c.subject == subject)
    for row in connection.execution_options(yield_per=10_000).execute(wanted):
        yield _entry(row)


def broken(found: Iterator[Entry]) -> Iterator[str]:
    """Gives a line for each entry of a whole chain that is not as it was written."""
    previous, number = _START, 0
    for entry in found:
        where = f"entry {entry.seq} ({entry.what} {entry.subject})"
        if entry.seq != number:
            yield f"{where}: entry {number} is missing before it"
        if entry.previous != previous:
            yield f"{where}: it does not follow the entry before it"
        if entry.hash != entry.should_be:
            yield f"{where}: its content is not what was written"
        previous, number = entry.hash, entry.seq + 1


def _entry(row: Row[Any]) -> Entry:
    try:
        detail = json.loads(row.detail)
    except json.JSONDecodeError:
        detail = {"unreadable": row.detail}  # which has another hash
    return Entry(
        row.seq,
        row.round,
        row.subject,
        row.what,
        detail,
        row.epoch,
        row.at,
        row.previous,
        row.hash,
    )
