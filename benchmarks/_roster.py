"""A transport to workers that are not there, on a clock of its own.

It says when a call would be done, and lets workers be slow and die; what they answer, `_answers.py`
knows. All that passes between the two is pickled, as on its way to another machine.
"""

from __future__ import annotations

import heapq
import math
import pickle
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rayal.engine.transport import NoAnswer, WorkerLost
from rayal.keys import salt, uniform

Serve = Callable[[bytes], bytes]
HEAD = struct.Struct("<d")  # begins a reply: the seconds that the work took
_WAITED = ("ready", "score")  # calls that a crew waits for; others it asks for their result


class Put(NamedTuple):
    """Stands for a thing that travels once."""

    number: int


@dataclass(frozen=True)
class Conditions:
    """How the workers of a run are; draws are keyed by the number of the worker or the shard."""

    rows_per_s: float = 5_000.0  # of a worker that scores
    latency_s: float = 0.002  # of a message
    start_s: float = 20.0  # of a worker, more or less a half
    slow_share: float = 0.0  # of the workers
    slow_times: float = 10.0
    lost_share: float = 0.0  # half of them while they score, half of them while they answer
    pass_s: float = 0.0  # losses while scoring fall within this time
    num_asks: int = 30  # losses while answering, within so many questions

    def draw(self, what: str, number: int) -> float:
        """Gives a number in (0, 1)."""
        return float(uniform(salt("simulated", what), np.array([number]))[0])


@dataclass
class Hired:
    """A worker of the roster."""

    number: int
    slowness: float
    free_s: float  # when it has done what it was sent so far
    dies_s: float = math.inf
    dies_at_ask: int = 0  # 0: at none
    num_asks: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """A call under way; `request` is what goes to the worker."""

    number: int
    method: str
    worker: Hired
    request: bytes
    done_s: float  # NaN: as long as the answer takes
    is_lost: bool


@dataclass
class Traffic:
    """What went to and fro; never part of an answer."""

    messages: int = 0
    sent_bytes: int = 0
    got_bytes: int = 0


