"""rayal run: active learning from a configuration; the same command again goes on where it stood.

`rayal run experiment=digits strategy=margin num_rounds=5 budget=100 seed=1 run_dir=DIR`
`-m strategy=margin,random seed=0,1,2` sweeps, `--cfg job` prints, `-sc install=bash` completes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rayal.cli.config import build, check_overrides, conf_dir, resolve
from rayal.errors import RayalError


def main(arguments: Sequence[str]) -> int:
    """Runs one configuration, or a sweep of them; gives the exit code."""
    sweeps = any(word in ("-m", "--multirun") for word in arguments)
    asks = any(word.startswith("-") for word in arguments)
    if not sweeps and not asks:
        check_overrides(arguments)
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
        state = build(plain).run(plain)
    except RayalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{plain['run_dir']}: {state}; report: {plain['run_dir']}/report.html")
    return 0


def _default_run_dir(plain: dict[str, Any]) -> str:
    choices = HydraConfig.get().runtime.choices
    experiment = choices.get("experiment") or "run"
    return f"runs/{experiment}_{choices['strategy']}_s{plain['seed']}"
