"""One seeded scenario: ten chunks, a vendor with faults, and a driver that dies again and again.

    python -m rayal.vendorkit.scenario FIRST LAST     # seeds; prints what is wrong, exits 1

The driver is killed once before and once after every step that it comes to (each commit of the
ledger, each call to the vendor): an exception there, and a ledger that is opened again. Time is
simulated: a wait takes none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.errors import LabelError
from rayal.labelers.rest import FAMILIES, Rest
from rayal.ledger import Ledger
from rayal.ordering import Orders, job_id_of
from rayal.types import Order, Vocabulary
from rayal.vendorkit.faults import Faults
from rayal.vendorkit.server import Desk, served
from rayal.vendorkit.vendor import INVENTED, Answer, Vendor

NUM_CHUNKS = 10
CLASSES = ("ant", "bee", "cat")
IN_DOUBT_S = 30.0
NAME = "scenario"
_DEATHS_A_PLACE = 1
_COMMITS = ("log", "_record", "intend", "append_labels")
_VENDOR_CALLS = ("submit", "supply", "lookup", "held", "withdraw", "fetch")
CALLS: dict[str, dict[str, Any]] = {
    "submit": {
        "path": "/batches",
        "body": {"key": "{key}", "rows": "{rows}", "overlap": "{overlap}"},
        "handle": "id",
    },
    "lookup": {"path": "/batches/{key}", "handle": "id", "count": "num_rows"},
    "items": {
        "path": "/items",
        "params": {"key": "{key}", "page": "{cursor}"},
        "list": "items",
        "sample": "sample_id",
        "name": "name",
        "next": "next",
    },
    "withdraw": {"path": "/items/delete", "body": {"names": "{items}"}},
    "events": {
        "path": "/events",
        "params": {"key": "{key}", "cursor": "{cursor}"},
        "list": "events",
        "next": "cursor",
    },
    "cancel": {"path": "/batches/{key}/cancel"},
}
FIELDS = {
    "sample_id": "sample_id",
    "label": "label",
    "event_id": "event",
    "revision": "revision",
    "annotator": "worker",
    "at": "at",
    "cost_minor": "price_minor",
    "state": "state",
}
STATES = {"done": "label", "refused": "refused", "withdrawn": "withdrawn"}


class Killed(BaseException):
    """The driver died here."""


@dataclass
class Reaper:
    """Kills at every place once: the first time that a driver comes there."""

    share: float  # of the places
    rng: np.random.Generator
    seen: Counter[str] = field(default_factory=Counter)
    num_kills: int = 0

    def pass_by(self, place: str) -> None:
        """Kills, or lets pass. What happens again, after a fault, may kill once more."""
        self.seen[place] += 1
        if self.seen[place] <= _DEATHS_A_PLACE and self.rng.random() < self.share:
            self.num_kills += 1
            raise Killed(place)


@dataclass
class Clock:
    """Time that passes when somebody waits."""

    at: float = 1_800_000_000.0

    def now(self) -> float:
        """Gives the seconds since 1970."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Lets time pass."""
        self.at += seconds


