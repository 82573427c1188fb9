"""What margin buys over random: language_id, the whole pool, three seeds.

python benchmarks/language_id.py            # Ray engine, Ray Train on two workers, as in make demo
python benchmarks/language_id.py --quick    # the same, trained in process
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RAYAL = [sys.executable, "-m", "rayal.cli.main"]


def curve(strategy: str, seed: int, folder: Path, *more: str) -> list[dict]:
    """Runs one configuration and gives its rounds."""
    words = [
        "run", "experiment=language_id", "engine=ray", f"strategy={strategy}", f"seed={seed}",
        f"run_dir={folder}", *more,
    ]  # fmt: skip
    subprocess.run(
        [*RAYAL, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    found = subprocess.run(
        [*RAYAL, "status", str(folder), "--json"], check=True, capture_output=True, text=True
    )
    return json.loads(found.stdout)["rounds"]


def main() -> None:
    """Prints test accuracy by labels, for each seed and the mean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="train in process")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--others", nargs="*", default=[], help="more strategies to show")
    words = parser.parse_args()
    more = () if words.quick else ("trainer.num_workers=2",)
    names = ["margin", "random", *words.others]
    found: dict[str, list[list[dict]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="rayal-bench-") as scratch:
        for seed in words.seeds:
            first = Path(scratch) / f"margin-{seed}"
            for name in names:
                start_s = time.monotonic()
                begin = () if name == "margin" else (f"begin_from={first}",)
                rounds = curve(name, seed, Path(scratch) / f"{name}-{seed}", *more, *begin)
                found[name].append(rounds)
                values = " ".join(f"{one['test_metric']:.4f}" for one in rounds)
                print(
                    f"seed {seed} {name:>14}: {values}  ({time.monotonic() - start_s:.0f} s)",
                    flush=True,
                )
    print(f"\n{'labels':>7} " + " ".join(f"{name:>14}" for name in names) + "   margin - random")
    for place, one in enumerate(found["margin"][0]):
        means = [
            sum(run[place]["test_metric"] for run in found[name]) / len(words.seeds)
            for name in names
        ]
        cells = " ".join(f"{mean:>14.4f}" for mean in means)
        print(f"{one['num_labels']:>7} {cells}   {means[0] - means[1]:+.4f}")


if __name__ == "__main__":
    main()
