"""A million label events: into the ledger, again, out as columns, and to one label a sample.

    python benchmarks/labels.py [--quick]

333,334 samples with three of 200 annotators each, right with U[.5, .95], ten classes. They come as
from a vendor, 10,000 a transaction. SQLite on a local disk (WAL, synchronous=FULL) and a PostgreSQL
server of the benchmark's own on loopback, where the machine has its programs, or the one that
RAYAL_TEST_POSTGRES names. Each database is a process of its own; CPU seconds are its client's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from consensus import NUM_CLASSES, crowd

from rayal.consensus import Consensus
from rayal.ledger import Ledger
from rayal.types import LabelEvent, Vocabulary

HERE = Path(__file__).resolve().parent
EVENTS_A_CALL = 10_000
STEPS = ("insert", "replay", "columns", "consensus", "spend")


@contextlib.contextmanager
def servers(scratch: Path) -> Iterator[dict[str, str]]:
    """Gives the URLs of the databases that can be had here."""
    urls = {"SQLite": f"sqlite:///{scratch / 'ledger.db'}"}
    sys.path.insert(0, str(HERE.parent / "tests"))
    with contextlib.ExitStack() as stack:
        try:
            from postgres import served

            urls["PostgreSQL"] = stack.enter_context(served())
        except BaseException as error:  # pytest's skip is not an Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            print(f"PostgreSQL: not measured ({error})")
        yield urls


def measure(url: str, num_events: int) -> dict[str, Any]:
    """Does all steps against one database; gives CPU and wall seconds of each, and the peak."""
    truth_L, row_A, who_A, said_A = crowd(-(-num_events // 3))
    vocabulary = Vocabulary("class", tuple(f"class {place}" for place in range(NUM_CLASSES)))
    columns = zip(row_A[:num_events].tolist(), who_A.tolist(), said_A.tolist(), strict=False)
    events = [
        LabelEvent(
            row,
            vocabulary.classes[said],
            f"{row}/{who}",
            annotator=f"annotator {who}",
            cost_minor=2,
            at="2026-11-24T00:00:00+00:00",
        )
        for row, who, said in columns
    ]
    told: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        told[name] = [time.process_time() - cpu, time.perf_counter() - wall]
        return result

    with Ledger.open(url, "bench", writer=True) as ledger:
        ledger.start_run({})

        def append() -> int:
            starts = range(0, len(events), EVENTS_A_CALL)
            return sum(
                ledger.append_labels(0, "job", events[start : start + EVENTS_A_CALL])
                for start in starts
            )

        assert timed("insert", append) == num_events
        assert timed("replay", append) == 0
        events.clear()
        columns_told = timed("columns", lambda: ledger.told(0, 1))
        decided = timed("consensus", lambda: Consensus().decide(columns_told, vocabulary))
        assert timed("spend", ledger.spend)["amount_minor"] == 2 * num_events
    right = [decided.labels[row] == vocabulary.classes[true] for row, true in enumerate(truth_L)]
    told["right"] = sum(right) / len(right)
    told["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return told


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100,000 events")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    words = parser.parse_args()
    num_events = 100_000 if words.quick else 1_000_000
    if words.url:
        print(json.dumps(measure(words.url, num_events)))
        return 0
    head = "".join(f"{name:>16}" for name in STEPS)
    print(f"{num_events:,} events; CPU s (wall s)\n{'':<12}{head}{'GiB':>7}{'right':>8}")
    with tempfile.TemporaryDirectory(prefix="rayal-bench-") as scratch:
        with servers(Path(scratch)) as urls:
            for name, url in urls.items():
                command = [sys.executable, __file__, "--url", url]
                command += ["--quick"] if words.quick else []
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(done.stderr)
                told = json.loads(done.stdout.splitlines()[-1])
                pairs = "".join(f"{f'{told[s][0]:.2f} ({told[s][1]:.2f})':>16}" for s in STEPS)
                print(f"{name:<12}{pairs}{told['gib']:>7.2f}{told['right']:>8.4f}", flush=True)
        file = Path(scratch) / "ledger.db"
        print(f"SQLite holds {file.stat().st_size / 2**20:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