class RealClock(Clock):
    """Time as it is."""

    def now(self) -> float:
        """Gives the seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


@dataclass
class Scene:
    """What a scenario consists of."""

    seed: int
    folder: Path
    family: str = ""
    share: float = 1.0  # of the places where the driver is killed
    faults: Faults | None = None
    is_real: bool = False  # time passes by itself

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 7])
        self.rng, self.clock = rng, RealClock() if self.is_real else Clock()
        self.in_doubt_s = 1.5 if self.is_real else IN_DOUBT_S
        self.family = self.family or FAMILIES[self.seed % len(FAMILIES)]
        self.overlap = int(rng.integers(1, 4))
        self.rows_per_chunk = int(rng.integers(2, 7))
        num_rows = self.rows_per_chunk * NUM_CHUNKS - int(rng.integers(self.rows_per_chunk))
        self.ids = np.sort(rng.permutation(10_000)[:num_rows]).astype(np.int64)
        self.rows = pa.table({"sample_id": self.ids, "text": [f"row {i}" for i in self.ids]})
        self.limit_minor = 2 * num_rows * self.overlap
        self.vocabulary = Vocabulary("class", CLASSES)
        drawn = Faults.drawn(rng) if self.faults is None else self.faults
        self.vendor = Vendor(
            self.family,
            CLASSES,
            self.seed,
            drawn,
            overlap=self.overlap,
            now=self.clock.now,
            delay_s=0.3 if self.is_real else 10.0,
        )
        self.desk = Desk(self.vendor, token="a-token", late_s=self.in_doubt_s * 0.8)
        self.reaper = Reaper(self.share, rng)
        self.problems: list[str] = []

    @property
    def ledger_url(self) -> str:
        """Where the ledger lies."""
        return f"sqlite:///{self.folder / 'ledger.db'}"

    def labeler(self, url: str) -> Rest:
        """Gives an adapter of the vendor."""
        made = Rest(
            url,
            CALLS,
            FIELDS,
            STATES,
            family=self.family,
            columns=["text"],
            overlap=self.overlap,
            price_minor=2,
            rows_per_chunk=self.rows_per_chunk,
            in_doubt_s=self.in_doubt_s,
        )
        made.client._headers = lambda anew: {"Authorization": "Bearer a-token"}
        made.client._sleep = self.clock.sleep
        return made


def play(scene: Scene) -> list[str]:
    """Plays a scenario to its end; gives a line for each thing that is wrong."""
    with served(scene.desk) as url:
        labeler = scene.labeler(url)
        _with_deaths(scene, labeler)
        for _ in range(10_000):
            try:
                with driver(scene, labeler) as orders:
                    if _driven(scene, orders):
                        break
            except Killed:
                continue
            except LabelError as error:
                if "assume-sent" in str(error):
                    person(scene, labeler, str(error))
                elif "the same command again" not in str(error):
                    raise
        else:
            scene.problems.append("the driver does not come to an end")
        scene.reaper.share = 0.0
        with driver(scene, labeler) as orders:
            judge(scene, orders)
        labeler.client.close()
    return scene.problems


@contextmanager
def driver(scene: Scene, labeler: Rest) -> Iterator[Orders]:
    """A driver that begins: the ledger is opened, and nothing is known but what is in it."""
    with Ledger.open(scene.ledger_url, "run", writer=True) as ledger:
        _mortal(scene, ledger)
        yield Orders(
            ledger,
            labeler,
            NAME,
            scene.vocabulary,
            lambda t: scene.ids,
            scene.limit_minor,
            now=scene.clock.now,
            sleep=scene.clock.sleep,
        )


def _driven(scene: Scene, orders: Orders) -> bool:
    """Places the order and fetches until nothing more can come; True: it is done."""
    order = orders.ledger.once(0, "ordered", lambda _: orders.place(0, scene.rows), 0)
    while True:
        is_last = scene.vendor.num_open() == 0
        orders.drain(0, order)
        _check_money(scene, orders.ledger)
        if is_last:
            return True
        scene.clock.sleep(25.0)


def _mortal(scene: Scene, ledger: Ledger) -> None:
    """Has the ledger's commits pass by the reaper, before and after."""
    for name in _COMMITS:
        setattr(ledger, name, _dying(scene, name, getattr(ledger, name)))


def _with_deaths(scene: Scene, labeler: Rest) -> None:
    """Has the calls to the vendor pass by the reaper, before and after."""

    for name in _VENDOR_CALLS:
        setattr(labeler, name, _dying(scene, name, getattr(labeler, name)))


