"""A plan beside the run that it is about: seconds a phase, peak memory, bytes.

    python benchmarks/plan.py [--quick] [--folder FOLDER] [--only NAME ...] [--turns N]

Each case is planned (`rayal plan --json`) and then run (`rayal run plan=off`) by the same words,
one right after the other, so that both meet the same neighbours on the machine. Seconds of phases
are those that the run's ledger notes; the whole is the command's wall clock. Memory is looked at
in /proc/PID, of every process of the run, by what it is for: PSS five times a second, and fifty
times, as a trial does, what PSS would be if nobody else on the machine mapped torch's files (other
runs of one checkout share them, and make a process look smaller). Wanted: wall within 30 % and
memory within 20 %, and a configuration of 400 GB refused.
- language_id: the recipe, local engine; margin + top_k, then another strategy and batch size.
- rows: `make_pool.py`'s 64 int8 features with a label (which of ten features is the largest), 10
  million (--quick: 1 million), two Ray workers: margin + top_k of M = 1e6, and k_center of 1e5;
  then cluster_margin in other batches with the local engine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import _labelled
import psutil
from _processes import _pss_bytes, _role

RAYAL = [sys.executable, "-m", "rayal.cli.main"]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
CLOCKED = ("score", "select", "fetch", "label", "train", "test")  # what a ledger has seconds of
WALL, MEMORY = 0.30, 0.20
_LOOK_S, _LOOKS = 0.02, 10  # every tenth look finds new processes, and asks for their PSS
_ROLES = {"": "driver", "ray::_Carrier": "scorer", "ray::RayTrainWorker": "rank"}


@dataclass(frozen=True)
class Case:
    """A configuration, and whether the model of costs was tuned on it."""

    name: str
    words: tuple[str, ...]
    is_tuned: bool = True


@dataclass
class Peaks(threading.Thread):
    """The largest process of each role while a command runs."""

    pid: int
    pss: dict[str, int] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Looks until told to end."""
        root, turn = psutil.Process(self.pid), 0
        roles: dict[int, str] = {}
        while not self._over.wait(_LOOK_S):
            if turn % _LOOKS == 0:
                try:
                    roles = self._find([root, *root.children(recursive=True)])
                except psutil.Error:
                    continue
            turn += 1
            looks = []
            for pid, role in roles.items():
                try:
                    looks.append((role, *_own_and_files(pid)))
                except OSError:
                    continue
            mapped_by = max(1, len(looks))
            for role, own, files in looks:
                self.alone[role] = max(self.alone.get(role, 0.0), own + files / mapped_by)

    def _find(self, processes: Sequence[psutil.Process]) -> dict[int, str]:
        """Gives the role of each process that has one; looks at its PSS, at CPU seconds of all."""
        roles = {}
        for one in processes:
            try:
                times = one.cpu_times()
                self.cpu[one.pid] = times.user + times.system
                role = "" if one.pid == self.pid else _role(one)
                if role in _ROLES:
                    name = roles[one.pid] = _ROLES[role]
                    self.pss[name] = max(self.pss.get(name, 0), _pss_bytes(one.pid))
            except (psutil.Error, OSError):
                continue
        return roles

    def end(self) -> None:
        """Ends the thread."""
        self._over.set()
        self.join()


def _own_and_files(pid: int) -> tuple[int, int]:
    """Gives bytes of private pages, and of mapped files and shared memory."""
    sizes = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("RssAnon", "RssFile", "RssShmem"):
            sizes[name] = int(rest.split()[0]) * 1_024
    return sizes.get("RssAnon", 0), sizes.get("RssFile", 0) + sizes.get("RssShmem", 0)


