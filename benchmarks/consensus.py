"""One-coin EM over millions of annotations, beside majority, Dawid-Skene and crowd-kit's own.

    python benchmarks/consensus.py [--quick]

Annotators are right with a probability of their own, from 0.5 to 0.95, and err evenly over ten
classes; every sample has three of 200. Each line is a process of its own: CPU seconds of the
aggregation alone, from columns of ids, names and classes to labels with probabilities, and the peak
of its memory. crowd-kit runs on the same answers where `make bench-peers` has installed it, and is
called twice: its first call compiles and warms what later ones find.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".peers" / "bin" / "python"
NUM_CLASSES, NUM_ANNOTATORS, OVERLAP = 10, 200, 3
LEAST_RATIO, MOST_GIB = 5.0, 1.0
METHODS = ("majority", "one_coin", "dawid_skene")
OF_CROWD_KIT = ("MajorityVote", "OneCoinDawidSkene", "DawidSkene")


def crowd(num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gives the truth (L,), and (A,) rows, annotators and classes said."""
    rng = np.random.default_rng(0)
    skill_W = rng.uniform(0.5, 0.95, NUM_ANNOTATORS)
    truth_L = rng.integers(0, NUM_CLASSES, num_rows)
    row_A = np.repeat(np.arange(num_rows), OVERLAP)
    # Three different annotators a row: a start, and two steps from it.
    first_L = rng.integers(0, NUM_ANNOTATORS, num_rows)
    steps_LK = np.cumsum(rng.integers(1, NUM_ANNOTATORS // OVERLAP, (num_rows, OVERLAP)), axis=1)
    who_A = ((first_L[:, None] + steps_LK) % NUM_ANNOTATORS).ravel()
    true_A = truth_L[row_A]
    other_A = (true_A + rng.integers(1, NUM_CLASSES, len(row_A))) % NUM_CLASSES
    said_A = np.where(rng.random(len(row_A)) < skill_W[who_A], true_A, other_A)
    return truth_L, row_A, who_A, said_A


def measure(method: str, num_rows: int) -> dict[str, float]:
    """Aggregates in this process; gives accuracy, CPU seconds and peak memory."""
    truth_L, row_A, who_A, said_A = crowd(num_rows)
    if method in OF_CROWD_KIT:
        import warnings

        import pandas
        from crowdkit import aggregation

        warnings.simplefilter("ignore")
        table = pandas.DataFrame({"task": row_A, "worker": who_A, "label": said_A})
        aggregate = getattr(aggregation, method)
        aggregate().fit_predict(table.iloc[:3_000])
        start = time.process_time()
        place_L = aggregate().fit_predict(table).sort_index().to_numpy()
    else:
        from rayal.consensus import Answers, DawidSkene, Majority, OneCoin

        names = [f"annotator-{who}" for who in who_A.tolist()]
        by_name = {"majority": Majority, "one_coin": OneCoin, "dawid_skene": DawidSkene}
        start = time.process_time()
        agreed = by_name[method]().agree(Answers.of(row_A, names, said_A, NUM_CLASSES))
        place_L = agreed.place_L
        assert agreed.probability_L.min() > 0
    spent = time.process_time() - start
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"right": float((place_L == truth_L).mean()), "cpu_s": spent, "gib": peak_gib}


def line(python: Path, method: str, num_rows: int) -> dict[str, float] | None:
    """Measures in a process of its own; None where that cannot run."""
    words = [str(python), __file__, "--one", method, "--rows", str(num_rows)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{method}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Prints the table; gives 1 where something wanted was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10,000 and 100,000 samples")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peers", type=Path, default=PEERS, help="a Python that has crowd-kit")
    words = parser.parse_args()
    if words.one:
        print(json.dumps(measure(words.one, words.rows)))
        return 0
    sizes = (10_000, 100_000) if words.quick else (10_000, 100_000, 1_000_000)
    print(f"{'method':<30}{'samples':>10}{'answers':>11}{'right':>8}{'CPU s':>9}{'GiB':>7}")
    found: dict[tuple[str, int], dict[str, float]] = {}
    for num_rows in sizes:
        mine = [(Path(sys.executable), one, f"rayal {one}") for one in METHODS]
        theirs = [(words.peers, one, f"crowd-kit {one}") for one in OF_CROWD_KIT]
        fits = num_rows <= 100_000 and words.peers.exists()
        for python, method, name in mine + (theirs if fits else []):
            told = line(python, method, num_rows)
            if told is None:
                continue
            found[method, num_rows] = told
            print(
                f"{name:<30}{num_rows:>10,}{num_rows * OVERLAP:>11,}{told['right']:>8.4f}"
                f"{told['cpu_s']:>9.2f}{told['gib']:>7.2f}",
                flush=True,
            )
    verdicts = []
    if ("OneCoinDawidSkene", 100_000) in found:
        theirs_s = found["OneCoinDawidSkene", 100_000]["cpu_s"]
        ratio = theirs_s / found["one_coin", 100_000]["cpu_s"]
        verdicts.append((f"crowd-kit / rayal at 100,000: {ratio:.1f}", ratio >= LEAST_RATIO))
    else:
        print("crowd-kit: not measured (make bench-peers)")
    peak = max(told["gib"] for (method, _), told in found.items() if method == "one_coin")
    verdicts.append((f"one_coin holds {peak:.2f} GiB at most", peak < MOST_GIB))
    largest = sizes[-1]
    gain = found["one_coin", largest]["right"] - found["majority", largest]["right"]
    verdicts.append((f"one_coin is right {gain:+.4f} more often than majority", gain > 0))
    for said, is_met in verdicts:
        print(f"{said}: {'ok' if is_met else 'MISSED'}")
    return 0 if all(is_met for _, is_met in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
