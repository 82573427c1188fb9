"""rayal run: active learning from a configuration; the same command again goes on where it stood.

`rayal run experiment=digits strategy=margin num_rounds=5 budget=100 seed=1 run_dir=DIR`
`-m strategy=margin,random seed=0,1,2` sweeps, `--cfg job` prints, `-sc install=bash` completes.
Classes of your own are found in the current folder: `strategy.scorer._target_=my_scorer.Mine`;
`engine.py_modules=[my_scorer.py]` takes them to the workers of a cluster.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rayal.cli.config import build, check_overrides, conf_dir, resolve
from rayal.cli.explain import line_of, tell

_SWEEP = ("-m", "--multirun")


def main(arguments: Sequence[str]) -> int:
    """Runs one configuration, or a sweep of them; gives the exit code."""
    flags = [word for word in arguments if word.startswith("-")]
    sweeps = any(word in _SWEEP for word in flags)
    # Other flags may take words of their own, such as `--cfg job`.
    words = [
        word
        for word in arguments
        if not word.startswith("-") and ("=" in word or set(flags) <= {*_SWEEP})
    ]
    if not any(word.startswith(("-sc", "--shell-completion", "-h", "--h")) for word in flags):
        check_overrides(words, sweeps)
    # A console script does not look there. Last, so that nothing there hides an installed package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    codes: list[int] = []

    def job(config: DictConfig) -> None:
        codes.append(_run(config))

    sys.argv = ["rayal", *arguments]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)()
    return max(codes, default=0)


def _run(config: DictConfig) -> int:
    try:
        plain = resolve(config)
        if plain["run_dir"] is None:
            plain["run_dir"] = _default_run_dir(plain)
        _find_modules(plain)
        state = build(plain).run(plain)
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        return tell(line)
    print(f"{plain['run_dir']}: {state}; report: {plain['run_dir']}/report.html")
    return 0


def _find_modules(plain: dict[str, Any]) -> None:
    """Lets this process import what the engine will ship to its workers."""
    modules = plain["engine"].get("py_modules") if isinstance(plain["engine"], dict) else None
    for module in modules if isinstance(modules, list) else []:
        folder = str(Path(str(module)).expanduser().resolve().parent)
        if folder not in sys.path:
            sys.path.append(folder)


def _default_run_dir(plain: dict[str, Any]) -> str:
    choices = HydraConfig.get().runtime.choices
    experiment = choices.get("experiment") or "run"
    return f"runs/{experiment}_{choices['strategy']}_s{plain['seed']}"
