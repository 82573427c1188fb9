"""Orders: a batch goes out in chunks, each once; its answers are drained into events.

A chunk's life is in the ledger's chain. Its intent is recorded with its cost set aside; then an
attempt is recorded; then it is sent; then the vendor's ack is recorded. A chunk with an attempt and
no ack is in doubt, and what its vendor can do (`Capabilities.family`) says how that ends.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

import numpy as np

from rayal.errors import InDoubt, LabelError
from rayal.gold import GOLD
from rayal.ledger import Entry, Ledger, Odd, Terms
from rayal.types import (
    Ack,
    Audited,
    Capabilities,
    Chunk,
    Ids,
    Labeler,
    LabelEvent,
    Order,
    Vocabulary,
)

Move = Literal["send", "look up", "take", "stop"]
_LONGEST_PAUSE_S = 60.0
_MOST_MOVES = 12  # of a chunk in one process: a vendor that is away is tried again by the next


@dataclass
class Orders:
    """The orders of one run."""

    ledger: Ledger
    labeler: Labeler
    name: str  # of what the run asks for: names its orders
    vocabulary: Vocabulary
    ids_of: Callable[[int], Ids]  # the samples that a round orders
    limit_minor: int | None = None  # what all answers of the run may cost
    gold_of: Callable[[int], Ids] = lambda _: np.empty(0, np.int64)  # those that judge annotators
    say: Callable[[str], None] = lambda _: None
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    _looked_after: set[str] = field(default_factory=set)  # jobs, by this process
    _samples: dict[int, dict[int, int]] = field(default_factory=dict)  # by round: id that left

    @property
    def overlap(self) -> int:
        """Answers a sample that are ordered."""
        return getattr(self.labeler, "overlap", None) or 1

    @property
    def price_minor(self) -> int:
        """What a sample costs, with all answers that are ordered."""
        return self.labeler.price_minor * self.overlap

    def place(self, t: int, rows: Any, why: str = "", again: int = 0) -> Order:
        """Places round t's batch with the labeler; `why` is what the record says of it. `again`:
        rows of the batch for a further time, an order of its own.

        Raises:
            LabelError: the labeler refuses a chunk, or the batch would cost too much.
            InDoubt: nobody can say whether the vendor has a chunk.
        """
        gate = getattr(self.labeler, "gate", None)
        if gate is not None and not again:
            rows = gate.passed(rows)
        elif gate is not None:
            left = {sample: name for name, sample in self.left_as(t).items()}
            ids = [left[one] for one in rows.column("sample_id").to_pylist()]
            rows = gate.passed(rows, np.asarray(ids, np.int64))
        job_id = job_id_of(f"{self.name}/again {again}" if again else self.name, t)
        chunks = self.labeler.plan(job_id, rows)
        self.ledger.intend(t, job_id, chunks, self.limit_minor)
        acks = []
        for chunk in chunks:
            part = rows.slice(chunk.start, chunk.stop - chunk.start)
            found = self.ledger.event(t, f"ack/{chunk.key}")
            ack = found.result if found is not None else self._settled(t, chunk, part, why)
            acks.append(self.ledger.once(t, f"ack/{chunk.key}", lambda _, ack=ack: ack, chunk))
        return Order(job_id, tuple(acks), rows.num_rows)

    def drain(self, t: int, order: Order) -> int:
        """Brings all answers that are there into the ledger; a replay changes nothing. Gives how
        many were new. Answers of unknown samples, outside the vocabulary, or beyond what was
        ordered are kept in the ledger's quarantine.

        Raises:
            LabelError: an answer came before with the same revision and another content.
        """
        num_new, more = 0, True
        if order.job_id not in self._looked_after:
            self.look_after(t, order)
        while more:
            cursor = self.ledger.cursor(order.job_id)
            events, after = self.labeler.fetch(order, cursor)
            more = after != cursor
            num_new += self.take(t, order, events, after if more else None)
        return num_new

    def look_after(self, t: int, order: Order) -> int:
        """Takes back what a vendor has twice of chunks that were sent more than once, and gives how
        many items that were. A call that was cut off may be done long after `in_doubt_s`, by a
        server that had much to do: then the audit at the time of the ack saw it not."""
        self._looked_after.add(order.job_id)
        vendor = self.labeler
        if vendor.capabilities.family != "tag" or not isinstance(vendor, Audited):
            return 0
        wanted = set(self.left_as(t))
        num = 0
        for ack in order.chunks:
            tries = [one for one in self.ledger.logged(ack.key) if one.what == "attempt"]
            if len(tries) > 1:
                num += self._without_surplus(t, ack.key, vendor.held(ack.key), wanted)
        return num

    def take(
        self, t: int, order: Order, events: Sequence[LabelEvent], cursor: str | None = None
    ) -> int:
        """Records answers to an order, by the ids that left, and where the labeler's next ones
        begin; gives how many were new.

        Raises:
            LabelError: as `drain`.
        """
        terms = Terms(getattr(self.labeler, "overlap", None), self.limit_minor)
        fit, odd = self._sorted(t, events)
        gold = set(self.gold_of(t).tolist())
        if gold:
            judging = [one for one in fit if one.sample_id in gold]
            fit = [one for one in fit if one.sample_id not in gold]
            self.ledger.append_labels(GOLD, order.job_id, judging, (), terms)
        return self.ledger.append_labels(t, order.job_id, fit, odd, terms, cursor)

    def drain_earlier(self, t: int) -> None:
        """Brings what came late for the rounds before t into the ledger: corrections, and
        annotators who answered after the round had all its labels. An order that the labeler does
        not know (any more) is closed: another run placed it, or its files were put away.

        Raises:
            LabelError: as `drain`.
        """
        for earlier in range(t):
            for order in self.placed(earlier):
                if all(self.labeler.lookup(ack.key) for ack in order.chunks):
                    self.drain(earlier, order)

    def placed(self, t: int) -> list[Order]:
        """Gives round t's order, and those that came after it."""
        steps = ("ordered", "again/")
        return [e.result for e in self.ledger.events(t) if e.step.startswith(steps)]

    def close(self, t: int, order: Order) -> None:
        """Records that an order owes nothing more: what it had set aside is free."""
        if not any(one.what == "closed" for one in self.ledger.logged(order.job_id)):
            self._log(t, order.job_id, "closed")

    def left_as(self, t: int) -> dict[int, int]:
        """Gives, by the id that it left under, each sample of a round's batch."""
        if t not in self._samples:
            ids = self.ids_of(t)
            gate = getattr(self.labeler, "gate", None)
            left = ids if gate is None else gate.ids(ids)
            self._samples[t] = dict(zip(left.tolist(), ids.tolist(), strict=True))
        return self._samples[t]

    # -------------------------------------------------------------------------------------- below

    def _settled(self, t: int, chunk: Chunk, rows: Any, why: str) -> Ack:
        """Gives the vendor's ack of a chunk, which it has exactly once by then."""
        can, problem = self.labeler.capabilities, ""
        for _ in range(_MOST_MOVES):
            move, due = next_move(self.ledger.logged(chunk.key), can)
            try:
                match move:
                    case "stop":
                        raise LabelError(_nobody_knows(chunk.key))
                    case "take":
                        return Ack(chunk.key, chunk.key, rows.num_rows)
                    case "send":
                        self._wait(due, chunk.key)
                        ack: Ack | None = self._send(t, chunk, rows, rows.num_rows, why)
                    case "look up":
                        self._wait(due, chunk.key)
                        ack = self.labeler.lookup(chunk.key)
                        if ack is None:
                            self._log(t, chunk.key, "not found")
                if ack is not None:
                    return self._audited(t, chunk, rows, ack, why)
            except InDoubt as error:
                problem = str(error)
                self._log(t, chunk.key, "in doubt", {"said": problem})
        raise LabelError(
            f"chunk {chunk.key} may or may not have reached the vendor ({problem or 'no answer'}); "
            "the same command again goes on asking"
        )

    def _send(self, t: int, chunk: Chunk, rows: Any, num_rows: int, why: str) -> Ack | None:
        """Sends a chunk whole, or the rows that its vendor lacks; gives the ack of a whole one."""
        gate = getattr(self.labeler, "gate", None)
        said = {
            "vendor": type(self.labeler).__name__,
            "columns": list(rows.schema.names),
            "pseudonyms": bool(getattr(gate, "pseudonyms", None)),
            "num_rows": rows.num_rows,
            "rows": [chunk.start, chunk.stop],
            "payload_sha256": chunk.payload_sha256,
            "cost_minor": chunk.cost_minor,
            "currency": self.labeler.currency,
            "why": why,
        }
        self._log(t, chunk.key, "attempt", said)
        try:
            if rows.num_rows < num_rows:
                cast(Audited, self.labeler).supply(chunk, rows)
                return None
            return self.labeler.submit(chunk, rows)
        except InDoubt:
            raise
        except LabelError as error:
            self._log(t, chunk.key, "not taken", {"said": str(error)})
            raise

    def _audited(self, t: int, chunk: Chunk, rows: Any, ack: Ack, why: str) -> Ack:
        """Gives the ack once the vendor has each row once: what it lacks is sent, what is there
        twice is taken back."""
        vendor = self.labeler
        if vendor.capabilities.family != "tag" or not isinstance(vendor, Audited):
            return ack  # the others cannot have a row twice, or cannot be asked
        ids = np.asarray(rows.column("sample_id"), np.int64)
        held = vendor.held(chunk.key)
        if any(int(one) not in held for one in ids):
            # What was sent a moment ago may not show yet.
            tried = [e for e in self.ledger.logged(chunk.key) if e.what in ("attempt", "in doubt")]
            self._wait(_seconds(tried[-1].at) + vendor.capabilities.in_doubt_s, chunk.key)
            held = vendor.held(chunk.key)
            lacking = np.flatnonzero([int(one) not in held for one in ids])
            if len(lacking):
                self._send(t, chunk, rows.take(lacking), rows.num_rows, why)
                held = vendor.held(chunk.key)
        wanted = set(ids.tolist())
        self._without_surplus(t, chunk.key, held, wanted)
        return Ack(ack.key, ack.handle, rows.num_rows)

    def _without_surplus(
        self, t: int, key: str, held: Mapping[int, Sequence[str]], wanted: set[int]
    ) -> int:
        surplus = [
            item for one, items in held.items() for item in items[1 if one in wanted else 0 :]
        ]
        if surplus:
            self._log(t, key, "surplus", {"num_items": len(surplus)})
            cast(Audited, self.labeler).withdraw(key, surplus)
            self.say(f"chunk {key}: {len(surplus)} items were there twice, now once")
        return len(surplus)

    def _wait(self, until: float, key: str) -> None:
        seconds = until - self.now()
        if seconds > 0:
            if seconds > 1:
                self.say(f"chunk {key} may be on its way; asking the vendor in {seconds:.0f} s")
            self.sleep(seconds)

    def _log(self, t: int, key: str, what: str, detail: dict[str, Any] | None = None) -> None:
        at = datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="milliseconds")
        self.ledger.log(t, key, what, detail, at)

    def _sorted(self, t: int, events: Sequence[LabelEvent]) -> tuple[list[LabelEvent], list[Odd]]:
        """Gives the answers by the pool's own ids, and apart those that fit no order or label."""
        samples = self.left_as(t)
        erased = self.ledger.erased()
        fit: list[LabelEvent] = []
        odd: list[Odd] = []
        strange = _outside(self.vocabulary, events)
        for place, event in enumerate(events):
            sample_id = samples.get(event.sample_id)
            if sample_id is None:
                odd.append(Odd(event, "its sample was never ordered"))
                continue
            if sample_id in erased:
                continue
            mine = event
            if sample_id != event.sample_id:
                mine = LabelEvent(**{**vars(event), "sample_id": sample_id})
            if place in strange:
                odd.append(Odd(mine, strange[place]))
            else:
                fit.append(mine)
        return fit, odd


