"""One writer a run: a lease row whose epoch every write checks.

The epoch goes up each time the run is taken. A writer that was taken for dead and comes back finds
a higher epoch in the transaction of its next write, which then fails: nothing of it is recorded.
A holder on the same host is judged by its process; one on another host by the age of its lease, so
the clocks of such hosts must agree to well below `lease_s`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil
from sqlalchemy import Connection, Row, select, update

from rayal.errors import LedgerError, RayalError
from rayal.ledger import schema
from rayal.ledger.store import Store

LEASE_S = 60.0
_STARTED_TOLERANCE_S = 2.0  # psutil derives start times from the boot time, which clocks nudge
_open_tokens: set[str] = set()  # ledgers that this process holds open


@dataclass(frozen=True)
class Process:
    """A process, told apart from any other on any host."""

    host: str
    host_key: str
    pid: int
    started: float


@dataclass(frozen=True)
class Holding:
    """Who has the run, as the lease row says."""

    epoch: int
    token: str
    process: Process
    since: float
    renewed_at: float
    lease_s: float

    def is_alive(self, me: Process, now: float, open_tokens: Collection[str]) -> bool:
        """Whether the holder may still write, seen from `me`."""
        if not self.token:
            return False
        if self.process.host_key != me.host_key:
            return now - self.renewed_at < self.lease_s
        if self.process.pid == me.pid and _same_start(self.process.started, me.started):
            return self.token in open_tokens
        started = _started(self.process.pid)
        return started is not None and _same_start(started, self.process.started)


def this_process() -> Process:
    """Gives the process that asks."""
    host, pid = socket.gethostname(), os.getpid()
    # Hosts may share a name and containers a kernel; process numbers mean the same only within one
    # boot and one process namespace.
    parts = [host]
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        parts.append(file.read().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    key = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
    return Process(host, key, pid, _started(pid) or 0.0)


def holding(connection: Connection, run_id: str) -> Holding | None:
    """Gives the run's lease row, or None where nobody ever held it."""
    row = connection.execute(
        select(schema.lease).where(schema.lease.c.run_id == run_id).with_for_update()
    ).one_or_none()
    return None if row is None else _holding(row)


def is_held(connection: Connection, run_id: str, now: float) -> bool:
    """Whether a live process has the run."""
    row = connection.execute(
        select(schema.lease).where(schema.lease.c.run_id == run_id)
    ).one_or_none()
    return row is not None and _holding(row).is_alive(this_process(), now, _open_tokens)


class Lease:
    """The right to write a run, renewed every third of `lease_s` by a thread of its own, so that it
    holds through long phases without a write."""

    def __init__(self, store: Store, run_id: str, epoch: int, token: str, lease_s: float) -> None:
        self.epoch = epoch
        self._store, self._run_id, self._token = store, run_id, token
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._renew, args=(lease_s / 3,), name="rayal-lease", daemon=True
        )
        self._thread.start()

    @classmethod
    def take(cls, store: Store, run_id: str, lease_s: float) -> Lease:
        """Takes the run for this process.

        Raises:
            LedgerError: a live process has it.
        """
        me, token, now = this_process(), uuid.uuid4().hex, time.time()
        epoch = store.write(
            lambda connection: _take(connection, store, run_id, me, token, lease_s, now)
        )
        _open_tokens.add(token)
        return cls(store, run_id, epoch, token, lease_s)

    def check(self, connection: Connection) -> None:
        """Renews the lease inside the transaction of a write, or makes that write fail.

        Raises:
            LedgerError: the run was taken over.
        """
        done = connection.execute(
            update(schema.lease)
            .where(schema.lease.c.run_id == self._run_id, schema.lease.c.epoch == self.epoch)
            .values(renewed_at=time.time())
        )
        if done.rowcount != 1:
            found = holding(connection, self._run_id)
            by = "nobody" if found is None else f"{found.process.host}, process {found.process.pid}"
            raise LedgerError(
                f"run '{self._run_id}' was taken over by {by} (epoch "
                f"{0 if found is None else found.epoch}, ours is {self.epoch}); nothing was "
                "written: end this process, the other one goes on"
            )

    def release(self) -> None:
        """Gives the run back, unless another has taken it."""
        self._ended.set()
        self._thread.join()
        _open_tokens.discard(self._token)
        self._store.write(
            lambda connection: connection.execute(
                update(schema.lease)
                .where(schema.lease.c.run_id == self._run_id, schema.lease.c.epoch == self.epoch)
                .values(token="")
            )
        )

    def _renew(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            try:
                self._store.write(self.check)
            except RayalError:
                # Where the lease is lost or the database is away, the next write says so itself.
                continue


def _take(
    connection: Connection,
    store: Store,
    run_id: str,
    me: Process,
    token: str,
    lease_s: float,
    now: float,
) -> int:
    fields = {
        "token": token,
        "host": me.host,
        "host_key": me.host_key,
        "pid": me.pid,
        "process_started": me.started,
        "since": now,
        "renewed_at": now,
        "lease_s": lease_s,
    }
    nobody = {**fields, "run_id": run_id, "epoch": 0, "token": ""}
    connection.execute(store.insert_new(schema.lease).values(**nobody))
    found = holding(connection, run_id)
    assert found is not None
    if found.is_alive(me, now, _open_tokens):
        since = datetime.fromtimestamp(found.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        raise LedgerError(
            f"run '{run_id}' is held by process {found.process.pid} on {found.process.host} since "
            f"{since}; wait for it or end it, then run the same command again"
        )
    connection.execute(
        update(schema.lease)
        .where(schema.lease.c.run_id == run_id)
        .values(**fields, epoch=found.epoch + 1)
    )
    return found.epoch + 1


def _holding(row: Row[tuple[object, ...]]) -> Holding:
    process = Process(row.host, row.host_key, row.pid, row.process_started)
    return Holding(row.epoch, row.token, process, row.since, row.renewed_at, row.lease_s)


def _started(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _same_start(one: float, other: float) -> bool:
    return abs(one - other) < _STARTED_TOLERANCE_S
