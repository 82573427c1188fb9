"""The crew: workers that score shards and hold slices, replaced when they die.

What to do next is decided here, on the driver; a transport only carries. A lost worker means its
shards again elsewhere, counted, so that a shard that kills whoever touches it ends the run with its
name.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from rayal.engine.survivors import SliceSpec
from rayal.engine.transport import NoAnswer, Transport, WorkerLost, WorkerRaised
from rayal.engine.under_way import UnderWay
from rayal.errors import ConfigError, RayalError, ScoringError
from rayal.pool import Shard

MAX_DEATHS_PER_SHARD = 5  # a pool of one shard survives some kills of whatever cause
MAX_FALSE_STARTS = 3  # of one worker in a row
_INLINE_BYTES = 65_536  # larger arguments are put into the object store once


class Seat(NamedTuple):
    """Who knows the journal of a slice; a worker that was replaced has a higher generation."""

    worker: int
    generation: int


class Crew:
    """`num_workers` workers, hired from a transport."""

    def __init__(
        self, transport: Transport, num_workers: int, in_flight: int, timeout_s: float
    ) -> None:
        self.transport = transport
        self.num_workers = num_workers
        self.in_flight = in_flight
        self.timeout_s = timeout_s
        self.actors: list[Any] = []
        self.generation: list[int] = []
        self._starting: dict[Any, int] = {}
        self._ready: set[int] = set()
        self._false_starts: collections.Counter[int] = collections.Counter()
        for _ in range(num_workers):
            self.actors.append(None)
            self.generation.append(0)
            self._hire(len(self.actors) - 1)

    def _hire(self, index: int) -> None:
        self._ready.discard(index)
        self._starting = {ref: i for ref, i in self._starting.items() if i != index}
        if self.actors[index] is not None:
            self.transport.end(self.actors[index])
        self.actors[index] = self.transport.hire()
        self.generation[index] += 1
        self._starting[self.transport.call(self.actors[index], "ready")] = index

    def map_shards(
        self,
        shards: Sequence[Shard],
        method: str,
        arguments: Callable[[Shard], tuple[Any, ...]],
        record: Callable[[Shard, Any], None],
    ) -> None:
        """Runs a method once a shard, whoever dies, and hands one answer of each to `record`. Once
        all are given out, a worker that has nothing to do overtakes one that is late.

        Raises:
            ScoringError: a shard killed its workers again and again, or nothing finished in time.
        """
        state = UnderWay(shards)
        running, load, now_s = state.running, state.load, self.transport.now_s
        deaths: collections.Counter[Shard] = collections.Counter()
        # Of thousands of workers few have room at a time, so only they are looked at.
        free = set(self._ready)
        last_answer = now_s()

        def begin(index: int, shard: Shard) -> None:
            call = self.transport.call(self.actors[index], method, shard, *arguments(shard))
            state.begin(call, index, shard, now_s())

        while not state.is_over:
            # Least loaded first: where shards are few, none may lie behind another's first.
            for depth, index in itertools.product(range(self.in_flight), sorted(free)):
                if state.todo and load[index] == depth:
                    begin(index, state.todo.popleft())
            idle = [] if state.todo else sorted(index for index in free if load[index] == 0)
            for index, late in zip(idle, state.late(now_s(), len(idle)), strict=False):
                begin(index, late)
            free = {index for index in free if load[index] < self.in_flight}
            done = self.transport.wait([*running, *self._starting], min(self.timeout_s, 5.0))
            if not done:
                if now_s() - last_answer > self.timeout_s:
                    raise ScoringError(self._stuck(state.waiting))
                continue
            last_answer = now_s()
            for ref in done:
                if ref in self._starting:
                    index = self._welcome(ref)
                    if index in self._ready:
                        free.add(index)
                    continue
                if ref not in running:  # its worker was replaced meanwhile
                    continue
                index, shard, _ = running[ref]
                try:
                    answer = self.transport.result(ref)
                except WorkerRaised as error:
                    self.transport.cancel(running)
                    raise _explained(error) from None
                except WorkerLost as error:
                    deaths[shard] += 1
                    if deaths[shard] >= MAX_DEATHS_PER_SHARD:
                        raise ScoringError(_poison(shard, error)) from error
                    state.lose(index)
                    free.discard(index)
                    self._hire(index)
                    continue
                index, shard, is_first = state.end(ref, now_s())
                free.add(index)
                if is_first:
                    record(shard, answer)
        for index in state.overtaken():
            self._hire(index)  # whatever it does is done; it must not hold up what comes next

    def wait_ready(self) -> None:
        """Waits until at least one worker is there.

        Raises:
            ScoringError: none started in time, naming what is there and what the cluster has.
        """
        deadline = self.transport.now_s() + self.timeout_s
        while not self._ready:
            done = self.transport.wait(list(self._starting), 5.0)
            for ref in done:
                self._welcome(ref)
            if not done and self.transport.now_s() > deadline:
                raise ScoringError(self._stuck(()))

    def _welcome(self, ref: Any) -> int:
        """Gives the number of the worker that has started, or was lost and is hired anew."""
        index = self._starting.pop(ref)
        try:
            self.transport.result(ref)
        except WorkerRaised as error:
            raise _explained(error) from None
        except WorkerLost as error:
            self._false_starts[index] += 1
            if error.is_final or self._false_starts[index] >= MAX_FALSE_STARTS:
                raise _not_started(error) from error
            self._hire(index)  # its node was lost, or somebody killed it
            return index
        self._false_starts[index] = 0
        self._ready.add(index)
        return index

    def _welcome_all(self) -> None:
        """Welcomes whoever has started meanwhile, and waits only where nobody is there."""
        if self._starting:
            while self._starting and (done := self.transport.wait(list(self._starting), 0.0)):
                for ref in done:
                    self._welcome(ref)
        self.wait_ready()

    def ask(
        self, specs: Sequence[SliceSpec], journal: Sequence[tuple[Any, ...]], seats: dict[int, Seat]
    ) -> list[Any]:
        """Asks every slice the last question of the journal; gives answers in the order of specs.

        A slice stays with the worker that knows its journal so far (`seats`, kept up to date here).
        Where that worker died, another one that is there takes the slice and is asked the whole
        journal, which makes its caches again: a lost node costs time, and no answer waits for a
        worker that the cluster has no room for.

        Raises:
            ScoringError: workers die again and again, or nobody answers within `timeout_s`.
        """
        answers: dict[int, Any] = {}
        deaths = 0
        while len(answers) < len(specs):
            self._welcome_all()
            calls = {}
            for (index, knows), some in self._seating(specs, answers, seats).items():
                questions = journal[-1:] if knows else list(journal)
                seat = Seat(index, self.generation[index])
                call = self.transport.call(self.actors[index], "ask", some, questions)
                calls[call] = (seat, some)
            for ref, (seat, some) in calls.items():
                try:
                    found = self.transport.result(ref, self.timeout_s)
                except WorkerRaised as error:
                    raise _explained(error) from None
                except NoAnswer:
                    raise ScoringError(
                        f"no answer to question {len(journal)} of the selection: {self._waited()}"
                    ) from None
                except WorkerLost as error:
                    deaths += 1
                    if deaths > MAX_DEATHS_PER_SHARD * self.num_workers:
                        raise ScoringError(
                            f"workers died {deaths} times while selecting "
                            f"({error.kind}); give them more memory (engine.memory_gib), "
                            "or lower strategy.num_candidates"
                        ) from error
                    if seat.generation == self.generation[seat.worker]:  # not replaced yet
                        self._hire(seat.worker)
                    continue
                for spec, answer in zip(some, found, strict=True):
                    seats[spec.key] = seat
                    answers[spec.key] = answer
        return [answers[spec.key] for spec in specs]

    def _seating(
        self, specs: Sequence[SliceSpec], answers: Collection[int], seats: Mapping[int, Seat]
    ) -> dict[tuple[int, bool], list[SliceSpec]]:
        """Gives the slices not yet answered by (whom to ask, whether it knows the journal)."""
        there = sorted(self._ready)
        groups: dict[tuple[int, bool], list[SliceSpec]] = {}
        for place, spec in enumerate(specs):
            if spec.key in answers:
                continue
            seat = seats.get(spec.key)
            if seat is not None and self._is_there(seat):
                groups.setdefault((seat.worker, True), []).append(spec)
            else:
                groups.setdefault((there[place % len(there)], False), []).append(spec)
        return groups

    def _is_there(self, seat: Seat) -> bool:
        return seat.worker in self._ready and seat.generation == self.generation[seat.worker]

    def put_once(self, arguments: tuple[Any, ...]) -> Any:
        """Gives the arguments, or what stands for them where they are large."""
        return self.transport.put(arguments) if _size_of(arguments) > _INLINE_BYTES else arguments

    def forget(self) -> None:
        """Drops the slices that the workers hold."""
        for index in sorted(self._ready):
            with contextlib.suppress(WorkerLost, WorkerRaised, NoAnswer):
                call = self.transport.call(self.actors[index], "forget")
                self.transport.result(call, self.timeout_s)

    def dismiss(self) -> None:
        """Ends all workers, which gives their CPUs and GPUs back."""
        for actor in self.actors:
            if actor is not None:
                self.transport.end(actor)
        self.actors, self._starting, self._ready = [], {}, set()

    def _stuck(self, shards: Sequence[int]) -> str:
        return f"shards {list(shards[:8])} wait: {self._waited()}"

    def _waited(self) -> str:
        return (
            f"nothing finished for {self.timeout_s:.0f} s: {len(self._ready)} of "
            f"{self.num_workers} workers are there; {self.transport.room()}; "
            "lower engine.num_workers or engine.num_gpus, or raise engine.timeout_s"
        )


def _size_of(thing: Any) -> int:
    """Gives the bytes of all arrays in nested tuples and lists."""
    if isinstance(thing, (tuple, list)):
        return sum(_size_of(one) for one in thing)
    return getattr(thing, "nbytes", 0)


def _explained(error: WorkerRaised) -> RayalError:
    cause = error.cause
    if isinstance(cause, RayalError):
        return cause
    if missing := _missing_module(str(cause)):
        return _not_importable(missing)
    return ScoringError(f"a worker failed: {type(cause).__name__}: {cause}")


def _missing_module(text: str) -> str:
    found = re.search(r"No module named '[^']+'", text)
    return found.group() if found else ""


def _not_importable(message: str) -> ConfigError:
    return ConfigError(
        f"workers cannot import a module of yours ({message}); name its .py file, or the "
        "folder of its package, in engine.py_modules, or install it where the workers run"
    )


def _not_started(error: WorkerLost) -> RayalError:
    text = str(error)
    if missing := _missing_module(text):
        return _not_importable(missing)
    return ScoringError(f"a worker could not start: {text.strip().splitlines()[-1]}")


def _poison(shard: Shard, error: WorkerLost) -> str:
    return (
        f"shard {shard.index} ended its worker {MAX_DEATHS_PER_SHARD} times "
        f"({error.kind}); out of memory is the usual cause: give workers more memory, "
        "or lower predictor.batch_rows in a new run_dir (it is part of the answer, so rayal does "
        f"not do so by itself), and look at the rows of {shard.path}"
    )
