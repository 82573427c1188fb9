"""The desk over real HTTP: who may speak with it, and what it says."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from desks import Drop, images, say, texts

from rayal.desk.desk import Desk
from rayal.desk.server import served
from rayal.errors import ConfigError
from rayal.types import Vocabulary


@dataclass
class Tab:
    """A browser's tab, as far as headers go."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc

    @property
    def token(self) -> str:
        return urlsplit(self.address).query.partition("=")[2]

    def ask(
        self, path: str, body: Any = None, **headers: str | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Gives status, headers and body; a header that is None is left out."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        sent: dict[str, str | None] = {"Host": self.host, **self.headers}
        if body is not None:
            sent |= {"Origin": f"http://{self.host}", "Content-Type": "application/json"}
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in sent.items() if value is not None}
        connection.request("GET" if body is None else "POST", path, body, kept)
        reply = connection.getresponse()
        found = reply.status, reply.headers, reply.read()
        connection.close()
        return found

    def enter(self) -> Tab:
        """Opens the address, and keeps the cookie."""
        status, headers, _ = self.ask(f"/?token={self.token}")
        assert status == 200
        self.headers["Cookie"] = headers["Set-Cookie"].partition(";")[0]
        return self

    def state(self) -> dict[str, Any]:
        status, _, body = self.ask("/state")
        assert status == 200, body
        return json.loads(body)

    def answer(self, label: Any, skip: bool = False, **changed: Any) -> int:
        row = self.state()["row"]
        seen = {name: row[name] for name in ("chunk", "sample_id", "version")}
        return self.ask("/answer", {**seen, "label": label, "skip": skip, **changed})[0]


@pytest.fixture
def drop(tmp_path: Path) -> Drop:
    drop = Drop(tmp_path)
    drop.order(texts(3))
    return drop


@pytest.fixture
def desk(drop: Drop) -> Iterator[Desk]:
    desk = drop.desk()
    yield desk
    desk.close()


@pytest.fixture
def tab(desk: Desk) -> Iterator[Tab]:
    with served(desk) as address:
        yield Tab(address)


def test_the_address_opens_once(tab: Tab):
    assert tab.host.startswith("127.0.0.1:")
    for path in ("/", "/state", "/image/b0-0000/10/text", "/?token=", "/?token=wrong", "/?x=1"):
        assert tab.ask(path)[0] == 403, path
    assert tab.ask("/undo", {})[0] == 403
    status, headers, body = tab.ask(f"/?token={tab.token}")
    assert status == 200
    assert headers["Set-Cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert tab.token not in body.decode()
    status, headers, body = tab.ask(f"/?token={tab.token}")
    assert status == 403
    assert "Set-Cookie" not in headers
    assert b"this address was used" in body
    tab.headers["Cookie"] = "a=b; " + tab.ask("/")[1].get("Set-Cookie", "rayal=1")
    assert tab.ask("/state")[0] == 403


def test_the_browser_that_came_first_may_come_back(tab: Tab):
    tab.enter()
    assert tab.ask("/")[0] == tab.ask(f"/?token={tab.token}")[0] == tab.ask("/state")[0] == 200
    name, _, value = tab.headers["Cookie"].partition("=")
    for cookie in (f"{name}={value[:-1]}", f"{name}x={value}", f"{name}=", '"', None):
        assert tab.ask("/state", Cookie=cookie)[0] == 403


def test_another_host_and_another_origin_are_refused(tab: Tab, desk: Desk):
    tab.enter()
    port = tab.host.partition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""):
        assert tab.ask("/state", Host=host)[0] == 403, host
        assert tab.ask(f"/?token={tab.token}", Host=host)[0] == 403
    assert tab.ask("/state", Host=f"localhost:{port}")[0] == 200
    where = desk.next_row()
    said = {"chunk": where[0], "sample_id": str(where[1]), "version": 0, "label": 1, "skip": False}
    origins = ["http://evil.example", f"https://{tab.host}", f"http://localhost:{port}", "null"]
    for origin in [*origins, "", None]:
        assert tab.ask("/answer", said, Origin=origin)[0] == 403, origin
    for origin in origins:
        assert tab.ask("/state", Origin=origin)[0] == 403, origin
    assert desk.next_row() == where
    assert tab.ask("/answer", said)[0] == 200
    assert desk.next_row() != where


def test_every_reply_says_what_a_browser_may_do_with_it(tab: Tab):
    tab.enter()
    for path in ("/", "/state", "/nothing", "/../page.html", "/image/", "/image/b0-0000/10/text"):
        status, headers, _ = tab.ask(path)
        assert status in (200, 404, 422)
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers
        assert "python" not in headers["Server"].lower()
    nonces = set()
    for _ in range(2):
        _, headers, body = tab.ask("/")
        (nonce,) = {
            part.split("'")[1].removeprefix("nonce-")
            for part in headers["Content-Security-Policy"].split(";")
            if "nonce-" in part
        }
        assert body.decode().count(f'nonce="{nonce}"') == 2
        assert "unsafe" not in headers["Content-Security-Policy"]
        nonces.add(nonce)
    assert len(nonces) == 2


