"""How a run's orders stand, as plain values."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rayal.ledger import Entry, Ledger


def orders(ledger: Ledger) -> list[dict[str, Any]]:
    """Gives one entry a chunk, in the order of intents: round, key, rows, what it may cost, its
    state and what was recorded of it last."""
    log: dict[str, list[Entry]] = defaultdict(list)
    for entry in ledger.logged():
        log[entry.subject].append(entry)
    acked = {event.step[4:] for event in ledger.events() if event.step.startswith("ack/")}
    found = []
    for event in ledger.events():
        if not event.step.startswith("intent/"):
            continue
        chunk = event.result
        told = [entry for entry in log[chunk.key] if entry.what != "step"]
        last = told[-1] if told else None
        found.append(
            {
                "round": event.round,
                "key": chunk.key,
                "num_rows": chunk.stop - chunk.start,
                "cost_minor": chunk.cost_minor,
                "state": _state(chunk.key in acked, last),
                "num_attempts": sum(entry.what == "attempt" for entry in told),
                "at": event.at if last is None else last.at,
                "said": "" if last is None else str(last.detail.get("said", "")),
            }
        )
    return found


def _state(is_acked: bool, last: Entry | None) -> str:
    if is_acked:
        return "placed"
    if last is None or last.what in ("not found", "assume-lost"):
        return "to be sent"
    return {"not taken": "refused", "assume-sent": "placed"}.get(last.what, "in doubt")
