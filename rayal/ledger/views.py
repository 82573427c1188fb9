"""What holds now, of answers that are only ever added to."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, FromClause, and_, exists, func, select

from rayal.ledger.schema import has_orders, label_events, quarantine

NAMES = ("event_id", "revision", "sample_id", "value", "annotator", "cost_minor", "at", "is_open")
Key = tuple[str, int]
Content = tuple[int, str | None, str, int, str, int]
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
    """Gives the samples of a round, or of one of its jobs, that have at least so many answers;
    refusals are answers, what was withdrawn to be given again is none."""
    mine = label_events.c
    wanted = of_run(run_id, round)
    if has_orders(connection) and _has_open(connection, run_id):
        wanted = and_(wanted, ~_is_open_now())
    found = select(mine.sample_id).where(wanted).group_by(mine.sample_id)
    if job_id is not None:
        found = found.where(mine.job_id == job_id)
    if least > 1:
        found = found.having(func.count(mine.event_id.distinct()) >= least)
    return set(connection.scalars(found))


def _has_open(connection: Connection, run_id: str) -> bool:
    """Whether any answer of a run was ever to be given again: looking that up for each is dear."""
    first = select(label_events.c.event_id).where(
        label_events.c.run_id == run_id, label_events.c.is_open == 1
    )
    return connection.scalar(first.limit(1)) is not None


def _is_open_now() -> ColumnElement[bool]:
    """Whether the newest revision of an answer says that it is to be given again."""
    newest, newer = label_events.alias("newest"), label_events.alias("newer")
    superseded = exists().where(_same(newer, newest), newer.c.revision > newest.c.revision)
    return exists().where(_same(newest, label_events), newest.c.is_open == 1, ~superseded)


def _same(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    names = ("run_id", "job_id", "event_id")
    return and_(*(one.c[name] == other.c[name] for name in names))


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
