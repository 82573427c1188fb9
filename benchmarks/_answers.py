"""What simulated workers answer: reports of shards from a law, and what slices say of themselves.

An answer of a slice depends on its rows and on the questions so far, whoever holds it. So it is
computed once, by the selector's own code, and looked up from then on: for another number of
workers, and where a lost worker's slice is asked the whole journal again.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from _law import VECTOR, Law
from _roster import HEAD, Put

from rayal.engine.scoring import Scoring, ShardReport
from rayal.engine.survivors import SliceSpec
from rayal.ranking import Cut, sketch
from rayal.types import Slice

_LARGE = 50_000  # rows of a slice without features that are made anew rather than kept


@dataclass
class _Held:
    """A slice as one worker knows it: `chain` names all questions so far, `behind` are those whose
    answers were looked up."""

    chain: bytes
    part: Slice | None = None
    behind: list[tuple[Any, ...]] = field(default_factory=list)


@dataclass(eq=False)
class Answers:
    """Plays all workers of one run after the other; `known` lives on between runs."""

    law: Law
    known: dict[bytes, tuple[Any, float]] = field(default_factory=dict)
    _whole: dict[tuple[int, int], ShardReport] = field(default_factory=dict)
    _put: dict[int, Any] = field(default_factory=dict)
    _cuts: dict[int, Cut | None] = field(default_factory=dict)  # under which a shard was scored
    _held: dict[tuple[int, SliceSpec], _Held] = field(default_factory=dict)

    def begin(self) -> None:
        """Forgets what the workers of the last run had."""
        self._put, self._cuts, self._held = {}, {}, {}

    def serve(self, request: bytes) -> bytes:
        """Gives the seconds that a call would take a worker, and its result."""
        number, method, arguments = pickle.loads(request)
        took_s, answer = 0.0, None
        if method == "put":
            self._put[number] = arguments
        elif method == "score":
            answer = self._score(*arguments)
        elif method == "ask":
            answer, took_s = self._ask(number, *arguments)
        elif method == "forget":
            self._held = {key: held for key, held in self._held.items() if key[0] != number}
        return HEAD.pack(took_s) + pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)

    def _score(self, shard: Any, carried: Put, cut: Cut | None) -> ShardReport:
        scoring: Scoring = self._put[carried.number]
        self._cuts[shard.index] = cut
        keep = scoring.keep
        if cut is None and (known := self._whole.get((shard.index, keep))) is not None:
            return known
        ids, scores = self.law.best(shard.index, cut)
        num_rows, num_kept = shard.num_rows, len(ids)
        found = sketch(scores, ids, keep)
        report = ShardReport(shard.index, num_rows, num_rows, num_kept, 0, found, (num_rows, 0))
        if cut is None:
            self._whole[shard.index, keep] = report
        return report

    def _ask(
        self, worker: int, specs: Sequence[SliceSpec], calls: Sequence[tuple[Any, ...]]
    ) -> tuple[list[Any], float]:
        answers, total_s = [], 0.0
        digests = [blake2b(pickle.dumps(self._resolved(call)), digest_size=16) for call in calls]
        for spec in specs:
            held = self._held.get((worker, spec))
            if held is None or len(calls) > 1:
                held = self._held[worker, spec] = _Held(self._name(spec))
            answer: Any = None
            for call, digest in zip(calls, digests, strict=True):
                held.chain = blake2b(held.chain + digest.digest(), digest_size=16).digest()
                held.behind.append(self._resolved(call))
                if held.chain not in self.known:
                    self.known[held.chain] = self._catch_up(spec, held)
                answer, took_s = self.known[held.chain]
                total_s += took_s
            answers.append(answer)
        return answers, total_s

    def _catch_up(self, spec: SliceSpec, held: _Held) -> tuple[Any, float]:
        """Asks a slice the questions that it has not heard; gives the last answer, its seconds."""
        begin = time.process_time()
        part = held.part if held.part is not None else self._load(spec)
        answer = None
        for ask, step, args in held.behind:
            begin = time.process_time()
            answer = ask(part, step, *args)
        took_s = time.process_time() - begin
        if spec.with_features or len(part) < _LARGE:
            held.part, held.behind = part, []
        else:
            held.behind = []
        return answer, took_s

    def _resolved(self, call: tuple[Any, ...]) -> tuple[Any, ...]:
        ask, step, args = call
        return ask, step, self._put[args.number] if isinstance(args, Put) else args

    def _name(self, spec: SliceSpec) -> bytes:
        """Names the rows of a slice: inside a cut of its own, whatever its shards left besides."""
        cuts = [self._cuts[shard] for shard in spec.shards] if spec.cut is None else []
        return pickle.dumps(
            (repr(self.law), spec.shards, spec.part, spec.cut, spec.with_features, cuts)
        )

    def _load(self, spec: SliceSpec) -> Slice:
        features = (VECTOR,) if spec.with_features else ()
        return spec.load(lambda shard, part: self.law.rows(shard, self._cuts[shard], features))
