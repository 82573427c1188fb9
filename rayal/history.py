"""What a run knows so far: batches, labels and what is still missing, read from its ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayal.consensus import Consensus, Decided
from rayal.engine.survivors import Taken
from rayal.errors import LedgerError
from rayal.gold import GOLD, STEP, answers_of
from rayal.ledger import Ledger
from rayal.rundir import RunDir, sample_ids
from rayal.types import Batch, Ids, Label, Vocabulary

SETTLED = -3  # the round under which the ledger holds what somebody decided of disputed samples


@dataclass(frozen=True)
class History:
    """The steps of a run, as the next step needs them."""

    ledger: Ledger
    dir: RunDir
    vocabulary: Vocabulary
    consensus: Consensus = field(default_factory=Consensus)

    def has(self, t: int, step: str) -> bool:
        """Whether a step of round t is recorded."""
        return self.ledger.event(t, step) is not None

    def record(self, t: int, step: str) -> Any:
        """Gives what a step of round t gave.

        Raises:
            LedgerError: it is not recorded.
        """
        event = self.ledger.event(t, step)
        if event is None:
            raise LedgerError(
                f"round {t} has no step '{step}' in the ledger, though a later one needs it; "
                "restore the ledger, or start a new run_dir"
            )
        return event.result

    def num_finished(self) -> int:
        """Gives how many rounds, from round 0 on, are recorded to their end."""
        return sum(event.round >= 0 for event in self.ledger.events(step="tested"))

    def batches(self, before: int, start: int = 0) -> list[Batch]:
        """Gives the batches of the rounds from `start` to before one."""
        return [self.record(t, "selected") for t in range(start, before)]

    def taken_ids(self, before: int) -> Ids:
        """Gives the ids of those batches, ascending."""
        parts = [sample_ids(self.dir.read(b, ["sample_id"])) for b in self.batches(before)]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def num_left(self, t: int, num_rows: int) -> int:
        """Gives how many of the pool's rows round t may pick: none that was picked before, and none
        that the pass before found to be undecodable."""
        last = self.ledger.event(t - 1, "selected") if t else None
        left = num_rows - len(self.taken_ids(t))
        if last is None or "tallies" not in last.notes:
            return left
        tallies = last.notes["tallies"]
        could_be = tallies["num_scored"] + tallies.get("num_left_out", 0)
        if "pool" in last.notes:  # it may have grown since
            could_be += num_rows - last.notes["pool"]["num_rows"]
        return min(left, could_be - last.result.num_rows)

    def num_on_order(self, t: int) -> int:
        """Gives the rows of the rounds before t whose labels are still awaited."""
        open_ones = [r for r in range(t) if not self.has(r, "labelled")]
        return sum(self.record(r, "selected").num_rows for r in open_ones)

    def taken(self, before: int) -> Taken:
        """Gives those rows with the labels that came."""
        ids = self.taken_ids(before)
        labels = self.labels(before)
        pending = np.asarray([int(i) not in labels for i in ids], bool)
        wide = (len(self.vocabulary.classes),) if self.vocabulary.kind == "multilabel" else ()
        encoded = np.full((len(ids), *wide), np.nan)
        encoded[~pending] = self.vocabulary.encode([labels[int(i)] for i in ids[~pending]])
        return Taken(ids, encoded, pending)

    def labels(self, before: int, start: int = 0) -> dict[int, Label]:
        """Gives the label of every answered row of those rounds; refusals are left out."""
        return self.decided(before, start).labels

    def decided(self, before: int, start: int = 0) -> Decided:
        """Gives what was made of the answers of those rounds: labels, weights, annotators."""
        gold = self.gold(before)
        told = self.ledger.told(start, before, GOLD if gold else None)
        settled = self.settled()
        if settled:  # of these rounds alone
            asked = np.concatenate([self.ids_of(t) for t in range(start, before)])
            settled = {i: settled[i] for i in np.intersect1d(asked, list(settled)).tolist()}
        return self.consensus.decide(told, self.vocabulary, gold, settled)

    def settled(self) -> dict[int, Label]:
        """Gives the labels that somebody decided on (`rayal labels settle`)."""
        told = self.ledger.told(SETTLED, SETTLED + 1)
        values = [told.values[place] for place in told.value_A.tolist()]
        return dict(zip(told.ids.tolist(), values, strict=True))

    def gold(self, before: int) -> dict[int, Label]:
        """Gives the known labels of the gold questions that the rounds before one asked."""
        known: dict[int, Label] = {}
        for event in self.ledger.events(step=STEP):
            if event.round < before:
                known |= answers_of(self.dir, event.result)
        return known

    def unseen(self, before: int) -> str | None:
        """Gives a line about the classes that no label of those rounds shows, or None."""
        if self.vocabulary.kind == "number":
            return None
        encoded = self.vocabulary.encode(list(self.labels(before).values()))
        if self.vocabulary.kind == "class":
            counts = np.bincount(encoded.astype(np.int64), minlength=len(self.vocabulary.classes))
        else:
            counts = encoded.sum(0)
        pairs = zip(self.vocabulary.classes, counts, strict=True)
        unseen = [repr(name) for name, count in pairs if not count]
        if not unseen:
            return None
        some = ", ".join(unseen[:8]) + (", ..." if len(unseen) > 8 else "")
        return (
            f"no label shows {len(unseen)} of {len(counts)} classes yet: {some}; "
            "the model cannot learn them until one does"
        )

    def num_refused(self, t: int) -> int:
        """Gives how many rows of round t's batch have answers, and no label among them."""
        labelled = {one.event.sample_id for one in self.ledger.labels(t)}
        return len(self.ledger.answered_ids(t) - labelled)

    def missing(self, t: int, overlap: int = 1) -> int:
        """Gives how many rows of round t's order, gold questions with them, have not as many
        answers yet as were ordered."""
        erased = self.ledger.erased()
        answered = self.ledger.answered_ids(t, overlap) | erased
        num = sum(int(i) not in answered for i in self.ids_of(t))
        if len(gold := self.gold_of(t)):
            job = self.record(t, "ordered").job_id
            answered = self.ledger.answered_ids(GOLD, overlap, job) | erased
            num += sum(int(i) not in answered for i in gold)
        return num

    def ids_of(self, t: int) -> Ids:
        """Gives the samples of round t's batch, in the order picked."""
        return sample_ids(self.dir.read(self.record(t, "selected"), ["sample_id"]))

    def gold_of(self, t: int) -> Ids:
        """Gives the samples of round t's gold questions."""
        event = self.ledger.event(t, STEP)
        if event is None:
            return np.empty(0, np.int64)
        return sample_ids(self.dir.read(event.result, ["sample_id"]))

    def asked_ids(self, t: int) -> Ids:
        """Gives the samples of round t's order: its batch and its gold questions."""
        return np.concatenate([self.ids_of(t), self.gold_of(t)])
