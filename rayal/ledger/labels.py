"""Label events as rows: a replay changes nothing, a correction is a higher revision.

Primary key (run_id, job_id, event_id, revision). What holds of a sample now is a view of the rows,
never an update, since vendors recall and edit answers that were final.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, exists, func, select

from rayal.errors import LabelError
from rayal.ledger.records import to_json
from rayal.ledger.schema import label_events
from rayal.ledger.store import Store
from rayal.types import LabelEvent, Told

_NAMES = ("event_id", "revision", "sample_id", "value", "annotator", "cost_minor", "at")
_Key = tuple[str, int]
_Content = tuple[int, str | None, str, int, str]
_ROWS_A_FETCH = 20_000
_IDS_A_SELECT = 5_000  # below the variable limits of both databases


@dataclass(frozen=True)
class StoredLabel:
    """The highest revision of one answer, and the order that it answers."""

    round: int
    job_id: str
    event: LabelEvent


def append(
    connection: Connection,
    store: Store,
    run_id: str,
    round: int,
    job_id: str,
    events: Sequence[LabelEvent],
    received: str,
) -> int:
    """Inserts the events that are not there yet and gives their number.

    Raises:
        LabelError: an event came before with the same revision and another content.
    """
    rows: dict[_Key, _Content] = {}
    texts: dict[tuple[type, Any], str] = {}
    for event in events:
        key, content = (event.event_id, event.revision), _content(event, texts)
        found = rows.setdefault(key, content)
        if found is not content:
            _compare(job_id, key, found, content)
    for key, found in _there(connection, run_id, job_id, sorted({one for one, _ in rows})):
        mine = rows.pop(key, None)
        if mine is not None:
            _compare(job_id, key, found, mine)
    if rows:
        place = {"run_id": run_id, "job_id": job_id, "round": round, "received": received}
        fresh = [
            {**place, **dict(zip(_NAMES, (*key, *content), strict=True))}
            for key, content in rows.items()
        ]
        connection.execute(store.insert_new(label_events), fresh)
    return len(rows)


def current(
    connection: Connection, run_id: str, round: int | None, job_id: str | None
) -> list[StoredLabel]:
    """Gives the answers that hold now, in order of (round, job, sample, event)."""
    wanted = _newest(run_id, round)
    if job_id is not None:
        wanted = and_(wanted, label_events.c.job_id == job_id)
    found = [
        StoredLabel(
            row.round,
            row.job_id,
            LabelEvent(
                sample_id=row.sample_id,
                value=json.loads(row.value),
                event_id=row.event_id,
                revision=row.revision,
                annotator=row.annotator,
                cost_minor=row.cost_minor,
                at=row.at,
            ),
        )
        for row in connection.execute(select(label_events).where(wanted))
    ]
    # Sorted here: databases differ in how they order text.
    found.sort(key=lambda one: (one.round, one.job_id, one.event.sample_id, one.event.event_id))
    return found


def told(connection: Connection, run_id: str, start: int, before: int) -> Told:
    """Gives the answers that hold of the rounds from `start` to before one, as columns: a million
    events as objects take 1.2 GiB, as columns 0.1."""
    mine = label_events.c
    wanted = and_(_newest(run_id, None), mine.round >= start, mine.round < before)
    rows = connection.execution_options(yield_per=_ROWS_A_FETCH).execute(
        select(mine.sample_id, mine.annotator, mine.value).where(wanted)
    )
    who: dict[str, int] = {}
    what: dict[str, int] = {}
    parts = [np.empty((3, 0), np.int64)]
    for some in rows.partitions():
        ids, names, values = zip(*some, strict=True)
        for place, column in ((who, names), (what, values)):
            for one in set(column) - place.keys():
                place[one] = len(place)
        parts.append(np.array([ids, [who[x] for x in names], [what[x] for x in values]], np.int64))
    ids_A, annotator_A, value_A = np.concatenate(parts, axis=1)
    texts = tuple(json.loads(text) for text in what)
    return Told(ids_A, tuple(who), annotator_A, texts, value_A)


def answered_ids(connection: Connection, run_id: str, round: int) -> set[int]:
    """Gives the samples of a round that have any answer, refusals and withdrawn ones included."""
    found = select(label_events.c.sample_id).distinct().where(_of_run(run_id, round))
    return set(connection.scalars(found))


def spend(connection: Connection, run_id: str, round: int | None) -> dict[str, int]:
    """Gives the number of samples that have a label, and what all answers cost together.

    A withdrawn answer stays paid: it counts in the amount and not in the labels.
    """
    labelled = select(func.count(label_events.c.sample_id.distinct())).where(_newest(run_id, round))
    amount = select(func.coalesce(func.sum(label_events.c.cost_minor), 0)).where(
        _of_run(run_id, round)
    )
    return {
        "labels": int(connection.scalar(labelled) or 0),
        "amount_minor": int(connection.scalar(amount) or 0),
    }


def digest_lines(connection: Connection, run_id: str) -> Iterator[str]:
    """Gives one line an event, in an order that does not depend on arrival; times are left out."""
    order = (label_events.c.round, label_events.c.sample_id)
    rows = connection.execution_options(yield_per=10_000).execute(
        select(label_events).where(_of_run(run_id, None)).order_by(*order)
    )
    for _, group in groupby(rows, key=lambda row: (row.round, row.sample_id)):
        yield from sorted(
            to_json(
                [
                    row.round,
                    row.sample_id,
                    row.job_id,
                    row.event_id,
                    row.revision,
                    row.value,
                    row.annotator,
                    row.cost_minor,
                ]
            )
            for row in group
        )


def _of_run(run_id: str, round: int | None) -> ColumnElement[bool]:
    mine = label_events.c.run_id == run_id
    return mine if round is None else and_(mine, label_events.c.round == round)


def _newest(run_id: str, round: int | None) -> ColumnElement[bool]:
    newer = label_events.alias("newer")
    superseded = exists().where(
        newer.c.run_id == label_events.c.run_id,
        newer.c.job_id == label_events.c.job_id,
        newer.c.event_id == label_events.c.event_id,
        newer.c.revision > label_events.c.revision,
    )
    return and_(_of_run(run_id, round), label_events.c.value.is_not(None), ~superseded)


def _content(event: LabelEvent, texts: dict[tuple[type, Any], str]) -> _Content:
    """Gives what a replay must bring again, and the time; `texts` are the values met so far."""
    value = event.value
    text: str | None = None
    if value is not None:
        mark = (type(value), value) if isinstance(value, str | int) else None
        found = None if mark is None else texts.get(mark)
        text = _text(event) if found is None else found
        if mark is not None:
            texts[mark] = text
    return (int(event.sample_id), text, event.annotator, event.cost_minor, event.at)


def _text(event: LabelEvent) -> str:
    try:
        return to_json(_plain(event.value))
    except (TypeError, ValueError) as error:
        raise LabelError(
            f"the label of sample_id {event.sample_id} is {event.value!r}, which is not a finite "
            "number, text, list or struct; correct it at its source"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    return value


def _there(
    connection: Connection, run_id: str, job_id: str, event_ids: Sequence[str]
) -> Iterator[tuple[_Key, _Content]]:
    mine = label_events.c
    columns = [getattr(mine, name) for name in _NAMES]
    for start in range(0, len(event_ids), _IDS_A_SELECT):
        some = event_ids[start : start + _IDS_A_SELECT]
        found = connection.execute(
            select(*columns).where(
                mine.run_id == run_id, mine.job_id == job_id, mine.event_id.in_(some)
            )
        )
        for row in found:
            plain = tuple(row)
            yield plain[:2], plain[2:]


def _compare(job_id: str, key: _Key, found: _Content, new: _Content) -> None:
    if found[:4] == new[:4]:  # but for the time
        return
    event_id, revision = key
    raise LabelError(
        f"job {job_id}: event '{event_id}' revision {revision} (sample_id {new[0]}) came as "
        f"{found[1]} and now comes as {new[1]}, or with another sample, annotator or cost; give a "
        "correction a higher revision"
    )
