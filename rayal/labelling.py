"""The label side of a round: an order is placed, answers are awaited and become a snapshot."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from rayal.consensus import Decided, agreement_of
from rayal.doorbell import Waiter
from rayal.errors import LabelError
from rayal.gold import GOLD, STEP, Gold
from rayal.history import History
from rayal.ledger import Ledger
from rayal.ordering import Orders
from rayal.pool import Pool
from rayal.progress import Reporter, Stopwatch
from rayal.rundir import sample_ids
from rayal.test_split import TEST
from rayal.types import Batch, Ids, Order, Snapshot


@dataclass(frozen=True)
class Closing:
    """When a round goes on with the labels that came: after the deadline (seconds since its order
    was placed), once at least this share of its rows is answered. None: with all of them."""

    deadline_s: float | None = None
    least_share: float = 1.0

    def is_over(self, ordered_at: str, num_missing: int, num_rows: int) -> bool:
        """Whether enough has come, and time is up."""
        if self.deadline_s is None:
            return False
        passed_s = datetime.now(UTC) - datetime.fromisoformat(ordered_at)
        if passed_s.total_seconds() < self.deadline_s:
            return False
        # At least one: there must be something to train on.
        return num_rows - num_missing >= max(1, math.ceil(self.least_share * num_rows))


@dataclass(frozen=True)
class Labelling:
    """Buys the labels of one run."""

    ledger: Ledger
    orders: Orders
    past: History
    gold: Gold
    pool: Pool
    columns: tuple[str, ...]  # that models read, which a snapshot holds
    clock: Stopwatch
    progress: Reporter
    poll_s: float | None
    poll_for_s: float
    closing: Closing
    waiter: Waiter

    def order(self, t: int, batch: Batch) -> Order:
        """Places the batch with the labeler, chunk by chunk, each at most once."""
        rows = self.past.dir.read(batch)
        why = f"batch {batch.content_hash} of round {t}"
        if t != TEST and self.gold.share:
            labels = self.ledger.event(TEST, "labelled")
            exam = None if labels is None else labels.result
            asked = self.ledger.once(t, STEP, self.gold.pick, t, batch.num_rows, exam)
            rows = self.gold.mixed(t, rows, asked)
            why += f", with {asked.num_rows} gold questions"
        return self.orders.place(t, rows, why)

    def wait(self, t: int, batch: Batch) -> Snapshot | None:
        """Gives the round's snapshot; None when labels are missing and polling is off or over."""
        deadline = time.monotonic() + (self.poll_for_s if self.poll_s is not None else 0.0)
        while True:
            snapshot = self.ledger.once(t, "labelled", self.collect, t)
            if snapshot is not None:
                return snapshot
            missing = self.past.missing(t, self.orders.overlap)
            what = "the test split" if t == TEST else f"round {t}"
            waiting = f"{missing} of {len(self.past.asked_ids(t))} labels of {what}"
            self.ledger.set_state("waiting", waiting_for=waiting)
            if self.poll_s is None or time.monotonic() > deadline:
                self.progress.say(f"waiting for {waiting}; the same command again goes on")
                return None
            self.waiter.wait(self.poll_s)

    def collect(self, t: int) -> Snapshot | None:
        """Drains the round's job into label events; gives a snapshot once every row is answered.

        Raises:
            LabelError: every answer is a refusal.
        """
        past, vocabulary = self.past, self.past.vocabulary
        with self.clock("label"):
            order = past.record(t, "ordered")
            self.orders.drain(t, order)
            if not past.missing(t, self.orders.overlap) and self.orders.look_after(t, order):
                self.orders.drain(t, order)  # an answer to what was there twice is awaited again
            if missing := past.missing(t, self.orders.overlap):
                placed = self.ledger.event(t, "ordered")
                assert placed is not None
                if not self.closing.is_over(placed.at, missing, order.num_rows):
                    return None
                self.progress.say(
                    f"round {t} goes on without {missing} of {order.num_rows} labels, which did "
                    "not come in time; they join a later round if they come"
                )
                self.ledger.note(num_late=missing)
            if refused := past.num_refused(t):
                self.progress.say(f"{refused} of {order.num_rows} rows of round {t} were refused")
            self.orders.drain_earlier(t)
            for earlier in range(min(t, 0), t + 1):
                self._close(earlier)
        decided = past.decided(t + 1, start=min(t, 0))
        if self._asks_again(t, decided):
            return None
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

    def num_labels(self) -> int:
        """Gives how many samples have a label, test rows and gold questions not counted."""
        apart = sum(self.ledger.spend(one)["labels"] for one in (TEST, GOLD))
        return self.ledger.spend()["labels"] - apart

    def expected_cost(self, num_labels: int) -> int:
        """Gives what labels are expected to cost, with the gold questions among them: as listed, or
        more where that was paid so far."""
        spend, num = self.ledger.spend(), num_labels + self.gold.num_of(num_labels)
        paid, bought = spend["amount_minor"], max(spend["labels"], 1)
        return max(num * self.orders.price_minor, -(-num * paid // bought))

    def _asks_again(self, t: int, decided: Decided) -> bool:
        """Orders samples once more that lack answers because some who gave them are not heard;
        whether answers to such an order are awaited."""
        rule = self.past.consensus.quarantine
        for again in range(1, 1 + (0 if rule is None else rule.num_reorders)):
            event = self.ledger.event(t, f"again/{again}")
            if event is None:
                short = self._unheard(t, set(decided.quarantined))
                if not len(short) or not self._is_affordable(len(short)):
                    return False
                batch: Batch = self.past.record(t, "selected")
                rows = self.past.dir.read(batch)
                rows = rows.filter(pa.array(np.isin(sample_ids(rows), short)))
                why = (
                    f"{len(short)} rows of batch {batch.content_hash}, whose answers are not heard"
                )
                order = self.orders.place(t, rows, why, again)
                self.ledger.once(t, f"again/{again}", lambda _, order=order: order, again)
                names = ", ".join(decided.quarantined[:5])
                self.progress.say(
                    f"round {t}: {len(short)} samples are ordered again, since answers of {names} "
                    "are not heard"
                )
                return True
            order = event.result
            self.orders.drain(t, order)
            came = self.ledger.answered_ids(t, self.orders.overlap, order.job_id)
            if len(came | self.ledger.erased()) < order.num_rows and not self.closing.is_over(
                event.at, order.num_rows - len(came), order.num_rows
            ):
                return True
            self.orders.close(t, order)
        return False

    def _unheard(self, t: int, outcasts: set[str]) -> Ids:
        """Gives the samples of round t with fewer answers that are heard than were ordered, where
        somebody else answered, too."""
        told = self.ledger.told(t, t + 1)
        is_heard_A = np.asarray([name not in outcasts for name in told.annotators])[
            told.annotator_A
        ]
        ids, place_A = np.unique(told.ids, return_inverse=True)
        num_heard = np.bincount(place_A[is_heard_A], minlength=len(ids))
        num_all = np.bincount(place_A, minlength=len(ids))
        wanted = np.minimum(num_all, self.orders.overlap)
        found: Ids = ids[num_heard < wanted]
        return found

    def _is_affordable(self, num_rows: int) -> bool:
        limit = self.orders.limit_minor
        if limit is None:
            return True
        cost = num_rows * self.orders.price_minor
        held = self.ledger.spend()["amount_minor"] + self.ledger.promised()
        if held + cost > limit:
            self.progress.say(
                f"{num_rows} samples lack answers that are heard; to order them again would cost "
                f"{cost} minor units, more than max_amount_minor={limit} leaves"
            )
        return held + cost <= limit

    def _close(self, t: int) -> None:
        """Frees what an order had set aside, once every row is answered."""
        placed = self.ledger.event(t, "ordered")
        if placed is not None and not self.past.missing(t, self.orders.overlap):
            self.orders.close(t, placed.result)
