"""A vendor for tests: what it was sent, what it answers, what it charges. No HTTP in here.

All of it follows from a seed, the calls that came, and the clock that it is given.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayal.vendorkit.faults import Faults

INVENTED = "no class at all"


@dataclass
class Item:
    """One row that the vendor has to have labelled."""

    name: str  # the vendor's own
    key: str
    fields: dict[str, Any]  # as sent, `sample_id` among them


@dataclass(frozen=True)
class Answer:
    """One revision of one annotator's answer."""

    key: str
    event: str
    revision: int
    sample_id: int
    state: str  # done, refused, withdrawn
    label: Any
    worker: str
    price_minor: int
    at: float


@dataclass
class Vendor:
    """`family` says what happens to a key that was there before: "key" refuses it, "path" writes
    over it, "tag" and "none" take it once more."""

    family: str
    classes: Sequence[Any]
    seed: int = 0
    faults: Faults = field(default_factory=Faults)
    price_minor: int = 2
    overlap: int = 1
    num_workers: int = 9
    delay_s: float = 10.0  # most answers are there after this
    now: Callable[[], float] = time.time
    items: list[Item] = field(default_factory=list)
    shas: dict[str, str] = field(default_factory=dict)  # of what came under a key first
    feed: list[Answer] = field(default_factory=list)  # what is there to be fetched, in order
    lock: threading.RLock = field(default_factory=threading.RLock)  # calls come in threads
    _due: list[tuple[float, int, Answer]] = field(default_factory=list)
    _later: list[tuple[float, str, list[dict[str, Any]]]] = field(default_factory=list)
    _count: int = 0

    # ------------------------------------------------------------------------------ what is asked

    def take(self, key: str, rows: Sequence[dict[str, Any]]) -> bool:
        """Takes rows under a key; False: the key is there, and this vendor takes it once."""
        self._pass_time()
        known = key in self.shas
        if known and self.family == "key":
            return False
        self.shas.setdefault(key, sha256(rows))
        if known and self.family == "path":
            self.items = [item for item in self.items if item.key != key]
            self._due = [one for one in self._due if one[2].key != key]
        for row in rows:
            self._count += 1
            item = Item(f"item-{self._count}", key, dict(row))
            self.items.append(item)
            self._plan(item, replaced=known and self.family == "path")
        return True

    def take_later(self, key: str, rows: Sequence[dict[str, Any]], seconds: float) -> None:
        """Takes rows in so many seconds: the call is on its way somewhere."""
        self._later.append((self.now() + seconds, key, list(rows)))

    def held(self, key: str) -> list[Item]:
        """Gives what is there under a key."""
        with self.lock:
            self._pass_time()
            return [item for item in self.items if item.key == key]

    def withdraw(self, names: Sequence[str]) -> None:
        """Forgets items; what was answered of them by then stays answered."""
        gone = set(names)
        self.items = [item for item in self.items if item.name not in gone]
        self._due = [one for one in self._due if one[2].event.split("/")[0] not in gone]

    def events(self, key: str, start: int, most: int) -> tuple[list[Answer], int]:
        """Gives answers under a key behind a place in the feed, some again, in some order; and the
        place behind them."""
        self._pass_time()
        mine = [(place, one) for place, one in enumerate(self.feed) if one.key == key]
        page = [(place, one) for place, one in mine if place >= start][:most]
        after = page[-1][0] + 1 if page else start
        rng = self._rng("page", key, start, len(page))
        answers = [one for _, one in page]
        before = [one for place, one in mine if place < start] + answers
        answers += [one for one in before if rng.random() < self.faults.twice]
        if page and rng.random() < self.faults.shuffled:
            answers = [answers[int(place)] for place in rng.permutation(len(answers))]
        return answers, after

    # ------------------------------------------------------------------------------- what is true

    def standing(self) -> dict[tuple[str, str], Answer]:
        """Gives, by (key, event), the newest revision of all that can be fetched by now."""
        with self.lock:
            self._pass_time()
            told = list(self.feed)
        newest: dict[tuple[str, str], Answer] = {}
        for one in told:
            place = (one.key, one.event)
            if place not in newest or newest[place].revision < one.revision:
                newest[place] = one
        return newest

    def num_open(self) -> int:
        """Gives how many answers are still to come."""
        with self.lock:
            self._pass_time()
            return len(self._due) + len(self._later)

    # -------------------------------------------------------------------------------------- below

    def _pass_time(self) -> None:
        now = self.now()
        arrived = [one for one in self._later if one[0] <= now]
        self._later = [one for one in self._later if one[0] > now]
        for _, key, rows in arrived:
            self.take(key, rows)
        ready = sorted((one for one in self._due if one[0] <= now), key=lambda one: one[:2])
        self._due = [one for one in self._due if one[0] > now]
        self.feed += [answer for _, _, answer in ready]

    def _plan(self, item: Item, replaced: bool) -> None:
        """Draws the answers of an item and when they come."""
        faults, sample_id = self.faults, int(item.fields["sample_id"])
        # A file that is written again holds the same rows: their answers have the same names.
        mark = f"{item.key}.{sample_id}" if self.family == "path" else item.name
        rng = self._rng(mark)
        workers = rng.permutation(self.num_workers)
        number = self.overlap + int(rng.random() < faults.extra)
        strange = rng.random() < faults.stray
        for turn, worker in enumerate(workers[:number].tolist()):
            wait = self.delay_s * float(rng.random()) * (10.0 if rng.random() < faults.late else 1)
            due = self.now() + wait
            event = f"{mark}/{turn}"
            price = self.price_minor * (3 if rng.random() < faults.dear else 1)
            label = self.classes[int(rng.integers(len(self.classes)))]
            history: list[tuple[str, Any, int]] = []  # state, label, price of each revision
            if rng.random() < faults.refused:
                history.append(("refused", None, 0))
            elif rng.random() < faults.invented:
                history.append(("done", INVENTED, price))
                if rng.random() < faults.mended:
                    history.append(("done", label, 0))
            else:
                history.append(("done", label, price))
                if rng.random() < faults.edited:
                    other = self.classes[int(rng.integers(len(self.classes)))]
                    history.append(("done", other, 0))
                if rng.random() < faults.recalled:
                    history += [("withdrawn", None, -price), ("done", label, price)]
            times = [due + self.delay_s * place * float(rng.random()) for place in range(9)]
            if rng.random() < faults.shuffled:
                times.reverse()
            for revision, (state, said, cost) in enumerate(history):
                answer = Answer(
                    item.key, event, revision, sample_id, state, said, f"worker-{worker}", cost,
                    times[revision],
                )  # fmt: skip
                if not (replaced and any(x.event == event for x in self.feed)):
                    self._add(answer)
        if strange:
            far = Answer(
                item.key, f"{mark}/stray", 0, 2**52 + sample_id, "done", self.classes[0],
                "worker-stray", self.price_minor, self.now(),
            )  # fmt: skip
            self._add(far)

    def _add(self, answer: Answer) -> None:
        self._due.append((answer.at, len(self._due), answer))

    def _rng(self, *words: Any) -> np.random.Generator:
        text = json.dumps([self.seed, *words])
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))


def sha256(rows: Sequence[dict[str, Any]]) -> str:
    """Gives the hash of what was sent."""
    return hashlib.sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()