@dataclass(eq=False)
class Roster:
    """A transport to simulated workers. Work of its own, which no driver has, counts as `aside_s`
    and not as the driver's: only what becomes of arguments and results in pickle does."""

    serve: Serve
    conditions: Conditions = field(default_factory=Conditions)
    traffic: Traffic = field(default_factory=Traffic)
    clock_s: float = 0.0
    aside_s: float = 0.0
    num_lost: int = 0
    _num_hired: int = 0
    _num_calls: int = 0
    _events: list[tuple[float, int, Call]] = field(default_factory=list)
    _put: int = 0
    _round_s: tuple[int, float] = (0, 0.0)  # the last call of a round of questions, its begin

    def hire(self) -> Hired:
        """Starts a worker."""
        of, number = self.conditions, self._num_hired
        self._num_hired += 1
        slowness = of.slow_times if of.draw("slow", number) < of.slow_share else 1.0
        start_s = of.start_s * (0.5 + of.draw("start", number))
        worker = Hired(number, slowness, self.clock_s + start_s)
        lost = of.draw("lost", number) / of.lost_share if of.lost_share else 1.0
        if lost < 0.5:
            worker.dies_s = worker.free_s + of.pass_s * of.draw("when", number)
        elif lost < 1.0:
            worker.dies_at_ask = 1 + int(of.num_asks * of.draw("ask", number))
        return worker

    def end(self, worker: Hired) -> None:
        """Ends a worker; its calls have no result any more."""
        begin = time.process_time()
        self._events = [one for one in self._events if one[2].worker is not worker]
        heapq.heapify(self._events)
        self.aside_s += time.process_time() - begin

    def call(self, worker: Hired, method: str, *arguments: Any) -> Call:
        """Sends a call to a worker."""
        request = pickle.dumps((worker.number, method, arguments), pickle.HIGHEST_PROTOCOL)
        begin = time.process_time()
        self.traffic.messages += 1
        self.traffic.sent_bytes += len(request)
        self._num_calls += 1
        done_s, is_lost = math.nan, False
        if method in _WAITED:
            begun_s = max(worker.free_s, self.clock_s + self.conditions.latency_s)
            worker.free_s = begun_s + self._takes_s(method, arguments) * worker.slowness
            is_lost = worker.free_s > worker.dies_s
            # A worker that is gone is missed a second later.
            end_s = max(self.clock_s, worker.dies_s) + 1.0 if is_lost else worker.free_s
            done_s = end_s + self.conditions.latency_s
        call = Call(self._num_calls, method, worker, request, done_s, is_lost)
        if method in _WAITED:
            heapq.heappush(self._events, (done_s, call.number, call))
        self.aside_s += time.process_time() - begin
        return call

    def _takes_s(self, method: str, arguments: tuple[Any, ...]) -> float:
        if method != "score":
            return 0.0
        shard = arguments[0]
        jitter = 0.8 + 0.4 * self.conditions.draw("shard", shard.index)
        return shard.num_rows / self.conditions.rows_per_s * jitter

    def wait(self, calls: Sequence[Call], timeout_s: float) -> list[Call]:
        """Gives calls that are done, and turns the clock to the first where none is."""
        begin = time.process_time()
        wanted, passed, done = set(map(id, calls)), [], []
        until_s = self.clock_s + timeout_s
        while self._events and self._events[0][0] <= until_s:
            event = heapq.heappop(self._events)
            if id(event[2]) in wanted:
                done.append(event[2])
                self.clock_s = until_s = max(self.clock_s, event[0])
            else:
                passed.append(event)
        for event in passed:
            heapq.heappush(self._events, event)
        if not done:
            self.clock_s = until_s
        self.aside_s += time.process_time() - begin
        return done

    def result(self, call: Call, timeout_s: float | None = None) -> Any:
        """Gives the result of a call."""
        if call.is_lost:
            self._lose(call.worker, call.done_s)
        begin = time.process_time()
        reply = self.serve(call.request)
        (took_s,), answer = HEAD.unpack(reply[: HEAD.size]), reply[HEAD.size :]
        if call.method not in _WAITED:
            self._wait_for(call, took_s, timeout_s)
        self.traffic.messages += 1
        self.traffic.got_bytes += len(answer)
        self.aside_s += time.process_time() - begin
        return pickle.loads(answer)

    def _wait_for(self, call: Call, took_s: float, timeout_s: float | None) -> None:
        worker = call.worker
        worker.num_asks += 1
        asked_s = self._asked_s(call)
        worker.free_s = max(worker.free_s, asked_s) + took_s * worker.slowness
        if worker.free_s > worker.dies_s or worker.num_asks == worker.dies_at_ask:
            worker.dies_s = min(worker.dies_s, worker.free_s)
            self._lose(worker, max(self.clock_s, worker.dies_s) + 1.0)
        done_s = worker.free_s + self.conditions.latency_s
        if timeout_s is not None and done_s > self.clock_s + timeout_s:
            raise NoAnswer
        self.clock_s = max(self.clock_s, done_s)

    def _asked_s(self, call: Call) -> float:
        """Gives when a question arrived: all of one round are sent before the first answer."""
        if call.number > self._round_s[0]:
            self._round_s = self._num_calls, self.clock_s
        return self._round_s[1] + self.conditions.latency_s

    def _lose(self, worker: Hired, when_s: float) -> None:
        self.clock_s = max(self.clock_s, when_s)
        self.num_lost += 1
        raise WorkerLost("SimulatedLoss", f"worker {worker.number} is gone")

    def cancel(self, calls: Iterable[Call]) -> None:
        """Nothing was begun that would have to end."""

    def put(self, thing: Any) -> Put:
        """Sends a thing once."""
        request = pickle.dumps((self._put, "put", thing), pickle.HIGHEST_PROTOCOL)
        begin = time.process_time()
        self.traffic.messages += 1
        self.traffic.sent_bytes += len(request)
        self.serve(request)
        self._put += 1
        self.aside_s += time.process_time() - begin
        return Put(self._put - 1)

    def now_s(self) -> float:
        """Gives the simulated time."""
        return self.clock_s

    def room(self) -> str:
        """Says that there is no end of it."""
        return "the cluster is simulated"
