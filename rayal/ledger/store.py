"""The database below the ledger: connections, transactions, and what its errors mean.

SQLite runs in WAL mode with synchronous=FULL: a commit is on the disk when it returns (a single-row
commit costs about 6 ms, against 0.1 ms with NORMAL, which loses the last steps at a power cut).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sqlite3
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from rayal.errors import LedgerError, RayalError

T = TypeVar("T")

_BUSY_S = 30.0
_FULL = "disk is full"  # in the words of SQLite
# WAL needs shared memory that all openers see; on these it may fail only after it reported success.
_NETWORK_FILESYSTEMS = (
    "nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "afs", "glusterfs", "9p", "davfs",
    "orangefs", "pvfs2", "panfs", "wekafs", "quobyte", "vboxsf", "fuse.sshfs", "fuse.glusterfs",
    "fuse.ceph", "fuse.s3fs", "fuse.mount-s3", "fuse.mountpoint-s3", "fuse.goofys", "fuse.geesefs",
    "fuse.gcsfuse", "fuse.blobfuse", "fuse.rclone", "fuse.juicefs", "fuse.JuiceFS", "fuse.davfs",
)  # fmt: skip


class Store:
    """One database, opened for writing or for reading only."""

    def __init__(self, url: str, writer: bool) -> None:
        parsed = _parse(url)
        self.name = parsed.render_as_string(hide_password=True)
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        if self._is_sqlite:
            _check_file(Path(str(parsed.database)), writer)
        self._engine = _engine(parsed, writer)
        self._writing = self._engine.execution_options(rayal_writes=True)
        # A view that stays the same over several selects; SQLite's WAL gives it by itself.
        steady = {} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reading = self._engine.execution_options(**steady)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Gives the result of `work`, run in one transaction that is durable when this returns."""
        with self._explained(), self._writing.begin() as connection:
            return work(connection)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Gives the result of `work`, run against one consistent view of the database."""
        with self._explained(), self._reading.begin() as connection:
            return work(connection)

    def insert_new(self, table: Table) -> Any:
        """Gives an insert that passes over rows whose primary key is already there."""
        dialect = sqlite if self._is_sqlite else postgresql
        return dialect.insert(table).on_conflict_do_nothing()

    def scrub(self) -> None:
        """Removes the bytes of what was taken out; PostgreSQL does so by itself, some time."""
        if self._is_sqlite:
            with self._explained(), self._engine.connect() as connection:
                plain = connection.connection.driver_connection
                assert plain is not None
                plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                plain.execute("VACUUM")
                plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise explain(error, self.name) from error


def explain(error: DBAPIError, name: str) -> RayalError:
    """Gives the one line that a database error deserves."""
    text = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else repr(error.orig)
    if _FULL in text or getattr(error.orig, "sqlstate", "") == "53100":
        return _disk_full(name)
    if "database is locked" in text:
        return LedgerError(
            f"the ledger {name} was locked by another process for {_BUSY_S:.0f} s; close what "
            "holds it (a database browser, a backup) and run the same command again"
        )
    return LedgerError(
        f"the ledger {name} cannot be read or written ({text}); check that it is there, is a "
        "database and is yours to write, then run the same command again"
    )


def _disk_full(name: str) -> RayalError:
    return RayalError(
        f"the disk is full while writing the ledger {name}; nothing was half-written: free some "
        "space and run the same command again"
    )


def network_mount(path: Path, mounts: Sequence[tuple[str, str]]) -> str | None:
    """Gives the network filesystem that holds `path` among (mount point, type) pairs, or None."""
    holding = [
        (len(Path(point).parts), kind) for point, kind in mounts if path.is_relative_to(point)
    ]
    kind = max(holding, default=(0, ""))[1]
    return kind if kind.startswith(_NETWORK_FILESYSTEMS) else None


def probe_wal(folder: Path) -> None:
    """Enables WAL in a scratch database, writes a row and reads it back over a second connection.

    Raises:
        LedgerError: WAL does not work in this folder.
    """
    path = folder / f".probe-{uuid.uuid4().hex[:8]}.db"
    try:
        with (
            contextlib.closing(sqlite3.connect(path)) as first,
            contextlib.closing(sqlite3.connect(path)) as second,
        ):
            mode = first.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise sqlite3.OperationalError(f"journal mode stays '{mode}'")
            first.execute("CREATE TABLE probe (x INTEGER)")
            first.execute("INSERT INTO probe VALUES (1)")
            first.commit()
            if second.execute("SELECT x FROM probe").fetchall() != [(1,)]:
                raise sqlite3.OperationalError("a second connection does not see what was written")
    except sqlite3.Error as error:
        if _FULL in str(error):
            raise _disk_full(str(path)) from error
        raise _no_wal(folder, str(error)) from error
    finally:
        for leftover in folder.glob(path.name + "*"):
            leftover.unlink(missing_ok=True)


def probe_locks(folder: Path) -> None:
    """Takes a lock as SQLite does, and tries whether it keeps another opener of the file out.

    Raises:
        LedgerError: files cannot be locked in this folder, or locks keep nobody out.
    """
    path = folder / f".probe-{uuid.uuid4().hex[:8]}.lock"
    try:
        with path.open("w+b") as first, path.open("r+b") as second:
            fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            if hasattr(fcntl, "F_OFD_SETLK"):  # a lock of the file's, not of the process: Linux
                wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
                with contextlib.suppress(BlockingIOError):
                    fcntl.fcntl(second, fcntl.F_OFD_SETLK, wanted)
                    raise _no_wal(folder, "a lock there keeps nobody out")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(str(path)) from error
        raise _no_wal(folder, f"files there cannot be locked: {error.strerror}") from error
    finally:
        path.unlink(missing_ok=True)


def _no_wal(folder: Path, why: str) -> LedgerError:
    return LedgerError(
        f"SQLite's write-ahead log does not work in {folder} ({why}); put the run on a local disk, "
        "or its ledger into PostgreSQL with ledger_url=postgresql://user@host/database"
    )


def without_password(url: str) -> str:
    """Gives a ledger's URL as it may be written down; a database takes the password from the
    environment (PGPASSWORD) or its own files."""
    parsed = _parse(url)
    if parsed.password is None and "password" not in parsed.query:
        return url  # as it was written: a file's path is not to be quoted
    kept = {key: value for key, value in parsed.query.items() if key != "password"}
    return URL.create(
        parsed.drivername, parsed.username, None, parsed.host, parsed.port, parsed.database, kept
    ).render_as_string(hide_password=False)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise LedgerError(
            f"'{re.sub('^.*@', '...@', url)}' is not a ledger URL; write "
            "sqlite:////absolute/path/ledger.db or postgresql://user@host/database"
        ) from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise LedgerError(
            f"a ledger cannot lie in '{parsed.get_backend_name()}'; use a sqlite:/// or "
            "postgresql:// URL"
        )
    if parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _check_file(path: Path, writer: bool) -> None:
    if str(path) in ("None", "", ":memory:"):
        raise LedgerError("a ledger in memory dies with its process; name a file in the URL")
    if not writer:
        if not path.is_file():
            raise LedgerError(f"there is no ledger at {path}; check the run_dir, or start the run")
        return
    folder = path.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    kind = network_mount(folder, mounts)
    if kind is not None:
        raise _no_wal(folder, f"it is on a network filesystem, {kind}")
    probe_locks(folder)
    probe_wal(folder)


def _engine(url: URL, writer: bool) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return create_engine(url, pool_pre_ping=True)
        engine = create_engine(url, connect_args={"timeout": _BUSY_S})
    except ModuleNotFoundError as error:
        raise LedgerError(
            f"the ledger's database needs the package '{error.name}', which is not installed; "
            "run: pip install 'rayal[postgres]'"
        ) from error

    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        if writer:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        else:
            connection.execute("PRAGMA query_only=ON")

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("rayal_writes", False)
        # A reading transaction that turns into a writing one can fail at once, despite the timeout.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine
