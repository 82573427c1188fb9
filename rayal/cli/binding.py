"""Every node of a configuration against the constructor that it calls, before anything is built.

What a constructor would meet late, or not at all, is one line here: a key that it does not take, a
key that it lacks, a word where it wants a number, a class that cannot be imported.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rayal.errors import ConfigError

_HYDRA = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_tree(node: Any, key: str = "") -> None:
    """Checks a resolved node and all nodes in it; `key` is where it lies, dotted.

    Raises:
        ConfigError: the first thing that does not fit.
    """
    if isinstance(node, list):
        for place, item in enumerate(node):
            check_tree(item, f"{key}.{place}")
        return
    if isinstance(node, float) and not math.isfinite(node):
        raise ConfigError(f"{key} is {node}, expected a finite number; correct {key}=...")
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        _check_node(node, key)
    for name, value in node.items():
        check_tree(value, _dotted(key, name))


def locate(path: Any, key: str) -> Any:
    """Gives the class or function that a `_target_` names.

    Raises:
        ConfigError: it cannot be imported.
    """
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(
            f"{_dotted(key, '_target_')} is {_shown(path)}, expected a dotted path such as "
            "package.module.Class"
        )
    for count in range(len(parts) - 1, 0, -1):
        module = _import(".".join(parts[:count]), path, key)
        if module is None:
            continue
        found: Any = module
        for name in parts[count:]:
            if not hasattr(found, name):
                raise ConfigError(
                    f"{_dotted(key, '_target_')} is {path}, but {'.'.join(parts[:count])} has no "
                    f"'{name}'{_meant(name, vars(module))}; correct the name"
                )
            found = getattr(found, name)
        return found
    raise ConfigError(
        f"{_dotted(key, '_target_')} is {path}, but there is no module '{parts[0]}'; correct the "
        "name, or run from the folder that holds your module, or put that folder on PYTHONPATH"
    )


def _import(name: str, path: str, key: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None  # a class in a module, or a module that is not there
        why: Exception = error
    except Exception as error:  # whatever a user's module raises while it is imported
        why = error
    text = " ".join(str(why).split())
    raise ConfigError(
        f"{_dotted(key, '_target_')} is {path}, and importing {name} failed "
        f"({type(why).__name__}: {text}); mend that module, or install what it needs"
    ) from why


def _check_node(node: Mapping[str, Any], key: str) -> None:
    target = locate(node["_target_"], key)
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # a builtin says nothing of itself
        return
    takes = {name: one for name, one in parameters.items() if one.kind in _BY_NAME}
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    given = {name: value for name, value in node.items() if name not in _HYDRA}
    for name, value in given.items():
        if name in takes:
            hint = _hint(target, name, takes[name].annotation)
            if not _fits(value, hint):
                raise ConfigError(
                    f"{_dotted(key, name)} is {_shown(value)}, expected {_described(hint)}; "
                    f"correct {_dotted(key, name)}=..."
                )
        elif not takes_any:
            raise ConfigError(
                f"there is no key '{_dotted(key, name)}': {node['_target_']} takes no '{name}'"
                f"{_meant(name, takes)} (it takes: {', '.join(takes) or 'nothing'}); remove it"
            )
    if node.get("_partial_") or node.get("_args_"):
        return
    missing = [n for n, one in takes.items() if one.default is one.empty and n not in given]
    if missing:
        raise ConfigError(
            f"{_dotted(key, missing[0])} has no value, and {node['_target_']} needs one; "
            f"add +{_dotted(key, missing[0])}=..."
        )


def _hint(target: Any, name: str, annotation: Any) -> Any:
    function = getattr(target, "__init__", None) if isinstance(target, type) else target
    bare = types.SimpleNamespace(__annotations__={name: annotation})
    try:
        return typing.get_type_hints(bare, getattr(function, "__globals__", {}))[name]
    except Exception:  # a name that only a type checker imports: nothing can be said
        return Any


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if hint is None or hint is type(None):
        return value is None
    if hint in _NAMES:
        if hint is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        return type(value) is hint
    if _is_list(hint):
        inner = arguments[0] if arguments else Any
        return isinstance(value, list) and all(_fits(one, inner) for one in value)
    if _is_part(hint):  # built from a node of its own, which is checked by itself
        return isinstance(value, Mapping) and "_target_" in value
    return True


def _is_list(hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    return isinstance(origin, type) and origin in (list, tuple, Sequence)


def _is_part(hint: Any) -> bool:
    if typing.get_origin(hint) is Callable or hint is Callable:
        return True
    return isinstance(hint, type) and hint.__module__.split(".")[0] == "rayal"


def _described(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_described(one) for one in arguments))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(one) for one in arguments)
    if hint is type(None):
        return "null"
    if _is_list(hint):
        return "a list" + (f" of {_described(arguments[0])}" if arguments else "")
    if _is_part(hint):
        return "a node with a _target_"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str).replace('"', "'")
    return text if len(text) <= 60 else text[:57] + "..."


def _meant(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, [one for one in known if one[:1] != "_"], n=2)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _dotted(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)
