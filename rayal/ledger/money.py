"""Money that is set aside: a chunk's cost is reserved before the chunk leaves."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, insert, select

from rayal.errors import LabelError, LedgerError
from rayal.ledger import records, steps
from rayal.ledger.schema import chain, label_events, reservations
from rayal.ledger.views import spend
from rayal.types import Chunk

CLOSED = ("closed", "cancel")  # entries of a job that owes nothing more


def intend(
    connection: Connection,
    run_id: str,
    round: int,
    job_id: str,
    chunks: Sequence[Chunk],
    limit_minor: int | None,
    epoch: int,
    at: str,
) -> None:
    """Records the intents of chunks and sets their cost aside; those recorded before stay.

    Raises:
        LedgerError: a chunk was recorded with another payload.
        LabelError: all that was spent and set aside would be above the limit.
    """
    before = {one.step: one.result for one in steps.recorded(connection, run_id, round)}
    for chunk in chunks:
        found = before.get(f"intent/{chunk.key}", chunk)
        if found.payload_sha256 != chunk.payload_sha256:
            raise LedgerError(
                f"chunk {chunk.key} was going to leave as payload {found.payload_sha256[:12]}, now "
                f"it is {chunk.payload_sha256[:12]}: the columns, the secret of the ids or the "
                "redaction are not what they were; put them back, or start a new run_dir"
            )
    new = [chunk for chunk in chunks if f"intent/{chunk.key}" not in before]
    cost = sum(chunk.cost_minor for chunk in new)
    if limit_minor is not None and cost:
        spent = spend(connection, run_id, None)["amount_minor"]
        on_order = promised(connection, run_id)
        if spent + on_order + cost > limit_minor:
            raise LabelError(
                f"round {round} would cost {cost} minor units, with {spent} spent and {on_order} "
                f"on order; max_amount_minor is {limit_minor}. Nothing was ordered: raise it and "
                "run the same command again"
            )
    for chunk in new:
        steps.append(
            connection,
            run_id,
            round=round,
            step=f"intent/{chunk.key}",
            fingerprint=records.fingerprint([chunk]),
            record=records.encode(chunk, chunk.key),
            notes={},
            epoch=epoch,
            at=at,
        )
    _reserve(connection, run_id, round, job_id, new)


def _reserve(
    connection: Connection, run_id: str, round: int, job_id: str, chunks: Sequence[Chunk]
) -> None:
    rows = [
        {
            "run_id": run_id,
            "chunk_key": chunk.key,
            "round": round,
            "job_id": job_id,
            "num_answers": (chunk.stop - chunk.start) * chunk.overlap,
            "cost_minor": chunk.cost_minor,
        }
        for chunk in chunks
    ]
    if rows:
        connection.execute(insert(reservations), rows)


def promised(connection: Connection, run_id: str) -> int:
    """Gives what open orders may still cost: of each job its reservation, less the share of the
    answers that came, whatever these cost."""
    mine, came = reservations.c, label_events.c
    jobs = connection.execute(
        select(mine.job_id, func.sum(mine.num_answers), func.sum(mine.cost_minor))
        .where(mine.run_id == run_id)
        .group_by(mine.job_id)
    ).all()
    if not jobs:
        return 0
    counted: dict[str, int] = dict(
        connection.execute(
            select(came.job_id, func.count(came.event_id.distinct()))
            .where(came.run_id == run_id, came.job_id.in_([job for job, _, _ in jobs]))
            .group_by(came.job_id)
        )
        .tuples()
        .all()
    )
    closed = set(
        connection.scalars(
            select(chain.c.subject).where(chain.c.run_id == run_id, chain.c.what.in_(CLOSED))
        )
    )
    total = 0
    for job, num_answers, cost_minor in jobs:
        left = max(0, int(num_answers) - counted.get(job, 0))
        if job not in closed and left:
            total += -(-int(cost_minor) * left // int(num_answers))
    return total
