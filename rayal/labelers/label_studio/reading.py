"""How far a project has been read, and what its tasks say.

A reading goes through the tasks that changed since the last one, in order of their ids, a few pages
a call. What changes while it goes on has a time behind its beginning and is read by the next. A
change can become visible after a later one did, by as long as a call lasts: so much of the end is
read again with the next, and once more when nothing can come there any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from rayal.labelers.label_studio.screen import Screen
from rayal.labelers.label_studio.tasks import SAMPLE, TAG
from rayal.labelers.label_studio.told import Known
from rayal.types import LabelEvent

FIELDS = "id,meta,updated_at,created_at,annotations,result,completed_by,was_cancelled"
NOT_A_SAMPLE = -1  # of a task that is none of ours: its answers go to the quarantine
DELETED = 2**62  # the revision of an annotation that is no more: ids do not come again
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAVED_WITHIN = timedelta(milliseconds=10)  # a first save sets both its times; an edit takes longer


@dataclass(frozen=True)
class Place:
    """How far a project was read; times are the server's, as text, but for `since`."""

    at: str = ""  # the newest change that was there when the last reading began
    num_tasks: int = 0
    since: float = 0.0  # when `at` was first met, seconds since 1970
    is_quiet: bool = False  # nothing older than `at` can become visible any more
    is_reading: bool = False  # of a reading under way:
    to: str = ""
    start: str = ""  # from which change on; "": all
    after: int = 0  # the last task that was read


def begun(place: Place, newest: str, num_tasks: int, now: float, window_s: float) -> Place:
    """Gives the beginning of the next reading, or the same place where there is nothing to read. A
    project that lost tasks is read from its beginning: what was deleted is in no list of changes.
    """
    is_same = place.since > 0.0 and (newest, num_tasks) == (place.at, place.num_tasks)
    if is_same and (place.is_quiet or now - place.since <= window_s):
        return place
    is_whole = not place.at or num_tasks < place.num_tasks
    start = "" if is_whole else _before(place.at, window_s)
    return replace(
        place, num_tasks=num_tasks, is_reading=True, to=newest, start=start, after=0, is_quiet=False
    )


def ended(place: Place, now: float, window_s: float) -> Place:
    """Gives the place behind a reading."""
    if place.to == place.at and place.since > 0.0:
        return Place(place.at, place.num_tasks, place.since, now - place.since > window_s)
    return Place(place.to, place.num_tasks, now)


def events_of(
    task: Mapping[str, Any],
    keys: Collection[str],
    known: Sequence[Known],
    screen: Screen,
    price_minor: int,
) -> tuple[list[LabelEvent], list[Known]]:
    """Gives what a task's annotations say now, and those that are met for the first time.

    `known`: those of this task that were told of before; who is not there any more is withdrawn.
    An answer is paid once. Its first revision has the price; where only a later one was ever seen,
    an event of its own has it.
    """
    events: list[LabelEvent] = []
    new: list[Known] = []
    before = {one.annotation: one for one in known}
    sample_id = sample_of(task, keys)
    for one in task.get("annotations", ()):
        created, updated = _time(one["created_at"]), _time(one["updated_at"])
        annotator = _who(one.get("completed_by"))
        is_first = updated - created < _SAVED_WITHIN
        value = None if one.get("was_cancelled") else screen.label_of(one.get("result") or ())
        is_paid = is_first and value is not None
        name, known_one = str(one["id"]), before.pop(int(one["id"]), None)
        if known_one is None:
            known_one = Known(int(task["id"]), int(one["id"]), sample_id, annotator, is_paid)
            new.append(known_one)
        event = LabelEvent(
            sample_id=sample_id,
            value=value,
            event_id=name,
            revision=(updated - _EPOCH) // timedelta(microseconds=1),
            annotator=annotator,
            cost_minor=price_minor if is_paid else 0,
            at=updated.isoformat(),
        )
        events.append(event)
        if price_minor and value is not None and not is_paid and not known_one.is_paid:
            price = LabelEvent(sample_id, None, f"{name}/price", 0, annotator, price_minor)
            events.append(replace(price, is_open=True))  # no answer of its own
    return events + [withdrawn(one) for one in before.values()], new


def withdrawn(one: Known) -> LabelEvent:
    """Gives the event that an annotation is no more."""
    gone = LabelEvent(one.sample_id, None, str(one.annotation), DELETED, one.annotator)
    return replace(gone, is_open=True)


def sample_of(task: Mapping[str, Any], keys: Collection[str]) -> int:
    """Gives the sample of a task that is one of these chunks', or `NOT_A_SAMPLE`."""
    meta = task.get("meta") or {}
    found = meta.get(SAMPLE)
    if not isinstance(found, int) or isinstance(found, bool) or meta.get(TAG) not in keys:
        return NOT_A_SAMPLE
    return found


def _who(raw: Any) -> str:
    """Gives an annotator's id: names and addresses are nobody's business here."""
    found = raw.get("id") if isinstance(raw, Mapping) else raw
    return "" if found is None else str(found)


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _before(at: str, seconds: float) -> str:
    """Gives a time that much earlier, as Label Studio's filters read it."""
    found = _time(at).astimezone(UTC) - timedelta(seconds=seconds)
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
