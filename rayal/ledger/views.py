"""What holds now, of answers that are only ever added to."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, exists, func, select

from rayal.ledger.schema import has_orders, label_events, quarantine

NAMES = ("event_id", "revision", "sample_id", "value", "annotator", "cost_minor", "at")
Key = tuple[str, int]
Content = tuple[int, str | None, str, int, str]
IDS_A_SELECT = 5_000  # below the variable limits of both databases


def of_run(run_id: str, round: int | None) -> ColumnElement[bool]:
    mine = label_events.c.run_id == run_id
    return mine if round is None else and_(mine, label_events.c.round == round)


def newest(connection: Connection, run_id: str, round: int | None) -> ColumnElement[bool]:
    newer = label_events.alias("newer")
    superseded = exists().where(
        newer.c.run_id == label_events.c.run_id,
        newer.c.job_id == label_events.c.job_id,
        newer.c.event_id == label_events.c.event_id,
        newer.c.revision > label_events.c.revision,
    )
    holds = and_(of_run(run_id, round), label_events.c.value.is_not(None), ~superseded)
    if not has_orders(connection):
        return holds
    apart = exists().where(  # an edit to what no label may be: what it replaced holds no more
        quarantine.c.run_id == label_events.c.run_id,
        quarantine.c.job_id == label_events.c.job_id,
        quarantine.c.event_id == label_events.c.event_id,
        quarantine.c.revision > label_events.c.revision,
    )
    return and_(holds, ~apart)


def answered_ids(
    connection: Connection, run_id: str, round: int, least: int = 1, job_id: str | None = None
) -> set[int]:
    """Gives the samples of a round, or of one of its jobs, that have at least so many answers,
    refusals and withdrawn ones included."""
    mine = label_events.c
    found = select(mine.sample_id).where(of_run(run_id, round)).group_by(mine.sample_id)
    if job_id is not None:
        found = found.where(mine.job_id == job_id)
    if least > 1:
        found = found.having(func.count(mine.event_id.distinct()) >= least)
    return set(connection.scalars(found))


def spend(connection: Connection, run_id: str, round: int | None) -> dict[str, int]:
    """Gives the number of samples that have a label, and what all answers cost together.

    A withdrawn answer stays paid: it counts in the amount and not in the labels.
    """
    labelled = select(func.count(label_events.c.sample_id.distinct())).where(
        newest(connection, run_id, round)
    )
    amount = select(func.coalesce(func.sum(label_events.c.cost_minor), 0)).where(
        of_run(run_id, round)
    )
    return {
        "labels": int(connection.scalar(labelled) or 0),
        "amount_minor": int(connection.scalar(amount) or 0),
    }
