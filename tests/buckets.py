"""A real S3 API on loopback: moto behind a door that counts, fails on request and checks keys."""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rayal import copies
from rayal.places import Place

KEY_ID, SECRET = "AKIARAYALTESTS000000", "secret-of-the-tests"
BUCKET = "rayal-tests"
_DROP = 0  # a status that stands for a connection that is cut
_SAYS = {503: "SlowDown", 500: "InternalError", 429: "TooManyRequests", 403: "AccessDenied"}


@dataclass(frozen=True)
class Request:
    """What one request was, and what it got."""

    method: str
    path: str  # bucket and key, and the query
    range: str  # of bytes, "" for the whole
    status: int
    num_bytes: int  # of the answer's body


@dataclass
class Bucket:
    """A bucket of the server, what was asked of it, and what is to go wrong."""

    url: str  # s3://...
    endpoint: str
    requests: list[Request] = field(default_factory=list)
    _failing: list[tuple[int, str, str]] = field(default_factory=list)
    _losing: list[str] = field(default_factory=list)
    delay_s: float = 0.0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a client there."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def fail_next(self, number: int, status: int, method: str = "", path: str = "") -> None:
        """Makes the next requests, of a method and a path that matches, end with a status; 0 cuts
        the connection."""
        with self._guard:
            self._failing += [(status, method, path)] * number

    def lose_next(self, number: int, method: str) -> None:
        """Makes the next requests of a method be done, and their answers be lost on the way."""
        with self._guard:
            self._losing += [method] * number

    def take(self, folder: Path | str, name: str) -> str:
        """Puts a folder of the disk, without hidden files, under a name; gives its URL."""
        place = Place.of(f"{self.url}/{name}")
        for file in sorted(Path(folder).rglob("*.*")):
            if file.is_file():
                (place / file.relative_to(folder).as_posix()).put_file(file)
        return place.url

    def fail_no_more(self) -> int:
        """Gives how many failures nobody met, and forgets them."""
        with self._guard:
            left, self._failing, self._losing = len(self._failing), [], []
        return left

    def got(self, pattern: str = "") -> list[Request]:
        """Gives the successful GETs of objects whose path matches."""
        return [
            one
            for one in self.requests
            if one.method == "GET"
            and one.status in (200, 206)
            and "list-type" not in one.path
            and re.search(pattern, one.path)
        ]

    def failure(self, method: str, path: str) -> int | None:
        """Gives the status with which this request is to end, None for its own."""
        with self._guard:
            for place, (status, of_method, of_path) in enumerate(self._failing):
                if of_method in ("", method) and re.search(of_path, path):
                    del self._failing[place]
                    return status
        return None

    def is_lost(self, method: str) -> bool:
        """Whether the answer to this request is to be lost."""
        with self._guard:
            if method in self._losing:
                self._losing.remove(method)
                return True
        return False


def forget_copies() -> None:
    """What this process fetched from stores and wrote there is not known to it: it is another."""
    copies._own.clear()
    copies._seen.clear()
    copies._grown.clear()


def _door(bucket: Bucket, inner: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Gives a WSGI application in front of another."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        query = environ.get("QUERY_STRING", "")
        path = environ["PATH_INFO"] + ("?" + query if query else "")
        got: list[str] = []

        def begin(status: str, headers: Any, *rest: Any) -> Any:
            got.append(status)
            return start(status, headers, *rest)

        if bucket.delay_s:
            time.sleep(bucket.delay_s)
        status = bucket.failure(method, path)
        refused = _refused(environ.get("HTTP_AUTHORIZATION", ""))
        if status == _DROP:
            bucket.requests.append(Request(method, path, environ.get("HTTP_RANGE", ""), _DROP, 0))
            raise ConnectionResetError("told to")  # for the handler to cut
        if status is not None:
            body = _said(begin, environ, status, _SAYS[status])
        elif refused:
            body = _said(begin, environ, 403, refused)
        else:
            body = b"".join(inner(environ, begin))
        bucket.requests.append(
            Request(method, path, environ.get("HTTP_RANGE", ""), int(got[0].split()[0]), len(body))
        )
        if bucket.is_lost(method):
            raise ConnectionResetError("told to")
        return [b"" if method == "HEAD" else body]

    return answer


def _refused(authorization: str) -> str:
    """Gives the code with which S3 refuses a request so signed, "" where it does not."""
    found = re.search(r"Credential=([^/]+)/", authorization)
    if found is None:
        return "AccessDenied"
    return "" if found[1] == KEY_ID else "InvalidAccessKeyId"


def _said(begin: Callable[..., Any], environ: dict[str, Any], status: int, code: str) -> bytes:
    with contextlib.suppress(Exception):  # an upload must be read, or the client's pipe breaks
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told to</Message></Error>"
    name = http.client.responses.get(status, "error")
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    begin(f"{status} {name}", headers)
    return body.encode()


@contextlib.contextmanager
def served() -> Iterator[Bucket]:
    """Gives an empty bucket of a server that ends with the block."""
    reason = "moto is not installed: pip install -e '.[dev]'"
    moto = pytest.importorskip("moto.server", reason=reason)
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # clients keep their connections, as with a real store

        def log(self, kind: str, message: str, *args: Any) -> None:
            pass

        def connection_dropped(self, *_: Any) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    bucket = Bucket(f"s3://{BUCKET}", "")
    inner = moto.DomainDispatcherApplication(moto.create_backend_app)
    server = make_server("127.0.0.1", 0, _door(bucket, inner), threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    bucket.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        _make(server.server_port)
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _make(port: int) -> None:
    """Makes the bucket; the door asks for nothing but the name of a key."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    signed = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/us-east-1/s3/aws4_request, "
    connection.request(
        "PUT",
        f"/{BUCKET}",
        headers={"Authorization": signed + "SignedHeaders=host, Signature=0"},
    )
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()
