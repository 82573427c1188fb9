"""A server that answers as Label Studio 1.23.2 did when it was asked, as far as rayal asks it.

An import is all or nothing and knows no duplicates; a task's `updated_at` moves when an annotation
is made, edited or deleted; an annotation may say what the label config does not have, and there may
be more of them than were wanted; a page past the end is a 404; a personal token is traded for an
access token of five minutes, a legacy token is sent as it is.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"HS256"}', b'{"token_type":"refresh"}', b"not a signature at all")
)
ACCESS_S = 300.0
_TITLE = range(3, 51)
_STEP = timedelta(milliseconds=20)  # an edit took the real one at least this


class Refused(Exception):
    """A call that is answered with an error."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(str(detail))
        self.status, self.detail = status, detail


@dataclass
class FakeLabelStudio:
    """The server's state. `cut` says of a call that was done whether its reply is lost; `refuse`
    gives a status and headers for a call that is not done."""

    now: Callable[[], float] = time.time
    cut: Callable[[str, str], bool] = lambda method, path: False
    refuse: Callable[[str, str], tuple[int, dict[str, str]] | None] = lambda method, path: None
    most_a_page: int = 10_000
    heard: list[bytes] = field(default_factory=list)  # every request, as it came
    projects: dict[int, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)
    users: int = 1
    _ids: int = 0
    _access: dict[str, float] = field(default_factory=dict)
    _clock: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def answer(
        self, method: str, path: str, query: dict[str, str], body: Any, token: str
    ) -> tuple[int, Any]:
        """Gives status and reply of a call."""
        with self._lock:
            try:
                return self._answer(method, path.rstrip("/"), query, body, token)
            except Refused as error:
                return error.status, {"status_code": error.status, "detail": error.detail}

    def _answer(
        self, method: str, path: str, query: dict[str, str], body: Any, token: str
    ) -> tuple[int, Any]:
        if (method, path) == ("GET", "/health"):
            return 200, {"status": "UP"}
        if (method, path) == ("POST", "/api/token/refresh"):
            if (body or {}).get("refresh") != PERSONAL:
                raise Refused(401, "Token is invalid")
            access = f"access.{self._id()}.{self._id()}"
            self._access[access] = self.now()
            return 200, {"access": access}
        made = self._access.get(token.removeprefix("Bearer "), -ACCESS_S)
        if token != f"Token {LEGACY}" and self.now() - made >= ACCESS_S:
            raise Refused(401, "Invalid token.")
        parts = path.strip("/").split("/")[1:]
        match method, parts:
            case "POST", ["projects"]:
                return 201, self._new_project(body)
            case "GET", ["projects"]:
                return 200, self._list(query)
            case "POST", ["projects", number, "import"]:
                return 201, self._import(self._project(number), body)
            case "GET", ["tasks"]:
                return 200, self._tasks(query)
            case "GET", ["tasks", number]:
                return 200, self._shown(self._task(number), None)
            case "POST", ["tasks", number, "annotations"]:
                return 201, self._annotate(self._task(number), body)
            case "PATCH", ["annotations", number]:
                return 200, self._edit(self._annotation(number), body)
            case "DELETE", ["annotations", number]:
                self._forget(self._annotation(number))
                return 204, None
            case "POST", ["users"]:
                self.users += 1
                return 201, {"id": self.users, "email": body["email"]}
            case "POST", ["dm", "actions"] if query.get("id") == "delete_tasks":
                return 200, self._delete(self._project(query.get("project", "")), body)
        raise Refused(404, "Not found.")

    # --------------------------------------------------------------------------------- the calls

    def _new_project(self, body: dict[str, Any]) -> dict[str, Any]:
        if len(body["title"]) not in _TITLE:
            raise Refused(400, {"title": ["Ensure this field has 3 to 50 characters."]})
        try:
            ElementTree.fromstring(body["label_config"])
        except ElementTree.ParseError as error:
            raise Refused(400, {"label_config": [str(error)]}) from error
        number = self._id()
        self.projects[number] = {**body, "id": number, "created_at": self._tick()}
        return self.projects[number]

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        found = [
            {**one, "task_number": sum(t["project"] == one["id"] for t in self.tasks.values())}
            for one in sorted(self.projects.values(), key=lambda one: -one["id"])
            if query.get("title", "").lower() in one["title"].lower()
            and ("ids" not in query or str(one["id"]) in query["ids"].split(","))
        ]
        page, size = int(query.get("page", 1)), min(int(query.get("page_size", 30)), 100)
        some = self._page(found, page, size)
        more = "next page" if page * size < len(found) else None
        return {
            "count": len(found),
            "next": more,
            "results": [_included(one, query.get("include")) for one in some],
        }

    def _import(self, project: dict[str, Any], body: Any) -> dict[str, Any]:
        needed = set(re.findall(r'value="\$(\w+)"', project["label_config"]))
        for place, one in enumerate(body):
            if missing := needed - one.get("data", {}).keys():
                raise Refused(400, f"Error at item {place}: {missing} expected in task data")
        ids = []
        for one in body:
            number, at = self._id(), self._tick()
            self.tasks[number] = {
                "id": number,
                "project": project["id"],
                "data": one["data"],
                "meta": one.get("meta", {}),
                "predictions": one.get("predictions", []),
                "created_at": at,
                "updated_at": at,
            }
            for said in one.get("annotations", ()):
                self._annotate(self.tasks[number], {"ground_truth": True, **said})
            ids.append(number)
        return {"task_count": len(ids), "task_ids": ids}

    def _tasks(self, query: dict[str, str]) -> dict[str, Any]:
        project, asked = (
            self._project(query.get("project", "")),
            json.loads(query.get("query", "{}")),
        )
        found = [one for one in self._of(project) if self._fits(one, asked.get("filters"))]
        for name in asked.get("ordering", ())[:1]:
            column = name.removeprefix("-").removeprefix("tasks:")
            found.sort(key=lambda one: one[column], reverse=name.startswith("-"))
        size = min(int(query.get("page_size", 100)), self.most_a_page)
        some = self._page(found, int(query.get("page", 1)), size)
        whole = query.get("fields") == "all"
        shown = [self._shown(one, query.get("include"), whole) for one in some]
        return {"total": len(found), "tasks": shown}

    def _annotate(self, task: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        if any(
            one["unique_id"] and one["unique_id"] == body.get("unique_id")
            for one in self.annotations.values()
        ):
            raise Refused(409, "Annotation with this unique id already exists")
        number, at = self._id(), self._tick()
        self.annotations[number] = {
            "id": number,
            "task": task["id"],
            "result": body["result"],
            "was_cancelled": bool(body.get("was_cancelled")),
            "ground_truth": bool(body.get("ground_truth")),
            "completed_by": body.get("completed_by", 1),
            "unique_id": body.get("unique_id"),
            "created_at": at,
            "updated_at": at,
        }
        task["updated_at"] = self._tick()
        return self.annotations[number]

    def _edit(self, annotation: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        annotation.update(body)
        annotation["updated_at"] = self._tick()
        self.tasks[annotation["task"]]["updated_at"] = self._tick()
        return annotation

    def _forget(self, annotation: dict[str, Any]) -> None:
        del self.annotations[annotation["id"]]
        self.tasks[annotation["task"]]["updated_at"] = self._tick()

    def _delete(self, project: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        chosen = body["selectedItems"]
        wanted = {
            one["id"]
            for one in self._of(project)
            if self._fits(one, body.get("filters"))
            and (
                one["id"] not in chosen.get("excluded", ())
                if chosen["all"]
                else one["id"] in chosen["included"]
            )
        }
        for number in wanted:
            del self.tasks[number]
        gone = [n for n, one in self.annotations.items() if one["task"] in wanted]
        for number in gone:
            del self.annotations[number]
        return {"processed_items": len(wanted)}

    # -------------------------------------------------------------------------------------- below

    def _of(self, project: dict[str, Any]) -> list[dict[str, Any]]:
        return [one for _, one in sorted(self.tasks.items()) if one["project"] == project["id"]]

    def _said(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        return [one for _, one in sorted(self.annotations.items()) if one["task"] == task["id"]]

    def _fits(self, task: dict[str, Any], filters: Any) -> bool:
        if not filters or not filters["items"]:
            return True
        each = [self._holds(task, one) for one in filters["items"]]
        return any(each) if filters["conjunction"] == "or" else all(each)

    def _holds(self, task: dict[str, Any], asked: dict[str, Any]) -> bool:
        name, value = asked["filter"].removeprefix("filter:tasks:"), asked["value"]
        if name.startswith("data."):
            found: Any = task["data"].get(name.removeprefix("data."))
        elif name == "total_annotations":
            found = sum(not one["was_cancelled"] for one in self._said(task))
        elif name == "cancelled_annotations":
            found = sum(one["was_cancelled"] for one in self._said(task))
        elif name in ("id", "updated_at"):
            found = task[name]
        else:
            raise Refused(400, f"no such column: {name}")
        if asked["type"] == "Number":
            found, value = float(found), float(value)
        match asked["operator"]:
            case "equal":
                return bool(found == value)
            case "greater":
                return bool(found > value)
        raise Refused(400, f"no such operator: {asked['operator']}")

    def _shown(
        self, task: dict[str, Any], include: str | None, whole: bool = True
    ) -> dict[str, Any]:
        shown = dict(task)
        if whole:  # what is to be included of a task is what is included of its annotations
            shown["annotations"] = [_included(one, include) for one in self._said(task)]
        return _included(shown, include)

    def _page(self, found: list[Any], page: int, size: int) -> list[Any]:
        if page > 1 and (page - 1) * size >= len(found):
            raise Refused(404, "Invalid page.")
        return found[(page - 1) * size : page * size]

    def _project(self, number: str) -> dict[str, Any]:
        return self._one(self.projects, number, "Project")

    def _task(self, number: str) -> dict[str, Any]:
        return self._one(self.tasks, number, "Task")

    def _annotation(self, number: str) -> dict[str, Any]:
        return self._one(self.annotations, number, "Annotation")

    def _one(self, there: dict[int, dict[str, Any]], number: str, what: str) -> dict[str, Any]:
        if not number.isdigit() or int(number) not in there:
            raise Refused(404, f"No {what} matches the given query.")
        return there[int(number)]

    def _id(self) -> int:
        self._ids += 1
        return self._ids

    def _tick(self) -> str:
        self._clock += _STEP
        return self._clock.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _included(shown: dict[str, Any], include: str | None) -> dict[str, Any]:
    names = shown.keys() if include is None else include.split(",")
    return {name: value for name, value in shown.items() if name in names}


@contextlib.contextmanager
def served(fake: FakeLabelStudio) -> Iterator[str]:
    """Gives the URL of the server, on loopback, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one write a reply: of two, the second waits for an acknowledgement

        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            fake.heard.append(f"{self.requestline}\n{self.headers}".encode() + content)
            asked = urlsplit(self.path)
            refused = fake.refuse(self.command, asked.path)
            if refused is not None:
                self._reply(refused[0], {"detail": "not now"}, refused[1])
                return
            query = {name: some[0] for name, some in parse_qs(asked.query).items()}
            body = json.loads(content) if content else None
            token = self.headers.get("authorization") or ""
            told = fake.answer(self.command, asked.path, query, body, token)
            if fake.cut(self.command, asked.path):
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._reply(*told, {})

        do_POST = do_PATCH = do_DELETE = do_GET

        def _reply(self, status: int, told: Any, headers: dict[str, str]) -> None:
            content = b"" if status == 204 else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
