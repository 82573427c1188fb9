"""Label events as rows: a replay changes nothing, a correction is a higher revision.

Primary key (run_id, job_id, event_id, revision). What holds of a sample now is a view of the rows,
never an update, since vendors recall and edit answers that were final.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from rayal.errors import LabelError
from rayal.ledger.quarantine import Odd, Terms, beyond, set_apart, waiting
from rayal.ledger.records import to_json
from rayal.ledger.schema import cursors, has_orders, label_events, quarantine
from rayal.ledger.store import Store
from rayal.ledger.views import IDS_A_SELECT, NAMES, Content, Key, newest, of_run
from rayal.types import LabelEvent, Told

_SEALED = ("round", "job_id", *NAMES)
_MODULUS = 1 << 256
_ROWS_A_FETCH = 20_000


@dataclass(frozen=True)
class StoredLabel:
    """The highest revision of one answer, and the order that it answers."""

    round: int
    job_id: str
    event: LabelEvent


@dataclass(frozen=True)
class Received:
    """How many answers were new, and the sum of their hashes modulo 2^256."""

    num: int = 0
    num_odd: int = 0
    seal: int = 0


def append(
    connection: Connection,
    store: Store,
    run_id: str,
    round: int,
    job_id: str,
    events: Sequence[LabelEvent],
    received: str,
    odd: Sequence[Odd] = (),
    terms: Terms | None = None,
    cursor: str | None = None,
) -> Received:
    """Inserts the events that are not there yet; those that are odd, or beyond the terms, go to
    the quarantine. `cursor`: how far the job's answers are read with these.

    Raises:
        LabelError: an event came before with the same revision and another content.
    """
    rows: dict[Key, Content] = {}
    texts: dict[tuple[type, Any], str] = {}
    for event in events:
        key, content = (event.event_id, event.revision), _content(event, texts)
        found = rows.setdefault(key, content)
        if found is not content:
            _compare(job_id, key, found, content)
    if terms is not None:
        rows |= waiting(connection, run_id, job_id, rows, terms)
    known: set[str] = set()
    for key, found in _there(connection, run_id, job_id, sorted({one for one, _ in rows})):
        known.add(key[0])
        mine = rows.pop(key, None)
        if mine is not None:
            _compare(job_id, key, found, mine)
    apart = {
        (one.event.event_id, one.event.revision): (_content(one.event, texts), one.why)
        for one in odd
    }
    if terms is not None:
        apart |= beyond(connection, run_id, job_id, rows, known, terms)
    place = {"run_id": run_id, "job_id": job_id, "round": round, "received": received}
    fresh = [
        {**place, **dict(zip(NAMES, (*key, *content), strict=True))}
        for key, content in rows.items()
    ]
    if fresh:
        connection.execute(store.insert_new(label_events), fresh)
    kept = set_apart(connection, store, run_id, job_id, place, apart) if apart else []
    if cursor is not None:
        its = (cursors.c.run_id == run_id, cursors.c.job_id == job_id)
        connection.execute(delete(cursors).where(*its))
        connection.execute(insert(cursors).values(run_id=run_id, job_id=job_id, cursor=cursor))
    seal = sum(seal_of(row) for row in (*fresh, *kept)) % _MODULUS
    return Received(len(rows), len(kept), seal)


def cursor_of(connection: Connection, run_id: str, job_id: str) -> str:
    """Gives how far the answers to an order were read; "" where none was."""
    mine = (cursors.c.run_id == run_id, cursors.c.job_id == job_id)
    return connection.scalar(select(cursors.c.cursor).where(*mine)) or ""


def seal_of(row: Mapping[str, Any]) -> int:
    """Gives the hash of an answer's row, as a number."""
    said = "\x1f".join([repr(row[name]) for name in _SEALED] + [row.get("why", "")])
    return int.from_bytes(hashlib.sha256(said.encode()).digest(), "big")


def sealed(connection: Connection, run_id: str) -> Received:
    """Gives how many answers there are, and the sum of their hashes modulo 2^256. O(answers)."""
    nums, total = [0, 0], 0
    for place, table in enumerate((label_events, quarantine)):
        rows = connection.execution_options(yield_per=_ROWS_A_FETCH).execute(
            select(table).where(table.c.run_id == run_id)
        )
        for row in rows.mappings():
            nums[place] += 1
            total = (total + seal_of(dict(row))) % _MODULUS
    return Received(nums[0], nums[1], total)


