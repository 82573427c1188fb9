"""Where vendors ring: a request that is a vendor's own ends a wait early, and does nothing else.

It listens on loopback alone; a reverse proxy of yours lets the vendor's webhook through to it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rayal.errors import ConfigError, RayalError
from rayal.types import Doorbell

_LONGEST_BODY = 1 << 20
_LONGEST_S = 10.0  # for a request to come in


class Waiter:
    """Waits for a time, or until somebody rings."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def wait(self, seconds: float) -> None:
        """Comes back after so many seconds, or once it was rung since the last wait."""
        self._rung.wait(seconds)
        self._rung.clear()

    def ring(self) -> None:
        """Ends the wait."""
        self._rung.set()


@contextlib.contextmanager
def answering(waiter: Waiter, labeler: Any, port: int | None) -> Iterator[int]:
    """Answers the door at a port of loopback (0: any that is free, None: not at all); gives it.

    Raises:
        ConfigError: the labeler has no doorbell, or the port is taken.
    """
    if port is None:
        yield 0
        return
    if not isinstance(labeler, Doorbell):
        raise ConfigError(
            f"doorbell_port={port}, but {type(labeler).__name__} has no doorbell; leave it out"
        )
    vendor: Doorbell = labeler

    class Door(BaseHTTPRequestHandler):
        timeout = _LONGEST_S

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if not length.isdigit() or int(length) > _LONGEST_BODY:
                self._reply(413)
                return
            body = self.rfile.read(int(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                is_rung = vendor.rings(headers, body)
            except RayalError:  # there is no secret: nobody can be known
                is_rung = False
            if is_rung:
                waiter.ring()
            self._reply(204 if is_rung else 403)

        def _reply(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Says nothing: what strangers send is not for the log."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Door)
    except OSError as error:
        raise ConfigError(
            f"doorbell_port={port} cannot be listened at ({error.strerror}); choose another"
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.daemon = True
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
