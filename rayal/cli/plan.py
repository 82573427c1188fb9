"""rayal plan: what a run will cost, before it starts; nothing of the run is done.

`rayal plan experiment=digits strategy=margin budget=100` takes what `rayal run` takes.
A few real rows go through the run's own parts, by the clock: model, trainer, scorer, selector and
engine; the pool must be there (`rayal ingest`). Labels of the trial are made up, nothing is ordered
but from an oracle, and the run's folder stays as it is: a run that has begun is planned from its
next round on. Exit code 1: the run cannot fit, with the
arithmetic, and with the nearest that can as words to add.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rayal.cli.config import build, composed, conf_dir, without_nulls
from rayal.cli.run import find_modules, num_finished
from rayal.cli.source import Source
from rayal.cli.words import Parser
from rayal.errors import ConfigError, RayalError
from rayal.places import Place
from rayal.plan.apart import apart
from rayal.plan.asked import Asked, asked_of, rounds_of
from rayal.plan.estimate import Here, here_now, plan_of
from rayal.plan.fits import misfits, proposals, widths_in
from rayal.plan.laws import once
from rayal.plan.machine import Machine, machine_of
from rayal.plan.measured import Measured, Parts
from rayal.plan.phases import Plan
from rayal.plan.show import table
from rayal.plan.trial import measure, trial_folder
from rayal.pool.manifest import NAME

TRIAL_S = 3.0  # what each kind of work may take in the trial, about


def main(arguments: Sequence[str]) -> int:
    """Prints the plan of one configuration; gives the exit code."""
    parser = Parser(
        prog="rayal plan",
        description=__doc__,
        usage="rayal plan [--json] [--config-dir DIR] [key=value ...]",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--config-dir", metavar="DIR", help="a folder with groups of your own")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    words = parser.parse_intermixed_args(list(arguments))
    added = words.config_dir and str(Path(words.config_dir).expanduser().absolute())
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    asked, plan = Planning(words.overrides, Source(str(conf_dir()), "config", added)).plan()
    print(json.dumps(plan.to_json()) if words.json else table(plan, asked))
    return 0


class Planning:
    """One configuration, as it is and as it could be."""

    def __init__(self, overrides: Sequence[str], source: Source) -> None:
        self.overrides, self.source = list(overrides), source
        self.here: Here | None = None
        self.first_round = 0  # of a run that has begun: those before it are done

    def plan(self) -> tuple[Asked, Plan]:
        """Gives what is asked for, and its plan.

        Raises:
            ConfigError: as `rayal run`; or there is no pool yet, no round is left, or the run
                cannot fit.
        """
        self.plain, self.run = self.built()
        self.first_round = num_finished(self.run)
        if self.first_round >= self.run.num_rounds:
            raise ConfigError(
                f"no round of {self.run.dir} is left to plan (num_rounds={self.run.num_rounds}, "
                f"{self.first_round} done); give a larger num_rounds, or another run_dir"
            )
        here = here_now()
        start_s = time.monotonic()
        self.machine: Machine = machine_of(self.run.dir.path)
        with trial_folder(self.run.dir.path) as folder:
            measured, exit_s = apart(measure, Parts.of(self.run), f"{folder}/trial", TRIAL_S)
        around = once(measured.around.wall() + exit_s, measured.around.cpu())
        measured = replace(measured, around=around)
        self.here, self.measured = here, measured
        asked, plan = self.planned(self.run, measured)
        self._check(asked, plan)
        done = [f"rounds before round {self.first_round} are done, and not in here"]
        notes = (*plan.notes, *self.sooner(asked, plan), *(done if self.first_round else ()))
        return asked, replace(plan, notes=notes, took_s=time.monotonic() - start_s)

    def built(self, *more: str) -> tuple[dict[str, Any], Any]:
        """Gives the configuration with more words, and the run that it makes, not begun."""
        plain, _ = composed(without_nulls([*self.overrides, *more]), self.source)
        plain["run_dir"] = plain.get("run_dir") or "runs/plan"
        find_modules(plain)
        check_pool(plain)
        return plain, build(plain)

    def planned(self, run: Any, measured: Measured) -> tuple[Asked, Plan]:
        """Gives the plan of a run from what was measured."""
        assert self.here is not None
        asked = asked_of(run, self.first_round)
        parts = run.strategy.selector, Parts.of(run).trainers, run.stopping
        return asked, plan_of(asked, measured, self.here, *parts)

    def fits(self, words: str) -> bool:
        """Whether the run fits with more words; nothing is measured again."""
        try:
            _, run = self.built(*shlex.split(words))
        except RayalError:
            return False
        features = tuple(run.strategy.selector.needs)
        widths = widths_in(self.measured, run.pool, run.vocabulary, features)
        if widths is None:
            return False
        measured = replace(self.measured, widths=widths)
        asked, plan = self.planned(run, measured)
        return not misfits(plan, asked, measured, self.machine)

    def sooner(self, asked: Asked, plan: Plan) -> list[str]:
        """Gives, of a run that time will end, what more workers would make of it, if anything."""
        cores = self.machine.num_cores
        by_time = rounds_of(asked, self.run.stopping, 0.0)[0] > plan.num_rounds
        if not by_time or cores <= max(1, asked.num_workers):
            return []
        words = f"engine=ray engine.num_workers={cores}"
        _, run = self.built(*shlex.split(words))
        found = self.planned(run, self.measured)[1]
        if found.num_rounds <= plan.num_rounds:
            return []
        return [f"{words} would make it {found.num_rounds} rounds in that time"]

    def _check(self, asked: Asked, plan: Plan) -> None:
        found = misfits(plan, asked, self.measured, self.machine)
        if not found:
            return
        offers = proposals(
            asked,
            self.measured,
            self.run.pool,
            self.run.vocabulary,
            self.plain["strategy"],
            self.fits,
        )
        nearest = [f"{one.words} ({one.gives})" for one in offers]
        advice = f"what fits, by the same arithmetic: {', or '.join(nearest)}"
        if not nearest:
            advice = "nothing near it fits here; take another machine, pool or strategy"
        raise ConfigError(f"this run cannot fit: {'; '.join(found)}; {advice}")


def check_pool(plain: dict[str, Any]) -> None:
    """Refuses a pool that is not there but could be made: a plan is measured on its rows.

    Raises:
        ConfigError: it is not there; with the command that makes it.
    """
    pool = plain.get("pool")
    if not isinstance(pool, dict) or not isinstance(pool.get("path"), str):
        return
    path, recipe, source = (pool.get(name) for name in ("path", "recipe", "source"))
    if not (recipe or source) or (Place.of(str(path)) / NAME).exists():
        return
    origin = source if recipe is None else f"recipe:{recipe}" + (f":{source}" if source else "")
    flags = "".join(
        f" --{name.replace('_', '-')} {pool[name]}"
        for name in ("id_column", "label_column", "test_share")
        if pool.get(name) is not None
    )
    raise ConfigError(
        f"there is no pool at {path} yet, and a plan is measured on its rows; make it first: "
        f"rayal ingest {origin} {path}{flags}"
    )
