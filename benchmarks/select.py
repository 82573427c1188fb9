"""How fast batches are picked, beside the loops that a careful person writes, and whether they are
the same.

    python benchmarks/select.py [--quick] [--peers] [--ray] [--large] [--only NAME ...]

One table, a line a measurement: CPU seconds of ours and of the plain loop (which is timed for some
picks and scaled, or runs in full), their ratio, distances by N B, rounds over the slices, and how
many picks are identical to the loop's. Everything has one thread. Lines have targets; where one is
missed the command ends with 1. In the quick form some lines are measured small: these have no
target for what needs many rows.

--peers adds other people's libraries on the same arrays (`make bench-peers` installs them), --ray
four Ray workers beside one process, --large ten million rows on disk.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import importlib.util
import os
import sys

# name -> what measures it; a module is imported once the numbers of threads are set
LINES = {
    "k_center": ("_greedy", "k_center"),
    "k_center_kinds": ("_greedy", "k_center_kinds"),
    "k_center_large": ("_greedy", "k_center_large"),
    "same_picks": ("_greedy", "same_picks"),
    "slices": ("_greedy", "slices"),
    "small_batch": ("_greedy", "small_batch"),
    "badge_factors": ("_sampling", "badge_factors"),
    "badge": ("_sampling", "badge"),
    "d_squared": ("_sampling", "d_squared_rows"),
    "coverage": ("_covering", "coverage_lines"),
    "log_det": ("_covering", "log_det_lines"),
    "best_rows": ("_ranking", "best_rows"),
    "random_keys": ("_ranking", "random_keys"),
    "quality": ("_quality", "quality"),
    "k_means": ("_quality", "k_means"),
    "restart": ("_restart", "restart"),
    "strategies": ("_seconds", "strategies"),
}
EXTRA = {
    "peers": ("_others", "peers"),
    "ray": ("_at_scale", "through_ray"),
    "large": ("_at_scale", "large"),
}


def main() -> None:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--quick", action="store_true", help="fewer rows, picks and turns")
    parser.add_argument("--peers", action="store_true", help="also scikit-activeml and small-text")
    parser.add_argument("--ray", action="store_true", help="also four Ray workers")
    parser.add_argument("--large", action="store_true", help="also ten million rows on disk")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*LINES, *EXTRA], default=[])
    args = parser.parse_args()
    extra = [name for name in EXTRA if getattr(args, name)]
    names = args.only or [*LINES, *extra]
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that wait take no CPU seconds

    import torch
    from _table import header

    torch.set_num_threads(1)
    print(header())
    missed = []
    for name in names:
        module, function = {**LINES, **EXTRA}[name]
        print(f"-- {name}", flush=True)
        for line in getattr(importlib.import_module(module), function)(args.quick):
            print(line.text(), flush=True)
            missed += [f"{name}: {line.what}, {line.data}: {goal}" for goal in line.missed]
    if not args.only:
        for name in EXTRA:
            if name not in names:
                print(f"{name}: not measured (--{name})")
    if missed:
        print("targets missed:", *missed, sep="\n  ")
        sys.exit(1)


def stand_aside() -> None:
    """Gives way to the standard library's module of this name. Scripts of this folder, and their
    child processes, look for modules here first: their `import select` finds this file."""
    here = os.path.dirname(os.path.abspath(__file__))
    others = [one for one in sys.path if os.path.abspath(one or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("select", others)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["select"] = module
    spec.loader.exec_module(module)


if __name__ == "select":
    stand_aside()
elif __name__ == "__main__":
    main()
