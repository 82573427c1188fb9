"""What a configured run asks for, as a plan needs it: numbers that no measurement is for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from rayal.engine.remembered import BYTES_A_ROW
from rayal.engine.rescoring import Rescoring
from rayal.pool import Pool
from rayal.strategy import Proxy, Strategy
from rayal.types import Labeler, Needs, Predictor, Progress, StoppingRule, Trainer, Vocabulary


class Run(Protocol):
    """The parts of a run that is built and has not begun; `rayal.loop.Loop` is one."""

    pool: Pool
    engine: Any
    strategy: Strategy
    cold_start: Strategy
    predictor: Predictor
    trainer: Trainer
    labeler: Labeler
    stopping: StoppingRule
    vocabulary: Vocabulary
    num_rounds: int
    budget: int
    seed: int
    proxy: Proxy | None
    rescoring: Rescoring | None
    dir: Any
    test_labels: str | None
    test_budget: int
    gold_share: float


@dataclass(frozen=True)
class Asked:
    """Sizes, counts and prices of a run. M is `keep`; None: all rows."""

    shard_rows: tuple[int, ...]  # living rows of each shard to score
    shard_bytes: int  # of those files
    num_test_rows: int
    num_test_shards: int
    num_rounds: int
    budget: int
    keep: int | None
    keep_cold: int | None
    features: Needs  # what the selector needs of a candidate
    selector: str
    scorer: str | None
    num_workers: int  # scoring processes beside the driver; 0: the driver scores
    in_flight: int
    num_ranks: int  # training processes beside the driver; 0: the driver trains
    gpus_a_worker: float
    price_minor: int
    currency: str
    test_budget: int
    proxy_rows: int | None = None  # that a proxy lets through to the model; None: all
    first_round: int = 0  # rounds before it are done
    on_cluster: bool = False  # scorers and ranks are not on this machine, or not all of them
    rescoring: str | None = None  # why one has no use here, whatever the model; "": it may have
    kept_bytes: int = 0  # what it keeps of all rows on disk, if the model has a bound

    @property
    def num_rows(self) -> int:
        """N, the rows of one scoring pass."""
        return sum(self.shard_rows)

    @property
    def scored_rows(self) -> tuple[int, ...]:
        """Rows of each shard that the model scores: all, or those that a proxy lets through."""
        if self.proxy_rows is None or self.proxy_rows >= self.num_rows:
            return self.shard_rows
        share = self.proxy_rows / self.num_rows
        return tuple(round(rows * share) for rows in self.shard_rows)

    @property
    def num_candidates(self) -> int:
        """M, or all rows that the model scores."""
        scored = sum(self.scored_rows)
        return scored if self.keep is None else min(self.keep, scored)

    @property
    def num_shards(self) -> int:
        """How many files one pass reads."""
        return len(self.shard_rows)

    def num_labels(self, t: int) -> int:
        """Gives how many labels there are once round t has its own."""
        return min(self.num_rows, (t + 1) * self.budget)


def asked_of(run: Run, first_round: int = 0) -> Asked:
    """Gives what a run asks for. O(shards) time; no file is read."""
    engine, strategy = run.engine, run.strategy
    shards = run.pool.shards
    why = _no_use(run)
    num_kept = sum(shard.num_rows for shard in shards) if why == "" else 0
    return Asked(
        shard_rows=tuple(shard.num_live for shard in shards),
        shard_bytes=sum(shard.size_bytes for shard in shards),
        num_test_rows=run.pool.num_test_rows,
        num_test_shards=len(run.pool.test_shards),
        num_rounds=run.num_rounds,
        budget=run.budget,
        keep=strategy.keep(run.budget),
        keep_cold=run.cold_start.keep(run.budget),
        features=tuple(strategy.selector.needs),
        selector=type(strategy.selector).__name__,
        scorer=None if strategy.scorer is None else type(strategy.scorer).__name__,
        num_workers=getattr(engine, "num_workers", 0),
        in_flight=getattr(engine, "in_flight", 1),
        num_ranks=run.trainer.num_workers,
        gpus_a_worker=getattr(engine, "num_gpus", 0),
        price_minor=math.ceil(
            run.labeler.price_minor
            * (getattr(run.labeler, "overlap", None) or 1)
            * (1 + run.gold_share)
        ),
        currency=run.labeler.currency,
        test_budget=run.test_budget,
        proxy_rows=None
        if run.proxy is None
        else max(run.proxy.num_rows, strategy.keep(run.budget) or 0),
        first_round=first_round,
        on_cluster=getattr(engine, "address", "local") != "local",
        rescoring=why,
        kept_bytes=num_kept * BYTES_A_ROW,
    )


def _no_use(run: Run) -> str | None:
    """Gives why a rescoring has no use in a run; None: there is none."""
    if run.rescoring is None:
        return None
    strategy, words = run.strategy, run.vocabulary
    return run.rescoring.no_use(
        words.kind,
        len(words.classes),
        strategy.scorer,
        strategy.keep(run.budget),
        run.proxy is not None or strategy.restriction is not None,
        sum(shard.num_rows for shard in run.pool.shards),
    )


def rounds_of(asked: Asked, stopping: StoppingRule, seconds_a_round: float) -> tuple[int, str]:
    """Gives after which round the run ends, as a number of rounds, and which rule ends it ("": all
    rounds are run). The stopping rule is asked as the run will ask it, without test results."""
    for t in range(asked.first_round, asked.num_rounds):
        have = asked.num_labels(t - 1) if t else 0
        more = min(asked.budget, asked.num_rows - have)
        if more < 1:
            return t, "every row of the pool is labelled"
        tests = asked.test_budget * asked.price_minor
        progress = Progress(
            round=t,
            num_labels=have,
            amount_minor=have * asked.price_minor + tests,
            elapsed_s=(t - asked.first_round) * seconds_a_round,
            num_unlabelled=asked.num_rows - have,
            tests=(),
            next_labels=more,
            next_amount_minor=more * asked.price_minor,
        )
        reason = stopping.stop(progress)
        if reason is not None:
            return t, reason
    return asked.num_rounds, ""
