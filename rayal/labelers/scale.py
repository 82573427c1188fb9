"""Scale AI: a batch a chunk, a task a sample, over its HTTP API.

A task's `unique_id` is made of chunk and sample: sending one again is answered with 409, which is
its ack. Written after the calls of Scale's own client and what is said of the API; tested against
recorded shapes and a simulated vendor with faults, never against Scale's servers.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.errors import ConfigError, LabelError
from rayal.labelers import payload
from rayal.labelers.chunks import check_prices, check_rows, cut
from rayal.labelers.gate import Gate, Redaction
from rayal.labelers.http import Client, secret
from rayal.types import Ack, Capabilities, Chunk, Ids, LabelEvent, Order, Status, Vocabulary

NOT_A_SAMPLE = -1  # of a task that has no sample_id of ours: its answer goes to the quarantine
_FIELD = "label"  # the field of a task that is asked for
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PAGE = 100  # the most that Scale gives
_FORMS = ("text", "image", "video", "audio", "document", "website")


class Scale:
    """Orders and answers through Scale AI, as tasks of type textcollection.

    project      there already; its instructions are what people read
    attachments  by column what it is to Scale: text, or image, video, audio, document, website
                 (the column then holds URLs that Scale can open). None: every column is text
    instruction  for projects without one of their own
    key_env, callback_env  environment variables with the API key, and with the key of callbacks
    window_s     so far behind the newest change answers are read again: changes show late
    """

    overlap = 1  # how often Scale asks before it answers is its project's affair

    def __init__(
        self,
        project: str,
        columns: Sequence[str] | str | None = None,
        attachments: Mapping[str, str] | None = None,
        instruction: str | None = None,
        key_env: str = "SCALE_API_KEY",
        callback_env: str | None = None,
        url: str = "https://api.scale.com/v1",
        pseudonyms: str | None = None,
        redact: Redaction | None = None,
        price_minor: int = 0,
        currency: str = "USD",
        rows_per_chunk: int = 1_000,
        calls_at_once: int = 8,
        window_s: float = 120.0,
        timeout_s: float = 60.0,
    ) -> None:
        if strange := sorted(set((attachments or {}).values()) - set(_FORMS)):
            raise ConfigError(
                f"labeler.attachments has {', '.join(map(str, strange))}; choose "
                f"{', '.join(_FORMS)}"
            )
        if calls_at_once < 1 or window_s < 0:
            raise ConfigError(
                f"labeler.calls_at_once={calls_at_once} and window_s={window_s:g}; give at least 1 "
                "and 0"
            )
        check_prices(rows_per_chunk, price_minor)
        self.project, self.attachments, self.instruction = project, attachments, instruction
        self.price_minor, self.currency = price_minor, currency
        self.rows_per_chunk, self.window_s = rows_per_chunk, window_s
        self.capabilities = Capabilities("key", rows_per_chunk)
        self.gate = Gate(columns, pseudonyms, redact)
        self.client = Client(url, self._headers, timeout_s)
        self._key_env, self._callback_env = key_env, callback_env
        self._calls_at_once = calls_at_once
        self._vocabulary: Vocabulary | None = None

    # ------------------------------------------------------------------------------- before a run

    def bind(self, secret_labels: object, vocabulary: Vocabulary | None, folder: str) -> None:
        """Takes what a label may be, and checks that the key is there.

        Raises:
            ConfigError: it is not.
        """
        self._headers(False)
        self._vocabulary = vocabulary

    def check(self, schema: pa.Schema) -> None:
        """Refuses a pool whose rows cannot leave as configured.

        Raises:
            ConfigError: a column is not there, has no form in JSON, or is bytes.
        """
        self.gate.check(schema.names)
        leaving = self.gate.leaving(schema.names)
        if strange := sorted(set(self.attachments or {}) - set(leaving)):
            raise ConfigError(
                f"labeler.attachments names {', '.join(strange)}, which does not leave; name it in "
                "labeler.columns"
            )
        for name in leaving:
            kind = schema.field(name).type if name in schema.names else pa.int64()
            if not payload.has_form(kind) or pa.types.is_binary(kind):
                raise ConfigError(
                    f"labeler.columns names '{name}', which is {kind}, and Scale takes texts and "
                    "URLs; leave it out, or give a column of URLs"
                )

    # ---------------------------------------------------------------------------------- the orders

    def plan(self, job_id: str, rows: pa.Table) -> tuple[Chunk, ...]:
        """Gives the chunks of a batch."""
        return cut(job_id, rows, self.rows_per_chunk, self.price_minor, payload.sha256)

    def submit(self, chunk: Chunk, rows: pa.Table) -> Ack:
        """Places one chunk: a batch, its tasks, and the word that it is whole. Done again it makes
        what is missing.

        Raises:
            LabelError: Scale refuses, or cannot be reached.
        """
        check_rows(chunk, rows, payload.sha256(rows))
        body = {"project": self.project, "name": chunk.key, "metadata": {"rayal_chunk": chunk.key}}
        self.client.call("POST", "/batches", body=body, again=True, allowed=(409,))
        with ThreadPoolExecutor(self._calls_at_once) as pool:
            list(pool.map(lambda row: self._place(chunk.key, row), _rows(rows)))
        reply = self.client.get(f"/batches/{chunk.key}")
        if reply.body.get("status") == "staging":
            self.client.call(
                "POST", f"/batches/{chunk.key}/finalize", again=True, allowed=(400, 409)
            )
        return Ack(chunk.key, chunk.key, rows.num_rows)

    def lookup(self, key: str) -> Ack | None:
        """Gives the ack of a chunk whose batch is there and was told to be whole, or None."""
        reply = self.client.get(f"/batches/{key}/status", allowed=(404,))
        if reply.status == 404 or reply.body.get("status") == "staging":
            return None
        names = ("pending", "completed", "canceled", "error")
        return Ack(key, key, sum(int(reply.body.get(name) or 0) for name in names))

    # --------------------------------------------------------------------------------- the answers

    def status(self, order: Order) -> Status:
        """Gives how many samples have an answer that can be fetched."""
        done = 0
        for ack in order.chunks:
            reply = self.client.get(f"/batches/{ack.key}/status", allowed=(404,))
            done += int(reply.body.get("completed") or 0) if reply.status != 404 else 0
        return Status(order.num_rows, done)

    def fetch(self, order: Order, cursor: str) -> tuple[list[LabelEvent], str]:
        """Gives a page of each chunk's tasks that changed since the cursor, as events."""
        seen: dict[str, dict[str, str]] = json.loads(cursor) if cursor else {}
        events: list[LabelEvent] = []
        for ack in order.chunks:
            here = seen.get(ack.key, {})
            since, newest = here.get("since", ""), here.get("newest", "")
            params = {"project": self.project, "batch": ack.key, "limit": _PAGE}
            if since:
                params["updated_after"] = since
            if here.get("token"):
                params["next_token"] = here["token"]
            reply = self.client.get("/tasks", params)
            for task in _docs(reply.body):
                events += self._events(ack.key, task)
                newest = max(newest, str(task.get("updated_at") or ""))
            token = reply.body.get("next_token")
            after = {"newest": newest, "since": since}
            after |= {"token": str(token)} if token else {"since": self._before(newest)}
            seen[ack.key] = after
        return events, json.dumps(seen, sort_keys=True)

    def cancel(self, order: Order) -> None:
        """Takes back the tasks that nobody has answered."""
        for ack in order.chunks:
            for task in self._tasks(ack.key, {"status": "pending"}):
                self._stop(task["task_id"])

    def erase(self, order: Order, ids: Ids) -> None:
        """Cancels the tasks of these samples; what Scale keeps of them is Scale's to delete, on
        request (docs/vendors/scale.md)."""
        gone = set(np.asarray(ids, np.int64).tolist())
        for ack in order.chunks:
            for task in self._tasks(ack.key, {}):
                if _sample_of(ack.key, task) in gone and task.get("status") != "canceled":
                    self._stop(task["task_id"])

    def rings(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a callback has the key that Scale sends with all of its own."""
        if self._callback_env is None:
            return False
        wanted = secret(self._callback_env, "Scale's key of callbacks").encode()
        return hmac.compare_digest(headers.get("scale-callback-auth", "").encode(), wanted)

    # -------------------------------------------------------------------------------------- below

    def _headers(self, anew: bool) -> dict[str, str]:
        key = secret(self._key_env, "Scale's API key")
        return {"Authorization": f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"}

    def _place(self, key: str, row: Mapping[str, Any]) -> None:
        sample_id = row["sample_id"]
        forms = self.attachments
        attachments = [
            {"type": "text", "content": f"{name}: {_text(value)}"}
            if forms is None
            else {"type": forms[name], "content": _text(value)}
            for name, value in row.items()
            if name != "sample_id" and (forms is None or name in forms)
        ]
        body: dict[str, Any] = {
            "batch": key,
            "unique_id": f"{key}-{sample_id}",
            "metadata": {"rayal_chunk": key, "sample_id": sample_id},
            "attachments": attachments,
            "fields": [self._field()],
        }
        if self.instruction is not None:
            body["instruction"] = self.instruction
        self.client.call("POST", "/task/textcollection", body=body, again=True, allowed=(409,))

    def _field(self) -> dict[str, Any]:
        vocabulary = self._vocabulary
        if vocabulary is None:
            raise ConfigError("the labeler is not bound to a run; call bind first")
        about = {"field_id": _FIELD, "title": "Label", "required": True}
        if vocabulary.kind == "number":
            return {**about, "type": "number"}
        # By place: a class may be a number, and Scale's values are texts.
        choices = [
            {"label": str(name), "value": str(place)}
            for place, name in enumerate(vocabulary.classes)
        ]
        most = len(choices) if vocabulary.kind == "multilabel" else 1
        least = 0 if vocabulary.kind == "multilabel" else 1
        limits = {"min_choices": least, "max_choices": most}
        return {**about, "type": "category", "choices": choices, **limits}

    def _events(self, key: str, task: Mapping[str, Any]) -> Iterator[LabelEvent]:
        state, updated = task.get("status"), str(task.get("updated_at") or task["created_at"])
        was_done = bool(task.get("completed_at") or task.get("response"))
        if state == "pending" and not was_done:
            return
        is_done = state == "completed"
        yield LabelEvent(
            sample_id=_sample_of(key, task),
            value=self._label(task.get("response")) if is_done else None,
            event_id=str(task["task_id"]),
            revision=(_time(updated) - _EPOCH) // timedelta(microseconds=1),
            annotator=str(task.get("worker_id") or "scale"),
            at=updated,
            is_open=state == "pending",  # recalled: somebody does it again
        )
        if is_done and self.price_minor:  # once, whatever is recalled or corrected later
            yield LabelEvent(
                sample_id=_sample_of(key, task),
                value=None,
                event_id=f"{task['task_id']}/price",
                revision=0,
                annotator="scale",
                cost_minor=self.price_minor,
                is_open=True,
            )

    def _label(self, response: Any) -> Any:
        """Gives what was said; what is no answer to our field is given as it is: no label."""
        try:
            said = response["annotations"][_FIELD]["response"]
        except (KeyError, TypeError):
            return json.dumps(response, sort_keys=True)[:200]
        flat = _flat(said)
        vocabulary = self._vocabulary
        if vocabulary is None or vocabulary.kind == "number":
            return _number(flat[0]) if len(flat) == 1 else str(said)
        classes = {str(place): name for place, name in enumerate(vocabulary.classes)}
        names = [classes.get(str(one), str(one)) for one in flat]
        if vocabulary.kind == "multilabel":
            order = {name: place for place, name in enumerate(vocabulary.classes)}
            return sorted(names, key=lambda name: order.get(name, len(order)))
        return names[0] if len(names) == 1 else str(said)

    def _tasks(self, key: str, more: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        params: dict[str, Any] = {"project": self.project, "batch": key, "limit": _PAGE, **more}
        while True:
            reply = self.client.get("/tasks", params)
            yield from _docs(reply.body)
            if not reply.body.get("next_token"):
                return
            params["next_token"] = reply.body["next_token"]

    def _stop(self, task_id: str) -> None:
        self.client.call("POST", f"/task/{task_id}/cancel", again=True, allowed=(400, 404, 409))

    def _before(self, newest: str) -> str:
        if not newest:
            return ""
        return (_time(newest) - timedelta(seconds=self.window_s)).isoformat()


def _rows(rows: pa.Table) -> list[dict[str, Any]]:
    text = payload.encode(rows, rows.schema.names, "jsonl").decode()
    return [json.loads(line) for line in text.split("\n") if line]


def _docs(body: Any) -> list[Mapping[str, Any]]:
    if not isinstance(body, Mapping) or not isinstance(body.get("docs"), list):
        raise LabelError(f"Scale answered {str(body)[:200]!r} where a list of tasks was expected")
    return list(body["docs"])


def _sample_of(key: str, task: Mapping[str, Any]) -> int:
    meta = task.get("metadata") or {}
    found = meta.get("sample_id")
    if not isinstance(found, int) or isinstance(found, bool) or meta.get("rayal_chunk") != key:
        return NOT_A_SAMPLE
    return found


def _flat(said: Any) -> list[Any]:
    if not isinstance(said, list):
        return [] if said is None else [said]
    return [one for part in said for one in _flat(part)]


def _number(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return str(text)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=UTC)
