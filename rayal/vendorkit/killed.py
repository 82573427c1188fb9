"""A scenario whose driver is a process of its own, ended by SIGKILL at moments that a seed draws.

python -m rayal.vendorkit.killed FIRST LAST      # seeds; prints what is wrong, exits 1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rayal.errors import LabelError
from rayal.vendorkit.scenario import Scene, driver, judge, person
from rayal.vendorkit.server import served

MOST_KILLS = 4
_LONGEST_S = 120.0


def play_killed(scene: Scene) -> tuple[list[str], int]:
    """Plays a scenario in real time; gives what is wrong with it, and the number of kills."""
    num_kills = 0
    with served(scene.desk) as url:
        command = [sys.executable, "-m", "rayal.vendorkit.killed", "--drive", str(scene.seed)]
        command += ["--url", url, "--folder", str(scene.folder)]
        end = time.monotonic() + _LONGEST_S
        while True:
            if time.monotonic() > end:
                scene.problems.append(f"the driver does not end in {_LONGEST_S:.0f} s")
                break
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                # Starting takes the most of a second; what is to be hit lasts about as long.
                wait_s = None if num_kills >= MOST_KILLS else float(scene.rng.uniform(0.5, 2.5))
                out, err = child.communicate(timeout=wait_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                num_kills += 1
                continue
            if child.returncode:
                scene.problems.append(err.decode()[-500:])
                break
            said = json.loads(out.decode().splitlines()[-1])
            if said["done"] and scene.vendor.num_open() == 0:
                break
            if "assume-sent" in said["error"]:
                scene.reaper.share = 0.0
                person(scene, scene.labeler(url), said["error"])
        if not scene.problems:
            scene.reaper.share = 0.0
            with driver(scene, scene.labeler(url)) as orders:
                order = orders.ledger.event(0, "ordered")
                orders.drain(0, order.result)  # type: ignore[union-attr]
                judge(scene, orders)
    return scene.problems, num_kills


def drive(scene: Scene, url: str) -> dict[str, object]:
    """Is the driver: places the order and fetches for a while; gives how it ended."""
    scene.reaper.share = 0.0
    try:
        with driver(scene, scene.labeler(url)) as orders:
            order = orders.ledger.once(0, "ordered", lambda _: orders.place(0, scene.rows), 0)
            for _ in range(10):
                orders.drain(0, order)
                scene.clock.sleep(0.3)
    except LabelError as error:
        return {"done": False, "error": str(error)}
    return {"done": True, "error": ""}


def main() -> int:
    """Plays the scenarios of some seeds, or is the driver of one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seeds", type=int, nargs="*")
    parser.add_argument("--drive", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.drive is not None:
        print(json.dumps(drive(Scene(words.drive, Path(words.folder), is_real=True), words.url)))
        return 0
    num_wrong = total = 0
    start = time.perf_counter()
    for seed in range(*words.seeds):
        with tempfile.TemporaryDirectory(prefix="rayal-scenario-") as folder:
            scene = Scene(seed, Path(folder), is_real=True)
            problems, num_kills = play_killed(scene)
        total += num_kills
        if problems:
            num_wrong += 1
            print(f"scenario {seed} ({scene.family}): {' | '.join(problems[:3])}")
    seconds = time.perf_counter() - start
    print(
        f"{len(range(*words.seeds))} scenarios, {total} kills, {num_wrong} wrong, {seconds:.1f} s"
    )
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
