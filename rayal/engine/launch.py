"""Starting and stopping Ray: our own on this machine, or a running cluster by its address."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayal.errors import ConfigError

# Set before ray is imported: it reads them once.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # 15 by default: whatever else runs takes their cores
    "RAY_COLOR_PREFIX": "0",
    "TQDM_DISABLE": "1",
}


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
        ConfigError: no cluster answers at the address, or a user module's folder is missing.
    """
    prepare_environment(address)
    import ray

    if ray.is_initialized():
        return False
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": _runtime_env(py_modules),
    }
    if address == "local":
        options |= {
            "address": "local",
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "include_dashboard": False,
            "object_store_memory": int(object_store_gib * 2**30),
        }
    else:
        options |= {"address": address}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ConfigError(
            f"no Ray cluster could be joined at engine.address={address} "
            f"({str(error).splitlines()[0]}); check the address and RAY_AUTH_MODE / "
            "RAY_AUTH_TOKEN, or use engine.address=local"
        ) from error
    for name in ("ray", "ray.train", "ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return True


def stop(started: bool) -> None:
    """Shuts down the Ray that `start` made; another's is left alone."""
    import ray

    if started and ray.is_initialized():
        with contextlib.suppress(Exception):
            ray.shutdown()


def _runtime_env(py_modules: Sequence[str]) -> dict[str, Any]:
    env: dict[str, Any] = {"env_vars": {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}}
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
    if modules:
        env["py_modules"] = modules
    return env
