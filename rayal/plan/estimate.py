"""From what a run asks for and what a trial measured to a plan: arithmetic, nothing is run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from rayal.plan import laws
from rayal.plan.asked import Asked, rounds_of
from rayal.plan.measured import Measured, Selected
from rayal.plan.peaks import processes_of
from rayal.plan.phases import Labels, Phase, Plan
from rayal.plan.survive import shards_hit, survivors
from rayal.plan.watch import Memory, memory_of
from rayal.types import Costed, CostedTrainer, Selector, StoppingRule, Trainer

_ID_AND_SCORE_BYTES = 16  # of a survivor
_LOOKS = 4  # a round reads all labels so far: for the pass, the snapshot, the training and the end


@dataclass(frozen=True)
class Here:
    """This process and machine: seconds until a run's parts were built, its memory then, cores."""

    start_s: float
    start_cpu_s: float
    memory: Memory
    num_cores: float


def here_now() -> Here:
    """Gives what this process took until now, and how many cores it may use."""
    age_s = time.time() - psutil.Process().create_time()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Here(age_s, time.process_time(), memory_of(), float(cores or 1))


def plan_of(
    asked: Asked,
    measured: Measured,
    here: Here,
    selector: Selector,
    trainers: Sequence[Trainer],
    stopping: StoppingRule,
) -> Plan:
    """Gives the plan of a run. Cost: rounds x shards.

    Times of a pass are laws of (shards, rows) measured with the run's own workers; where they were
    measured with fewer, the work is shared among as many as there are cores.
    """
    one = _Rounds(asked, measured, here, selector, trainers)
    rounds = [list(one.of_round(t)) for t in range(asked.first_round, asked.num_rounds)]
    usual_s = sum(phase.wall_s for phase in rounds[-1]) if rounds else 0.0
    end, stops = rounds_of(asked, stopping, usual_s)
    kept = rounds[: end - asked.first_round]
    phases = (one.start(), *(phase for some in kept for phase in some))
    last = asked.num_labels(end - 1) if end else 0
    before = asked.num_labels(asked.first_round - 1) if asked.first_round else 0
    tests = 0 if asked.first_round else asked.test_budget  # they are ordered before round 0
    return Plan(
        phases=phases,
        processes=tuple(processes_of(asked, measured, here.memory, one.held_bytes())),
        disk=_disk(asked, measured, end),
        labels=Labels(asked.budget, last - before, tests, asked.price_minor, asked.currency),
        num_rounds=end,
        stops=stops,
        spread=measured.score.spread,
        notes=(*measured.notes, *one.notes, *_on_rescoring(asked, measured), *_on_cluster(asked)),
    )


def _on_cluster(asked: Asked) -> Iterator[str]:
    if asked.on_cluster:
        yield "of a cluster only this machine is seen: memory and CPU-hours elsewhere are not in"


def _on_rescoring(asked: Asked, measured: Measured) -> Iterator[str]:
    if asked.rescoring is None:
        return
    why = asked.rescoring or measured.no_bound
    yield (
        f"rescoring has no use here: {why}"
        if why
        else "rescoring is planned as if every pass scored all rows: what it spares depends on how "
        "much the model changes"
    )