class Others:
    """How many cores other processes of the machine took while a block ran."""

    def __enter__(self) -> Others:
        self._before = self._look()
        return self

    def __exit__(self, *error: object) -> None:
        after = self._look()
        self.busy_s, self.wall_s = (b - a for a, b in zip(self._before, after, strict=True))

    def cores(self, own_cpu_s: float) -> float:
        """Gives that, where the block itself took so many CPU seconds."""
        return max(0.0, self.busy_s - own_cpu_s) / max(1e-9, self.wall_s)

    @staticmethod
    def _look() -> tuple[float, float]:
        times = psutil.cpu_times()
        return sum(times) - times.idle - times.iowait, time.monotonic()


def plan(words: Sequence[str]) -> dict:
    """Gives what `rayal plan --json` says."""
    said = subprocess.run(
        [*RAYAL, "plan", "--json", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **ONE_THREAD},
    )
    if said.returncode:
        raise SystemExit(said.stderr)
    return json.loads(said.stdout)


def run(words: Sequence[str], run_dir: Path) -> tuple[float, float, Peaks, list[dict]]:
    """Gives wall and CPU seconds, peaks and the rounds of a run."""
    start_s = time.monotonic()
    running = subprocess.Popen(
        [*RAYAL, "run", *words, f"run_dir={run_dir}", "plan=off"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ONE_THREAD},
    )
    peaks = Peaks(running.pid)
    peaks.start()
    _, said = running.communicate()
    wall_s = time.monotonic() - start_s
    peaks.end()
    if running.returncode:
        raise SystemExit(said[-2_000:])
    cpu_s = sum(peaks.cpu.values())
    told = subprocess.run(
        [*RAYAL, "status", str(run_dir), "--json"], capture_output=True, text=True
    )
    return wall_s, cpu_s, peaks, json.loads(told.stdout)["rounds"]


def compare(case: Case, folder: Path) -> bool:
    """Prints a plan beside its run; gives whether wall and memory are as wanted."""
    run_dir = folder / f"run-{case.name}"
    shutil.rmtree(run_dir, ignore_errors=True)
    with Others() as before:
        own_s = _children_s()
        planned = plan(case.words)
        own_s = _children_s() - own_s
    with Others() as meanwhile:
        wall_s, cpu_s, peaks, rounds = run(case.words, run_dir)
    written = sum(path.stat().st_size for path in run_dir.rglob("*") if path.is_file())
    shutil.rmtree(run_dir, ignore_errors=True)
    tuned = "" if case.is_tuned else "; not tuned on"
    took_s = planned["took_s"]
    print(f"\n{case.name}: {' '.join(case.words)}")
    print(
        f"(planned in {took_s:.0f} s{tuned}; others took {before.cores(own_s):.1f} cores "
        f"meanwhile, {meanwhile.cores(cpu_s):.1f} during the run)"
    )
    print(f"{'':18} {'planned':>10} {'real':>10} {'ratio':>7}")
    clocked = {}
    for name in CLOCKED:
        mine = sum(one["wall_s"] for one in planned["phases"] if one["name"] == name)
        clocked[name] = mine, sum(one["seconds"].get(name, 0.0) for one in rounds)
        _line(name, *clocked[name], "s")
    _line("all phases", *(sum(pair[i] for pair in clocked.values()) for i in (0, 1)), "s")
    wall_ok = _line("wall", planned["wall_s"], wall_s, "s", WALL)
    _line("CPU", planned["cpu_hours"] * 3_600, cpu_s, "s")
    is_met = wall_ok
    for one in planned["processes"]:
        role = one["role"]
        if role in peaks.alone:
            mine = one["peak_bytes"] / 2**30
            is_met &= _line(f"{role} alone", mine, peaks.alone[role] / 2**30, "GiB", MEMORY)
            _line(f"{role} PSS", mine, peaks.pss[role] / 2**30, "GiB")
    kept = sum(size for name, size in planned["disk"].items() if not name.startswith("slices"))
    _line("kept on disk", kept / 1e6, written / 1e6, "MB")
    return is_met


def _children_s() -> float:
    times = os.times()  # a plan's own processes, but for those that Ray puts away itself
    return times.children_user + times.children_system


