"""The run as a whole: its configuration and how it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from sqlalchemy import Connection, insert, select, update

from rayal.errors import ConfigError, LedgerError
from rayal.ledger import records, schema
from rayal.ledger.configs import compare_configs

State: TypeAlias = Literal["done", "waiting", "running", "interrupted", "failed"]


@dataclass(frozen=True)
class Run:
    """What the ledger says of a run; `state` is as its last writer left it."""

    config: dict[str, Any]
    fingerprint: str  # of the configuration
    state: State
    waiting_for: str | None
    error: str | None
    created: str


def find(connection: Connection, run_id: str) -> Run | None:
    """Gives the run's row, or None."""
    row = connection.execute(
        select(schema.runs).where(schema.runs.c.run_id == run_id)
    ).one_or_none()
    if row is None:
        return None
    state = cast(State, row.state)  # only `start` and `set_state` write it
    config = json.loads(row.config)
    return Run(config, row.fingerprint, state, row.waiting_for, row.error, row.created)


def need(connection: Connection, run_id: str, name: str) -> Run:
    """Gives the run's row.

    Raises:
        LedgerError: there is none.
    """
    found = find(connection, run_id)
    if found is None:
        known = connection.scalars(select(schema.runs.c.run_id)).all()
        raise LedgerError(
            f"the ledger {name} knows no run '{run_id}' (it has: "
            f"{', '.join(sorted(known)) or 'none'}); check the run_dir, or start the run"
        )
    return found


def start(
    connection: Connection,
    run_id: str,
    config: Mapping[str, Any],
    may_change: Sequence[str],
    may_grow: Sequence[str],
    created: str,
) -> None:
    """Records the configuration of a new run, or that of one that goes on. A run without a step has
    nothing that depends on its configuration: what was refused at the start can be corrected.

    Raises:
        ConfigError: keys differ that may not.
    """
    fields: dict[str, Any] = {
        "config": records.to_json(config),
        "fingerprint": records.fingerprint(config),
        "state": "running",
        "waiting_for": None,
        "error": None,
    }
    old = find(connection, run_id)
    if old is None:
        connection.execute(insert(schema.runs).values(run_id=run_id, created=created, **fields))
        return
    has_steps = select(schema.events.c.seq).where(schema.events.c.run_id == run_id).limit(1)
    differ = compare_configs(old.config, config, may_change, may_grow)
    if differ and connection.scalar(has_steps) is not None:
        raise ConfigError(
            f"run '{run_id}' has another configuration by now ({'; '.join(differ)}); give these "
            "keys as it has them, or start a new run_dir (begin_from=<this run_dir> takes over the "
            "labels of round 0)"
        )
    connection.execute(update(schema.runs).where(schema.runs.c.run_id == run_id).values(**fields))


def set_state(
    connection: Connection, run_id: str, state: State, waiting_for: str | None, error: str | None
) -> None:
    """Records how the run stands."""
    connection.execute(
        update(schema.runs)
        .where(schema.runs.c.run_id == run_id)
        .values(state=state, waiting_for=waiting_for, error=error)
    )
