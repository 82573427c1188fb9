"""A server that answers in the shapes of Scale's API, as its client 2.18.4 reads them, and has
faults: calls are cut, refused or broken; answers come late, are recalled, corrected, or odd."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from rayal.vendorkit.faults import CALLS, QUESTIONS, Faults, strike

KEY = "live_0123456789abcdef"
PAGE = 100


@dataclass
class FakeScale:
    """The vendor's state. A task is as Scale gives it."""

    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)
    _clock: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    _num_calls: int = 0
    _falls: int = 0

    def tick(self) -> str:
        self._clock += timedelta(seconds=1)
        return self._clock.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    # -------------------------------------------------------------------------- what people do

    def say(self, task_id: str, said: Any) -> None:
        """Somebody answers a task, or corrects what was said."""
        with self.lock:
            task = self.tasks[task_id]
            at = self.tick()
            answer = {"type": "category", "field_id": "label", "response": [said]}
            task |= {"status": "completed", "completed_at": at, "updated_at": at}
            task["response"] = {"annotations": {"label": answer}}

    def recall(self, task_id: str) -> None:
        """A completed task is pending again."""
        with self.lock:
            self.tasks[task_id] |= {"status": "pending", "updated_at": self.tick()}

    # ------------------------------------------------------------------------------- the calls

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, auth: str):
        """Gives status and reply; None: the line is cut."""
        with self.lock:
            if auth != "Basic " + base64.b64encode(f"{KEY}:".encode()).decode():
                return 401, {"message": "Please pass in a valid API key", "status_code": 401}
            self._num_calls += 1
            draws = np.random.default_rng([self.seed, self._num_calls])
            fault = strike(self.faults, QUESTIONS if method == "GET" else CALLS, draws)
            self._falls = self._falls + 1 if fault else 0
            if self._falls > 3:
                fault, self._falls = None, 0
            match fault:
                case "busy":
                    return 429, {"message": "Too many requests", "status_code": 429}
                case "broken":
                    return 500, {"message": "Internal error", "status_code": 500}
                case "cut_before" | "cut_asked":
                    return None
                case None:
                    return self._done(method, path, query, body)
            self._done(method, path, query, body)
            return (500, {"message": "Internal error"}) if fault == "broken_after" else None

    def _done(self, method: str, path: str, query: dict[str, str], body: Any):
        match method, path.removeprefix("/v1/").split("/"):
            case "POST", ["batches"]:
                if body["name"] in self.batches:
                    return 409, {"message": "The batch name is taken", "status_code": 409}
                made = {**body, "status": "staging", "created_at": self.tick()}
                self.batches[body["name"]] = made
                return 200, made
            case "GET", ["batches", name, *rest]:
                if name not in self.batches:
                    return 404, {"message": "Batch not found", "status_code": 404}
                if not rest:
                    return 200, self.batches[name]
                counts: dict[str, int] = {}
                for task in self.tasks.values():
                    if task["batch"] == name:
                        counts[task["status"]] = counts.get(task["status"], 0) + 1
                return 200, {"status": self.batches[name]["status"], **counts}
            case "POST", ["batches", name, "finalize"]:
                if self.batches[name]["status"] != "staging":
                    return 400, {"message": "Batch is not in staging", "status_code": 400}
                self.batches[name]["status"] = "in_progress"
                return 200, self.batches[name]
            case "POST", ["task", "textcollection"]:
                return self._made(body)
            case "POST", ["task", task_id, "cancel"]:
                task = self.tasks[task_id]
                if task["status"] == "completed":
                    return 400, {"message": "Task is completed", "status_code": 400}
                task |= {"status": "canceled", "updated_at": self.tick()}
                return 200, task
            case "GET", ["tasks"]:
                return 200, self._listed(query)
        return 404, {"message": f"no such call: {method} {path}", "status_code": 404}

    def _made(self, body: dict[str, Any]):
        if body["batch"] not in self.batches:
            return 400, {"message": "Batch not found", "status_code": 400}
        if any(task["unique_id"] == body["unique_id"] for task in self.tasks.values()):
            return 409, {"message": "The unique_id is used by another task", "status_code": 409}
        if self.batches[body["batch"]]["status"] != "staging":
            return 400, {"message": "Batch is finalized", "status_code": 400}
        task_id, at = f"{len(self.tasks):024x}", self.tick()
        params = {key: body[key] for key in ("attachments", "fields")}
        self.tasks[task_id] = {
            "task_id": task_id, "type": "textcollection", "status": "pending", "params": params,
            "unique_id": body["unique_id"], "metadata": body["metadata"], "batch": body["batch"],
            "project": self.batches[body["batch"]]["project"], "created_at": at, "updated_at": at,
            "is_test": False, "urgency": "standard", "tags": [],
        }  # fmt: skip
        return 200, self.tasks[task_id]

    def _listed(self, query: dict[str, str]) -> dict[str, Any]:
        found = [
            task
            for task in self.tasks.values()
            if task["batch"] == query["batch"]
            and query.get("status", task["status"]) == task["status"]
            and task["updated_at"].replace("Z", "+00:00") >= query.get("updated_after", "")
        ]
        start, size = int(query.get("next_token", "0")), min(int(query["limit"]), PAGE)
        more = start + size < len(found)
        told = {"docs": found[start : start + size], "total": len(found), "limit": size}
        return {**told, "has_more": more, "next_token": str(start + size) if more else None}


@contextlib.contextmanager
def served(fake: FakeScale) -> Iterator[str]:
    """Gives the URL of the API while it is served."""

    class Request(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.heard.append(f"{self.path}\n{self.headers}".encode() + content)
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            body = json.loads(content) if content else None
            auth = self.headers.get("Authorization", "")
            said = fake.answer(self.command, url.path, query, body, auth)
            if said is None:
                self.close_connection = True
                self.connection.close()
                return
            reply = json.dumps(said[1]).encode()
            self.send_response(said[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
