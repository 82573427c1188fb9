"""Ground-Truth manifests: JSON lines that labelling jobs of SageMaker, and of many who followed it,
read and give back with answers added.

In: `source-ref` (a URI) or `source` (text), and keys that are kept as they are. Out: the same line
with `ATTRIBUTE` and `ATTRIBUTE-metadata`; what a label is called stands in the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayal.errors import LabelError

_METADATA = "-metadata"
_FAILED = -1  # what stands for an object that could not be labelled


def is_augmented(fields: Mapping[str, Any]) -> bool:
    """Whether a line is of an output manifest."""
    return "label" not in fields and any(str(name).endswith(_METADATA) for name in fields)


def plain(fields: Mapping[str, Any], attribute: str | None) -> dict[str, Any]:
    """Gives the fields of an answer, as other files have them, of a line of an output manifest.

    Raises:
        LabelError: the line has several attributes, or not the one that is asked for.
    """
    there = [
        name[: -len(_METADATA)]
        for name in map(str, fields)
        if name.endswith(_METADATA) and name[: -len(_METADATA)] in fields
    ]
    if attribute is not None and attribute not in there:
        raise LabelError(f"no attribute '{attribute}' (there are: {', '.join(there) or 'none'})")
    if attribute is None and len(there) != 1:
        raise LabelError(
            f"{len(there)} attributes with metadata ({', '.join(there) or 'none'}), expected one; "
            "name it in labeler.attribute"
        )
    name = attribute or there[0]
    said = fields[f"{name}{_METADATA}"]
    about = said if isinstance(said, Mapping) else {}
    answer = {key: fields[key] for key in ("sample_id", "source_id") if key in fields}
    answer["label"] = _label(fields[name], about)
    answer["at"] = about.get("creation-date", "")
    if str(about.get("human-annotated", "yes")).lower() == "no":
        answer["annotator"] = "machine"  # labelled by the job's own model
    return answer


def _label(value: Any, about: Mapping[str, Any]) -> Any:
    if about.get("failure-reason") or (value == _FAILED and "class-name" not in about):
        return None
    if "class-name" in about:
        return about["class-name"]
    names = about.get("class-map")
    if isinstance(names, Mapping):
        places = value if isinstance(value, list) else [value]
        return [names.get(str(place), place) for place in places]
    return value


def line_of(row: Mapping[str, Any], source_ref: str | None, source: str | None) -> dict[str, Any]:
    """Gives the line of an input manifest."""
    named = {source_ref: "source-ref", source: "source"}
    return {named.get(name, name): value for name, value in row.items()}
