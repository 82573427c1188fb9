"""What the driver takes for a round over a billion rows with up to 2,000 simulated workers.

    python benchmarks/simulate.py [--quick] [--only NAME ...] [--ray]

The driver is rayal's own, in a process of its own: the crew with its bound of calls in flight and
its retries, thresholds merged from the reports of shards, the exact cut, slices, the selector's
questions, the batch. The workers are played by this process. They score nothing: a law says which
rows of a shard are the best (_law.py), and slices answer with the selector's own code. Delays pass
on a simulated clock; arguments and results are pickled both ways, and count as the driver's work
together with all else it does (`process_time` of its process, less what keeps the simulated clock).
What Ray itself takes for a message is not in it: --ray measures that apart, and says what it comes
to.

Margin chooses M candidates of all rows; `top_k` and `k_center` (64 int8 a row) pick B of them. A
worker scores 5,000 rows a second, a message takes 2 ms, a worker starts in 10 to 30 s. `slow`: one
in twenty works ten times slower. `lost`: one in twenty dies, half of them while they score, half
while they answer. The first lines are a small run, done for real by the local engine on a pool that
was ingested, and by the simulation: same picks, scores, keys, reasons and tallies.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _answers import Answers
from _driver import KEYS, Outcome, Plan, drive, hash_of
from _law import ByLaw, Law
from _messages import of_ray
from _roster import Conditions
from _table import Goal, at_most

from rayal.engine.local import LocalEngine
from rayal.engine.picking import pick
from rayal.engine.scoring import Tallies
from rayal.engine.survivors import Taken, write_taken
from rayal.pool import ingest
from rayal.ranking import best_rows, cut_at
from rayal.types import Picks

WANTED_CPU_S, WANTED_GIB = 60.0, 4.0
SMALL = Plan(Law(40, 5_000), "top_k", 20_000, 2_000, 8)
LARGE = Plan(Law(10_000, 100_000), "top_k", 1_000_000, 100_000, 2_000)
QUICK = Plan(Law(1_000, 20_000), "top_k", 50_000, 5_000, 200)
_COLUMNS = (
    ("what", 24), ("workers", 7), ("rows", 13), ("M", 9), ("B", 7), ("pass CPU s", 10),
    ("pick CPU s", 10), ("sum", 6), ("GiB", 5), ("messages", 8), ("MB out", 7), ("MB in", 7),
    ("pass s", 7), ("pick s", 7), ("lost", 4), ("picks", 12), ("", 6), ("wanted", 0),
)  # fmt: skip


# ------------------------------------------------------------------------ for real, and simulated


def run_locally(plan: Plan, folder: Path) -> tuple[Picks, Tallies]:
    """Gives what the local engine picks of the law's rows, ingested and scored row by row."""
    folder.mkdir(parents=True, exist_ok=True)
    source, taken = folder / "rows.parquet", folder / "taken.arrow"
    pq.write_table(plan.law.table(), source)
    pool = ingest(
        str(source), str(folder / "pool"), test_share=0.0, rows_per_shard=plan.law.shard_rows
    )
    write_taken(taken, Taken(np.empty(0, np.int64), np.empty(0), np.empty(0, bool)))
    engine = LocalEngine()
    engine.open(pool, ByLaw(plan.law), None)
    done = engine.score(plan.scoring(str(folder), str(taken)))
    return pick(plan.strategy, done, plan.budget, KEYS), done.tallies


@lru_cache(maxsize=1)
def best_by_law(law: Law, budget: int) -> str:
    """Gives the name of the best rows of all, found without workers, sketches or slices."""
    ids, scores, cut = np.empty(0, np.int64), np.empty(0), None
    for shard in range(law.num_shards):
        new_ids, new_scores = law.best(shard, cut)
        ids, scores = np.concatenate([ids, new_ids]), np.concatenate([scores, new_scores])
        if len(ids) > 4 * budget or shard == law.num_shards - 1:
            best = best_rows(scores, ids, budget)
            ids, scores = ids[best], scores[best]
            cut = cut_at(scores, ids, budget)
    return hash_of(ids)


def simulate(plan: Plan, answers: Answers) -> Outcome:
    """Gives what a round took a driver in a new process; this one plays the workers."""
    answers.begin()
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    driver = context.Process(target=_drive, args=(theirs, plan), daemon=True)
    driver.start()
    theirs.close()
    while request := mine.recv_bytes():
        mine.send_bytes(answers.serve(request))
    outcome = mine.recv()
    driver.join()
    return outcome


def _drive(pipe: Connection, plan: Plan) -> None:
    def serve(request: bytes) -> bytes:
        pipe.send_bytes(request)
        return pipe.recv_bytes()

    _, outcome = drive(plan, serve)
    pipe.send_bytes(b"")
    pipe.send(outcome)


