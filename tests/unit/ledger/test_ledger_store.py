"""Where a ledger may lie, and what is said where it may not."""

import errno
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from rayal.errors import LedgerError
from rayal.ledger import Ledger, schema, store
from rayal.types import LabelEvent


def test_sqlite_is_durable_and_lets_readers_in(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/new/ledger.db", "run", writer=True) as ledger:
        pragma = lambda name: ledger._store.read(  # noqa: E731
            lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
        )
        assert pragma("journal_mode") == "wal"
        assert pragma("synchronous") == 2
        assert pragma("busy_timeout") == 30_000
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ledger.db"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ledger.db", "'ledger.db' is not a ledger URL; write sqlite:///"),
        ("mysql://host/db", "a ledger cannot lie in 'mysql'"),
        ("sqlite://", "a ledger in memory dies with its process"),
    ],
)
def test_places_that_cannot_hold_a_ledger(url, message):
    with pytest.raises(LedgerError, match=message):
        Ledger.open(url, "run", writer=True)


def test_a_missing_driver_says_what_to_install(monkeypatch):
    def missing(*_, **__):
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr(store, "create_engine", missing)
    with pytest.raises(LedgerError, match=r"needs the package 'psycopg'.*rayal\[postgres\]"):
        Ledger.open("postgresql://host/db", "run", writer=True)


def test_passwords_are_not_shown():
    parsed = store._parse("postgresql://me:secret@host/db")
    assert parsed.drivername == "postgresql+psycopg"
    assert "secret" not in parsed.render_as_string(hide_password=True)


def test_a_newer_or_foreign_database_is_refused(tmp_path):
    path, url = tmp_path / "ledger.db", f"sqlite:///{tmp_path}/ledger.db"
    Ledger.open(url, "run", writer=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE rayal_schema SET version = 3")
    connection.close()
    for writer in (True, False):
        with pytest.raises(LedgerError, match=r"schema version 3, this rayal knows .* up to 2"):
            Ledger.open(url, "run", writer=writer)
    sqlite3.connect(tmp_path / "other.db").close()
    (tmp_path / "other.db").touch()
    with pytest.raises(LedgerError, match="holds no rayal ledger"):
        Ledger.open(f"sqlite:///{tmp_path}/other.db", "run", writer=False)
    (tmp_path / "text.db").write_text("not a database, whatever its name says" * 100)
    with pytest.raises(LedgerError, match=r"cannot be read or written \(file is not a database\)"):
        Ledger.open(f"sqlite:///{tmp_path}/text.db", "run", writer=True)


def test_network_filesystems_are_known():
    mounts = [("/", "ext4"), ("/data", "nfs4"), ("/data/local", "xfs"), ("/d", "cifs")]
    assert store.network_mount(Path("/data/run"), mounts) == "nfs4"
    assert store.network_mount(Path("/data/local/run"), mounts) is None
    assert store.network_mount(Path("/database"), mounts) is None
    assert store.network_mount(Path("/d/x"), mounts) == "cifs"


def test_a_network_mount_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "network_mount", lambda path, mounts: "nfs4")
    with pytest.raises(
        LedgerError, match=r"on a network filesystem, nfs4\); put the run on a local"
    ):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db", "run", writer=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "is_refused"),
    [
        ("nfs", True), ("nfs4", True), ("smb3", True), ("cifs", True), ("9p", True),
        ("lustre", True), ("ceph", True), ("fuse.sshfs", True), ("fuse.s3fs", True),
        ("fuse.gcsfuse", True), ("fuse.rclone", True), ("fuse.blobfuse2", True),
        ("ext4", False), ("xfs", False), ("overlay", False), ("tmpfs", False), ("zfs", False),
        ("btrfs", False), ("fuse.fuse-overlayfs", False), ("fuseblk", False),
    ],
)  # fmt: skip
def test_a_table_of_mounts(tmp_path, monkeypatch, kind, is_refused):
    Mount = namedtuple("Mount", "mountpoint fstype")
    mounts = [Mount("/", "ext4"), Mount(str(tmp_path), kind)]
    monkeypatch.setattr(store.psutil, "disk_partitions", lambda all: mounts)
    url = f"sqlite:///{tmp_path}/run/ledger.db"
    if not is_refused:
        Ledger.open(url, "run", writer=True).close()
        return
    with pytest.raises(LedgerError) as caught:
        Ledger.open(url, "run", writer=True)
    text = str(caught.value)
    assert f"log does not work in {tmp_path}/run (it is on a network filesystem, {kind})" in text
    assert text.endswith("with ledger_url=postgresql://user@host/database")


def test_locks_are_tried(tmp_path, monkeypatch):
    store.probe_locks(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(store.fcntl, "lockf", lambda *_: None)  # says yes, and does nothing
    with pytest.raises(LedgerError, match=r"\(a lock there keeps nobody out\); put the run on"):
        store.probe_locks(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(store.fcntl, "lockf", fail)
    with pytest.raises(LedgerError, match="files there cannot be locked: No locks available"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db", "run", writer=True)
    assert not list(tmp_path.iterdir())


def test_the_probe_refuses_what_cannot_take_wal(tmp_path, monkeypatch):
    store.probe_wal(tmp_path)
    assert not list(tmp_path.iterdir())
    connect = sqlite3.connect
    # SQLite's own "unix-none" file system has no shared memory, as a network mount has none.
    monkeypatch.setattr(
        store.sqlite3,
        "connect",
        lambda path: connect(f"file:{path}?vfs=unix-none", uri=True),
    )
    with pytest.raises(LedgerError, match=r"write-ahead log does not work in .*journal mode stays"):
        store.probe_wal(tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_table_and_insert_compiles_for_postgresql():
    dialect = postgresql.dialect()
    for table in schema.metadata.sorted_tables:
        text = str(CreateTable(table).compile(dialect=dialect))
        assert "SERIAL" not in text or table.name == "rayal_schema"
    insert = postgresql.insert(schema.label_events).on_conflict_do_nothing()
    assert "ON CONFLICT DO NOTHING" in str(insert.compile(dialect=dialect))


def test_the_same_digest_on_postgresql(tmp_path, postgres):
    digests = []
    for place in (f"sqlite:///{tmp_path}/ledger.db", postgres):
        with Ledger.open(place, str(tmp_path), writer=True) as ledger:
            ledger.start_run({"seed": 1})
            ledger.once(0, "selected", lambda: {"x": "é"})
            events = [LabelEvent(i, f"c{i}", f"e{i}", cost_minor=1) for i in range(1_000)]
            assert ledger.append_labels(0, "j", events) == 1_000
            assert ledger.append_labels(0, "j", events) == 0
            assert ledger.spend() == {"labels": 1_000, "amount_minor": 1_000}
            with pytest.raises(LedgerError, match="held by process"):
                Ledger.open(place, str(tmp_path), writer=True)
            digests.append(ledger.digest())
    assert digests[0] == digests[1]
