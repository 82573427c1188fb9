"""The crew against workers that are not there: same picks as the local engine, whoever dies."""

from __future__ import annotations

import collections
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rayal.engine.crew import MAX_DEATHS_PER_SHARD, MAX_FALSE_STARTS, Crew
from rayal.engine.survivors import SliceSpec
from rayal.engine.transport import NoAnswer, WorkerLost, WorkerRaised
from rayal.errors import ConfigError, ScoringError
from rayal.pool import Shard
from rayal.ranking import cut_at, rows_inside

_BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def simulate() -> Iterator[ModuleType]:
    """Gives benchmarks/simulate.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(_BENCHMARKS))
        yield importlib.import_module("simulate")


@pytest.fixture(scope="module", params=["top_k", "k_center"])
def small(request, simulate, tmp_path_factory) -> Any:
    """Gives a plan, and what the local engine says to it."""
    plan = replace(
        simulate.SMALL,
        law=simulate.Law(12, 600, width=16, step=2.0**-9),
        selector=request.param,
        keep=900,
        budget=90,
    )
    return plan, simulate.run_locally(plan, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize(
    ("num_workers", "conditions", "fewest_lost"),
    [
        (1, {}, 0),
        (3, {}, 0),
        (40, {}, 0),
        (5, {"slow_share": 0.4}, 0),
        (8, {"lost_share": 0.9, "pass_s": 0.2, "num_asks": 3}, 2),
    ],
)
def test_a_simulated_round_is_the_local_engines(
    small, simulate, num_workers, conditions, fewest_lost
):
    plan, (expected, tallies) = small
    plan = replace(plan, num_workers=num_workers, conditions=simulate.Conditions(**conditions))
    picks, outcome = simulate.drive(plan, simulate.Answers(plan.law).serve)
    assert picks.ids.tolist() == expected.ids.tolist()
    np.testing.assert_array_equal(picks.keys, expected.keys)
    np.testing.assert_array_equal(picks.scores, expected.scores)
    assert picks.reasons == expected.reasons
    assert outcome.tallies == tallies
    assert outcome.num_lost >= fewest_lost


def test_the_law_says_the_same_of_a_row_and_of_its_shard(simulate):
    law = simulate.Law(5, 700, step=2.0**-9)
    margins = law.margins(np.arange(law.num_rows))
    assert len(np.unique(margins)) < len(margins)  # some tie
    for shard in range(5):
        ids, scores = law.best(shard, None)
        assert ids.tolist() == list(range(shard * 700, shard * 700 + 700))
        np.testing.assert_array_equal(scores, 1.0 - margins[ids])
        cut = cut_at(scores, ids, 50)
        inside = rows_inside(scores, ids, cut)
        assert law.best(shard, cut)[0].tolist() == ids[inside].tolist()
    probs = law.probs(np.arange(law.num_rows)).numpy()
    np.testing.assert_array_equal(probs[:, 0].astype(float) - probs[:, 1], margins)


# ------------------------------------------------------------------------------ what goes wrong


@dataclass
class Scripted:
    """A transport whose calls end as told: a result, or something that is raised."""

    answer: Any  # of every call but `ready`: a function of (worker, method, arguments)
    ready: Any = None  # what `ready` ends with
    clock_s: float = 0.0
    num_hired: int = 0
    most_waiting: int = 0
    ended: list[int] = field(default_factory=list)
    there: set[int] = field(default_factory=set)  # workers that are known to have started
    _calls: dict[int, Any] = field(default_factory=dict)

    def hire(self) -> int:
        self.num_hired += 1
        return self.num_hired

    def end(self, worker: int) -> None:
        self.ended.append(worker)

    def call(self, worker: int, method: str, *arguments: Any) -> int:
        assert method == "ready" or worker in self.there
        end = self.ready or True if method == "ready" else self.answer(worker, method, arguments)
        self._calls[len(self._calls)] = worker, method, end
        return len(self._calls) - 1

    def wait(self, calls: Any, timeout_s: float) -> list[int]:
        self.most_waiting = max(self.most_waiting, len(calls))
        self.clock_s += timeout_s
        return [call for call in calls if self._calls[call][2] is not None][:1]

    def result(self, call: int, timeout_s: float | None = None) -> Any:
        worker, method, end = self._calls[call]
        if isinstance(end, Exception):
            raise end
        if method == "ready":
            self.there.add(worker)
        return end

    def cancel(self, calls: Any) -> None:
        self.ended += [-1 for _ in calls]

    def put(self, thing: Any) -> Any:
        return thing

    def now_s(self) -> float:
        return self.clock_s

    def room(self) -> str:
        return "there is room for nobody"


def _shards(num_shards: int) -> list[Shard]:
    return [Shard("pool", s, f"s{s}", 1, 1, "", s, s, s) for s in range(num_shards)]


def _run(transport: Scripted, num_workers: int = 2, num_shards: int = 9, in_flight: int = 2) -> Any:
    crew = Crew(transport, num_workers, in_flight, timeout_s=60.0)
    found: dict[int, Any] = {}

    def record(shard: Shard, answer: Any) -> None:
        assert shard.index not in found
        found[shard.index] = answer

    crew.map_shards(_shards(num_shards), "score", lambda shard: (), record)
    return found


def test_every_shard_is_recorded_once_within_the_bound():
    transport = Scripted(lambda worker, method, arguments: arguments[0].index)
    assert _run(transport) == {s: s for s in range(9)}
    assert transport.most_waiting <= 2 * 2


def test_a_worker_that_is_late_is_overtaken_and_replaced():
    """Worker 1 never answers for the shards that it is given; the others are done in no time."""

    def answer(worker: int, method: str, arguments: Any) -> Any:
        return None if worker == 1 else (worker, arguments[0].index)

    transport = Scripted(answer)
    found = _run(transport)
    assert sorted(found) == list(range(9))
    assert {worker for worker, _ in found.values()} == {2}
    assert transport.ended == [1]
    assert transport.clock_s < 300.0  # and not engine.timeout_s after the last answer, in an error


def test_the_first_answer_counts_and_the_second_is_let_go():
    """Worker 1 answers, too, but only when its shards have been given to the other."""
    given: collections.Counter[int] = collections.Counter()

    @dataclass
    class Late(Scripted):
        def wait(self, calls: Any, timeout_s: float) -> list[int]:
            done = super().wait(calls, timeout_s)
            if not done and any(number > 1 for number in given.values()):
                for call, (worker, method, end) in list(self._calls.items()):
                    if worker == 1 and end is None:
                        self._calls[call] = worker, method, (1, "late")
                return super().wait(calls, timeout_s)
            return done

    def answer(worker: int, method: str, arguments: Any) -> Any:
        given[arguments[0].index] += 1
        return None if worker == 1 or given[arguments[0].index] > 1 else (2, "first")

    transport = Late(answer)
    found = _run(transport)
    assert sorted(found) == list(range(9))
    assert collections.Counter(who for who, _ in found.values())[1] == 2
    assert max(given.values()) == 2


@pytest.mark.parametrize("num_shards", [1, 9])
def test_shards_of_a_lost_worker_go_to_others(num_shards):
    def answer(worker: int, method: str, arguments: Any) -> Any:
        return WorkerLost("Gone", "gone") if worker == 1 else (worker, arguments[0].index)

    transport = Scripted(answer)
    found = _run(transport, num_shards=num_shards)
    assert sorted(found) == list(range(num_shards))
    assert {worker for worker, _ in found.values()} <= {2, 3}
    assert transport.ended == [1]


def test_a_shard_that_kills_again_and_again_is_named():
    def answer(worker: int, method: str, arguments: Any) -> Any:
        return WorkerLost("Gone", "gone") if arguments[0].index == 4 else 1

    transport = Scripted(answer)
    said = rf"shard 4 ended its worker {MAX_DEATHS_PER_SHARD} times \(Gone\); out of memory"
    with pytest.raises(ScoringError, match=said):
        _run(transport)


def test_what_a_worker_raises_ends_the_pass():
    transport = Scripted(lambda *_: WorkerRaised(ValueError("no such thing")))
    with pytest.raises(ScoringError, match="a worker failed: ValueError: no such thing"):
        _run(transport)
    own = Scripted(lambda *_: WorkerRaised(ConfigError("say it otherwise")))
    with pytest.raises(ConfigError, match="say it otherwise"):
        _run(own, num_workers=1)
    assert own.ended == [-1] * 2  # the other calls were taken back


def test_a_silence_names_the_shards_that_wait():
    said = r"shards \[0, 1\] wait: nothing finished for 60 s: 1 of 1 workers .* room for nobody"
    with pytest.raises(ScoringError, match=said):
        _run(Scripted(lambda *_: None), num_workers=1, num_shards=2)


@pytest.mark.parametrize(("is_final", "most_hired"), [(True, 2), (False, 2 * MAX_FALSE_STARTS)])
def test_workers_that_do_not_start_are_tried_a_few_times(is_final, most_hired):
    transport = Scripted(lambda *_: 1, ready=WorkerLost("Gone", "no room\nfor it", is_final))
    with pytest.raises(ScoringError, match="a worker could not start: for it"):
        _run(transport)
    assert transport.num_hired <= most_hired


def test_a_question_without_an_answer_is_named():
    transport = Scripted(lambda *_: NoAnswer())
    crew = Crew(transport, 1, 2, 60.0)
    spec = SliceSpec(0, "", (0,), "candidates", None)
    with pytest.raises(ScoringError, match="no answer to question 1 of the selection: nothing"):
        crew.ask([spec], [(len, 0, ())], {})


def test_a_new_owner_of_a_slice_is_asked_the_whole_journal():
    asked = []

    def answer(worker: int, method: str, arguments: Any) -> Any:
        specs, questions = arguments
        steps = [step for _, step, _ in questions]
        asked.append((worker, [spec.key for spec in specs], steps))
        if worker == 1 and steps[-1] == 8:
            return WorkerLost("Gone", "gone")
        return [(spec.key, steps[-1]) for spec in specs]

    crew = Crew(Scripted(answer), 2, 2, 60.0)
    specs = [SliceSpec(key, "", (key,), "candidates", None) for key in range(4)]
    seats: dict[int, Any] = {}
    journal: list[tuple[Any, ...]] = []
    for step in (7, 8, 9):
        journal.append((len, step, ()))
        assert crew.ask(specs, journal, seats) == [(key, step) for key in range(4)]
    assert asked[:4] == [(1, [0, 2], [7]), (2, [1, 3], [7]), (1, [0, 2], [8]), (2, [1, 3], [8])]
    after = [(keys, steps) for _, keys, steps in asked[4:]]
    assert sorted(key for keys, steps in after if steps == [7, 8] for key in keys) == [0, 2]
    assert sorted(key for keys, steps in after if steps == [9] for key in keys) == [0, 1, 2, 3]
    assert len(asked[4:]) <= 4
    assert {worker for worker, _, _ in asked[4:]} <= {2, 3}


def test_large_arguments_travel_once_also_inside_tuples():
    transport = Scripted(lambda *_: 1)
    transport.put = lambda thing: "put"
    crew = Crew(transport, 1, 2, 60.0)
    assert crew.put_once(((np.zeros(10_000), 1), "x")) == "put"
    assert crew.put_once((np.zeros(10), [1])) != "put"
