"""The desk as a page: HTTP on loopback, for one browser."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from rayal.desk.desk import Desk, Stale, Where
from rayal.desk.guard import Guard
from rayal.errors import ConfigError, RayalError

_HOST = "127.0.0.1"
_MOST_BYTES = 1 << 20  # of a request's body: places of a thousand classes are a few kilobytes
_TIMEOUT_S = 30.0
_MOST_CHUNKS = 20
_JSON = "application/json"
_CLOSED = (
    "this address was used, or is another desk's: end `rayal label` and start it again for a new "
    "one; nothing is lost"
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextlib.contextmanager
def served(desk: Desk, port: int = 0) -> Iterator[str]:
    """Serves a desk for the length of the block; gives the address to open, with its token. Held
    answers are handed over when their time has come.

    Raises:
        ConfigError: the port is taken.
    """
    try:
        server = _Server((_HOST, port), BaseHTTPRequestHandler)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"port {port} of {_HOST} cannot be had ({error}); leave --port out for a free one"
        ) from error
    number = server.server_address[1]
    guard = Guard(number)
    server.RequestHandlerClass = _answering(desk, guard)
    is_over = threading.Event()

    def settle() -> None:
        while not is_over.wait(0.5):
            with contextlib.suppress(OSError, RayalError):  # a full disk: tried again, and at close
                desk.settle()

    threads = [
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True),
        threading.Thread(target=settle, daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield f"http://{_HOST}:{number}/?token={guard.token}"
    finally:
        is_over.set()
        server.shutdown()
        server.server_close()
        threads[1].join()


def state(desk: Desk) -> dict[str, Any]:
    """Gives what the page shows, as JSON: how much is open, the next row, and the last answer. Ids
    are text, since JavaScript rounds large numbers."""
    counts = desk.counts()
    where, last = desk.next_row(), desk.last()
    return {
        "annotator": desk.annotator,
        "num_rows": sum(rows for _, rows, _ in counts),
        "num_open": sum(open_rows for *_, open_rows in counts),
        "chunks": [
            {"key": key, "num_rows": rows, "num_open": open_rows}
            for key, rows, open_rows in counts
            if open_rows
        ][:_MOST_CHUNKS],
        "row": None if where is None else _row(desk, where),
        "last": None
        if last is None
        else {**_named(desk, last), "told": desk.choices(last).told(desk.label_of(last))},
        "is_holding": desk.is_holding,
        "hold_s": desk.hold_s,
    }


def _named(desk: Desk, where: Where) -> dict[str, Any]:
    return {"chunk": where[0], "sample_id": str(where[1]), "version": desk.version(where)}


def _row(desk: Desk, where: Where) -> dict[str, Any]:
    choices, values = desk.choices(where), desk.row(where)
    return {
        **_named(desk, where),
        "source_id": str(values.get("source_id") or ""),
        "fields": [vars(one) for one in desk.show.fields(values)],
        "kind": choices.kind,
        "classes": [str(one) for one in choices.classes],
        "keys": list(choices.keys),
    }


def _answering(desk: Desk, guard: Guard) -> type[BaseHTTPRequestHandler]:
    """Gives the class of requests to one desk."""

    class Request(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S
        server_version, sys_version = "rayal", ""

        def do_GET(self) -> None:
            self._guarded(self._get)

        def do_POST(self) -> None:
            self._guarded(self._post)

        def log_message(self, format: str, *args: Any) -> None:
            pass  # the first line has the token

        def _guarded(self, answer: Callable[[str], None]) -> None:
            host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
            try:
                url = urlsplit(self.path)
                if not guard.is_own_host(host):
                    return self._refuse(HTTPStatus.FORBIDDEN, f"the desk is not at {host[:100]!r}")
                if (origin is not None or self.command == "POST") and not guard.is_own_origin(
                    origin, host
                ):
                    return self._refuse(HTTPStatus.FORBIDDEN, "only the desk's own page may ask")
                if url.path == "/" and self.command == "GET" and url.query:
                    return self._enter(parse_qs(url.query).get("token", [""])[0])
                if not guard.knows(self.headers.get("Cookie", "")):
                    return self._refuse(HTTPStatus.FORBIDDEN, _CLOSED)
                answer(url.path)
            except Stale as error:
                self._refuse(HTTPStatus.CONFLICT, str(error))
            except RayalError as error:
                self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            except (ValueError, KeyError, TypeError) as error:
                said = f"no request of the page's ({type(error).__name__}: {error})"
                self._refuse(HTTPStatus.BAD_REQUEST, said)
            except (BrokenPipeError, ConnectionResetError):
                pass
            except OSError as error:
                self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, f"it could not be kept ({error})")

        def _enter(self, token: str) -> None:
            cookie = guard.admit(token)
            if cookie is not None:
                self._page({"Set-Cookie": cookie})
            elif guard.knows(self.headers.get("Cookie", "")):  # its own browser, going back
                self._page({})
            else:
                self._refuse(HTTPStatus.FORBIDDEN, _CLOSED)

        def _get(self, path: str) -> None:
            parts = path.split("/")
            if path == "/":
                self._page({})
            elif path == "/state":
                self._say(state(desk))
            elif len(parts) == 5 and parts[1] == "image":
                row = desk.row((parts[2], int(parts[3])))
                content, kind = desk.show.image(row, unquote(parts[4]))
                self._send(HTTPStatus.OK, f"image/{kind}", content)
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

        def _post(self, path: str) -> None:
            length = int(self.headers.get("Content-Length", "-1"))
            if not 0 <= length <= _MOST_BYTES:
                return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{length} bytes")
            if self.headers.get("Content-Type", "") != _JSON:
                return self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {_JSON}")
            said = json.loads(self.rfile.read(length))
            if path == "/hand-over":
                desk.hand_over()
                return self._say(state(desk))
            where = (str(said["chunk"]), int(said["sample_id"]))
            version = int(said["version"])
            if path == "/answer":
                desk.row(where)
                label = None if said["skip"] else desk.choices(where).label(said["label"])
                desk.answer(where, version, label)
            elif path == "/undo":
                desk.undo(where, version)
            else:
                return self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            self._say(state(desk))

        def _page(self, headers: dict[str, str]) -> None:
            nonce = secrets.token_urlsafe(16)
            text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
            policy = (
                f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
                "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'none'"
            )
            content = text.replace("{{nonce}}", nonce).encode()
            headers = {**headers, "Content-Security-Policy": policy}
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", content, headers)

        def _say(self, told: dict[str, Any]) -> None:
            self._send(HTTPStatus.OK, _JSON, json.dumps(told).encode())

        def _refuse(self, status: HTTPStatus, why: str) -> None:
            self._send(status, _JSON, json.dumps({"error": why}).encode())

        def _send(
            self,
            status: HTTPStatus,
            kind: str,
            content: bytes,
            headers: dict[str, str] | None = None,
        ) -> None:
            always = {
                "Content-Type": kind,
                "Content-Length": str(len(content)),
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            }
            self.send_response(status)
            for name, value in (always | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    return Request
