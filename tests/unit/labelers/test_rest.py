"""A vendor that a configuration describes: calls, fields, states, families."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from rayal.errors import ConfigError, LabelError
from rayal.labelers.rest import NOT_A_SAMPLE, Rest
from rayal.labelers.templates import at, fill, fill_path, need
from rayal.types import Ack, LabelEvent, Order
from rayal.vendorkit.scenario import CALLS, FIELDS

httpx = pytest.importorskip("httpx", reason="adapters over HTTP need the extra 'vendors'")

ROWS = pa.table({"sample_id": pa.array([3, 4], pa.int64()), "text": ["a", "b"]})
URL = "https://vendor.example"


def rest(handle: Any = None, **settings: Any) -> Rest:
    words: dict[str, Any] = {
        "calls": CALLS, "fields": FIELDS, "family": "key", "columns": ["text"], "price_minor": 3,
        **settings,
    }  # fmt: skip
    made = Rest(URL, **words)
    if handle is not None:
        made.client._transport = httpx.MockTransport(handle)
    return made


def test_rows_go_out_in_the_form_that_the_vendor_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append((request.url.path, request.headers["x-key"], json.loads(request.content)))
        return httpx.Response(409 if len(seen) > 1 else 200, json={"task": {"id": 77}})

    monkeypatch.setenv("RAYAL_TEST_TOKEN", "s3cret-token")
    submit = {
        "path": "/v1/{key}/tasks", "handle": "task.id",
        "row": {"ref": "rayal-{sample_id}", "id": "{sample_id}", "data": {"body": "{text}"}},
        "body": {"tasks": "{rows}", "answers": "{overlap}", "note": "{num_rows} rows"},
    }  # fmt: skip
    words = {"token_env": "RAYAL_TEST_TOKEN", "header": "X-Key", "scheme": "", "overlap": 2}
    labeler = rest(handle, calls={**CALLS, "submit": submit}, **words)
    (chunk,) = labeler.plan("b0", ROWS)
    assert (chunk.cost_minor, chunk.overlap) == (12, 2)
    assert labeler.submit(chunk, ROWS) == Ack("b0-0000", "77", 2)
    assert labeler.submit(chunk, ROWS) == Ack("b0-0000", "77", 2)  # 409: it has it
    path, token, body = seen[0]
    assert (path, token) == ("/v1/b0-0000/tasks", "s3cret-token")
    assert body == {
        "tasks": [
            {"ref": "rayal-3", "id": 3, "data": {"body": "a"}},
            {"ref": "rayal-4", "id": 4, "data": {"body": "b"}},
        ],
        "answers": 2,
        "note": "2 rows",
    }
    with pytest.raises(LabelError, match="was planned as rows 0 to 2"):
        labeler.submit(chunk, ROWS.slice(1))


def test_answers_come_back_as_events() -> None:
    pages = {
        "": {
            "events": [
                {"sample_id": 3, "label": "cat", "event": "e1", "revision": 0, "worker": "w", "at":
                 "2026-01-01T00:00:00Z", "price_minor": 5, "state": "done"},
                {"sample_id": "4", "label": None, "event": "e2", "state": "refused"},
                {"sample_id": "x", "label": "cat", "event": "e3", "state": "done"},
                {"sample_id": 3, "label": "dog", "event": "e1", "state": "done", "worker": "w",
                 "revision": "2026-01-02T00:00:00Z"},
                {"sample_id": 4, "event": "e4", "state": "started"},
            ],
            "cursor": "9",
        },
        "9": {"events": [], "cursor": None},
    }  # fmt: skip

    def handle(request: Any) -> Any:
        return httpx.Response(200, json=pages[dict(request.url.params)["cursor"]])

    states = {"done": "label", "refused": "refused", "started": "ignored"}
    labeler = rest(handle, states=states)
    order = Order("b0", (Ack("b0-0000", "77", 2),), 2)
    events, cursor = labeler.fetch(order, "")
    assert events == [
        LabelEvent(3, "cat", "e1", 0, "w", 5, "2026-01-01T00:00:00Z"),
        LabelEvent(4, None, "e2"),
        LabelEvent(NOT_A_SAMPLE, "cat", "e3", cost_minor=3),
        LabelEvent(3, "dog", "e1", 1_767_312_000_000_000, "w"),
    ]
    assert labeler.fetch(order, cursor) == ([], cursor)
    assert labeler.status(order).num_done == 2
    with pytest.raises(LabelError, match=r"state 'started', which labeler.states does not have"):
        rest(handle, states={"done": "label", "refused": "refused"}).fetch(order, "")
    wrong = {**CALLS, "events": {**CALLS["events"], "list": "answers"}}
    with pytest.raises(LabelError, match="reply has no 'answers', where a list of answers is exp"):
        rest(handle, calls=wrong).fetch(order, "")


def test_a_description_that_cannot_work_is_refused() -> None:
    for words, said in (
        ({"family": "tags"}, "labeler.family is 'tags'; choose key, tag, path, none"),
        ({"family": "tag", "calls": {"submit": {}, "events": {}}}, "lacks lookup, items, withdraw"),
        ({"calls": {"events": {}}}, r"labeler.calls lacks submit"),
        ({"fields": {"label": "l"}}, r"labeler.fields lacks sample_id"),
        ({"states": {"done": "finished"}}, r"labeler.states has finished; choose label, refused"),
        ({"overlap": 0}, r"labeler.overlap=0"),
        ({"rows_per_chunk": 0}, "rows_per_chunk=0"),
    ):
        with pytest.raises(ConfigError, match=said):
            rest(**words)
    with pytest.raises(ConfigError, match=r"names \{sample\}, which is not known there"):
        fill({"a": ["{sample}"]}, {"sample_id": 3})
    with pytest.raises(LabelError, match=r"the vendor cannot erase: labeler.calls has no 'erase'"):
        rest().erase(Order("b0", (Ack("k", "k", 1),), 1), [3])
    schema = pa.schema({"sample_id": pa.int64(), "text": pa.duration("s")})
    with pytest.raises(ConfigError, match=r"'text', which is duration\[s\] and has no form"):
        rest().check(schema)
    with pytest.raises(ConfigError, match="nothing leaves"):
        rest(columns=None).check(schema)


def test_templates() -> None:
    values = {"key": "a/b c", "rows": [1], "n": 2}
    assert fill({"x": ["{rows}", "{n} of {key}", 5, None]}, values) == {
        "x": [[1], "2 of a/b c", 5, None]
    }
    assert fill_path("/batches/{key}/x", values) == "/batches/a%2Fb%20c/x"
    body = {"a": [{"b": 1}], "c": None}
    assert (at(body, "a.0.b"), at(body, "a.1.b", 9), at(body, "c", 9), at(body, ".")) == (
        1, 9, None, body,
    )  # fmt: skip
    assert need(body, "c", "x") is None
