"""The contract of an adapter, tried against its vendor: `rayal vendor check CONFIG`.

A small order goes out through the same `Orders` as a run's, while calls are cut off and the driver
dies; then the vendor is asked what it has. The order is cancelled at the end.
"""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rayal.errors import LabelError, RayalError
from rayal.ledger import Ledger
from rayal.ordering import Orders
from rayal.types import Audited, Labeler, LabelEvent, Order, Vocabulary

if TYPE_CHECKING:
    import httpx

_KEY = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CALLS = ("submit", "supply", "lookup", "withdraw")
_MOST_FETCHES = 1_000
_MOST_LIVES = 60


@dataclass(frozen=True)
class Finding:
    """One line of the contract."""

    name: str
    is_kept: bool | None  # None: it could not be tried
    why: str = ""


class _Died(BaseException):
    """The driver died here."""


def check(
    labeler: Any,
    vocabulary: Vocabulary,
    rows: pa.Table,
    seed: int = 0,
    cut_share: float = 0.3,
) -> Iterator[Finding]:
    """Gives one finding after the other. `rows` are the batch to order, `cut_share` the share of
    calls that are cut off after they reached the vendor (adapters with a `client` of ours)."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="rayal-check-") as folder:
        if (bind := getattr(labeler, "bind", None)) is not None:
            bind(None, vocabulary, str(Path(folder) / "labeler"))
        gate = getattr(labeler, "gate", None)
        passed = rows if gate is None else gate.passed(rows)
        yield _of_plan(labeler, passed)
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        name = f"check {uuid.uuid4().hex}"  # an order of its own every time
        with _cut(labeler, rng, cut_share), _mortal(labeler, rng):
            order, why = _placed(labeler, vocabulary, rows, url, name)
        yield Finding("an order is placed, whatever dies or is cut off", order is not None, why)
        if order is not None:
            yield from _of_vendor(labeler, order, passed)
            yield from _of_answers(labeler, order)
            yield from _of_ends(labeler, order, passed)


def _of_plan(labeler: Labeler, rows: pa.Table) -> Finding:
    one, other = labeler.plan("bcheck", rows), labeler.plan("bcheck", rows)
    name = "a plan is the same every time, with keys that every vendor takes"
    bad = [chunk.key for chunk in one if not _KEY.fullmatch(chunk.key)]
    if one != other:
        return Finding(name, False, "two plans of the same rows differ")
    if bad:
        return Finding(name, False, f"{bad[0]!r} is none: [a-z0-9-], at most 63 characters")
    if [one[0].start, one[-1].stop] != [0, rows.num_rows]:
        return Finding(name, False, f"it covers rows {one[0].start} to {one[-1].stop}")
    return Finding(name, True)


def _placed(
    labeler: Any, vocabulary: Vocabulary, rows: pa.Table, url: str, name: str
) -> tuple[Order | None, str]:
    ids = np.asarray(rows.column("sample_id"), np.int64)
    num_deaths, said = 0, ""
    for _ in range(_MOST_LIVES):
        try:
            with Ledger.open(url, "check", writer=True) as ledger:
                orders = Orders(ledger, labeler, name, vocabulary, lambda t: ids)
                order = ledger.once(0, "ordered", lambda _, o=orders: o.place(0, rows), 0)
            return order, f"the driver died {num_deaths} times"
        except _Died:
            num_deaths += 1
        except LabelError as error:
            said = str(error)
            if "the same command again" not in said:
                break
    return None, said


def _of_vendor(labeler: Any, order: Order, rows: pa.Table) -> Iterator[Finding]:
    family = labeler.capabilities.family
    name = "the vendor has each chunk, and says so"
    if family == "none":
        yield Finding(name, None, "a vendor of family 'none' cannot be asked")
    else:
        found = [labeler.lookup(ack.key) for ack in order.chunks]
        missing = [ack.key for ack, one in zip(order.chunks, found, strict=True) if one is None]
        strange = labeler.lookup("bnosuchchunk-0000")
        why = f"it has not got {missing[0]}" if missing else ""
        why = why or ("" if strange is None else f"it has what was never sent: {strange}")
        yield Finding(name, not why, why)
    name = "the vendor has each row once"
    if not isinstance(labeler, Audited) or family in ("none", "path"):
        yield Finding(name, None, f"this adapter (family '{family}') cannot list what is there")
        return
    held = Counter[int]()
    for ack in order.chunks:
        held.update({one: len(items) for one, items in labeler.held(ack.key).items()})
    wanted = np.asarray(rows.column("sample_id"), np.int64).tolist()
    wrong = {one: held[one] for one in {*wanted, *held} if held[one] != (one in set(wanted))}
    yield Finding(name, not wrong, f"sample_id: how often: {dict(list(wrong.items())[:5])}")


def _of_answers(labeler: Labeler, order: Order) -> Iterator[Finding]:
    name = "fetching comes to an end, and again gives the same"
    told: list[dict[tuple[str, int], LabelEvent]] = []
    for _ in range(2):
        events: dict[tuple[str, int], LabelEvent] = {}
        cursor, num_calls = "", 0
        while num_calls < _MOST_FETCHES:
            some, after = labeler.fetch(order, cursor)
            for event in some:
                found = events.setdefault((event.event_id, event.revision), event)
                if found != event:
                    yield Finding(name, False, f"two contents of one revision: {found}, {event}")
                    return
            num_calls += 1
            if after == cursor:
                break
            cursor = after
        else:
            yield Finding(name, False, f"the cursor moves on after {_MOST_FETCHES} calls")
            return
        told.append(events)
    first, again = told
    gone = first.keys() - again.keys()
    changed = [key for key in first.keys() & again.keys() if first[key] != again[key]]
    why = f"answer {next(iter(gone))} is gone the second time" if gone else ""
    why = why or (f"answer {changed[0]} has another content the second time" if changed else "")
    yield Finding(name, not why, why or f"{len(again)} answers so far")


def _of_ends(labeler: Labeler, order: Order, rows: pa.Table) -> Iterator[Finding]:
    one = np.asarray(rows.column("sample_id"), np.int64)[:1]
    ends: list[tuple[str, Callable[[], None]]] = [
        ("a sample can be erased", lambda: labeler.erase(order, one)),
        ("an order can be cancelled", lambda: labeler.cancel(order)),
    ]
    for name, work in ends:
        try:
            work()
            yield Finding(name, True)
        except RayalError as error:
            yield Finding(name, None, str(error))


@contextmanager
def _mortal(labeler: Any, rng: np.random.Generator) -> Iterator[None]:
    """Has the driver die once before and once after every kind of call to the vendor; of a vendor
    that cannot be asked before alone, since after is for a person to clear up."""
    seen: set[str] = set()
    can_ask = labeler.capabilities.family != "none"
    names = [name for name in _CALLS if hasattr(labeler, name)]

    def dying(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def passing(*arguments: Any) -> Any:
            place = f"{name} {getattr(arguments[0], 'key', arguments[0])}"
            if can_ask and f"before {place}" not in seen:
                seen.add(f"before {place}")
                raise _Died
            result = call(*arguments)
            if can_ask and f"after {place}" not in seen:
                seen.add(f"after {place}")
                raise _Died
            return result

        return passing

    for name in names:
        setattr(labeler, name, dying(name, getattr(labeler, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(labeler, name)


@contextmanager
def _cut(labeler: Any, rng: np.random.Generator, share: float) -> Iterator[None]:
    """Has calls that change something cut off on their way back."""
    client = getattr(labeler, "client", None)
    if client is None or labeler.capabilities.family == "none":
        yield
        return
    import httpx

    class Cutting(httpx.BaseTransport):
        def __init__(self, inner: httpx.BaseTransport) -> None:
            self.inner = inner

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = self.inner.handle_request(request)
            if request.method != "GET" and rng.random() < share:
                response.read()
                response.close()
                raise httpx.ReadTimeout("cut off by the check", request=request)
            return response

    before = client._transport
    client.close()
    client._transport = Cutting(before or httpx.HTTPTransport())
    try:
        yield
    finally:
        client.close()
        client._transport = before


def rows_of(path: str | None, columns: list[str]) -> pa.Table:
    """Gives the rows of a JSONL file, or made-up ones with text in the named columns.

    Raises:
        LabelError: the file cannot be read.
    """
    if path is None:
        made = {name: [f"{name} {i} of rayal vendor check" for i in range(7)] for name in columns}
        return pa.table({"sample_id": pa.array(range(7), pa.int64()), **made})
    try:
        lines = Path(path).expanduser().read_text().splitlines()
        found = [json.loads(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise LabelError(f"{path} is no JSONL file ({error}); give one object a line") from error
    numbered = [{"sample_id": number, **one} for number, one in enumerate(found)]
    return pa.Table.from_pylist(numbered)
