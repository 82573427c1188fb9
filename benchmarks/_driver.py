"""The driver's whole round against simulated workers: a pass over the pool, and its batch."""

from __future__ import annotations

import hashlib
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _law import VECTOR, Law
from _roster import Conditions, Roster, Serve

from rayal.engine.crew import Crew
from rayal.engine.crewed import score_by
from rayal.engine.picking import pick
from rayal.engine.scoring import Scoring, Tallies
from rayal.keys import Keys
from rayal.scorers.margin import Margin
from rayal.selectors.k_center import KCenter
from rayal.selectors.top_k import TopK
from rayal.strategy import Strategy
from rayal.types import Checkpoint, Picks

KEYS = Keys(0, 0)


@dataclass(frozen=True)
class Plan:
    """One round to simulate."""

    law: Law
    selector: str  # top_k or k_center
    keep: int  # M
    budget: int
    num_workers: int
    conditions: Conditions = field(default_factory=Conditions)

    @property
    def strategy(self) -> Strategy:
        """Margin, and who picks."""
        selector = TopK() if self.selector == "top_k" else KCenter(VECTOR)
        return Strategy(selector, Margin(), num_candidates=self.keep)

    def scoring(self, folder: str, taken_path: str = "") -> Scoring:
        """Gives the pass that the strategy asks for."""
        return Scoring(
            KEYS,
            Margin(),
            tuple(self.strategy.selector.needs),
            self.keep,
            Checkpoint("", "law"),
            "",
            taken_path,
            folder,
            "pass",
        )


@dataclass(frozen=True)
class Outcome:
    """What a round gave, and what it took the driver."""

    ids_hash: str
    note: str
    pass_cpu_s: float
    pick_cpu_s: float
    pass_s: float  # on the simulated clock
    pick_s: float
    messages: int
    sent_bytes: int
    got_bytes: int
    num_lost: int
    peak_bytes: int  # of the process, with all that it imports
    idle_bytes: int  # of the same before it began
    tallies: Tallies


def drive(plan: Plan, serve: Serve) -> tuple[Picks, Outcome]:
    """Gives the batch of a round, and what it took."""
    idle_bytes = peak_bytes()
    roster = Roster(serve, plan.conditions)
    crew = Crew(roster, plan.num_workers, in_flight=2, timeout_s=86_400.0)
    with tempfile.TemporaryDirectory() as folder:
        begin_s = _own_s(roster)
        done = score_by(crew, plan.law.shards, plan.scoring(folder))
        passed_s, pass_clock_s = _own_s(roster), roster.clock_s
        picks = pick(plan.strategy, done, plan.budget, KEYS)
        picked_s = _own_s(roster)
    traffic = roster.traffic
    return picks, Outcome(
        hash_of(picks.ids),
        picks.note,
        passed_s - begin_s,
        picked_s - passed_s,
        pass_clock_s,
        roster.clock_s - pass_clock_s,
        traffic.messages,
        traffic.sent_bytes,
        traffic.got_bytes,
        roster.num_lost,
        peak_bytes(),
        idle_bytes,
        done.tallies,
    )


def hash_of(ids: np.ndarray) -> str:
    """Gives a short name for ids in their order."""
    return hashlib.sha256(ids.tobytes()).hexdigest()[:12]


def peak_bytes() -> int:
    """Gives the most memory that this process has had in use."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1_024
    return 0


def _own_s(roster: Roster) -> float:
    return time.process_time() - roster.aside_s
