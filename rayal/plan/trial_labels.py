"""The part of a trial that is about labels: an order, a ledger, the files of a round.

It goes through two rounds, of a quarter of the rows and of all: what is written to a disk for good
takes its time whatever it holds, and two sizes tell that from what grows with the labels.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayal.engine.survivors import Taken
from rayal.history import History
from rayal.ledger import Ledger
from rayal.ordering import Orders
from rayal.plan.laws import Law, Point, each, fit
from rayal.plan.measured import LabelTimes, Parts
from rayal.pool import Shard
from rayal.report import write_report
from rayal.rundir import RunDir
from rayal.types import Batch, Label, Picks, Vocabulary

_IDS_AT_ONCE = 1 << 16
_NOTHING = Law((0.0, 0.0), (0.0, 0.0))


@dataclass(frozen=True)
class Answered:
    """What labels took beside their wait, and what came of them."""

    times: LabelTimes
    snapshot: Path
    taken: Taken


def made_up(vocabulary: Vocabulary, num_rows: int, seed: int) -> list[Label]:
    """Gives labels of the right kind that say nothing of any row."""
    draws = np.random.default_rng(seed)
    if vocabulary.kind == "number":
        return [float(one) for one in draws.normal(size=num_rows)]
    names = [vocabulary.classes[at] for at in draws.integers(0, len(vocabulary.classes), num_rows)]
    return [[name] for name in names] if vocabulary.kind == "multilabel" else list(names)


def answered(
    parts: Parts, run_dir: RunDir, rows: Any, picks: Picks, shard: Shard, share: int
) -> tuple[Answered, list[str]]:
    """Gives what orders and the files of rounds took; and what was not tried.

    An oracle is asked, with made-up labels in place of the pool's; any other labeler is not: it
    might be paid. `share` rows of one shard are looked up in the pool's kept-apart labels.
    """
    ids = rows.column("sample_id").to_numpy()
    labels = made_up(parts.vocabulary, len(ids), parts.seed)
    known = dict(zip(ids.tolist(), labels, strict=True))
    paper, sizes = _Paper(parts, run_dir, known), list[int]()
    # Of a run in a store, too: the trial's folder is a copy on this disk.
    url = f"sqlite:///{run_dir.path / 'ledger.db'}"
    with Ledger.open(url, run_dir.claim(), writer=True) as ledger:
        ledger.start_run(_facts(parts))
        for t, number in enumerate((-(-len(ids) // 4), len(ids))):
            batch, snapshot = paper.round(ledger, t, picks.first(number), rows.slice(0, number))
            sizes.append(sum(path.stat().st_size for path in run_dir.path.glob("ledger.db*")))
    read, notes = _NOTHING, []
    if _may_be_tried(parts):
        read = _looked_up(parts, shard, share)
    else:
        name = type(parts.labeler).__name__
        notes.append(f"{name} was not asked: what it takes to answer is not in here")
    times = LabelTimes(
        read=read,
        ledger_bytes=_line(sizes[0], sizes[1], len(ids)),
        batch_bytes=run_dir.inside(batch.path).stat().st_size / len(ids),
        snapshot_bytes=snapshot.stat().st_size / len(ids),
        **paper.laws(),
    )
    ascending = np.sort(ids)
    encoded = parts.vocabulary.encode([known[int(sample_id)] for sample_id in ascending])
    taken = Taken(ascending, encoded, np.zeros(len(ids), bool))
    return Answered(times, snapshot, taken), notes


class _Paper:
    """Rounds on paper: everything but a model."""

    def __init__(self, parts: Parts, run_dir: RunDir, known: dict[int, Label]) -> None:
        self.parts, self.dir, self.known = parts, run_dir, known
        self.points: dict[str, list[Point]] = defaultdict(list)

    def round(self, ledger: Ledger, t: int, picks: Picks, rows: Any) -> tuple[Batch, Path]:
        """Gives batch and snapshot of a round."""
        parts, number = self.parts, rows.num_rows
        past = History(ledger, self.dir, parts.vocabulary)
        with self.clock("batch", number):
            batch = ledger.once(t, "selected", lambda _: self.dir.write_batch(t, picks, rows), t)
        if _may_be_tried(parts):
            self.ask(ledger, past, t, rows)
        known = {int(i): self.known[int(i)] for i in rows.column("sample_id").to_numpy()}
        with self.clock("snapshot", number):
            columns = parts.columns
            alike = dict.fromkeys(known, 1.0)
            snapshot = self.dir.write_snapshot(t, known, alike, [batch], columns, parts.vocabulary)
        with self.clock("report", 1):
            write_report(ledger, self.dir)
        return batch, self.dir.inside(snapshot.path)

    def ask(self, ledger: Ledger, past: History, t: int, rows: Any) -> None:
        """Orders from a labeler that answers at once, with what is known here."""
        number, words = rows.num_rows, self.parts.vocabulary
        labeler = copy.copy(self.parts.labeler)
        folder = str(self.dir.path / "labeler")
        labeler.bind(lambda ids: [self.known[int(i)] for i in ids], words, folder)  # type: ignore[attr-defined]
        orders = Orders(ledger, labeler, "trial", words, past.asked_ids)
        with self.clock("order", number):
            order = orders.place(t, rows)
            ledger.once(t, "ordered", lambda _: order, t)
        with self.clock("answer", number):
            orders.drain(t, order)
            past.missing(t)
            past.num_refused(t)
        with self.clock("replay", number):
            orders.drain(t, order)
        with self.clock("look", len(ledger.labels())):
            past.labels(t + 1)

    @contextmanager
    def clock(self, name: str, number: int) -> Iterator[None]:
        """Notes what the block took of so many labels."""
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        yield
        wall_s = time.perf_counter() - start_s
        cpu_s = time.process_time() - start_cpu_s
        self.points[name].append(Point((number,), wall_s, cpu_s))

    def laws(self) -> dict[str, Law]:
        """Gives the law of each kind of work, in labels."""
        names = ("order", "answer", "replay", "look", "batch", "snapshot", "report")
        return {name: fit(self.points[name]) if name in self.points else _NOTHING for name in names}


def _line(first: int, second: int, num_labels: int) -> tuple[float, float]:
    """Gives the bytes of an empty ledger, and of a label, from one of a quarter of the labels and
    one of those and all of them once more."""
    a_label = max(0.0, (second - first) / num_labels)
    return max(0.0, first - a_label * -(-num_labels // 4)), a_label


def _may_be_tried(parts: Parts) -> bool:
    """Whether the labeler says that an order has no effect outside its folder."""
    return bool(getattr(parts.labeler, "may_be_tried", False))


def _looked_up(parts: Parts, shard: Shard, share: int) -> Law:
    """Gives the law of looking up shards' shares of a batch in the kept-apart labels."""
    pool = parts.pool
    if pool.vocabulary is None:
        return _NOTHING
    rows = next(iter(pool.batches(shard, ("sample_id",), _IDS_AT_ONCE)))
    ids = rows.column("sample_id").to_numpy()
    chosen = np.random.default_rng(parts.seed).choice(ids, min(share, len(ids)), False)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    pool.secret_labels(chosen)
    return each(time.perf_counter() - start_s, time.process_time() - start_cpu_s)


def _facts(parts: Parts) -> dict[str, Any]:
    """Gives what a report shows of a run's configuration."""
    words = parts.vocabulary
    return {
        "kind": words.kind,
        "classes": list(words.classes),
        "seed": parts.seed,
        "budget": parts.budget,
        "num_rounds": parts.num_rounds,
        "pool_rows": parts.pool.num_rows,
        "pool_content": parts.pool.content_hash,
    }
