"""The main job on real data: 6 rounds of 3,000 labels out of 6.6 million words, margin and random.

Run by `make demo`. Killed at any moment, the same command goes on where it stood.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

RAYAL = [sys.executable, "-m", "rayal.cli.main"]
POOL = Path("~/.cache/rayal/pools/language_id").expanduser()
ROUNDS, BUDGET = 6, 3_000


def rayal(*words: str) -> str:
    """Runs one command, shown as a user would type it; gives what it printed."""
    print(f"\n$ rayal {' '.join(words)}", flush=True)
    done = subprocess.run([*RAYAL, *words], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def status(run_dir: Path) -> dict:
    """Gives how a run stands."""
    words = [*RAYAL, "status", str(run_dir), "--json"]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Ingests once, runs both strategies from one round 0, prints the table."""
    runs = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    start_s = time.monotonic()
    if not (POOL / "manifest.json").exists():
        rayal("ingest", "recipe:language_id", str(POOL))
    margin, random = runs / "margin", runs / "random"
    common = [
        "run", "experiment=language_id", f"num_rounds={ROUNDS}", f"budget={BUDGET}",
        "engine=ray", "engine.num_workers=2", "trainer.num_workers=2",
    ]  # fmt: skip
    rayal(*common, "strategy=margin", f"run_dir={margin}")
    rayal(*common, "strategy=random", f"begin_from={margin}", f"run_dir={random}")
    rayal("report", str(margin), "--compare", f"random={random}")

    rows = zip(status(margin)["rounds"], status(random)["rounds"], strict=True)
    print(f"\n{'round':>5} {'labels':>7} {'margin':>8} {'random':>8} {'gap':>7}   seconds (margin)")
    for ours, plain in rows:
        seconds = "  ".join(f"{name} {value:.1f}" for name, value in ours["seconds"].items())
        gap = ours["test_metric"] - plain["test_metric"]
        print(
            f"{ours['round']:>5} {ours['num_labels']:>7} {ours['test_metric']:>8.4f} "
            f"{plain['test_metric']:>8.4f} {gap:>+7.4f}   {seconds}"
        )
    print(f"\n{time.monotonic() - start_s:.0f} s in all; report: {margin / 'report.html'}")


if __name__ == "__main__":
    main()
