"""A PostgreSQL server of our own on loopback, where the machine has its programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_WAIT_S = "60"


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Gives the URL of an empty database: RAYAL_TEST_POSTGRES, or one that ends with the block."""
    if "RAYAL_TEST_POSTGRES" in os.environ:
        yield os.environ["RAYAL_TEST_POSTGRES"]
        return
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rayal[postgres]'")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not here, nor is RAYAL_TEST_POSTGRES set")
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    # Below the system's own folder for such: pytest's are closed to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="rayal-postgres-"))
    if user:
        shutil.chown(folder, **user)
    port = _free_port()
    places = f"-h 127.0.0.1 -p {port} -k {folder}"

    def do(program: str, *words: str) -> None:
        command = [str(programs / program), "-D", str(folder / "data"), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)

    try:
        do("initdb", "-U", "rayal", "-A", "trust", "--no-sync")
        log = str(folder / "log")
        do("pg_ctl", "start", "--wait", "-t", _WAIT_S, "-l", log, "-o", places)
        server = psutil.Process(int((folder / "data" / "postmaster.pid").read_text().split()[0]))
        try:
            yield f"postgresql://rayal@127.0.0.1:{port}/postgres"
        finally:
            do("pg_ctl", "stop", "-m", "immediate", "-t", _WAIT_S)
            server.wait(float(_WAIT_S))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Gives the folder of the server's programs; Debian keeps them off the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    there = sorted(_DEBIAN.glob("*/bin/initdb"))
    return there[-1].parent if there else None


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
