"""From words on the command line to a resolved configuration, and from it to a Loop."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rayal.cli.binding import check_tree
from rayal.cli.source import Source
from rayal.cli.sweep import check_run_dirs, swept_keys, values_of
from rayal.errors import ConfigError, RayalError

# Read by interpolation from inside the tree, or by a door: no argument of Loop.
SHARED = ("model", "source", "plan")
SELECT, EMBED = "select", "embed"  # the configurations of commands beside `rayal run`
# Groups that choose nothing by default.
OPTIONAL = ("vocabulary", "proxy", "rescoring", "experiment")


def without_nulls(words: Sequence[str]) -> list[str]:
    """Gives overrides in Hydra's words: what is printed as null can be given as null."""
    nulls = {f"{group}=null": f"~{group}" for group in OPTIONAL}
    return [nulls.get(word, word) for word in words]


def conf_dir() -> Path:
    """Gives the folder of the configuration: at a checkout's top, inside an installed wheel."""
    installed = Path(__file__).resolve().parents[1] / "conf"
    return installed if installed.is_dir() else installed.parents[1] / "conf"


def resolve(config: DictConfig) -> dict[str, Any]:
    """Gives plain values, all interpolations resolved.

    Raises:
        ConfigError: a value that must be given is missing, or an interpolation points nowhere.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a key"
        raise ConfigError(
            f"{key} has no value ({str(error).splitlines()[0]}); give it on the command line, "
            f"for example {key}=..."
        ) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def check_overrides(
    words: Sequence[str], sweeps: bool = False, source: Source | None = None
) -> tuple[str, ...]:
    """Gives the keys that a sweep goes over. Composes once, and once more for each further value
    of a sweep, to explain in one line what Hydra would explain in many.

    Raises:
        ConfigError: an unknown key or choice, named with what comes close; or two runs of a sweep
            that would share a `run_dir`.
    """
    source = source or Source(str(conf_dir()))
    with source.opened() as loader:
        parsed = _parsed(words, loader)
        keys = swept_keys(parsed)
        if keys and not sweeps:
            raise ConfigError(_several(parsed, "add -m to sweep over them, "))
        for overrides in _each_value(parsed):
            _compose(overrides, source.name, loader)
        if keys:
            check_run_dirs(parsed, lambda some: _compose(some, source.name, loader), loader)
    return keys


def composed(words: Sequence[str], source: Source) -> tuple[dict[str, Any], dict[str, str]]:
    """Gives the plain values of a configuration that cannot be swept over, and what each group
    chose.

    Raises:
        ConfigError: as `check_overrides` and `resolve`.
    """
    with source.opened() as loader:
        parsed = _parsed(words, loader)
        if swept_keys(parsed):
            raise ConfigError(_several(parsed, ""))
        config = _compose(list(words), source.name, loader, with_hydra=True)
        chosen = {str(group): str(name) for group, name in config.hydra.runtime.choices.items()}
        OmegaConf.set_struct(config, False)
        del config["hydra"]
    return resolve(config), chosen


def build(config: Mapping[str, Any]) -> Any:
    """Gives what a resolved configuration makes, such as a Loop: one call of `instantiate`, nothing
    else.

    Raises:
        ConfigError: a node that does not fit its class, or a class that cannot be built.
    """
    if "_target_" not in config:
        raise ConfigError(
            "the configuration has no _target_, expected rayal.loop.Loop or another class; check "
            "--config-name, and leave _target_ as it is"
        )
    shared = {key: config[key] for key in SHARED if key in config}
    tree = {key: value for key, value in config.items() if key not in SHARED}
    check_tree(shared)  # first: what is shared is named by its own key
    check_tree(tree)
    try:
        return instantiate(tree, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, RayalError):
                raise cause from None
            cause = cause.__cause__
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = next((line for line in lines if line.startswith("full_key: ")), "full_key: the run")
        inner = error.__cause__
        reason = " ".join(f"{type(inner).__name__}: {inner}".split()) if inner else lines[0]
        raise ConfigError(
            f"{where.removeprefix('full_key: ')} could not be built ({reason}); check its _target_ "
            "and its arguments"
        ) from error
    except OmegaConfBaseException as error:  # not of a file: `resolve` has looked at those
        said = " ".join(str(error).split())
        raise ConfigError(
            f"the configuration holds a value that cannot be read ({said}); give names, numbers, "
            "lists and mappings of them, and no text with ${...}"
        ) from error


def _parsed(words: Sequence[str], loader: ConfigLoader) -> list[Override]:
    try:
        return OverridesParser.create(loader).parse_overrides(list(words))
    except OverrideParseException as error:
        why = " ".join(str(error).split()).split(" See https", 1)[0]
        raise ConfigError(
            f"'{error.override}' cannot be read ({why}); write key=value, and "
            "quote a value with commas, brackets or spaces"
        ) from error


def _each_value(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """Gives the overrides with the first value of every sweep, then with each other value."""
    values = [values_of(one) for one in parsed]
    firsts = [some[0] for some in values]
    yield firsts
    for place, some in enumerate(values):
        for value in some[1:]:
            yield [*firsts[:place], value, *firsts[place + 1 :]]


def _compose(
    overrides: list[str], name: str, loader: ConfigLoader, with_hydra: bool = False
) -> DictConfig:
    _check_choices(_parsed(overrides, loader), loader)
    try:
        return compose(name, overrides=overrides, return_hydra_config=with_hydra)
    except MissingConfigException as error:
        raise ConfigError(_no_choice(error)) from error
    except HydraException as error:
        raise ConfigError(_one_line(error, overrides, name, loader)) from error
    except (TypeError, ValueError, AttributeError, AssertionError) as error:  # a word it is not for
        raise ConfigError(_cannot_compose(f"{type(error).__name__}: {error}", name)) from error


def _check_choices(parsed: Sequence[Override], loader: ConfigLoader) -> None:
    """Refuses what is no name where a group wants one; Hydra answers it with a traceback."""
    for one in parsed:
        if not one.key_or_group:
            raise ConfigError(f"'{one.input_line}' has no key before its '='; write key=value")
        value = one.value()
        names = value if isinstance(value, list) else [value]
        if one.is_delete() or isinstance(value, dict) or all(isinstance(n, str) for n in names):
            continue
        options = loader.get_group_options(one.key_or_group)
        if options:
            raise ConfigError(
                f"'{one.input_line}' gives no name, expected one of: {', '.join(options)}; "
                f"or single keys of it, such as {one.key_or_group}.key=value"
            )


def _no_choice(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    options = list(error.options or ())
    close = difflib.get_close_matches(name, options, n=2)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    known = f" (there are: {', '.join(options)})" if options else "; check --config-name"
    return f"there is no {group or 'configuration'} '{name}'{meant}{known}"


def _one_line(
    error: HydraException, overrides: Sequence[str], name: str, loader: ConfigLoader
) -> str:
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    for word in overrides:
        key = word.split("=", 1)[0].lstrip("+~")
        if f"'{key}'" in text and "Could not override" in text:
            # A struct given as a whole (stopping={...}) fails at a key inside of it.
            key = getattr(error.__cause__, "full_key", None) or key
            group = key.split(".")[0]
            if group in OPTIONAL and group != key:
                options = " or ".join(f"{group}={one}" for one in loader.get_group_options(group))
                return f"there is no key '{key}' while {group} is null; choose one: {options}"
            others = [one for one in overrides if one is not word]
            close = difflib.get_close_matches(key, _known_keys(name, others), n=3)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            return (
                f"there is no key '{key}' in the configuration{meant} "
                f"(`{_command(name)} --cfg job` prints all keys; +key=value adds one)"
            )
    return _cannot_compose(text, name)


def _cannot_compose(why: str, name: str) -> str:
    return (
        f"the configuration could not be composed: {why}; check the words after `{_command(name)}`"
    )


def _command(name: str) -> str:
    return f"rayal {name}" if name in (SELECT, EMBED) else "rayal run"


def _several(parsed: Sequence[Override], advice: str) -> str:
    several = next(one.input_line for one in parsed if one.is_sweep_override())
    return (
        f"'{several}' gives several values; {advice}write [a,b] for a list, or quote the value for "
        "a word with a comma"
    )


def _known_keys(name: str, overrides: Sequence[str]) -> list[str]:
    try:  # the groups that were chosen have keys of their own
        config = compose(name, overrides=list(overrides))
    except HydraException:  # another word is wrong as well
        config = compose(name)
    return sorted(_dotted(OmegaConf.to_container(config, resolve=False)))


def _dotted(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    found = []
    for key, value in node.items():
        found += [f"{prefix}{key}", *_dotted(value, f"{prefix}{key}.")]
    return found
