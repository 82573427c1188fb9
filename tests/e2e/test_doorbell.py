"""A vendor rings, and a run that waits fetches at once; nobody else can ring."""

from __future__ import annotations

import hashlib
import hmac
import socket
import threading
import time
from pathlib import Path

import pytest
from doors import Doors

from rayal.labelers.doorbell import Bell
from rayal.pool import Pool
from rayal.vendorkit.server import Desk, served
from rayal.vendorkit.vendor import Vendor

httpx = pytest.importorskip("httpx", reason="adapters over HTTP need the extra 'vendors'")

SECRET = "a shared secret of the doorbell"


def _ring(port: int, body: bytes, key: str = SECRET, at: float | None = None) -> int:
    stamp = f"{time.time() if at is None else at:.0f}"
    digest = hmac.new(key.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    headers = {"X-Signature": f"sha256={digest}", "X-Timestamp": stamp}
    return httpx.post(f"http://127.0.0.1:{port}/", content=body, headers=headers).status_code


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_ring_ends_a_wait(doors: Doors, class_pool: Pool) -> None:
    doors.monkeypatch.setenv("RAYAL_TEST_BELL", SECRET)
    port, told = _free_port(), []
    vendor = Vendor("key", class_pool.vocabulary.classes, delay_s=0.2)

    def rings() -> None:
        """Strangers first; then the vendor, once its answers are there."""
        while not vendor.items:
            time.sleep(0.05)
        time.sleep(0.5)
        told.append(_ring(port, b"{}", key="another secret, of a stranger"))
        told.append(_ring(port, b"{}", at=time.time() - 4_000))
        told.append(httpx.post(f"http://127.0.0.1:{port}/", content=b"{}").status_code)
        told.append(httpx.post(f"http://127.0.0.1:{port}/", content=b"x" * 2**21).status_code)
        told.append(_ring(port, b"{}"))

    with served(Desk(vendor)) as url:
        thread = threading.Thread(target=rings, daemon=True)
        thread.start()
        bell = "{_target_: rayal.labelers.doorbell.Bell, secret_env: RAYAL_TEST_BELL}"
        doors.run(
            class_pool, "r", "num_rounds=1", "labeler=http", f"labeler.url={url}",
            "labeler.family=key", "labeler.columns=[embedding]", "poll_s=3600",
            f"labeler.doorbell={bell}", f"doorbell_port={port}",
        ).done()  # fmt: skip
        thread.join(10)
    assert told == [403, 403, 403, 413, 204]
    for path in Path("r").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()


def test_a_door_that_cannot_be_answered(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "doorbell_port=0").refused("Oracle has no doorbell; leave it out")
    assert Bell("RAYAL_NO_SUCH_SECRET", now=lambda: 5.0).is_rung({}, b"") is False
