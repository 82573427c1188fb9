"""The ledger of one run: what was done, with which inputs, and what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from sqlalchemy import Connection

from rayal.errors import LedgerError, RayalError
from rayal.ledger import (
    audit,
    chain,
    labels,
    money,
    quarantine,
    records,
    runs,
    schema,
    steps,
    views,
)
from rayal.ledger.chain import Entry, now
from rayal.ledger.labels import Received, StoredLabel
from rayal.ledger.lease import LEASE_S, Lease, is_held
from rayal.ledger.quarantine import Odd, Terms
from rayal.ledger.runs import Run, State
from rayal.ledger.steps import Event
from rayal.ledger.store import Store
from rayal.types import Chunk, LabelEvent, Told

T = TypeVar("T")
ERASED = "erased"  # the subject of what the chain says of erased samples


class Ledger:
    """The record of one run, open for one writer or any number of readers."""

    def __init__(self, store: Store, run_id: str, lease: Lease | None) -> None:
        self.run_id = run_id
        self._store = store
        self._lease = lease
        self._notes: list[dict[str, Any]] = [{}]  # outside of steps, then one a step under way

    @classmethod
    def open(cls, url: str, run_id: str, *, writer: bool, lease_s: float = LEASE_S) -> Self:
        """Gives the ledger of a run, made where there is none yet and `writer` is true.

        A reader takes no lease and changes nothing. A writer whose process died on this host is
        taken over at once, one on another host when its lease is `lease_s` old.

        Raises:
            LedgerError: another live process writes this run; there is no ledger to read; it is of
                a newer rayal; SQLite's write-ahead log does not work there.
        """
        store = Store(url, writer)
        try:
            if not writer:
                store.read(lambda connection: schema.check_version(connection, store.name))
                return cls(store, run_id, None)
            store.write(lambda connection: schema.prepare(connection, store.name))
            ledger = cls(store, run_id, Lease.take(store, run_id, lease_s))
            ledger._seal_what_is_there()
            return ledger
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        # The first error is the one to show; a lease that stays behind is taken over from the dead.
        with contextlib.suppress(RayalError):
            self.close()

    def close(self) -> None:
        """Gives the lease back and closes the database."""
        lease, self._lease = self._lease, None
        try:
            if lease is not None:
                lease.release()
        finally:
            self._store.close()

    # ------------------------------------------------------------------------------------ the run

    def start_run(
        self,
        config: Mapping[str, Any],
        may_change: Sequence[str] = (),
        may_grow: Sequence[str] = (),
    ) -> Run:
        """Records the resolved configuration, or compares it with the recorded one; state: running.

        `may_change`: prefixes of keys that cannot change answers; `may_grow`: see compare_configs.

        Raises:
            ConfigError: other keys differ; the message lists them as `key: old -> new`.
        """
        self._commit(
            lambda c: runs.start(c, self.run_id, config, may_change, may_grow, created=now())
        )
        return self.run()

    def run(self) -> Run:
        """Gives the run's own row.

        Raises:
            LedgerError: the ledger knows no run of this name.
        """
        return self._store.read(lambda c: runs.need(c, self.run_id, self._store.name))

    def set_state(
        self, state: State, waiting_for: str | None = None, error: str | None = None
    ) -> None:
        """Records how the run stands; no part of the digest."""
        self._commit(lambda c: runs.set_state(c, self.run_id, state, waiting_for, error))

    def state(self, now: float | None = None) -> State:
        """Gives how the run stands: `running` without a live writer is `interrupted`."""
        recorded = self.run().state
        if recorded != "running":
            return recorded
        at = time.time() if now is None else now
        held = self._store.read(lambda c: is_held(c, self.run_id, at))
        return "running" if held else "interrupted"

    def adopt(self, taken: Sequence[Event], answers: Sequence[StoredLabel]) -> None:
        """Records steps and labels of another run as this one's, all or none of them."""

        def work(connection: Connection) -> None:
            for event in taken:
                steps.append(
                    connection,
                    self.run_id,
                    round=event.round,
                    step=event.step,
                    fingerprint=event.fingerprint,
                    record=records.encode(event.result, event.step),
                    notes=event.notes,
                    epoch=self._epoch,
                    at=event.at,
                )
            for one in answers:
                self._receive(connection, one.round, one.job_id, [one.event])

        self._commit(work)

    # ---------------------------------------------------------------------------------- the steps

    def once(self, round: int, step: str, function: Callable[..., T], *arguments: Any) -> T:
        """Gives what the step gave when it was recorded, or runs it and records what it gives.

        A step that gives None is not recorded and runs again. It may also run twice when a crash
        falls between its effect and its record, so it must be idempotent.

        Raises:
            LedgerError: the step was recorded with other inputs, or gives what cannot be recorded.
        """
        mark = records.fingerprint(arguments)
        found = self.event(round, step)
        if found is not None:
            if found.fingerprint != mark:
                raise LedgerError(
                    f"round {round}, step '{step}' was recorded with other inputs (fingerprint "
                    f"{found.fingerprint[:12]}, now {mark[:12]}); the pool, the configuration or "
                    "an earlier step is not what it was: restore it, or start a new run_dir"
                )
            return cast(T, found.result)
        self._notes.append({})
        try:
            result = function(*arguments)
            text = "" if result is None else records.encode(result, step)
        except BaseException:
            notes = self._notes.pop()
            self._notes[-1].update(notes)
            raise
        notes = self._notes.pop()
        if result is None:
            self._notes[-1].update(notes)  # kept for the attempt that is recorded
            return result
        if len(self._notes) == 1:
            notes = self._notes[0] | notes
        self._record(round, step, mark, text, notes)
        if len(self._notes) == 1:
            self._notes[0].clear()
        return cast(T, records.decode(text))

    def note(self, **notes: Any) -> None:
        """Adds to the notes of the step under way, or of the next outermost one to be recorded."""
        records.to_json(records.canonical(notes))
        self._notes[-1].update(notes)

    def event(self, round: int, step: str) -> Event | None:
        """Gives one recorded step, or None."""
        return next(iter(self.events(round, step)), None)

    def events(self, round: int | None = None, step: str | None = None) -> list[Event]:
        """Gives the recorded steps in the order of recording, all or of a round or a name."""
        return self._store.read(lambda c: list(steps.recorded(c, self.run_id, round, step)))

    # --------------------------------------------------------------------------------- the labels

    def append_labels(
        self,
        round: int,
        job_id: str,
        events: Sequence[LabelEvent],
        odd: Sequence[Odd] = (),
        terms: Terms | None = None,
        cursor: str | None = None,
    ) -> int:
        """Records answers in one transaction and gives how many were new. Those that are `odd`, or
        go beyond the terms, are kept in the quarantine. `cursor`: where the next ones begin.

        Raises:
            LabelError: an answer came before with the same revision and another content.
        """
        if not events and not odd and cursor is None and (not terms or terms.limit_minor is None):
            return 0
        told = (round, job_id, events, odd, terms, cursor)
        return self._commit(lambda c: self._receive(c, *told)).num

    def cursor(self, job_id: str) -> str:
        """Gives the cursor behind the answers to an order that are recorded; "": there are none."""
        return self._store.read(lambda c: labels.cursor_of(c, self.run_id, job_id))

    def quarantine(self) -> list[dict[str, Any]]:
        """Gives the answers that were not taken, each with `why`."""
        return self._orders(lambda c: quarantine.in_quarantine(c, self.run_id)) or []

    def labels(self, round: int | None = None, job_id: str | None = None) -> list[StoredLabel]:
        """Gives the answers that hold now, by (round, job, sample, event): of each the highest
        revision, none that was refused or withdrawn. Several annotators give several a sample."""
        return self._store.read(lambda c: labels.current(c, self.run_id, round, job_id))

    def told(self, start: int, before: int, also: int | None = None) -> Told:
        """Gives the answers that hold now, as columns, of the rounds from `start` to before one,
        and `also` of one apart."""
        return self._store.read(lambda c: labels.told(c, self.run_id, start, before, also))

    def answered_ids(self, round: int, least: int = 1, job_id: str | None = None) -> set[int]:
        """Gives the samples of a round, or of one of its jobs, with so many answers, refused or
        withdrawn ones included."""
        return self._store.read(lambda c: views.answered_ids(c, self.run_id, round, least, job_id))

    def spend(self, round: int | None = None) -> dict[str, int]:
        """Gives {"labels": samples with a label, "amount_minor": what all answers cost}."""
        return self._store.read(lambda c: views.spend(c, self.run_id, round))

    # --------------------------------------------------------------------------------- the orders

    def intend(
        self, round: int, job_id: str, chunks: Sequence[Chunk], limit_minor: int | None
    ) -> None:
        """Records what is going to leave and sets its cost aside: all chunks in one transaction, or
        none. What is recorded already must be the same.

        Raises:
            LedgerError: a chunk was recorded with another payload or cost.
            LabelError: all that was spent and set aside would be above the limit.
        """

        self._commit(
            lambda c: money.intend(
                c, self.run_id, round, job_id, chunks, limit_minor, self._epoch, now()
            )
        )

    def log(
        self,
        round: int,
        subject: str,
        what: str,
        detail: Mapping[str, Any] | None = None,
        at: str | None = None,
    ) -> None:
        """Adds an entry to the chain: what happens to a chunk or a job; no part of the digest."""
        entry = (self._epoch, round, subject, what, detail or {}, at)
        self._commit(lambda c: chain.append(c, self.run_id, *entry))

    def logged(self, subject: str | None = None) -> list[Entry]:
        """Gives the chain's entries in order, all or those of a chunk, job or step."""
        return self._orders(lambda c: list(chain.entries(c, self.run_id, subject))) or []

    def erase(self, ids: Sequence[int]) -> int:
        """Takes what was said of samples out of the ledger, for good; gives how many answers."""

        def work(connection: Connection) -> int:
            before, after = labels.erase(connection, self.run_id, ids)
            seals = {"before": f"{before.seal:064x}", "after": f"{after.seal:064x}"}
            detail = {"sample_ids": list(ids), "num": before.num + before.num_odd, **seals}
            chain.append(connection, self.run_id, self._epoch, 0, ERASED, "erase", detail)
            return before.num + before.num_odd

        num = self._commit(work)
        self._store.scrub()
        return num

    def erased(self) -> set[int]:
        """Gives the samples that were erased, of which nothing is to be heard again."""
        told = [one.detail for one in self.logged(ERASED)]
        return {int(one) for detail in told for one in detail.get("sample_ids", ())}

    def promised(self) -> int:
        """Gives what open orders may still cost, in minor units."""
        return self._orders(lambda c: money.promised(c, self.run_id)) or 0

    def problems(self) -> list[str]:
        """Gives a line for each thing that is not as it was recorded; none: all is."""
        return self._orders(lambda c: audit.problems(c, self.run_id)) or []

    def digest(self) -> str:
        """Gives a sha256 of every step and label: equal for runs that did the same.

        Left out: notes, times, epochs, the run's name and place, vendors' handles, and the order
        and portions in which labels arrived.
        """

        return self._store.read(lambda c: audit.digest(c, self.run_id))

    # -------------------------------------------------------------------------------------- below

    @property
    def _epoch(self) -> int:
        return 0 if self._lease is None else self._lease.epoch

    def _orders(self, work: Callable[[Connection], T]) -> T | None:
        """Reads the tables of orders; None where a rayal wrote the ledger that had none."""
        return self._store.read(lambda c: work(c) if schema.has_orders(c) else None)

    def _seal_what_is_there(self) -> None:
        """Seals the answers of a rayal that had no chain."""
        if not self._store.read(lambda c: audit.is_unsealed(c, self.run_id)):
            return

        def work(connection: Connection) -> None:
            there = labels.sealed(connection, self.run_id)
            self._log_received(connection, 0, "", there, now())

        self._commit(work)

    def _receive(
        self,
        connection: Connection,
        round: int,
        job_id: str,
        events: Sequence[LabelEvent],
        odd: Sequence[Odd] = (),
        terms: Terms | None = None,
        cursor: str | None = None,
    ) -> Received:
        place, at = (connection, self._store, self.run_id, round, job_id), now()
        came = labels.append(*place, events, at, odd, terms, cursor)
        if came.num or came.num_odd:
            self._log_received(connection, round, job_id, came, at)
        return came

    def _log_received(
        self, connection: Connection, round: int, job_id: str, came: Received, at: str
    ) -> None:
        seal = {"num": came.num, "num_odd": came.num_odd, "seal": f"{came.seal:064x}"}
        chain.append(connection, self.run_id, self._epoch, round, job_id, "received", seal, at)

    def _record(self, round: int, step: str, mark: str, text: str, notes: dict[str, Any]) -> None:
        entry: Any = {"round": round, "step": step, "fingerprint": mark, "record": text}
        entry |= {"notes": notes, "epoch": self._epoch, "at": now()}
        self._commit(lambda c: steps.append(c, self.run_id, **entry))

    def _commit(self, work: Callable[[Connection], T]) -> T:
        """The one place where the record of a run changes: one transaction, fenced by the epoch."""
        lease = self._lease
        if lease is None:
            raise LedgerError(
                f"the ledger of run '{self.run_id}' is closed or open for reading only; open it "
                "with writer=True to record"
            )

        def fenced(connection: Connection) -> T:
            lease.check(connection)
            return work(connection)

        return self._store.write(fenced)
