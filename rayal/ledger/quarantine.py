"""Answers that are kept apart: odd ones, and those beyond what was ordered. None is dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, exists, select

from rayal.ledger.schema import label_events, quarantine
from rayal.ledger.store import Store
from rayal.ledger.views import IDS_A_SELECT, NAMES, Content, Key, newest, spend
from rayal.types import LabelEvent

_TOO_MANY = "one answer too many:"


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


def in_quarantine(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    """Gives the answers kept apart that were not taken since, by (round, job, event, revision)."""
    mine, taken = quarantine.c, label_events.c
    was_taken = exists().where(
        taken.run_id == mine.run_id,
        taken.job_id == mine.job_id,
        taken.event_id == mine.event_id,
        taken.revision == mine.revision,
    )
    rows = connection.execute(
        select(quarantine)
        .where(mine.run_id == run_id, ~was_taken)
        .order_by(mine.round, mine.job_id, mine.event_id, mine.revision)
    )
    return [{**row, "value": json.loads(row["value"] or "null")} for row in rows.mappings()]


def waiting(
    connection: Connection, run_id: str, job_id: str, rows: Mapping[Key, Content]
) -> dict[Key, Content]:
    """Gives the answers that were too many, of samples from which one is withdrawn now."""
    ids = sorted({content[0] for content in rows.values() if content[1] is None})
    mine = quarantine.c
    found: dict[Key, Content] = {}
    for start in range(0, len(ids), IDS_A_SELECT):
        wanted = select(*(getattr(mine, name) for name in NAMES)).where(
            mine.run_id == run_id,
            mine.job_id == job_id,
            mine.sample_id.in_(ids[start : start + IDS_A_SELECT]),
            mine.why.startswith(_TOO_MANY),
        )
        for row in connection.execute(wanted):
            plain = tuple(row)
            if not _is_there(connection, run_id, job_id, plain[:2]):
                found[plain[:2]] = plain[2:]
    return {key: content for key, content in found.items() if key not in rows}


def _is_there(connection: Connection, run_id: str, job_id: str, key: Key) -> bool:
    taken = label_events.c
    found = connection.scalar(
        select(taken.event_id).where(
            taken.run_id == run_id,
            taken.job_id == job_id,
            taken.event_id == key[0],
            taken.revision == key[1],
        )
    )
    return found is not None


def beyond(
    connection: Connection, run_id: str, job_id: str, rows: dict[Key, Content], terms: Terms
) -> dict[Key, tuple[Content, str]]:
    """Takes out of `rows` what is beyond the terms, and gives it with why. In the order of events,
    so that the portions in which answers come matter as little as they can."""
    apart: dict[Key, tuple[Content, str]] = {}
    if terms.overlap is not None:
        holding = _holding(connection, run_id, job_id, sorted({one[0] for one in rows.values()}))
        for key in sorted(rows):
            sample_id, text, *_ = rows[key]
            names = holding.setdefault(sample_id, set())
            if key[0] in names:
                if text is None:  # withdrawn: its place is free
                    names.discard(key[0])
            elif text is not None and len(names) >= terms.overlap:
                apart[key] = rows.pop(key), f"{_TOO_MANY} {terms.overlap} were ordered a sample"
            elif text is not None:
                names.add(key[0])
    if terms.limit_minor is not None:
        spent = spend(connection, run_id, None)["amount_minor"]
        for key in sorted(rows):
            cost_minor = rows[key][3]
            if cost_minor > 0 and spent + cost_minor > terms.limit_minor:
                why = f"costs {cost_minor} where {terms.limit_minor - spent} are left of the limit"
                apart[key] = rows.pop(key), why
            else:
                spent += cost_minor
    return apart


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