# ------------------------------------------------------------------------------------------ lines


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    plan: Plan
    outcome: Outcome
    goals: Sequence[Goal]

    @property
    def is_missed(self) -> bool:
        """Whether something wanted is not so."""
        return not all(goal.is_met for goal in self.goals)

    def text(self) -> str:
        """Gives the line as the table prints it."""
        plan, out = self.plan, self.outcome
        wanted = [goal.text if goal.is_met else f"NOT {goal.text}" for goal in self.goals]
        return _joined(
            [
                self.what,
                f"{plan.num_workers:,}",
                f"{plan.law.num_rows:,}",
                f"{plan.keep:,}",
                f"{plan.budget:,}",
                f"{out.pass_cpu_s:.1f}",
                f"{out.pick_cpu_s:.1f}",
                f"{out.pass_cpu_s + out.pick_cpu_s:.1f}",
                f"{out.peak_bytes / 2**30:.2f}",
                f"{out.messages:,}",
                f"{out.sent_bytes / 1e6:,.1f}",
                f"{out.got_bytes / 1e6:,.1f}",
                f"{out.pass_s:,.0f}",
                f"{out.pick_s:,.1f}",
                f"{out.num_lost}",
                out.ids_hash,
                "MISSED" if self.is_missed else "ok",
                ", ".join(wanted),
            ]
        )


def _joined(cells: Sequence[str]) -> str:
    parts = []
    for (name, width), cell in zip(_COLUMNS, cells, strict=True):
        is_text = name in ("what", "picks", "", "wanted")
        parts.append(f"{cell:<{width}}" if is_text else f"{cell:>{width}}")
    return "  ".join(parts).rstrip()


def small_lines(answers: Answers) -> Iterator[Line]:
    """Gives a small run done for real and simulated, workers slow and lost among them."""
    troubled = Conditions(slow_share=0.3, lost_share=0.5, pass_s=10.0)
    for selector in ("top_k", "k_center"):
        plan = replace(SMALL, selector=selector)
        with tempfile.TemporaryDirectory() as folder:
            picks, tallies = run_locally(plan, Path(folder))
        for conditions in (plan.conditions, troubled):
            mine = replace(plan, conditions=conditions)
            answers.begin()
            found, outcome = drive(mine, answers.serve)
            is_same = (
                np.array_equal(found.ids, picks.ids)
                and np.array_equal(found.scores, picks.scores)
                and np.array_equal(found.keys, picks.keys)
                and found.reasons == picks.reasons
                and outcome.tallies == tallies
            )
            what = f"{selector}, small" + (", troubled" if conditions is troubled else "")
            yield Line(what, mine, outcome, [Goal("same as the local engine", is_same)])


def lines(plan: Plan, selectors: Sequence[str]) -> Iterator[Line]:
    """Gives rounds with more and more workers, then with slow and with lost ones."""
    answers, most = Answers(plan.law), plan.num_workers
    pass_s = plan.law.num_rows / plan.num_workers / plan.conditions.rows_per_s
    slow = replace(plan.conditions, slow_share=0.05)
    lost = replace(plan.conditions, lost_share=0.05, pass_s=pass_s)
    for selector in selectors:
        first = best_by_law(plan.law, plan.budget) if selector == "top_k" else ""
        for what, num_workers, conditions in (
            ("", most * 32 // 1_000, plan.conditions),
            ("", most * 256 // 1_000, plan.conditions),
            ("", most, plan.conditions),
            (", slow", most, slow),
            (", lost", most, lost),
        ):
            mine = replace(plan, selector=selector, num_workers=num_workers, conditions=conditions)
            out = simulate(mine, answers)
            first = first or out.ids_hash
            goals = [
                Goal("same picks", out.ids_hash == first),
                at_most("CPU s", out.pass_cpu_s + out.pick_cpu_s, WANTED_CPU_S),
                at_most("GiB", out.peak_bytes / 2**30, WANTED_GIB),
            ]
            yield Line(selector + what, mine, out, goals)


def _of_ray(line: Line) -> str:
    """Says what Ray's own part of the messages of a line comes to."""
    num_waiting = 2 * line.plan.num_workers
    num_calls, num_waits = line.outcome.messages // 2, line.plan.law.num_shards
    costs = of_ray(num_waiting)
    return (
        f"Ray's own part, CPU of the driver: {costs.call_s * 1e3:.2f} ms a call with its result, "
        f"{costs.wait_s * 1e3:.2f} ms a wait for one of {num_waiting:,}; {num_calls:,} calls and "
        f"{num_waits:,} waits of '{line.what}' come to {costs.of(num_calls, num_waits):.1f} s"
    )


def main() -> None:
    """Prints the table; ends with 1 where something wanted is not so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 million rows, up to 200 workers")
    parser.add_argument(
        "--only", nargs="+", choices=("small", "top_k", "k_center"),
        default=("small", "top_k", "k_center"),
    )  # fmt: skip
    parser.add_argument("--ray", action="store_true", help="and what Ray's messages would take")
    asked = parser.parse_args()
    print(_joined([name for name, _ in _COLUMNS]), flush=True)
    is_missed, most = False, None
    selectors = [name for name in asked.only if name != "small"]
    rounds = [lines(QUICK if asked.quick else LARGE, selectors)]
    if "small" in asked.only:
        rounds.insert(0, small_lines(Answers(SMALL.law)))
    for some in rounds:
        for line in some:
            print(line.text(), flush=True)
            is_missed |= line.is_missed
            most = max(most, line, key=lambda one: one.outcome.messages) if most else line
    if asked.ray and most is not None:
        print(_of_ray(most))
    raise SystemExit(int(is_missed))


if __name__ == "__main__":
    main()
