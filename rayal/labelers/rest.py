"""A vendor that a configuration describes: its calls, the fields of its answers, its family.

labeler=http, with
url: https://labels.example/api          token_env: VENDOR_TOKEN
family: key
calls:
  submit: {path: /batches, body: {key: "{key}", rows: "{rows}"}, handle: id, duplicate: [409]}
  lookup: {path: "/batches/{key}", handle: id, count: num_rows}
  events: {path: /events, params: {batch: "{handle}", cursor: "{cursor}"}, list: events,
           next: cursor}
fields: {sample_id: sample_id, label: label, event_id: event, revision: revision, ...}
states: {done: label, refused: refused, withdrawn: withdrawn, pending: ignored}
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.errors import ConfigError, LabelError
from rayal.labelers import payload
from rayal.labelers.chunks import check_prices, check_rows, cut
from rayal.labelers.doorbell import Bell
from rayal.labelers.gate import Gate, Redaction
from rayal.labelers.http import Client, Reply, secret
from rayal.labelers.templates import at, fill, fill_path, need
from rayal.types import Ack, Capabilities, Chunk, Ids, LabelEvent, Order, Status, Vocabulary

FAMILIES = ("key", "tag", "path", "none")
NOT_A_SAMPLE = -1  # of an answer whose sample_id is no whole number: it goes to the quarantine
_NEEDED = {"key": (), "path": ("lookup",), "tag": ("lookup", "items", "withdraw"), "none": ()}
_STATES = ("label", "refused", "withdrawn", "ignored")


class Rest:
    """A vendor with calls over HTTP.

    calls   `submit` and `events`, by family also `lookup`, `items`, `withdraw`; if the vendor has
            them `cancel`, `erase`, `status`. Each: method, path, params, body; in them {key},
            {handle}, {rows}, {num_rows}, {overlap}, {price_minor}, {currency}, {cursor}, {items},
            {item}, {sample_ids}
    fields  where an answer has its sample_id, label, event_id, revision, annotator, at, cost_minor,
            state; a revision may be a time (ISO 8601)
    states  of answers: label, refused, withdrawn (to be given again), ignored; none: all are labels
    """

    def __init__(
        self,
        url: str,
        calls: Mapping[str, Mapping[str, Any]],
        fields: Mapping[str, str],
        states: Mapping[str, str] | None = None,
        family: str = "none",
        token_env: str | None = None,
        header: str = "Authorization",
        scheme: str = "Bearer",
        columns: Sequence[str] | str | None = None,
        pseudonyms: str | None = None,
        redact: Redaction | None = None,
        overlap: int = 1,
        price_minor: int = 0,
        currency: str = "USD",
        rows_per_chunk: int = 1_000,
        in_doubt_s: float = 300.0,
        timeout_s: float = 60.0,
        doorbell: Bell | None = None,
    ) -> None:
        if family not in FAMILIES:
            raise ConfigError(f"labeler.family is '{family}'; choose {', '.join(FAMILIES)}")
        wanted = ("submit", "events", *_NEEDED[family])
        if missing := [name for name in wanted if name not in calls]:
            raise ConfigError(
                f"labeler.calls lacks {', '.join(missing)}, which a vendor of family '{family}' "
                f"must have (there are: {', '.join(calls) or 'none'})"
            )
        if missing := [name for name in ("sample_id", "label") if name not in fields]:
            raise ConfigError(f"labeler.fields lacks {', '.join(missing)}: where an answer has it")
        if wrong := sorted(set((states or {}).values()) - set(_STATES)):
            raise ConfigError(
                f"labeler.states has {', '.join(map(str, wrong))}; choose {', '.join(_STATES)}"
            )
        if overlap < 1:
            raise ConfigError(f"labeler.overlap={overlap}; give 1 or more answers a sample")
        check_prices(rows_per_chunk, price_minor)
        self.calls, self.fields, self.states = calls, dict(fields), dict(states or {})
        self.overlap, self.price_minor, self.currency = overlap, price_minor, currency
        self.rows_per_chunk = rows_per_chunk
        self.capabilities = Capabilities(family, rows_per_chunk, in_doubt_s)  # type: ignore[arg-type]
        self.gate = Gate(columns, pseudonyms, redact)
        self.doorbell = doorbell
        self._token = token_env, header, scheme
        self.client = Client(url, self._headers, timeout_s)
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------- before a run

    def bind(self, secret_labels: object, vocabulary: Vocabulary | None, folder: str) -> None:
        """Checks what only a run's start can: that the token is there.

        Raises:
            ConfigError: it is not.
        """
        self._headers(False)

    def check(self, schema: pa.Schema) -> None:
        """Refuses a pool whose rows cannot leave as configured.

        Raises:
            ConfigError: a column is not there, or has no form in JSON.
        """
        self.gate.check(schema.names)
        for name in self.gate.leaving(schema.names):
            if name in schema.names and not payload.has_form(schema.field(name).type):
                raise ConfigError(
                    f"labeler.columns names '{name}', which is {schema.field(name).type} and has "
                    "no form in JSON; leave it out"
                )

    # ---------------------------------------------------------------------------------- the orders

    def plan(self, job_id: str, rows: pa.Table) -> tuple[Chunk, ...]:
        """Gives the chunks of a batch."""
        return cut(
            job_id, rows, self.rows_per_chunk, self.price_minor, payload.sha256, self.overlap
        )

    def submit(self, chunk: Chunk, rows: pa.Table) -> Ack:
        """Gives the ack of a chunk; of family key also of one that was there before.

        Raises:
            InDoubt: the call was cut off.
            LabelError: the vendor refuses.
        """
        check_rows(chunk, rows, payload.sha256(rows))
        call = self.calls["submit"]
        duplicate = tuple(call.get("duplicate", (409,))) if self._family == "key" else ()
        reply = self._call("submit", self._about(chunk, rows), allowed=duplicate)
        handle = at(reply.body, str(call.get("handle", "id")))
        return Ack(chunk.key, chunk.key if handle is None else str(handle), rows.num_rows)

    def supply(self, chunk: Chunk, rows: pa.Table) -> None:
        """Sends rows of a chunk that the vendor lacks. Raises: as `submit`."""
        self._call("submit", self._about(chunk, rows))

    def lookup(self, key: str) -> Ack | None:
        """Gives the ack of a chunk that is there, or None; of a vendor without a look-up, what was
        acknowledged is there."""
        if "lookup" not in self.calls:
            return Ack(key, key, 0)
        call = self.calls["lookup"]
        reply = self._call("lookup", {"key": key}, again=True, allowed=(404,))
        count = (
            0 if reply.status == 404 else int(at(reply.body, str(call.get("count", "count")), 1))
        )
        handle = at(reply.body, str(call.get("handle", "id")), key)
        return Ack(key, str(handle), count) if count else None

    def held(self, key: str) -> dict[int, list[str]]:
        """Gives the vendor's items of a chunk by sample_id, page by page."""
        call = self.calls["items"]
        found: dict[int, list[str]] = {}
        cursor: Any = call.get("first", 0)
        while cursor is not None:
            reply = self._call("items", {"key": key, "cursor": cursor}, again=True)
            for item in need(reply.body, str(call.get("list", "items")), "a list of items"):
                sample = _whole(need(item, str(call.get("sample", "sample_id")), "a sample_id"))
                name = need(item, str(call.get("name", "id")), "an item's name")
                found.setdefault(sample, []).append(str(name))
            after = at(reply.body, str(call.get("next", "next")))
            cursor = None if after == cursor else after
        return found

    def withdraw(self, key: str, items: Sequence[str]) -> None:
        """Takes items back: in one call, or in one each where the path names {item}."""
        if "{item}" in str(self.calls["withdraw"].get("path")):
            for item in items:
                about = {"key": key, "item": item}
                self._call("withdraw", about, again=True, allowed=(404, 410))
        else:
            self._call("withdraw", {"key": key, "items": list(items)}, again=True)

    # --------------------------------------------------------------------------------- the answers

    def status(self, order: Order) -> Status:
        """Gives how many samples have an answer that can be fetched."""
        done: set[int] = set()
        cursor, more = "", True
        while more:
            events, after = self.fetch(order, cursor)
            done |= {event.sample_id for event in events if event.value is not None}
            cursor, more = after, after != cursor
        return Status(order.num_rows, len(done))

    def fetch(self, order: Order, cursor: str) -> tuple[list[LabelEvent], str]:
        """Gives one page of events of each chunk, and the cursor behind them.

        Raises:
            LabelError: an answer has not the fields that were configured, or a state that is not
                among `states`.
        """
        seen: dict[str, Any] = json.loads(cursor) if cursor else {}
        call, events = self.calls["events"], []
        for ack in order.chunks:
            here = seen.get(ack.key, call.get("first", ""))
            about = {"key": ack.key, "handle": ack.handle, "cursor": here}
            reply = self._call("events", about, again=True)
            for answer in need(reply.body, str(call.get("list", "events")), "a list of answers"):
                event = self._event(answer)
                if event is not None:
                    events.append(event)
            after = at(reply.body, str(call.get("next", "next")))
            seen[ack.key] = here if after is None else after
        return events, json.dumps(seen, sort_keys=True)

    def cancel(self, order: Order) -> None:
        """Takes an order back, as far as the vendor can."""
        for ack in order.chunks:
            self._optional("cancel", {"key": ack.key, "handle": ack.handle})

    def erase(self, order: Order, ids: Ids) -> None:
        """Has samples forgotten.

        Raises:
            LabelError: no call is configured for it.
        """
        for ack in order.chunks:
            about = {"key": ack.key, "handle": ack.handle, "sample_ids": np.asarray(ids).tolist()}
            self._optional("erase", about)

    def rings(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a request is the vendor's own, fresh and not heard before."""
        return self.doorbell is not None and self.doorbell.is_rung(headers, body)

    # -------------------------------------------------------------------------------------- below

    @property
    def _family(self) -> str:
        return self.capabilities.family

    def _headers(self, anew: bool) -> dict[str, str]:
        name, header, scheme = self._token
        if name is None:
            return {}
        return {header: f"{scheme} {secret(name, 'the token of the vendor')}".strip()}

    def _about(self, chunk: Chunk, rows: pa.Table) -> dict[str, Any]:
        lines = payload.encode(rows, rows.schema.names, "jsonl").decode().split("\n")
        listed = [json.loads(line) for line in lines if line]
        row = self.calls["submit"].get("row")
        return {
            "key": chunk.key,
            "rows": listed if row is None else [fill(row, one) for one in listed],
            "num_rows": rows.num_rows,
            "overlap": self.overlap,
            "price_minor": self.price_minor,
            "currency": self.currency,
        }

    def _optional(self, name: str, about: Mapping[str, Any]) -> None:
        if name not in self.calls:
            raise LabelError(
                f"the vendor cannot {name}: labeler.calls has no '{name}'; do it there by hand"
            )
        self._call(name, about, again=True, allowed=(404, 410))

    def _call(
        self,
        name: str,
        about: Mapping[str, Any],
        again: bool = False,
        allowed: tuple[int, ...] = (),
    ) -> Reply:
        call = self.calls[name]
        asks = name in ("lookup", "items", "events", "status")
        method = str(call.get("method", "GET" if asks else "POST"))
        body = None if "body" not in call else fill(call["body"], about)
        params = None if "params" not in call else fill(call["params"], about)
        path = fill_path(str(call["path"]), about)
        with self._lock:
            return self.client.call(
                method, path, body=body, params=params, again=again, allowed=allowed
            )

    def _event(self, answer: Any) -> LabelEvent | None:
        fields = self.fields
        state = at(answer, fields["state"]) if "state" in fields else None
        meant = self.states.get(str(state), "label" if not self.states else None)
        if meant is None:
            raise LabelError(
                f"an answer has state {state!r}, which labeler.states does not have (it has: "
                f"{', '.join(self.states)}); add it"
            )
        if meant == "ignored":
            return None
        sample_id = _whole(need(answer, fields["sample_id"], "an answer's sample_id"))
        annotator = str(at(answer, fields.get("annotator", ""), "") or "")
        named = at(answer, fields.get("event_id", ""))
        label = need(answer, fields["label"], "an answer's label") if meant == "label" else None
        revision = _revision(at(answer, fields.get("revision", ""), 0))
        usual = self.price_minor if label is not None and not revision else 0
        return LabelEvent(
            sample_id=sample_id,
            value=label,
            event_id=str(named) if named is not None else f"{sample_id}/{annotator}",
            revision=revision,
            annotator=annotator,
            cost_minor=int(at(answer, fields.get("cost_minor", ""), usual)),
            at=str(at(answer, fields.get("at", ""), "") or ""),
            is_open=meant == "withdrawn",
        )


def _whole(raw: Any) -> int:
    try:
        found = int(str(raw))
    except ValueError:
        return NOT_A_SAMPLE
    return found if -(2**63) <= found < 2**63 else NOT_A_SAMPLE


def _revision(raw: Any) -> int:
    """Gives a whole number as it is, and a time as microseconds since 1970."""
    if raw is None:
        return 0
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    text = str(raw)
    if text.isdigit():
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise LabelError(
            f"an answer's revision is {raw!r}, neither a whole number nor a time (ISO 8601); "
            "correct labeler.fields"
        ) from error
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000_000)
