"""Whether a ledger is as it was written: the chain, and what it seals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain as one_by_one

from sqlalchemy import Connection, select

from rayal.ledger import chain, labels, schema, steps
from rayal.ledger.chain import Entry
from rayal.ledger.labels import Received


def problems(connection: Connection, run_id: str) -> list[str]:
    """Gives a line for each entry, step or portion of answers that is not as it was recorded."""
    found = list(chain.entries(connection, run_id))
    return [
        *chain.broken(iter(found)),
        *_of_steps(connection, run_id, found),
        *_of_labels(connection, run_id, found),
    ]


def digest(connection: Connection, run_id: str) -> str:
    """Gives a sha256 of every step and label (`Ledger.digest`)."""
    sha = hashlib.sha256()
    parts = (steps.digest_lines, labels.digest_lines)
    for line in one_by_one.from_iterable(part(connection, run_id) for part in parts):
        sha.update(line.encode() + b"\n")
    return sha.hexdigest()


def is_unsealed(connection: Connection, run_id: str) -> bool:
    """Whether a run has answers, and no chain."""
    if next(chain.entries(connection, run_id), None) is not None:
        return False
    mine = schema.label_events.c
    return (
        connection.scalar(select(mine.event_id).where(mine.run_id == run_id).limit(1)) is not None
    )


def _of_steps(connection: Connection, run_id: str, found: list[Entry]) -> Iterator[str]:
    """Steps of a rayal that had no chain come before the first sealed one and are passed over."""
    sealed = {(one.round, one.subject): one.detail for one in found if one.what == "step"}
    mine = schema.events.c
    rows = connection.execute(
        select(mine.round, mine.step, mine.fingerprint, mine.record)
        .where(mine.run_id == run_id)
        .order_by(mine.seq)
    ).all()
    has_begun = False
    for row in rows:
        where = f"round {row.round}, step '{row.step}'"
        seal = sealed.pop((row.round, row.step), None)
        has_begun = has_begun or seal is not None
        if seal is None:
            if has_begun:
                yield f"{where}: nobody recorded it"
        elif seal != {
            "fingerprint": row.fingerprint,
            "record": hashlib.sha256(row.record.encode()).hexdigest(),
        }:
            yield f"{where}: it is not what was recorded"
    for round, step in sealed:
        yield f"round {round}, step '{step}': it was recorded and is gone"


def _of_labels(connection: Connection, run_id: str, found: list[Entry]) -> Iterator[str]:
    seals = [one.detail for one in found if one.what == "received"]
    erased = [one.detail for one in found if one.what == "erase" and "after" in one.detail]
    there = labels.sealed(connection, run_id)
    written = Received(
        sum(int(one.get("num", 0)) for one in seals),
        sum(int(one.get("num_odd", 0)) for one in seals),
        (
            sum(int(str(one.get("seal", "0")), 16) for one in seals)
            + sum(int(one["after"], 16) - int(one["before"], 16) for one in erased)
        )
        % (1 << 256),
    )
    if there == written:
        return
    if (there.num, there.num_odd) != (written.num, written.num_odd):
        yield (
            f"answers: {written.num} were taken and {written.num_odd} kept apart, there are "
            f"{there.num} and {there.num_odd}"
        )
    else:
        yield f"answers: one or more of {there.num + there.num_odd} are not what came"
