"""Small templates for calls: `{name}` in a path, a parameter or a body, and dotted paths back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from rayal.errors import ConfigError, LabelError

_NAME = re.compile(r"\{([a-z_]+)\}")


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Gives the template with every `{name}` replaced: the value itself where there is nothing
    else in the text, its text elsewhere.

    Raises:
        ConfigError: a name is not among the values.
    """
    if isinstance(template, Mapping):
        return {key: fill(part, values) for key, part in template.items()}
    if isinstance(template, list | tuple):
        return [fill(part, values) for part in template]
    if not isinstance(template, str):
        return template
    whole = _NAME.fullmatch(template)
    if whole:
        return _value(whole[1], template, values)
    return _NAME.sub(lambda found: str(_value(found[1], template, values)), template)


def fill_path(template: str, values: Mapping[str, Any]) -> str:
    """Gives a path with every `{name}` replaced by the quoted text of its value.

    Raises:
        ConfigError: as `fill`.
    """
    return _NAME.sub(lambda one: quote(str(_value(one[1], template, values)), safe=""), template)


def at(body: Any, path: str, usual: Any = None) -> Any:
    """Gives what lies at a dotted path (`data.answers.0.label`), or `usual`; "." is the body."""
    for name in [] if path == "." else path.split("."):
        if isinstance(body, Mapping) and name in body:
            body = body[name]
        elif (
            isinstance(body, list)
            and name.lstrip("-").isdigit()
            and -len(body) <= int(name) < len(body)
        ):
            body = body[int(name)]
        else:
            return usual
    return body


def need(body: Any, path: str, what: str) -> Any:
    """Gives what lies at a dotted path.

    Raises:
        LabelError: nothing does.
    """
    found = at(body, path, _NOTHING)
    if found is _NOTHING:
        shown = str(body)[:200]
        raise LabelError(
            f"the vendor's reply has no '{path}', where {what} is expected; it says: {shown}"
        )
    return found


_NOTHING = object()


def _value(name: str, template: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise ConfigError(
            f"'{template}' in the labeler's calls names {{{name}}}, which is not known there "
            f"(there are: {', '.join(sorted(values))})"
        )
    return values[name]
