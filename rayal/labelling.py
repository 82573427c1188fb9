"""The label side of a round: an order is placed, answers are awaited and become a snapshot."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rayal.consensus import agreement_of
from rayal.errors import LabelError
from rayal.history import History
from rayal.ledger import Ledger
from rayal.ordering import Orders
from rayal.pool import Pool
from rayal.progress import Reporter, Stopwatch
from rayal.test_split import TEST
from rayal.types import Batch, Order, Snapshot


@dataclass(frozen=True)
class Labelling:
    """Buys the labels of one run."""

    ledger: Ledger
    orders: Orders
    past: History
    pool: Pool
    columns: tuple[str, ...]  # that models read, which a snapshot holds
    clock: Stopwatch
    progress: Reporter
    poll_s: float | None
    poll_for_s: float

    def order(self, t: int, batch: Batch) -> Order:
        """Places the batch with the labeler, chunk by chunk, each at most once."""
        rows = self.past.dir.read(batch)
        return self.orders.place(t, rows, f"batch {batch.content_hash} of round {t}")

    def wait(self, t: int, batch: Batch) -> Snapshot | None:
        """Gives the round's snapshot; None when labels are missing and polling is off or over."""
        deadline = time.monotonic() + (self.poll_for_s if self.poll_s is not None else 0.0)
        while True:
            snapshot = self.ledger.once(t, "labelled", self.collect, t)
            if snapshot is not None:
                return snapshot
            missing = self.past.missing(t)
            what = "the test split" if t == TEST else f"round {t}"
            waiting = f"{missing} of {batch.num_rows} labels of {what}"
            self.ledger.set_state("waiting", waiting_for=waiting)
            if self.poll_s is None or time.monotonic() > deadline:
                self.progress.say(f"waiting for {waiting}; the same command again goes on")
                return None
            time.sleep(self.poll_s)

    def collect(self, t: int) -> Snapshot | None:
        """Drains the round's job into label events; gives a snapshot once every row is answered.

        Raises:
            LabelError: every answer is a refusal.
        """
        past, vocabulary = self.past, self.past.vocabulary
        with self.clock("label"):
            order = past.record(t, "ordered")
            self.orders.drain(t, order)
            if past.missing(t):
                return None
            if refused := past.num_refused(t):
                self.progress.say(f"{refused} of {order.num_rows} rows of round {t} were refused")
            self.orders.drain_earlier(t)
            self.orders.close(t, order)
        decided = past.decided(t + 1, start=min(t, 0))
        snapshot = past.dir.write_snapshot(
            t,
            self.pool.newest().living(decided.labels),
            decided.weights,
            past.batches(t + 1, start=min(t, 0)),
            self.columns,
            vocabulary,
        )
        if snapshot.num_rows == 0:
            raise LabelError(f"round {t}: every answer is a refusal; there is nothing to train on")
        if decided.reports:
            self.ledger.note(annotators=agreement_of(decided))
        self.ledger.note(seconds=self.clock.take())
        return snapshot
