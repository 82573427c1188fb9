"""Starting and stopping Ray: our own on this machine, or a running cluster by its address."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rayal.errors import ConfigError

# Set before ray is imported: it reads them once.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_DEDUP_LOGS": "1",  # only what is deduplicated can be left out
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # a lost worker is no news for the user: its shards go on
    "RAY_worker_niceness": "0",  # 15 by default: whatever else runs takes their cores
    "RAY_COLOR_PREFIX": "0",
    "TQDM_DISABLE": "1",
}

# Ray itself waits 400 s for an address where nobody is, says so every 5 s, and hears no signal.
_CONNECT_S = 5.0
_GREET_S = 60.0  # of it Ray waits 16 s; the rest is for its import on a busy machine
_GREETING = "import sys, ray; ray._raylet.GcsClient(address=sys.argv[1])"
_PATIENCE = {"RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_py_gcs_connect_timeout_s": "15"}

_FOR_WORKERS = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def prepare_environment(address: str) -> None:
    """Sets what Ray reads from the environment; what the user has set stays.

    Even a local Ray listens on all interfaces, and whoever may talk to it may run code. So the
    token is on, and it is a throw-away one in memory rather than a file in the home folder.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address == "local" and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def start(
    address: str,
    num_cpus: int,
    num_gpus: int,
    object_store_gib: float,
    py_modules: Sequence[str],
) -> bool:
    """Connects to Ray; gives whether this process started or joined it (and must let go of it).

    Raises:
        ConfigError: no cluster answers at the address, this machine has fewer GPUs than a Ray of
            our own is asked for, or a user module's folder is missing.
    """
    prepare_environment(address)
    import ray

    if ray.is_initialized():
        return False
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    environment = _modules(py_modules)
    if address == "local":
        _check_gpus(num_gpus)
        options |= {
            "address": "local",
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "include_dashboard": False,
            "object_store_memory": int(object_store_gib * 2**30),
        }
    else:
        _check_reachable(address)
        options |= {"address": address}
        environment["env_vars"] = _FOR_WORKERS
    # Workers of a Ray of our own inherit what they need. Named in a runtime environment it would
    # cost a fifth of the start: the workers that Ray makes ahead would be thrown away for others.
    inherited = _FOR_WORKERS if address == "local" else {}
    try:
        with _own_sigterm(), _environment(inherited):
            ray.init(**options, runtime_env=environment or None)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise _unreachable(address, str(error).splitlines()[0]) from error
    for name in ("ray", "ray.train", "ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return True


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps this process's own answer to SIGTERM: Ray's prints a crash report, and a traceback."""
    own = signal.getsignal(signal.SIGTERM)
    yield
    if callable(own) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for what is started meanwhile; this process has its own back afterwards."""
    own = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in own.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_reachable(address: str) -> None:
    """Refuses an address where no cluster answers, in seconds."""
    found = _found(address)
    scheme, _, rest = found.rpartition("://")
    if scheme not in ("", "ray"):
        return  # a protocol of its own, which only Ray knows
    try:
        place = urlsplit(f"//{rest}")
        host, port = place.hostname, place.port or (10001 if scheme else None)
    except ValueError as error:
        raise _unreachable(address, str(error)) from error
    if host is None or port is None:
        raise _unreachable(address, "expected auto, local, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        why = f"nothing answers at {host}:{port}: {error.strerror or error}"
        raise _unreachable(address, why) from error
    if not scheme:
        _greet(address, rest)


def _found(address: str) -> str:
    """Gives what `auto` stands for, as Ray itself looks for it."""
    if address != "auto":
        return address
    from ray._private import services

    try:
        return str(services.get_ray_address_from_environment("auto", None))
    except ConnectionError as error:
        why = "no cluster runs on this machine, and RAY_ADDRESS is not set"
        raise _unreachable(address, why) from error


def _greet(address: str, place: str) -> None:
    """Asks what listens there for its name, in a process that can be ended: Ray's wait cannot."""
    try:
        said = subprocess.run(
            [sys.executable, "-c", _GREETING, place],
            env={**os.environ, **_PATIENCE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GREET_S,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, f"{place} gave no answer in {_GREET_S:.0f} s") from error
    if said.returncode != 0:
        why = (said.stderr.strip().splitlines() or ["it says nothing"])[-1].split(". ")[0]
        raise _unreachable(address, f"what listens at {place} is no Ray head for us: {why}")


def _unreachable(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"no Ray cluster could be joined at engine.address={address} ({why}); check the address "
        "and RAY_AUTH_MODE / RAY_AUTH_TOKEN, or use engine.address=local"
    )


def _check_gpus(num_gpus: int) -> None:
    """Refuses GPUs that are not there: Ray believes any number, and the work runs on the CPU."""
    if num_gpus == 0:
        return
    import torch

    found = torch.cuda.device_count()
    if found < num_gpus:
        raise ConfigError(
            f"this run asks for {num_gpus} GPUs (engine.num_workers x engine.num_gpus, or one for "
            f"each of trainer.num_workers), and torch finds {found} on this machine; set "
            "engine.num_gpus=0 and trainer.use_gpu=false, or join a cluster that has them by "
            "engine.address"
        )


def stop(started: bool) -> None:
    """Shuts down the Ray that `start` made; another's is left alone."""
    import ray

    if started and ray.is_initialized():
        with contextlib.suppress(Exception):
            ray.shutdown()


def _modules(py_modules: Sequence[str]) -> dict[str, Any]:
    """Gives the runtime environment that brings the user's own modules to workers; often none."""
    modules = []
    for module in py_modules:
        folder = Path(module).expanduser().resolve()
        if not folder.exists():
            raise ConfigError(
                f"engine.py_modules names {module}, which is not there; give the folder of a "
                "package, or the .py file, that holds your own classes"
            )
        modules.append(str(folder))
        if str(folder.parent) not in sys.path:
            sys.path.append(str(folder.parent))
    return {"py_modules": modules} if modules else {}
