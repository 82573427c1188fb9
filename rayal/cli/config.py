"""From words on the command line to a resolved configuration, and from it to a Loop."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rayal.errors import ConfigError, RayalError

# Read by interpolation from inside the tree, and no argument of Loop.
SHARED = ("model", "source")


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


def check_overrides(words: Sequence[str]) -> None:
    """Composes once, to explain in one line what Hydra would explain in many.

    Raises:
        ConfigError: an unknown key or choice, named with what comes close.
    """
    overrides = [word for word in words if not word.startswith("-")]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            compose("config", overrides=overrides)
    except HydraException as error:
        raise ConfigError(_one_line(error, overrides)) from error
    finally:
        GlobalHydra.instance().clear()


def build(config: Mapping[str, Any]) -> Any:
    """Gives the Loop of a resolved configuration: one call of `instantiate`, nothing else.

    Raises:
        ConfigError: a target that cannot be imported, or does not take an argument.
    """
    tree = {key: value for key, value in config.items() if key not in SHARED}
    try:
        return instantiate(tree, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, RayalError):
                raise cause from None
            cause = cause.__cause__
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        inner = error.__cause__
        reason = f" ({type(inner).__name__}: {inner})" if inner is not None else ""
        where = next((line for line in lines if line.startswith("full_key")), "")
        raise ConfigError(
            f"a part could not be built: {lines[0]}{reason} {where}; check the _target_ and its "
            "arguments, and for classes of your own that their package is on PYTHONPATH"
        ) from error


def _one_line(error: HydraException, overrides: Sequence[str]) -> str:
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    for word in overrides:
        key = word.split("=", 1)[0].lstrip("+~")
        if f"'{key}'" in text and "Could not override" in text:
            close = difflib.get_close_matches(key, _known_keys(), n=3)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            return (
                f"there is no key '{key}' in the configuration{meant} "
                "(`rayal run --cfg job` prints all keys; +key=value adds one)"
            )
    return f"the configuration could not be composed: {text}"


def _known_keys() -> list[str]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        tree = OmegaConf.to_container(compose("config"), resolve=False)
    return sorted(_dotted(tree))


def _dotted(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    found = []
    for key, value in node.items():
        found += [f"{prefix}{key}", *_dotted(value, f"{prefix}{key}.")]
    return found
