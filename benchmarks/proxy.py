"""What a proxy saves and what it costs: Fashion-MNIST, a CNN behind a linear model of the pixels.

python benchmarks/proxy.py [--quick] [--rows N ...]

Runs of a seed begin from the same round 0, five rounds of 300 labels: margin by the CNN over all
rows; margin by the CNN over the N rows that the proxy lets through, both trained on the same
labels; random. Seconds of scoring are the ledger's, of both passes of a round where there is a
proxy, in one process. Shared are the rows that a run and the first one both picked in its second
round, where both chose by the same labels. `--quick`: one seed, three rounds, one N.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

RAYAL = (sys.executable, "-m", "rayal.cli.main")
BUDGET = 300


@dataclass(frozen=True)
class Found:
    """One run."""

    accuracy: float
    score_s: float  # of all rounds but the first, which has no model
    second: frozenset[int]  # picked in round 1


def curve(folder: Path, seed: int, num_rounds: int, *more: str) -> Found:
    """Runs one configuration."""
    words = ("experiment=fashion_mnist", f"seed={seed}", f"num_rounds={num_rounds}")
    command = [*RAYAL, "run", *words, f"budget={BUDGET}", f"run_dir={folder}", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    said = subprocess.run(
        [*RAYAL, "status", str(folder), "--json"], check=True, capture_output=True, text=True
    )
    rounds = json.loads(said.stdout)["rounds"]
    batch = pq.read_table(folder / "rounds" / "r0001" / "batch.parquet", columns=["sample_id"])
    return Found(
        rounds[-1]["test_metric"],
        sum(one["seconds"]["score"] for one in rounds[1:]),
        frozenset(batch.column("sample_id").to_pylist()),
    )


def main() -> None:
    """Prints accuracy, seconds of scoring and shared picks, the mean of the seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, three rounds, one N")
    parser.add_argument("--rows", type=int, nargs="+", metavar="N")
    words = parser.parse_args()
    seeds, num_rounds = ((0,), 3) if words.quick else ((0, 1, 2), 5)
    numbers = words.rows or ([5_000] if words.quick else [2_000, 5_000, 15_000])
    runs = {"margin": ("strategy=margin",)}
    for number in numbers:
        least = f"strategy.num_candidates={BUDGET}"
        asked = ("strategy=margin", least, "proxy=linear", f"proxy.num_rows={number}")
        runs[f"margin, proxy lets {number:,} through"] = asked
    runs["random"] = ("strategy=random",)
    found: dict[str, list[Found]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory(prefix="rayal-bench-") as scratch:
        for seed in seeds:
            for place, (name, asked) in enumerate(runs.items()):
                folder = Path(scratch) / f"{seed}-{place}"
                begin = () if name == "margin" else (f"begin_from={Path(scratch) / f'{seed}-0'}",)
                found[name].append(curve(folder, seed, num_rounds, *asked, *begin))
    labels = num_rounds * BUDGET
    print(f"{'':<36} accuracy, {labels} labels   s of scoring   by all rows   shared picks")
    whole = statistics.mean(one.score_s for one in found["margin"])
    for name, those in found.items():
        accuracy = statistics.mean(one.accuracy for one in those)
        score_s = statistics.mean(one.score_s for one in those)
        shared = statistics.mean(
            len(one.second & other.second) / BUDGET
            for one, other in zip(those, found["margin"], strict=True)
        )
        print(
            f"{name:<36} {accuracy:>21.4f} {score_s:>14.1f} {score_s / whole:>13.2f} "
            f"{shared:>14.2f}"
        )


if __name__ == "__main__":
    main()
