"""The ledger's tables, the same on SQLite and PostgreSQL.

JSON lies in Text columns as canonical text, so that both databases give back the very characters
that were written and a digest needs no second encoding.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    inspect,
    select,
)

from rayal.errors import LedgerError

SCHEMA_VERSION = 1

metadata = MetaData()

schema_version = Table("rayal_schema", metadata, Column("version", Integer, primary_key=True))

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("config", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("state", String(20), nullable=False),
    Column("waiting_for", Text),
    Column("error", Text),
    Column("created", String(40), nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("round", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("record", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("at", String(40), nullable=False),
    UniqueConstraint("run_id", "round", "step", name="events_once"),
)

label_events = Table(
    "label_events",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("sample_id", BigInteger, nullable=False),
    Column("value", Text),  # canonical JSON; NULL: refused, skipped or withdrawn
    Column("annotator", Text, nullable=False),
    Column("cost_minor", BigInteger, nullable=False),
    Column("round", Integer, nullable=False),
    Column("at", String(40), nullable=False),
    Column("received", String(40), nullable=False),
    Index("label_events_by_sample", "run_id", "round", "sample_id"),
)

lease = Table(
    "lease",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("token", String(32), nullable=False),  # of one open ledger; "": nobody holds the run
    Column("host", Text, nullable=False),
    Column("host_key", String(64), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("process_started", Float, nullable=False),
    Column("since", Float, nullable=False),
    Column("renewed_at", Float, nullable=False),
    Column("lease_s", Float, nullable=False),
)


def prepare(connection: Connection, name: str) -> None:
    """Makes the tables where there are none.

    Raises:
        LedgerError: the tables are those of a newer rayal.
    """
    if inspect(connection).has_table(schema_version.name):
        check_version(connection, name)
        return
    metadata.create_all(connection)
    connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))


def check_version(connection: Connection, name: str) -> None:
    """Refuses a database without rayal's tables, or with those of a newer rayal.

    Raises:
        LedgerError: there is no schema version, or it is above SCHEMA_VERSION.
    """
    if not inspect(connection).has_table(schema_version.name):
        raise LedgerError(f"{name} holds no rayal ledger; check the run_dir or the ledger's URL")
    found = connection.scalar(select(schema_version.c.version))
    if found is None or found > SCHEMA_VERSION:
        raise LedgerError(
            f"the ledger {name} has schema version {found}, this rayal knows versions up to "
            f"{SCHEMA_VERSION}; use the rayal that wrote it, or a newer one"
        )
