"""Answers that are kept apart: odd ones, and those beyond what was ordered. None is dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, select

from rayal.ledger.schema import label_events, quarantine
from rayal.ledger.store import Store
from rayal.ledger.views import IDS_A_SELECT, NAMES, Content, Key, newest, spend
from rayal.types import LabelEvent

_TOO_MANY = "one answer too many:"
_TOO_DEAR = "costs"


@dataclass(frozen=True)
class Terms:
    """What an order may bring: answers beyond it are kept apart."""

    overlap: int | None = None  # answers of one sample that hold at once; None: any number
    limit_minor: int | None = None  # what all answers of the run may cost together


@dataclass(frozen=True)
class Odd:
    """An answer that is not taken, and why."""

    event: LabelEvent
    why: str


def _was_taken() -> ColumnElement[bool]:
    """Whether an answer that was kept apart is a label by now."""
    names = ("run_id", "job_id", "event_id", "revision")
    return exists().where(*(label_events.c[name] == quarantine.c[name] for name in names))


def in_quarantine(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    """Gives the answers kept apart that were not taken since, by (round, job, event, revision)."""
    mine = quarantine.c
    rows = connection.execute(
        select(quarantine)
        .where(mine.run_id == run_id, ~_was_taken())
        .order_by(mine.round, mine.job_id, mine.event_id, mine.revision)
    )
    return [{**row, "value": json.loads(row["value"] or "null")} for row in rows.mappings()]


def beyond(
    connection: Connection,
    run_id: str,
    job_id: str,
    rows: dict[Key, Content],
    known: set[str],
    terms: Terms,
) -> dict[Key, tuple[Content, str]]:
    """Takes out of `rows` what is beyond the terms, and gives it with why.

    An answer (an event with all its revisions) is in or out for good: in, once it came while its
    sample had a place. In the order of events, so that portions matter as little as they can.
    `known`: events of which a revision was taken before.
    """
    apart: dict[Key, tuple[Content, str]] = {}
    if terms.overlap is not None:
        names = sorted({event_id for event_id, _ in rows})
        out = _too_many(connection, run_id, job_id, names)
        holding = _holding(connection, run_id, job_id, sorted({one[0] for one in rows.values()}))
        revisions: dict[str, list[int]] = {name: [] for name in names}
        for event_id, revision in sorted(rows):
            revisions[event_id].append(revision)
        for event_id, some in revisions.items():
            sample_id, newest_text, *_ = rows[event_id, some[-1]]
            inside = holding.setdefault(sample_id, set())
            full = len(inside) >= terms.overlap and newest_text is not None
            if event_id not in known and (event_id in out or full):
                why = f"{_TOO_MANY} {terms.overlap} were ordered a sample"
                apart |= {(event_id, r): (rows.pop((event_id, r)), why) for r in some}
            elif newest_text is not None:
                inside.add(event_id)
    if terms.limit_minor is not None:
        spent = spend(connection, run_id, None)["amount_minor"]
        for key in sorted(rows, key=lambda one: (rows[one][3] > 0, one)):  # refunds first
            cost_minor = rows[key][3]
            if cost_minor > 0 and spent + cost_minor > terms.limit_minor:
                left = terms.limit_minor - spent
                why = f"{_TOO_DEAR} {cost_minor} where {left} are left of the limit"
                apart[key] = rows.pop(key), why
            else:
                spent += cost_minor
    return apart


def waiting(
    connection: Connection, run_id: str, job_id: str, rows: Mapping[Key, Content], terms: Terms
) -> dict[Key, Content]:
    """Gives a job's answers that were too dear: the limit may be higher now, or a refund came."""
    if terms.limit_minor is None:
        return {}
    mine = quarantine.c
    found = connection.execute(
        select(*(getattr(mine, name) for name in NAMES)).where(
            mine.run_id == run_id,
            mine.job_id == job_id,
            mine.why.startswith(_TOO_DEAR),
            ~_was_taken(),
        )
    )
    again = {tuple(row)[:2]: tuple(row)[2:] for row in found}
    return {key: content for key, content in again.items() if key not in rows}


def _too_many(
    connection: Connection, run_id: str, job_id: str, event_ids: Sequence[str]
) -> set[str]:
    mine = quarantine.c
    found: set[str] = set()
    for start in range(0, len(event_ids), IDS_A_SELECT):
        wanted = select(mine.event_id).where(
            mine.run_id == run_id,
            mine.job_id == job_id,
            mine.event_id.in_(event_ids[start : start + IDS_A_SELECT]),
            mine.why.startswith(_TOO_MANY),
        )
        found |= set(connection.scalars(wanted))
    return found


def _holding(
    connection: Connection, run_id: str, job_id: str, ids: Sequence[int]
) -> dict[int, set[str]]:
    """Gives, by sample, the answers that hold now."""
    mine = label_events.c
    found: dict[int, set[str]] = {}
    for start in range(0, len(ids), IDS_A_SELECT):
        wanted = and_(
            newest(connection, run_id, None),
            mine.job_id == job_id,
            mine.sample_id.in_(ids[start : start + IDS_A_SELECT]),
        )
        for row in connection.execute(select(mine.sample_id, mine.event_id).where(wanted)):
            found.setdefault(row.sample_id, set()).add(row.event_id)
    return found


def set_apart(
    connection: Connection,
    store: Store,
    run_id: str,
    job_id: str,
    place: Mapping[str, Any],
    apart: dict[Key, tuple[Content, str]],
) -> list[dict[str, Any]]:
    """Gives the rows that were not in the quarantine yet, and are now."""
    mine = quarantine.c
    names = sorted({event_id for event_id, _ in apart})
    there: set[Key] = set()
    for start in range(0, len(names), IDS_A_SELECT):
        wanted = mine.event_id.in_(names[start : start + IDS_A_SELECT])
        found = select(mine.event_id, mine.revision).where(
            mine.run_id == run_id, mine.job_id == job_id, wanted
        )
        there |= {(row.event_id, row.revision) for row in connection.execute(found)}
    rows = [
        {**place, **dict(zip(NAMES, (*key, *content), strict=True)), "why": why}
        for key, (content, why) in apart.items()
        if key not in there
    ]
    if rows:
        connection.execute(store.insert_new(quarantine), rows)
    return rows
