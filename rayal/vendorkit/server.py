"""The vendor over real HTTP, on loopback: calls that are cut, late, refused or broken.

POST /batches           {"key", "rows": [{"sample_id", ...}], "overlap", "price_minor"} -> {"id"}
GET  /batches/KEY       {"id", "num_rows", "sha256"}; 404: not there (family none: always)
GET  /items?key=&page=  {"items": [{"name", "sample_id"}], "next"}
POST /items/delete      {"names": [...]}
GET  /events?key=&cursor=  {"events": [...], "cursor"}
POST /batches/KEY/cancel
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from rayal.vendorkit.faults import CALLS, QUESTIONS, strike
from rayal.vendorkit.vendor import Answer, Vendor

PAGE = 100
_LONGEST_FALL = 3  # faults in a row that one call may meet


@dataclass
class Desk:
    """The vendor's front: which fault a call meets, and what it is told."""

    vendor: Vendor
    token: str = ""
    late_s: float = 5.0  # a call that is cut on its way is taken within this
    heard: list[bytes] = field(default_factory=list)  # every request, as it came
    is_away: bool = False
    _struck: dict[str, int] = field(default_factory=dict)
    _num_calls: int = 0

    def answer(
        self, method: str, path: str, query: dict[str, str], body: Any
    ) -> tuple[int, Any] | None:
        """Gives status and reply of a call; None: the line is cut."""
        with self.vendor.lock:
            if self.is_away:
                return None
            self._num_calls += 1
            draws = np.random.default_rng([self.vendor.seed, self._num_calls])
            changes = method != "GET"
            fault = strike(self.vendor.faults, CALLS if changes else QUESTIONS, draws)
            call = f"{method} {path} {sorted(query.items())}"
            if fault is not None:
                self._struck[call] = self._struck.get(call, 0) + 1
                if self._struck[call] > _LONGEST_FALL:
                    self._struck[call], fault = 0, None
            return self._struck_by(fault, method, path, query, body, draws)

    def _struck_by(
        self,
        fault: str | None,
        method: str,
        path: str,
        query: dict[str, str],
        body: Any,
        draws: np.random.Generator,
    ) -> tuple[int, Any] | None:
        vendor = self.vendor
        places_rows = method == "POST" and path == "/batches"
        match fault:
            case "busy":
                return 429, {"error": "slow down", "retry_after": 0.01}
            case "broken":
                return 500, {"error": "broken before anything was done"}
            case "cut_before" | "cut_asked":
                return None
            case "cut_late" if places_rows and vendor.family != "path":
                vendor.take_later(body["key"], body["rows"], self.late_s * float(draws.random()))
                return None
            case "half" if places_rows and vendor.family == "tag":
                vendor.take(body["key"], body["rows"][: int(draws.integers(len(body["rows"])))])
                return None
            case "cut_after" | "silent" | "broken_after" | "cut_late" | "half":
                self._done(method, path, query, body)
                return (500, {"error": "broken"}) if fault == "broken_after" else None
        return self._done(method, path, query, body)

    def _done(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        vendor = self.vendor
        parts = [unquote(one) for one in path.strip("/").split("/")]
        match method, parts:
            case "POST", ["batches"]:
                taken = vendor.take(body["key"], body["rows"])
                told = {"id": body["key"], "sha256": vendor.shas[body["key"]]}
                return (201, told) if taken else (409, told | {"error": "the key is there"})
            case "GET", ["batches", key] if vendor.family != "none":
                held = vendor.held(key)
                told = {"id": key, "num_rows": len(held), "sha256": vendor.shas.get(key)}
                return (200, told) if held else (404, {"error": "no such batch"})
            case "GET", ["items"] if vendor.family != "none":
                held, start = vendor.held(query["key"]), int(query.get("page", "0")) * PAGE
                page = [
                    {"name": item.name, "sample_id": item.fields["sample_id"]}
                    for item in held[start : start + PAGE]
                ]
                more = start + PAGE < len(held)
                return 200, {"items": page, "next": start // PAGE + 1 if more else None}
            case "POST", ["items", "delete"]:
                vendor.withdraw(body["names"])
                return 200, {}
            case "POST", ["batches", key, "cancel"]:
                vendor.withdraw([item.name for item in vendor.held(key)])
                return 200, {}
            case "GET", ["events"]:
                found, after = vendor.events(query["key"], int(query.get("cursor") or 0), PAGE)
                return 200, {"events": [_told(one) for one in found], "cursor": str(after)}
        return 404, {"error": f"no such call: {method} {path}"}


@contextlib.contextmanager
def served(desk: Desk) -> Iterator[str]:
    """Gives the URL of the vendor, served in a thread on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body in one packet: two wait 40 ms for one another

        def do_GET(self) -> None:
            self._call(b"")

        def do_POST(self) -> None:
            self._call(self.rfile.read(int(self.headers.get("content-length") or 0)))

        def _call(self, content: bytes) -> None:
            head = f"{self.requestline}\n{self.headers}".encode()
            desk.heard.append(head + content)
            if desk.token and self.headers.get("authorization") != f"Bearer {desk.token}":
                self._reply(401, {"error": "no such token"})
                return
            asked = urlsplit(self.path)
            query = {name: some[0] for name, some in parse_qs(asked.query).items()}
            body = json.loads(content) if content else None
            told = desk.answer(self.command, asked.path, query, body)
            if told is None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._reply(*told)

        def _reply(self, status: int, told: Any) -> None:
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            if status == 429:
                self.send_header("retry-after", "0")
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Says nothing: clients that die are the point."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _told(answer: Answer) -> dict[str, Any]:
    return {
        "event": answer.event,
        "revision": answer.revision,
        "sample_id": answer.sample_id,
        "state": answer.state,
        "label": answer.label,
        "worker": answer.worker,
        "price_minor": answer.price_minor,
        "at": f"{answer.at:.3f}",
    }
