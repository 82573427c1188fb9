"""Calls to vendors: what is made again, what is in doubt, and that secrets stay here."""

from __future__ import annotations

import hashlib
import hmac
import logging

import pytest

from rayal.errors import ConfigError, InDoubt, LabelError
from rayal.labelers.doorbell import Bell
from rayal.labelers.http import Client, secret

httpx = pytest.importorskip("httpx", reason="adapters over HTTP need the extra 'vendors'")

TOKEN = "tok-0123456789"


def client_of(*answers, patience=3):
    """A client whose server gives these answers, one a call; and what it was asked."""
    asked, waited = [], []
    left = list(answers)

    def handle(request):
        asked.append(request)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = Client(
        "https://vendor.example/api/",
        lambda anew: {"authorization": f"Token {TOKEN}{'-new' if anew else ''}"},
        patience=patience,
        transport=httpx.MockTransport(handle),
        sleep=waited.append,
    )
    return made, asked, waited


def test_what_did_nothing_is_done_again_with_growing_waits():
    busy = httpx.Response(429, headers={"retry-after": "7"})
    client, asked, waited = client_of(
        httpx.ConnectError("no"), busy, httpx.Response(503, headers={"retry-after": "1"}),
        httpx.Response(200, json={"id": 3}),
    )  # fmt: skip
    assert client.call("POST", "/batches", body={"a": 1}).body == {"id": 3}
    assert waited == [0.5, 7.0, 1.0]
    assert [str(one.url) for one in asked] == ["https://vendor.example/api/batches"] * 4
    client, asked, waited = client_of(busy)
    with pytest.raises(LabelError, match=r"429 ; asked 4 times. The same command again goes on"):
        client.call("POST", "/batches")
    assert len(asked) == 4


@pytest.mark.parametrize(
    "cut", [httpx.ReadTimeout("t"), httpx.WriteError("w"), httpx.RemoteProtocolError("r")]
)
def test_what_may_have_been_done_is_in_doubt(cut):
    client, asked, _ = client_of(cut, httpx.Response(200, json=[]))
    with pytest.raises(InDoubt, match=r"POST https://vendor.example/api/batches: the call was cut"):
        client.call("POST", "/batches")
    assert len(asked) == 1
    assert client.get("/batches").body == []
    client, asked, _ = client_of(cut, cut, httpx.Response(200, text="plain"))
    assert client.get("/batches").body == "plain"
    assert len(asked) == 3
    client, asked, _ = client_of(httpx.Response(500), httpx.Response(502))
    with pytest.raises(InDoubt):
        client.call("POST", "/batches")
    assert len(asked) == 1


def test_refusals_are_said_without_the_secret(caplog):
    caplog.set_level(logging.DEBUG)
    echo = httpx.Response(400, text=f"bad header: Token {TOKEN}\n" + "x" * 500)
    client, _, _ = client_of(echo)
    with pytest.raises(LabelError) as error:
        client.call("POST", "/batches", params={"token": "in a query"})
    assert "was refused: 400 bad header: Token ***" in str(error.value)
    assert len(str(error.value)) < 450
    for text in (str(error.value), repr(client), caplog.text):
        assert TOKEN not in text
    far = httpx.Response(302, headers={"location": "https://elsewhere.example/x"})
    client, asked, _ = client_of(far)
    with pytest.raises(LabelError, match=r"302 \(it points to elsewhere.example\)"):
        client.get("/batches")
    assert len(asked) == 1


def test_a_token_that_has_run_out_is_asked_for_anew_once():
    client, asked, waited = client_of(httpx.Response(401), httpx.Response(200, json={}))
    client.call("POST", "/batches")
    assert [one.headers["authorization"] for one in asked] == [
        f"Token {TOKEN}", f"Token {TOKEN}-new",
    ]  # fmt: skip
    assert waited == [0.0]
    client, asked, _ = client_of(httpx.Response(401, text="who?"))
    with pytest.raises(LabelError, match="401 who"):
        client.call("POST", "/batches")
    assert len(asked) == 2


def test_addresses_that_would_tell_a_token_to_all():
    for url in ("http://vendor.example", "vendor.example", "ftp://vendor.example"):
        with pytest.raises(ConfigError, match=r"labeler.url"):
            Client(url)
    with pytest.raises(ConfigError) as error:
        Client("https://me:hunter22@vendor.example/api")
    assert "hunter22" not in str(error.value)
    Client("http://127.0.0.1:8080")


def test_secrets_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("RAYAL_TEST_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="variable RAYAL_TEST_TOKEN is empty, where the token"):
        secret("RAYAL_TEST_TOKEN", "the token of the vendor")
    monkeypatch.setenv("RAYAL_TEST_TOKEN", " x \n")
    assert secret("RAYAL_TEST_TOKEN", "the token") == "x"


def test_a_doorbell_is_rung_by_its_vendor_alone(monkeypatch):
    monkeypatch.setenv("RAYAL_TEST_BELL", "a shared secret")
    now = [1_000.0]
    bell = Bell("RAYAL_TEST_BELL", tolerance_s=300, now=lambda: now[0])

    def ring(body=b"{}", stamp="1000", key=b"a shared secret", scheme=""):
        digest = hmac.new(key, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        return bell.is_rung({"x-signature": scheme + digest, "x-timestamp": stamp}, body)

    assert ring()
    assert not ring()  # heard before
    assert ring(b'{"a": 1}', scheme="sha256=")
    assert not ring(b"x", key=b"another secret")
    assert not ring(b"x", stamp="699")
    assert not ring(b"x", stamp="1301")
    assert not ring(b"x", stamp="nan")
    assert not ring(b"x", stamp="")
    assert not bell.is_rung({}, b"x")
    assert not bell.is_rung({"x-timestamp": "1000", "x-signature": "sha256=\udc80é"}, b"x")
    now[0] += 250
    assert not ring()  # still remembered while it would be fresh
