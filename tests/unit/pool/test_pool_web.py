"""Sources on a web server: what it says is told, and what breaks off is one line."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayal.errors import PoolError
from rayal.pool import ingest

ROWS = b"x,y\n" + b"".join(b"%d,a\n" % number for number in range(500))


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2].partition(".")[0]
        if name.isdigit():
            self.send_error(int(name))
            return
        content = b"<!DOCTYPE html>\n<html>Please log in</html>" if name == "page" else ROWS
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + 100_000 * (name == "broken")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()


def test_rows_are_read(server: str, tmp_path: Path) -> None:
    assert ingest(f"{server}/rows.csv", str(tmp_path / "pool"), test_share=0.0).num_rows == 500


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("404.csv", "does not exist .its server says HTTP 404"),
        ("401.csv", "cannot be had: its server says HTTP 401"),
        ("403.csv", "cannot be had: its server says HTTP 403 Forbidden; give a file"),
        ("500.csv", "cannot be had: its server says HTTP 500"),
        ("page.csv", "is a page of HTML .*fetch the file again"),
        ("broken.csv", "broken.csv cannot be read"),
    ],
)
def test_what_cannot_be_had(server: str, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(PoolError, match=said) as caught:
        ingest(f"{server}/{name}", str(tmp_path / "pool"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pool" / "manifest.json").exists()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.raises(PoolError, match=r"cannot be reached: .*refused.*; give a file"):
        ingest(f"http://127.0.0.1:{port}/rows.csv", str(tmp_path / "pool"))