@dataclass
class _Rounds:
    asked: Asked
    measured: Measured
    here: Here
    selector: Selector
    trainers: Sequence[Trainer]

    def __post_init__(self) -> None:
        self.notes: list[str] = []

    def start(self) -> Phase:
        around, here = self.measured.around, self.here
        return Phase("start", -1, here.start_s + around.wall(), here.start_cpu_s + around.cpu())

    def of_round(self, t: int) -> Iterator[Phase]:
        """Gives the phases of round t."""
        asked, measured = self.asked, self.measured
        labels, budget = (
            measured.labels,
            asked.num_labels(t) - (asked.num_labels(t - 1) if t else 0),
        )
        yield self._score(t)
        select_s, select_cpu_s = self._select(t, budget)
        candidate_bytes = _row_bytes(asked, measured) * asked.num_candidates
        yield Phase("select", t, select_s, select_cpu_s, read_bytes=candidate_bytes if t else 0.0)
        hit = shards_hit(asked.num_shards, budget)
        share = hit / max(1, asked.num_shards)
        fetched = share * measured.row_bytes * asked.num_rows
        seconds = measured.fetch.wall(hit), measured.fetch.cpu(hit)
        yield Phase("fetch", t, *seconds, read_bytes=fetched)
        yield Phase("order", t, *_sum((labels.read, hit), (labels.order, budget)))
        replays = ((labels.replay, budget) for _ in range(t))
        seconds = _sum((labels.answer, budget), *replays)
        yield Phase("label", t, *seconds, written_bytes=budget * labels.ledger_bytes[1])
        yield self._train(t)
        yield self._test(t)
        num_labels = asked.num_labels(t)
        looks = ((labels.look, num_labels) for _ in range(_LOOKS))
        seconds = _sum(
            (labels.batch, budget), (labels.snapshot, num_labels), (labels.report, 1), *looks
        )
        files_bytes = budget * labels.batch_bytes + num_labels * labels.snapshot_bytes
        yield Phase("files", t, *seconds, written_bytes=files_bytes)

    def _score(self, t: int) -> Phase:
        asked, measured = self.asked, self.measured
        law = measured.score if t else measured.cold
        keep = asked.keep if t else asked.keep_cold
        wall_s = law.wall(asked.num_shards, asked.num_rows)
        cpu_s = law.cpu(asked.num_shards, asked.num_rows)
        workers = max(1, asked.num_workers)
        if workers > measured.num_workers:
            here = workers if asked.on_cluster else self.here.num_cores
            cores = max(1.0, min(workers, here))
            wall_s = max(wall_s * measured.num_workers / workers, cpu_s / cores)
        # The last shards keep some workers waiting.
        wall_s *= -(-asked.num_shards // workers) * workers / max(1, asked.num_shards)
        rows = asked.scored_rows if t else asked.shard_rows
        left = survivors(rows, keep, workers * asked.in_flight)
        row = _row_bytes(asked, measured) if t else _ID_AND_SCORE_BYTES
        sent = asked.num_shards * measured.report_bytes if asked.num_workers else 0.0
        gpus = workers * asked.gpus_a_worker if t else 0.0
        read = (measured.read_bytes if t else 8.0) * asked.num_rows
        return Phase("score", t, wall_s, cpu_s, gpus * wall_s, read, left * row, sent)

    def _select(self, t: int, budget: int) -> tuple[float, float]:
        asked, measured = self.asked, self.measured
        if t == 0:
            one = measured.selected_cold
            scale = max(1.0, budget / max(1, one.budget))
            return one.wall_s * scale, one.cpu_s * scale
        wanted = asked.num_candidates
        found = select_seconds(self.selector, measured.selected, wanted, budget, self._width())
        last = measured.selected[-1]
        if not isinstance(self.selector, Costed) and found > last.wall_s * 1.5:
            self.notes.append(
                f"{asked.selector} is estimated: it does not state its cost, so it was measured "
                f"up to {last.budget:,} of {last.num_candidates:,} candidates and grown from there"
            )
        ratio = found / max(1e-9, last.wall_s)
        return found, last.cpu_s * ratio

    def held_bytes(self) -> float:
        """Gives what the whole selection keeps in memory and the trial's did not."""
        if not isinstance(self.selector, Costed):
            return 0.0
        last, width = self.measured.selected[-1], self._width()
        wanted = self.asked.num_candidates
        whole = self.selector.work(wanted, self.asked.budget, width).held_bytes
        return max(
            0.0, whole - self.selector.work(last.num_candidates, last.budget, width).held_bytes
        )

    def _width(self) -> int:
        return max((numbers for numbers, _ in self.measured.widths.values()), default=0)

    def _train(self, t: int) -> Phase:
        measured, num_labels = self.measured, self.asked.num_labels(t)
        wall_s = cpu_s = measured.first_train_s if t == self.asked.first_round else 0.0
        for trainer, law in zip(self.trainers, measured.trains, strict=True):
            work = (0.0, 0.0)
            if isinstance(trainer, CostedTrainer):
                asked_for = trainer.work(num_labels)
                work = (asked_for.amount, asked_for.steps)
            wall_s += law.wall(*work, num_labels)
            cpu_s += law.cpu(*work, num_labels)
        gpus = max(1, self.asked.num_ranks) if self.trainers[0].use_gpu else 0
        read = num_labels * measured.labels.snapshot_bytes
        return Phase("train", t, wall_s, cpu_s, gpus * wall_s, read, measured.checkpoint_bytes)

    def _test(self, t: int) -> Phase:
        asked, law = self.asked, self.measured.test
        work = (asked.num_test_shards, asked.num_test_rows)
        read = self.measured.test_read_bytes * asked.num_test_rows
        workers = max(1, asked.num_workers)
        gpus = workers * asked.gpus_a_worker
        wall_s = law.wall(*work)
        return Phase("test", t, wall_s, law.cpu(*work), gpus * wall_s, read)


def select_seconds(
    selector: Selector, tried: Sequence[Selected], num_candidates: int, budget: int, width: int
) -> float:
    """Gives the seconds of choosing a batch of B among M, from those of smaller ones. A selector
    that states its work is scaled by it, another one by the power of B that two sizes show."""
    last = tried[-1]
    if num_candidates <= last.num_candidates and budget <= last.budget:
        return last.wall_s
    if isinstance(selector, Costed):
        points = []
        for one in tried:
            work = selector.work(one.num_candidates, one.budget, width)
            points.append(laws.Point((work.steps, work.amount), one.wall_s, one.cpu_s))
        work = selector.work(num_candidates, budget, width)
        return max(last.wall_s, laws.fit(points).wall(work.steps, work.amount))
    first = tried[0]
    by_budget = laws.grown(
        (first.wall_s, last.wall_s), (first.budget, last.budget), max(budget, last.budget)
    )
    return by_budget * max(1.0, num_candidates / max(1, last.num_candidates))


def _sum(*terms: tuple[laws.Law, float]) -> tuple[float, float]:
    """Gives wall and CPU seconds of several laws, each at its amount of work."""
    return sum(law.wall(n) for law, n in terms), sum(law.cpu(n) for law, n in terms)


def _row_bytes(asked: Asked, measured: Measured) -> float:
    """Gives the bytes of a survivor with its features."""
    return _ID_AND_SCORE_BYTES + sum(size for _, size in measured.widths.values())


def _disk(asked: Asked, measured: Measured, num_rounds: int) -> dict[str, float]:
    at_once = max(1, asked.num_workers) * asked.in_flight
    slices = survivors(asked.scored_rows, asked.keep, at_once) * _row_bytes(asked, measured)
    if asked.proxy_rows is not None:
        slices += survivors(asked.shard_rows, asked.proxy_rows, at_once) * _ID_AND_SCORE_BYTES
    if num_rounds < 2:
        cold = survivors(asked.shard_rows, asked.keep_cold, at_once)
        slices = cold * _ID_AND_SCORE_BYTES
    kept = 0 if num_rounds < 2 or measured.no_bound else asked.kept_bytes
    labels, times = asked.num_labels(num_rounds - 1) if num_rounds else 0, measured.labels
    snapshots = sum(asked.num_labels(t) for t in range(num_rounds)) * times.snapshot_bytes
    return {
        "slices of one pass": slices,
        **({"rescoring": float(kept)} if kept else {}),
        "checkpoints": float(num_rounds * measured.checkpoint_bytes),
        "batches and snapshots": labels * times.batch_bytes + snapshots,
        "ledger": times.ledger_bytes[0] + labels * times.ledger_bytes[1],
    }