def _dying(scene: Scene, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def passing(*arguments: Any) -> Any:
        words = [_short(one) for one in arguments[:3]]
        place = f"{name} {' '.join(words)}"
        scene.reaper.pass_by(f"before {place}")
        result = call(*arguments)
        scene.reaper.pass_by(f"after {place}")
        return result

    return passing


def _short(argument: Any) -> str:
    """Gives what tells one call from another."""
    if isinstance(argument, list):
        return ",".join(str(getattr(one, "event_id", one)) for one in argument[:3])
    return str(getattr(argument, "key", getattr(argument, "job_id", "")) or argument)[:60]


def person(scene: Scene, labeler: Rest, said: str) -> None:
    """Looks at the vendor's page, once all calls have ended, and says what is there. First the
    same command again: it must say the same, and send nothing."""
    key = said.split()[1]
    before = len(scene.vendor.items)
    scene.clock.sleep(scene.in_doubt_s)
    scene.vendor.num_open()
    there = len(scene.vendor.items)
    try:
        with driver(scene, labeler) as orders:
            orders.place(0, scene.rows)
        scene.problems.append(f"{key}: sent again without a word")
    except LabelError as error:
        if key not in str(error):
            scene.problems.append(f"{key}: in doubt, and then '{error}'")
    except Killed:
        pass
    if len(scene.vendor.items) != there or there < before:
        scene.problems.append(f"{key}: the vendor has something else after a doubt")
    has = bool(scene.vendor.held(key))
    with Ledger.open(scene.ledger_url, "run", writer=True) as ledger:
        ledger.log(0, key, "assume-sent" if has else "assume-lost", {"said": "by a person"})


def _check_money(scene: Scene, ledger: Ledger) -> None:
    spent, promised = ledger.spend()["amount_minor"], ledger.promised()
    if spent > scene.limit_minor:
        scene.problems.append(f"{spent} spent of {scene.limit_minor}")
    if promised > scene.limit_minor:
        scene.problems.append(f"{promised} on order of {scene.limit_minor}")


def judge(scene: Scene, orders: Orders) -> None:
    """Compares the ledger with the vendor's truth."""
    ledger, vendor, say = orders.ledger, scene.vendor, scene.problems.append
    job = job_id_of(NAME, 0)
    asked = Counter(int(item.fields["sample_id"]) for item in vendor.items)
    for sample_id in scene.ids.tolist():
        if asked[sample_id] != 1:
            say(f"sample {sample_id} is at the vendor {asked[sample_id]} times")
    if extra := asked.keys() - set(scene.ids.tolist()):
        say(f"the vendor has samples that nobody picked: {sorted(extra)[:3]}")
    texts = {tuple(sorted(item.fields)) for item in vendor.items}
    if texts - {("sample_id", "text")}:
        say(f"other columns left: {texts}")
    order: Order = ledger.event(0, "ordered").result  # type: ignore[union-attr]
    if order.job_id != job or order.num_rows != len(scene.ids):
        say(f"the order is {order}")
    apart = {(one["event_id"], one["revision"]) for one in ledger.quarantine()}
    ours = {one.event.event_id: one.event for one in ledger.labels(0)}
    for (_, event), answer in vendor.standing().items():
        _judge_one(answer, ours.pop(event, None), (event, answer.revision) in apart, scene)
    for event in ours:
        say(f"answer {event} is in the ledger and not at the vendor")
    per_sample = Counter(one.event.sample_id for one in ledger.labels(0))
    if per_sample and max(per_sample.values()) > scene.overlap and not vendor.faults.recalled:
        say(f"{max(per_sample.values())} answers of a sample hold, {scene.overlap} were ordered")
    spent, bill = ledger.spend()["amount_minor"], _bill(vendor)
    odd = vendor.faults
    if not (odd.dear or odd.extra or odd.invented or odd.stray) and spent != bill:
        say(f"the ledger says {spent}, the vendor's bill {bill}")
    _check_money(scene, ledger)
    scene.problems += ledger.problems()


def _judge_one(answer: Answer, ours: Any, is_apart: bool, scene: Scene) -> None:
    is_label = answer.state == "done" and answer.label != INVENTED
    is_ours = answer.sample_id in set(scene.ids.tolist())
    say = scene.problems.append
    if ours is not None:
        same = (ours.sample_id, ours.value, ours.revision, ours.annotator) == (
            answer.sample_id,
            answer.label,
            answer.revision,
            answer.worker,
        )
        if not (same and is_label and is_ours):
            say(f"answer {answer.event}: the ledger has {ours}, the vendor {answer}")
    elif is_label and is_ours and not is_apart:
        say(f"answer {answer.event} revision {answer.revision} is missing")
    elif answer.state == "done" and not (is_label and is_ours) and not is_apart:
        say(f"answer {answer.event} is neither a label nor in the quarantine")
    elif is_apart and is_label and is_ours and not _may_be_apart(scene.vendor.faults):
        say(f"answer {answer.event} is in the quarantine for nothing")


def _may_be_apart(faults: Faults) -> bool:
    return bool(faults.extra or faults.dear)


def _bill(vendor: Vendor) -> int:
    return sum(one.price_minor for one in vendor.feed)


def sweep(seeds: Iterable[int], say: Callable[[str], None]) -> tuple[int, int]:
    """Plays scenarios; gives how many went wrong, and how often the driver was killed: of every
    tenth at all places, of the others at some."""
    num_wrong = num_kills = 0
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="rayal-scenario-") as folder:
            scene = Scene(seed, Path(folder), share=0.4 if seed % 10 else 1.0)
            problems = play(scene)
            num_kills += scene.reaper.num_kills
            if problems:
                num_wrong += 1
                say(f"scenario {seed} ({scene.family}): {' | '.join(problems[:3])}")
    return num_wrong, num_kills


def main() -> int:
    """Plays the scenarios of some seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    words = parser.parse_args()
    start = time.perf_counter()
    num_wrong, num_kills = sweep(range(words.first, words.last), print)
    print(
        f"{words.last - words.first} scenarios, {num_kills} deaths, {num_wrong} wrong, "
        f"{time.perf_counter() - start:.1f} s"
    )
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