def test_rows_are_answered_and_taken_back(tab: Tab, drop: Drop, desk: Desk):
    tab.enter()
    first = tab.state()
    assert (first["num_rows"], first["num_open"], first["last"]) == (3, 3, None)
    assert first["row"]["fields"] == [{"name": "text", "kind": "text", "text": "text 0"}]
    assert first["row"]["classes"] == ["cat", "dog", "emu"]
    assert first["row"]["keys"] == ["1", "2", "3"]
    assert tab.answer(1) == 200
    assert tab.answer(None, skip=True) == 200
    state = tab.state()
    assert state["last"] == {
        "chunk": "b0-0000",
        "sample_id": "11",
        "version": 1,
        "told": "skipped",
    }
    seen = {name: state["last"][name] for name in ("chunk", "sample_id", "version")}
    assert tab.ask("/undo", seen)[0] == 200
    assert tab.ask("/undo", seen)[0] == 409
    assert tab.answer(2) == tab.answer(0) == 200
    state = tab.state()
    assert (state["row"], state["num_open"], state["is_holding"]) == (None, 0, True)
    assert tab.ask("/hand-over", {})[0] == 200
    assert drop.lines() == [(10, "dog", 0), (11, "emu", 0), (12, "cat", 0)]
    assert tab.state()["is_holding"] is False


def test_a_second_tabs_stale_write_changes_nothing(tab: Tab, drop: Drop, desk: Desk):
    tab.enter()
    row = tab.state()["row"]
    stale = {name: row[name] for name in ("chunk", "sample_id", "version")}
    assert tab.answer(1) == 200
    status, _, body = tab.ask("/answer", {**stale, "label": 2, "skip": False})
    assert status == 409
    assert "sample_id 10 was answered or changed in between" in json.loads(body)["error"]
    assert desk.label_of(("b0-0000", 10)) == "dog"
    assert tab.answer(0, version=5) == 409
    assert tab.state()["num_open"] == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ([], 400),
        (b"{", 400),
        (b"\xff", 400),
        ({"chunk": "b0-0000", "sample_id": "10", "version": 0, "skip": False}, 400),
        ({"chunk": "b0-0000", "sample_id": "x", "version": 0, "skip": True}, 400),
        ({"chunk": "../x", "sample_id": "10", "version": 0, "skip": True}, 422),
        ({"chunk": "b0-0000", "sample_id": "9", "version": 0, "skip": True}, 422),
        ({"chunk": "b0-0000", "sample_id": "10", "version": 0, "skip": False, "label": 7}, 422),
        (b"0" * (1 << 20) + b"0", 413),
    ],
)
def test_writes_that_no_page_makes(tab: Tab, desk: Desk, body: Any, status: int):
    tab.enter()
    try:
        assert tab.ask("/answer", body)[0] == status
    except (BrokenPipeError, ConnectionResetError):  # refused before it was read
        assert status == 413
    assert desk.last() is None


def test_a_form_of_another_page_is_no_write(tab: Tab, desk: Desk):
    tab.enter()
    said = json.dumps({"chunk": "b0-0000", "sample_id": "10", "version": 0, "skip": True}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        assert tab.ask("/answer", said, Content_Type=kind)[0] == 415
    assert tab.ask("/nothing", said)[0] == 404
    assert desk.last() is None


def test_images_come_as_files_of_their_kind(tmp_path: Path):
    drop = Drop(tmp_path)
    table = images(1)
    table = table.append_column("html", pa.array([b"<script>alert(1)</script>"]))
    drop.order(table)
    desk = drop.desk()
    with served(desk) as address:
        tab = Tab(address).enter()
        status, headers, body = tab.ask("/image/b0-0000/0/image")
        assert (status, headers["Content-Type"]) == (200, "image/png")
        assert body.startswith(b"\x89PNG")
        for path in ("html", "nothing", "sample_id"):
            assert tab.ask(f"/image/b0-0000/0/{path}")[0] == 422
        assert tab.ask("/image/b0-0000/7/image")[0] == 422
        assert tab.ask("/image/b0-0000/x/image")[0] == 400
    desk.close()


def test_ids_beyond_what_javascript_counts(tmp_path: Path):
    drop = Drop(tmp_path, Vocabulary("number"))
    drop.order(texts(1, start=2**62 + 1))
    desk = drop.desk()
    with served(desk) as address:
        tab = Tab(address).enter()
        assert tab.state()["row"]["sample_id"] == str(2**62 + 1)
        assert tab.answer("nan") == 422
        assert tab.answer("0.5") == 200
    desk.close()
    assert drop.lines() == [(2**62 + 1, 0.5, 0)]


def test_the_port_is_of_this_machine_alone(tab: Tab, desk: Desk):
    with (
        pytest.raises(ConfigError, match=r"cannot be had .*leave --port out"),
        served(desk, int(tab.host.partition(":")[2])),
    ):
        pass
    mine = {one[4][0] for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for name in mine - {"127.0.0.1"}:
        if name.startswith("127."):
            continue
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((name, int(tab.host.partition(":")[2])), timeout=5)


def test_a_disk_that_is_full_is_said_and_nothing_is_half_taken(
    tab: Tab, desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    tab.enter()
    whole = desk._held.keep

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(desk._held, "keep", full)
    assert tab.answer(1) == 507
    monkeypatch.setattr(desk._held, "keep", whole)
    assert tab.state()["num_open"] == 3
    say(desk, "dog")
    assert tab.state()["num_open"] == 2
