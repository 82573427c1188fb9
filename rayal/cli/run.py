"""rayal run: active learning from a configuration; the same command again goes on where it stood.

`rayal run experiment=digits strategy=margin num_rounds=5 budget=100 seed=1 run_dir=DIR`
`-m strategy=margin,random seed=0,1,2` sweeps, `--cfg job` prints, `-sc install=bash` completes.
Classes of your own are found in the current folder: `strategy.scorer._target_=my_scorer.Mine`;
`engine.py_modules=[my_scorer.py]` takes them to the workers of a cluster. `--config-dir DIR` adds a
folder of your own to the configuration: DIR/strategy/mine.yaml is `strategy=mine`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rayal.cli.config import build, check_overrides, conf_dir, resolve, without_nulls
from rayal.cli.explain import line_of, tell
from rayal.cli.source import Source
from rayal.cli.sweep import name_part
from rayal.cli.words import Parser
from rayal.errors import ConfigError, LedgerError
from rayal.history import History
from rayal.ledger import Ledger, without_password
from rayal.plan.brief import brief
from rayal.progress import Reporter
from rayal.rundir import RunDir

_MODES = ("run", "multirun", "cfg", "info", "shell_completion")  # one of them at a time
_ASKS = ("help", "hydra_help", "shell_completion")  # nothing is composed for them here


def main(arguments: Sequence[str]) -> int:
    """Runs one configuration, or a sweep of them; gives the exit code."""
    words = read_words(arguments)
    name = words.config_name or "config"
    source = Source(words.config_path or str(conf_dir()), name, words.config_dir)
    swept: tuple[str, ...] = ()
    if not any(getattr(words, one) for one in _ASKS):
        sweeps = words.multirun or "hydra.mode=MULTIRUN" in words.overrides
        swept = check_overrides(words.overrides, sweeps, source)
    # A console script does not look there. Last, so that nothing there hides an installed package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    codes: list[int] = []

    def job(config: DictConfig) -> None:
        codes.append(_run(config, swept))

    sys.argv = ["rayal", *flags_of(words), *words.overrides]
    hydra.main(version_base="1.3", config_path=source.path, config_name=name)(job)()
    return max(codes, default=0)


def read_words(arguments: Sequence[str]) -> argparse.Namespace:
    """Gives Hydra's flags and the overrides, in whatever order they come; folders absolute."""
    parser = Parser(prog="rayal run", parents=[get_args_parser()], add_help=False)
    words = parser.parse_intermixed_args(list(arguments))
    modes = [f"--{one.replace('_', '-')}" for one in _MODES if getattr(words, one)]
    if len(modes) > 1:
        parser.error(f"{' and '.join(modes)} do not go together, give one of them")
    if words.resolve and not (words.cfg or words.help):
        parser.error("--resolve is for --cfg, give both")
    if words.experimental_rerun:
        parser.error("--experimental-rerun is not needed, the same command again goes on")
    for one in ("config_path", "config_dir"):
        if getattr(words, one) is not None:
            setattr(words, one, str(Path(getattr(words, one)).expanduser().absolute()))
    words.overrides = without_nulls(words.overrides)
    return words


def flags_of(words: argparse.Namespace) -> list[str]:
    """Gives the flags again: Hydra wants them before the overrides, with nothing in between."""
    flags: list[str] = []
    for name, value in vars(words).items():
        if name != "overrides" and value not in (None, False):
            flags.append(f"--{name.replace('_', '-')}")
            flags += [] if value is True else [str(value)]
    return flags


def _run(config: DictConfig, swept: Sequence[str]) -> int:
    try:
        plain = resolve(config)
        plain["run_dir"] = run_dir = _run_dir(plain, swept)
        find_modules(plain)
        run = build(plain)
        foretell(run, plain.get("plan", "off"))
        state = run.run(plain)
        report = RunDir(run_dir).path / "report.html"
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        return tell(line)
    is_there = f"; report: {run_dir.rstrip('/')}/report.html" if report.is_file() else ""
    print(f"{run_dir}: {state}{is_there}")
    return 0


def foretell(run: Any, how: Any) -> None:
    """Says in a few lines what a run will cost, where it has rounds left.

    Raises:
        ConfigError: `how` is neither short nor off.
    """
    if how in ("off", False):
        return
    if how not in ("short", True):
        raise ConfigError(f"plan is {how}, expected short or off; correct plan=...")
    try:
        lines = brief(run, num_finished(run))
    except Exception as error:  # whatever it is, the run will say it itself, if it meets it
        said = line_of(error) or f"{type(error).__name__}: {error}"
        lines = [f"plan: none could be made ({said}); plan=off leaves it out"]
    for line in lines:
        Reporter().say(line)


def num_finished(run: Any) -> int:
    """Gives how many rounds of a run are done."""
    if not run.dir.has_run:
        return 0
    try:
        with Ledger.open(run.ledger_url, run.dir.read_id(), writer=False) as ledger:
            return History(ledger, run.dir, run.vocabulary).num_finished()
    except LedgerError:
        if run.dir.has_begun(without_password(run.ledger_url)):
            raise
        return 0  # it ended before it had a ledger, and will begin


def find_modules(plain: dict[str, Any]) -> None:
    """Lets this process import what the engine will ship to its workers."""
    engine = plain.get("engine")
    modules = engine.get("py_modules") if isinstance(engine, dict) else None
    for module in modules if isinstance(modules, list) else []:
        folder = str(Path(str(module)).expanduser().resolve().parent)
        if folder not in sys.path:
            sys.path.append(folder)


def _run_dir(plain: dict[str, Any], swept: Sequence[str]) -> Any:
    given = plain.get("run_dir")
    if given is not None:
        if not str(given).strip():
            raise ConfigError(
                "run_dir is empty, expected a folder; give run_dir=DIR, or leave it out for one "
                "of its own name under runs/"
            )
        return given
    chosen = HydraConfig.get()
    by_file = chosen.sweeper.get("params") or {}  # a sweep that a configuration file asks for
    words, keys = chosen.overrides.task, {*swept, *map(str, by_file)}
    experiment = chosen.runtime.choices.get("experiment") or "run"
    strategy = chosen.runtime.choices.get("strategy") or "own"
    return f"runs/{experiment}_{strategy}_s{plain.get('seed', 0)}{name_part(words, keys)}"