def erase(connection: Connection, run_id: str, ids: Sequence[int]) -> tuple[Received, Received]:
    """Takes out what was said of samples, and by whom; what it cost stays. Gives the seals of
    these answers before and after."""
    seals = []
    for empty in (False, True):
        num, total = [0, 0], 0
        for place, table in enumerate((label_events, quarantine)):
            for start in range(0, len(ids), IDS_A_SELECT):
                some = ids[start : start + IDS_A_SELECT]
                mine = and_(table.c.run_id == run_id, table.c.sample_id.in_(some))
                if empty:
                    connection.execute(
                        update(table).where(mine).values(value=None, annotator="", at="")
                    )
                for row in connection.execute(select(table).where(mine)).mappings():
                    num[place] += 1
                    total = (total + seal_of(dict(row))) % _MODULUS
        seals.append(Received(num[0], num[1], total))
    return seals[0], seals[1]


def current(
    connection: Connection, run_id: str, round: int | None, job_id: str | None
) -> list[StoredLabel]:
    """Gives the answers that hold now, in order of (round, job, sample, event)."""
    wanted = newest(connection, run_id, round)
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
                is_open=bool(getattr(row, "is_open", 0)),
            ),
        )
        for row in connection.execute(select(*_columns(connection)).where(wanted))
    ]
    # Sorted here: databases differ in how they order text.
    found.sort(key=lambda one: (one.round, one.job_id, one.event.sample_id, one.event.event_id))
    return found


def told(
    connection: Connection, run_id: str, start: int, before: int, also: int | None = None
) -> Told:
    """Gives the answers that hold of the rounds from `start` to before one, and `also` of another,
    as columns: a million events as objects take 1.2 GiB, as columns 0.1."""
    mine = label_events.c
    among = and_(mine.round >= start, mine.round < before)
    if also is not None:
        among = or_(among, mine.round == also)
    wanted = and_(newest(connection, run_id, None), among)
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


def digest_lines(connection: Connection, run_id: str) -> Iterator[str]:
    """Gives one line an event, in an order that does not depend on arrival; times are left out."""
    order = (label_events.c.round, label_events.c.sample_id)
    rows = connection.execution_options(yield_per=10_000).execute(
        select(*_columns(connection)).where(of_run(run_id, None)).order_by(*order)
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
                    *([1] if getattr(row, "is_open", 0) else []),
                ]
            )
            for row in group
        )


def _columns(connection: Connection) -> list[Any]:
    """What a ledger has of answers: one of version 1 is read as it is."""
    new = () if has_orders(connection) else ("is_open",)
    return [column for column in label_events.c if column.name not in new]


def _content(event: LabelEvent, texts: dict[tuple[type, Any], str]) -> Content:
    """Gives what a replay must bring again, and the time; `texts` are the values met so far."""
    value = event.value
    text: str | None = None
    if value is not None:
        mark = (type(value), value) if isinstance(value, str | int) else None
        found = None if mark is None else texts.get(mark)
        text = _text(event) if found is None else found
        if mark is not None:
            texts[mark] = text
    told = (int(event.sample_id), text, event.annotator, event.cost_minor, event.at)
    return (*told, int(event.is_open))


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
) -> Iterator[tuple[Key, Content]]:
    mine = label_events.c
    columns = [getattr(mine, name) for name in NAMES]
    for start in range(0, len(event_ids), IDS_A_SELECT):
        some = event_ids[start : start + IDS_A_SELECT]
        found = connection.execute(
            select(*columns).where(
                mine.run_id == run_id, mine.job_id == job_id, mine.event_id.in_(some)
            )
        )
        for row in found:
            plain = tuple(row)
            yield plain[:2], plain[2:]


def _compare(job_id: str, key: Key, found: Content, new: Content) -> None:
    if (*found[:4], found[5]) == (*new[:4], new[5]):  # but for the time
        return
    event_id, revision = key
    raise LabelError(
        f"job {job_id}: event '{event_id}' revision {revision} (sample_id {new[0]}) came as "
        f"{found[1]} and now comes as {new[1]}, or with another sample, annotator or cost; give a "
        "correction a higher revision"
    )
