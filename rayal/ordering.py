"""Orders: a batch goes out in chunks, each at most once; its answers are drained into events."""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from typing import Any

from rayal.errors import LabelError
from rayal.ledger import Ledger
from rayal.types import Ack, Chunk, Labeler, Order, Vocabulary


def place(ledger: Ledger, labeler: Labeler, name: str, t: int, rows: Any) -> Order:
    """Places round t's batch with the labeler; `name` is that of what the run asks for.

    For each chunk the intent is recorded, then the chunk is submitted, then the vendor's ack is
    recorded. A chunk whose intent is there from an attempt that died is looked up before it is
    submitted again.

    Raises:
        LabelError: nobody can say whether the vendor has a chunk, or the labeler refuses it.
    """
    job_id = job_id_of(name, t)
    acks: list[Ack] = []
    for chunk in labeler.plan(job_id, rows):
        in_doubt = ledger.event(t, f"intent/{chunk.key}") is not None
        ledger.once(t, f"intent/{chunk.key}", _itself, chunk)
        part = rows.slice(chunk.start, chunk.stop - chunk.start)
        submit = partial(_submit, labeler, rows=part, in_doubt=in_doubt)
        acks.append(ledger.once(t, f"ack/{chunk.key}", submit, chunk))
    return Order(job_id, tuple(acks), rows.num_rows)


def drain(ledger: Ledger, labeler: Labeler, t: int, order: Order, vocabulary: Vocabulary) -> None:
    """Brings all answers that are there into the ledger; a replay changes nothing.

    Raises:
        LabelError: an answer is outside the vocabulary; answers before it are kept.
    """
    cursor, more = "", True
    while more:
        events, after = labeler.fetch(order, cursor)
        vocabulary.encode([event.value for event in events if event.value is not None])
        ledger.append_labels(t, order.job_id, events)
        cursor, more = after, after != cursor


def drain_earlier(ledger: Ledger, labeler: Labeler, t: int, vocabulary: Vocabulary) -> None:
    """Brings what came late for the rounds before t into the ledger: corrections, and annotators
    who answered after the round had all its labels. An order that the labeler does not know (any
    more) is closed: another run placed it, or its files were put away.

    Raises:
        LabelError: as `drain`.
    """
    for earlier in range(t):
        event = ledger.event(earlier, "ordered")
        if event is not None and all(labeler.lookup(ack.key) for ack in event.result.chunks):
            drain(ledger, labeler, earlier, event.result, vocabulary)


def job_id_of(name: str, t: int) -> str:
    """Gives the job's key: lower case letters and digits, safe with every vendor's rules."""
    digest = hashlib.sha256(f"{name}/{t}".encode()).digest()
    return "b" + base64.b32encode(digest).decode().lower()[:26]


def _submit(labeler: Labeler, chunk: Chunk, rows: Any, in_doubt: bool) -> Ack:
    known = labeler.lookup(chunk.key) if in_doubt else None
    if known is None and in_doubt and labeler.capabilities.family == "none":
        raise LabelError(
            f"chunk {chunk.key} may or may not have reached the vendor, and this vendor cannot "
            "be asked; look there whether it has the chunk"
        )
    return known or labeler.submit(chunk, rows)


def _itself(chunk: Chunk) -> Chunk:
    return chunk
