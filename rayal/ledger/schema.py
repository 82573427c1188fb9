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
    update,
)

from rayal.errors import LedgerError

SCHEMA_VERSION = 2  # 2: chain, reservations, quarantine, cursors

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
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("sample_id", BigInteger, nullable=False),
    Column("value", Text),  # canonical JSON; NULL: refused, skipped or withdrawn
    Column("annotator", Text, nullable=False),
    Column("cost_minor", BigInteger, nullable=False),
    Column("round", Integer, nullable=False),
    Column("at", String(40), nullable=False),
    Column("received", String(40), nullable=False),
    Column("is_open", Integer, nullable=False, server_default="0"),  # since version 2
    Index("label_events_by_sample", "run_id", "round", "sample_id"),
)

quarantine = Table(  # answers that fit no order: kept, and no labels
    "quarantine",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("sample_id", BigInteger, nullable=False),
    Column("value", Text),
    Column("annotator", Text, nullable=False),
    Column("cost_minor", BigInteger, nullable=False),
    Column("round", Integer, nullable=False),
    Column("at", String(40), nullable=False),
    Column("received", String(40), nullable=False),
    Column("why", Text, nullable=False),
    Column("is_open", Integer, nullable=False, server_default="0"),
)

reservations = Table(  # what a chunk may cost, set aside before it leaves
    "reservations",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("chunk_key", Text, primary_key=True),
    Column("round", Integer, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("num_answers", BigInteger, nullable=False),
    Column("cost_minor", BigInteger, nullable=False),
)

chain = Table(  # each entry holds the hash of the one before it
    "chain",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("round", Integer, nullable=False),
    Column("subject", Text, nullable=False),  # a chunk's key, a job's, or a step's name
    Column("what", String(20), nullable=False),
    Column("detail", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("at", String(40), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("chain_by_subject", "run_id", "subject"),
)

cursors = Table(  # how far a vendor's answers to an order were read, with these answers recorded
    "cursors",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
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
    if not inspect(connection).has_table(schema_version.name):
        metadata.create_all(connection)
        connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))
    elif check_version(connection, name) < SCHEMA_VERSION:  # which had fewer tables
        metadata.create_all(connection)
        added = "ALTER TABLE label_events ADD COLUMN is_open INTEGER DEFAULT 0 NOT NULL"
        connection.exec_driver_sql(added)
        if connection.dialect.name == "postgresql":  # SQLite's numbers have 64 bits anyway
            wide = "ALTER TABLE label_events ALTER COLUMN revision TYPE BIGINT"
            connection.exec_driver_sql(wide)
        connection.execute(update(schema_version).values(version=SCHEMA_VERSION))


def check_version(connection: Connection, name: str) -> int:
    """Gives the version of rayal's tables; refuses a database without, or with newer ones.

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
    return int(found)


def has_orders(connection: Connection) -> bool:
    """Whether the tables of version 2 are there; a reader makes none."""
    known = connection.info  # of the database's connection, which outlives this one
    if not known.get("has_orders"):
        known["has_orders"] = inspect(connection).has_table(chain.name)
    return bool(known["has_orders"])
