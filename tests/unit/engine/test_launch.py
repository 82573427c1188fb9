"""A cluster that is not there, and GPUs that are not: said in seconds, before Ray waits."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from rayal.engine import launch
from rayal.errors import ConfigError


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray of this process, and nobody's address in the environment."""
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked to wait"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@contextlib.contextmanager
def listener(reply: bytes | None) -> Iterator[int]:
    """Gives the port of something that listens, and answers with `reply` or not at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            with contextlib.suppress(OSError):  # it is closed
                while True:
                    other, _ = server.accept()
                    held.append(other)
                    if reply is not None:
                        other.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
    for one in held:
        one.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_is(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    begun = time.monotonic()
    with pytest.raises(ConfigError) as error:
        launch.start(address, 1, 0, 0.1, ())
    assert time.monotonic() - begun < 10
    place = address.removeprefix(scheme)
    assert str(error.value) == (
        f"no Ray cluster could be joined at engine.address={address} (nothing answers at {place}: "
        "Connection refused); check the address and RAY_AUTH_MODE / RAY_AUTH_TOKEN, or use "
        "engine.address=local"
    )


@pytest.mark.parametrize("address", ["", "somewhere", "somewhere:port", "ray://"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match=f"at engine.address={address} "):
        launch.start(address, 1, 0, 0.1, ())


def test_something_else_listens_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launch._PATIENCE, "RAY_py_gcs_connect_timeout_s", "2")
    with (
        listener(b"HTTP/1.0 400 Bad Request\r\n\r\n") as port,
        pytest.raises(ConfigError, match=f"what listens at 127.0.0.1:{port} is no Ray head for us"),
    ):
        launch.start(f"127.0.0.1:{port}", 1, 0, 0.1, ())


def test_something_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_GREET_S", 1.0)
    with (
        listener(None) as port,
        pytest.raises(ConfigError, match=f"127.0.0.1:{port} gave no answer in 1 s"),
    ):
        launch.start(f"127.0.0.1:{port}", 1, 0, 0.1, ())


def test_auto_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    def none(*_: object) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(services, "get_ray_address_from_environment", none)
    with pytest.raises(ConfigError, match=r"address=auto \(no cluster runs on this machine, and"):
        launch.start("auto", 1, 0, 0.1, ())


def test_auto_with_a_cluster_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match=r"engine.address=auto \(nothing answers at 127.0.0.1:"):
        launch.start("auto", 1, 0, 0.1, ())


def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"asks for 2 GPUs .* torch finds 1 on this machine; set"):
        launch.start("local", 1, 2, 0.1, ())


def test_gpus_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    asked: dict[str, object] = {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    assert launch.start("local", 1, 2, 0.1, ())
    assert asked["num_gpus"] == 2