def _line(name: str, mine: float, real: float, unit: str, within: float | None = None) -> bool:
    ratio = mine / real if real else float("nan")
    is_met = within is None or 1 - within <= ratio <= 1 + within
    goal = "" if within is None else f"  within {within:.0%}: {'ok' if is_met else 'MISSED'}"
    print(f"{name:18} {mine:>8.2f} {unit:<3}{real:>7.2f} {ratio:>7.2f}{goal}", flush=True)
    return is_met


def refused(pool: Path) -> bool:
    """Prints how a run that needs 400 GB is refused; gives whether it is."""
    words = [*_on(pool), "strategy=k_center", "model.module.hidden=[10240]", "budget=100"]
    said = subprocess.run(
        [*RAYAL, "plan", *words], capture_output=True, text=True, env={**os.environ, **ONE_THREAD}
    )
    print(f"\n400 GB: {' '.join(words)}\nexit code {said.returncode}: {said.stderr.strip()}")
    return said.returncode == 1 and "GB" in said.stderr


def _pool(folder: Path, num_rows: int) -> Path:
    place = folder / f"pool-{num_rows}"
    if not (place / "manifest.json").exists():
        source = folder / f"rows-{num_rows}.parquet"
        _labelled.make(source, num_rows)
        words = ["--id-column", "key", "--label-column", "label", "--test-share", "0.01"]
        subprocess.run(
            [*RAYAL, "ingest", str(source), str(place), *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD},
        )
    return place


def _on(pool: Path) -> list[str]:
    return [
        "experiment=embeddings", f"pool.path={pool}", "+model.transform.scale=0.007874",
        "model.module.hidden=[256]", "num_rounds=3",
    ]  # fmt: skip


def cases(pool: Path, is_quick: bool) -> list[Case]:
    """Gives what is planned and run."""
    ray = ["engine=ray", "engine.num_workers=2"]
    keep, few = (100_000, 10_000) if is_quick else (1_000_000, 100_000)
    rows = [*_on(pool), *ray]
    center = [
        "strategy=k_center_weighted", "strategy.selector.weighted=false",
        f"strategy.num_candidates={few}", "budget=1000",
    ]  # fmt: skip
    return [
        Case("language_id", ("experiment=language_id", "num_rounds=3")),
        Case("language_id_2", ("experiment=language_id", "num_rounds=4", "strategy=entropy",
             "budget=1000", "predictor.batch_rows=1024"), is_tuned=False),
        Case("rows_top_k", (*rows, f"strategy.num_candidates={keep}", "budget=10000")),
        Case("rows_k_center", (*rows, *center)),
        Case("rows_cluster", (*_on(pool), "strategy=cluster_margin", "budget=2000",
             "predictor.batch_rows=16384"), is_tuned=False),
    ]  # fmt: skip


def main() -> None:
    """Prints every case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 million rows in place of 10")
    parser.add_argument("--folder", type=Path, help="where pools are made, and kept")
    parser.add_argument("--only", nargs="+", help="names of cases, or refused")
    parser.add_argument("--turns", type=int, default=1, help="each case so many times")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rayal-bench-") as scratch:
        folder = words.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        pool = _pool(folder, 1_000_000 if words.quick else 10_000_000)
        _pool_of_language_id()
        met = []
        for case in cases(pool, words.quick):
            if words.only is None or case.name in words.only:
                met += [(case.name, compare(case, folder)) for _ in range(words.turns)]
        if words.only is None or "refused" in words.only:
            met.append(("refused", refused(pool)))
    print("\n" + ", ".join(f"{name} {'ok' if is_met else 'MISSED'}" for name, is_met in met))


def _pool_of_language_id() -> None:
    """Makes the recipe's pool where it is not there: a plan is measured on its rows."""
    place = Path("~/.cache/rayal/pools/language_id").expanduser()
    if not (place / "manifest.json").exists():
        subprocess.run([*RAYAL, "ingest", "recipe:language_id", str(place)], check=True)


if __name__ == "__main__":
    main()