def next_move(entries: Sequence[Entry], can: Capabilities) -> tuple[Move, float]:
    """Gives what to do with a chunk that has no ack, from what is recorded of it, and not before
    when (seconds since 1970)."""
    told = [one for one in entries if one.what in _TELLING]
    last = told[-1].what if told else "not found"
    if last == "assume-sent":
        return "take", 0.0
    if last in ("not found", "not taken", "assume-lost"):
        return "send", 0.0
    match can.family:  # the last attempt was cut off, in this process or one before
        case "key":
            tries = sum(one.what == "in doubt" for one in told)
            pause = min(0.5 * 2.0**tries, _LONGEST_PAUSE_S) if last == "in doubt" else 0.0
            return "send", _seconds(told[-1].at) + pause
        case "none":
            return "stop", 0.0
        case _:
            return "look up", _seconds(told[-1].at) + can.in_doubt_s


_TELLING = ("attempt", "in doubt", "not taken", "not found", "assume-sent", "assume-lost")


def job_id_of(name: str, t: int) -> str:
    """Gives the job's key: lower case letters and digits, safe with every vendor's rules."""
    digest = hashlib.sha256(f"{name}/{t}".encode()).digest()
    return "b" + base64.b32encode(digest).decode().lower()[:26]


def _outside(vocabulary: Vocabulary, events: Sequence[LabelEvent]) -> dict[int, str]:
    """Gives, by place, why a value is no label of the vocabulary."""
    said = [event.value for event in events if event.value is not None]
    with contextlib.suppress(LabelError, TypeError):  # the second: of a list or struct for a class
        vocabulary.encode(said)
        return {}
    found: dict[int, str] = {}
    for place, event in enumerate(events):
        try:
            vocabulary.encode([] if event.value is None else [event.value])
        except LabelError as error:
            found[place] = str(error)
        except TypeError:
            found[place] = f"label {event.value!r} is no {vocabulary.kind}"
    return found


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _nobody_knows(key: str) -> str:
    return (
        f"chunk {key} may or may not have reached the vendor, and this vendor cannot be asked by "
        f"program; look there, then say rayal orders RUN_DIR --assume-sent {key} or "
        f"--assume-lost {key}, and run the same command again"
    )
