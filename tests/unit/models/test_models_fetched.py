"""Images that URIs lead to, fetched from a server on loopback; and all that a server may do."""

import contextlib
import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from buckets import Bucket
from pngs import PIXELS, encoded

from rayal.errors import ConfigError, PoolError
from rayal.models import fetch
from rayal.models.transform import Undecodable
from rayal.models.transforms import Fetched, Images
from rayal.places import Place

IMAGES = Images(height=3, width=4, mode="L")


class Server(ThreadingHTTPServer):
    """Counts what is asked for, and how much at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked = Counter[str]()
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.base = f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        with server.lock:
            server.asked[self.path] += 1
            times = server.asked[self.path]
            server.now += 1
            server.most = max(server.most, server.now)
        self._answer(server, times)

    def _answer(self, server: Any, times: int) -> None:
        name = self.path.strip("/").partition("?")[0].split("/")[0]
        code, kind, content = 200, "image/png", encoded(PIXELS)
        if name == "missing":
            code = 404
        elif name == "html":
            kind, content = "text/html; charset=utf-8", b"<html>sign in</html>"
        elif name == "broken":
            content = b"no image"
        elif name == "busy" and times <= 2:
            code = 503
        elif name == "down":
            code = 500
        elif name == "slow":
            time.sleep(1.5)
        elif name == "large":
            content = b"x" * 20_000
        elif name == "some":
            time.sleep(0.02)
        size_bytes = len(content) + (100 if name == "short" else 0)
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()
        with server.lock:  # before its last byte, after which the next one may ask
            server.now -= 1
        with contextlib.suppress(ConnectionError):  # the client had enough
            for at in range(len(content) if name == "drops" else 0):
                self.wfile.write(content[at : at + 1])
                time.sleep(0.1)
            self.wfile.write(content if name != "drops" else b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "_FIRST_WAIT_S", 0.01)
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def _rows(*uris: str | None) -> pa.RecordBatch:
    return pa.record_batch([pa.array(uris, pa.string())], names=["uri"])


def test_images_come_in_order_and_so_many_at_once(server: Server) -> None:
    fetched = Fetched(IMAGES, at_once=4)
    rows = _rows(*[f"{server.base}/some/{at}" for at in range(40)])
    assert torch.equal(fetched(rows), IMAGES(_encoded_rows(40)))
    assert 2 <= server.most <= 4
    assert fetched.columns == ("uri",)
    fetched(rows)
    assert set(server.asked.values()) == {1}  # kept, for the next epoch


def _encoded_rows(num_rows: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array([encoded(PIXELS)] * num_rows)], names=["image"])


def test_what_is_kept_is_bounded_and_stays_at_home(server: Server) -> None:
    size = len(encoded(PIXELS))
    fetched = Fetched(IMAGES, cache_bytes=2 * size)
    fetched(_rows(*[f"{server.base}/some/{at}" for at in range(5)]))
    assert fetched._kept_bytes == sum(map(len, fetched._kept.values())) == 2 * size
    again = pickle.loads(pickle.dumps(fetched))
    assert again._kept_bytes == 0
    assert again(_rows(f"{server.base}/some/1")).shape == (1, 1, 3, 4)


@pytest.mark.parametrize(
    ("name", "why", "times"),
    [
        ("missing", "HTTP 404", 1),
        ("html", "text/html came, expected image/ or ", 1),
        ("large", "it has more than 10,000 bytes", 1),
        ("down", "HTTP 500", 3),
        ("slow", "nothing came within 0.3 s", 3),
        ("drops", "it was not whole within 0.3 s", 3),
        ("short", r"\d+ of \d+ bytes came", 3),
        ("broken", "the bytes are none of PNG", 1),
    ],
)
def test_what_a_server_may_do_costs_a_row(server: Server, name: str, why: str, times: int) -> None:
    fetched = Fetched(IMAGES, max_bytes=10_000)
    fetched(_rows(f"{server.base}/some/1", f"{server.base}/some/2"))  # kept, however slow it was
    if name in ("slow", "drops"):
        fetched.limits = replace(fetched.limits, timeout_s=0.3)
    rows = _rows(f"{server.base}/some/1", f"{server.base}/{name}", None, f"{server.base}/some/2")
    began = time.monotonic()
    with pytest.raises(Undecodable, match=why) as caught:
        fetched(rows)
    assert time.monotonic() - began < 10.0
    assert caught.value.positions == (1, 2)
    assert server.asked[f"/{name}"] == times


def test_a_busy_server_is_asked_again(server: Server) -> None:
    assert Fetched(IMAGES)(_rows(f"{server.base}/busy")).shape == (1, 1, 3, 4)
    assert server.asked["/busy"] == 3


def test_no_server_no_url_no_text() -> None:
    rows = _rows("http://127.0.0.1:9/x.png", "http://[")
    with pytest.raises(Undecodable, match=r"no connection \(.*; http://\[: it is no URL") as caught:
        Fetched(IMAGES, retries=0)(rows)
    assert caught.value.positions == (0, 1)
    with pytest.raises(PoolError, match="column 'uri' is int64, expected text"):
        Fetched(IMAGES)(pa.record_batch([pa.array([1])], names=["uri"]))
    with pytest.raises(PoolError, match=r"no column 'uri' \(it has: x\)"):
        Fetched(IMAGES)(pa.record_batch([pa.array([1])], names=["x"]))


@pytest.mark.parametrize("uri", ["s3://", "data://text/plain,x", "reference://x", "a\0.png"])
def test_what_is_no_uri_at_all_costs_its_row(uri: str, tmp_path: Path) -> None:
    with pytest.raises(Undecodable, match=r"it is no (URL|path)"):
        Fetched(IMAGES, root=str(tmp_path))(_rows(uri))


def test_what_is_signed_is_fetched_and_the_signature_not_repeated(server: Server) -> None:
    assert Fetched(IMAGES)(_rows(f"{server.base}/some?sig=hush")).shape == (1, 1, 3, 4)
    named = server.base.replace("://", "://me:hush@")
    uris = [f"{server.base}/missing?sig=hush", f"{server.base}/broken?sig=hush", f"{named}/some"]
    with pytest.raises(Undecodable, match=r"missing\?\.\.\.: HTTP 404") as caught:
        Fetched(IMAGES)(_rows(*uris))
    assert caught.value.positions == (0, 1, 2)
    assert "hush" not in f"{caught.value} {caught.value.reasons}"


def test_paths_are_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encoded(PIXELS))
    (tmp_path / "secret.png").write_bytes(encoded(PIXELS))
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    fetched = Fetched(IMAGES, root=str(tmp_path / "in"))
    assert fetched(_rows("a.png", f"file://{tmp_path}/in/a.png")).shape == (2, 1, 3, 4)
    with pytest.raises(Undecodable, match=r"gone.png: there is no such file"):
        fetched(_rows("gone.png"))
    for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "file:///etc/passwd"):
        with pytest.raises(PoolError, match=r"leads to .*, outside of the root .*/in; mend"):
            fetched(_rows("a.png", path))
    monkeypatch.chdir(tmp_path / "in")
    for uri in ("local://../secret.png", f"simplecache::file://{tmp_path}/secret.png"):
        with pytest.raises(PoolError, match="may lead to any file of this machine"):
            fetched(_rows("a.png", uri))
    with pytest.raises(PoolError, match=r"'a.png' is a path, and no folder is named"):
        Fetched(IMAGES)(_rows("a.png"))


def test_what_lies_in_a_bucket(bucket: Bucket) -> None:
    """Objects of odd names too; what is not there, too large or not to be had costs its row."""
    for name, content in (
        ("a.png", encoded(PIXELS)),
        ("b c+%20?.png", encoded(PIXELS)),
        ("large.png", b"x" * 20_000),
        ("broken.png", b"no image"),
    ):
        Place(f"{bucket.url}/images/{name}").put_bytes(content)
    names = ("a.png", "b c+%20?.png", "none.png", "large.png", "broken.png")
    uris = [*(f"{bucket.url}/images/{name}" for name in names), "s3://rayal-none/a.png"]
    rows = pa.RecordBatch.from_pydict({"uri": uris})
    with pytest.raises(Undecodable) as caught:
        Fetched(IMAGES, max_bytes=10_000)(rows)
    assert caught.value.positions == (2, 3, 4, 5)
    none, large, broken, elsewhere = caught.value.reasons
    assert none.endswith("none.png: there is no such file")
    assert large.endswith("large.png: it has more than 10,000 bytes")
    assert "no image" in broken
    assert "there is no bucket 'rayal-none'" in elsewhere
    bucket.fail_next(1, 503, "GET")
    given = Fetched(IMAGES)(rows.slice(0, 2))
    assert torch.equal(given[0], given[1])
    assert sum(request.status == 503 for request in bucket.requests) == 1


def test_other_columns_pass_through() -> None:
    class Beside(Images):
        @property
        def columns(self) -> tuple[str, ...]:
            return ("image", "text")

    assert Fetched(Beside(), uri="where").columns == ("where", "text")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "png"}, r"column=png, which its transform does not read \(it reads: image\)"),
        ({"at_once": 0}, "at_once=0, timeout_s=10.0"),
        ({"timeout_s": 0}, "timeout_s=0,"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fetched(IMAGES, **options)
