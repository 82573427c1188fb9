"""rayal vendor: whether an adapter keeps the contract, tried against its vendor's sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rayal.cli.words import Parser
from rayal.errors import ConfigError, LabelError
from rayal.types import Vocabulary

_FORM = (
    "a YAML file with `labeler:` (as in conf/labeler) and `vocabulary:` (kind and classes), and "
    "`rows:`, a JSONL file to order, if made-up text will not do"
)


def main(arguments: Sequence[str]) -> int:
    """Places a small order while calls are cut off, and asks what is there; gives the exit code."""
    parser = Parser(prog="rayal vendor", description=__doc__)
    parser.add_argument("what", choices=("check",))
    parser.add_argument("config", help=_FORM)
    parser.add_argument("--seed", type=int, default=0, help="of the calls that are cut off")
    parser.add_argument(
        "--cut-share", type=float, default=0.3, help="of the calls that are cut off after the fact"
    )
    parser.add_argument(
        "--yes", action="store_true", help="places the order: it may cost money, if no sandbox"
    )
    words = parser.parse_args(arguments)
    labeler, vocabulary, rows = _read(words.config)
    if not words.yes:
        raise ConfigError(
            f"an order of {rows.num_rows} rows will be placed with {type(labeler).__name__} and "
            "cancelled; where this is no sandbox it may cost money. Say --yes to go on"
        )
    from rayal.vendorkit.check import check

    broken = 0
    for finding in check(labeler, vocabulary, rows, words.seed, words.cut_share):
        mark = {True: "kept", False: "BROKEN", None: "not tried"}[finding.is_kept]
        print(f"{mark:<9}  {finding.name}{f' ({finding.why})' if finding.why else ''}")
        broken += finding.is_kept is False
    if broken:
        raise LabelError(f"{broken} lines of the contract are broken; see above")
    return 0


def _read(path: str) -> tuple[Any, Vocabulary, Any]:
    from rayal.cli.config import build
    from rayal.vendorkit.check import rows_of

    place = Path(path).expanduser()
    try:
        told = yaml.safe_load(place.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); give {_FORM}") from error
    if not isinstance(told, dict) or "labeler" not in told or "vocabulary" not in told:
        raise ConfigError(f"{path} has no labeler or no vocabulary; give {_FORM}")
    rows_at = told.get("rows")
    columns = told["labeler"].get("columns") or []
    made = [name for name in columns if name != "source_id"] if isinstance(columns, list) else []
    rows = rows_of(None if rows_at is None else str(place.parent / rows_at), made)
    vocabulary = Vocabulary(
        told["vocabulary"].get("kind", "class"), tuple(told["vocabulary"].get("classes", ()))
    )
    return build(told["labeler"]), vocabulary, rows
