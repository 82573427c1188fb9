"""The runs of a sweep (`-m`): every one in a folder of its own."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rayal.errors import ConfigError

_IN_NAME = ("experiment", "strategy", "seed")  # of every default run_dir
_MAX_PART, _MAX_NAME = 40, 120


def swept_keys(parsed: Sequence[Override]) -> tuple[str, ...]:
    """Gives the keys that were given several values."""
    return tuple(one.get_key_element() for one in parsed if one.is_sweep_override())


def values_of(one: Override) -> list[str]:
    """Gives an override once for each of its values.

    Raises:
        ConfigError: it is a sweep that cannot be counted out.
    """
    if not one.is_sweep_override():
        return [str(one.input_line)]
    try:
        if not one.is_discrete_sweep():
            raise HydraException("it has no list of values")
        return [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
    except HydraException as error:
        raise ConfigError(
            f"'{one.input_line}' cannot be swept over ({error}); write key=a,b,c or key=range(1,4)"
        ) from error


def check_run_dirs(
    parsed: Sequence[Override], composed: Callable[[list[str]], DictConfig], loader: ConfigLoader
) -> None:
    """Refuses a `run_dir` that two runs of a sweep would share.

    Raises:
        ConfigError: they would; the message names both.
    """
    runs: dict[str, tuple[str, ...]] = {}
    for words in _jobs(parsed):
        config = composed(list(words))
        raw = OmegaConf.to_container(config, resolve=False)
        given = raw.get("run_dir") if isinstance(raw, dict) else None
        if not given or "${hydra:" in str(given):
            return  # each has one of its own name; or Hydra knows it when a job starts
        try:
            run_dir = config.run_dir
        except OmegaConfBaseException:
            return  # what cannot be resolved is told by the run itself
        folder = os.path.abspath(os.path.expanduser(str(run_dir)))
        other = runs.setdefault(folder, words)
        if other is not words:
            pairs = [pair for pair in zip(other, words, strict=True) if pair[0] != pair[1]]
            raise ConfigError(
                f"run_dir={run_dir} would hold two runs of this sweep "
                f"({' '.join(a for a, _ in pairs)} and {' '.join(b for _, b in pairs)}); leave "
                "run_dir out, so that each has its own under runs/, or let it differ: "
                f"'run_dir=runs/{_varying(pairs[0][0], loader)}'"
            )


def name_part(words: Sequence[str], keys: Collection[str]) -> str:
    """Gives what tells a run of a sweep from the others, to end a folder's name: `_budget-10`.

    `words` are the overrides of one run. Equal values give equal names, whatever the rest of the
    sweep is; a value that cannot stand in a file's name as it is gets a hash of itself.
    """
    chosen = sorted(
        word
        for word in words
        if _key(word) in keys and _key(word).lstrip("+") not in _IN_NAME and "=" in word
    )
    parts = [f"{_plain(_key(word))}-{_safe(word.split('=', 1)[1])}" for word in chosen]
    whole = "".join(f"_{part}" for part in parts)
    return whole if len(whole) <= _MAX_NAME else f"{whole[:_MAX_NAME]}-{_hash(whole)}"


def _jobs(parsed: Sequence[Override]) -> Iterator[tuple[str, ...]]:
    # Of a key that is given twice the last holds, as in Hydra's own sweeper.
    return itertools.product(*{one.get_key_element(): values_of(one) for one in parsed}.values())


def _varying(word: str, loader: ConfigLoader) -> str:
    """Gives an interpolation that differs where this word does."""
    key = _key(word).lstrip("+")
    is_group = bool(loader.get_group_options(key.split("@")[0]))
    return f"{_plain(key)}-${{{'hydra:runtime.choices.' if is_group else ''}{key}}}"


def _key(word: str) -> str:
    return word.split("=", 1)[0]


def _plain(text: str) -> str:
    return re.sub(r"[^\w.@+-]+", "-", text.lstrip("+"))


def _safe(text: str) -> str:
    plain = re.sub(r"[^\w.@+-]+", "-", text)
    return (
        text if plain == text and len(text) <= _MAX_PART else f"{plain[:_MAX_PART]}-{_hash(text)}"
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
