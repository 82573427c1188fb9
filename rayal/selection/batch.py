"""Picks as a table, and what they depend on as text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pyarrow as pa

import rayal
from rayal.rundir import pick_arrays
from rayal.strategy import Strategy
from rayal.types import Picks

_PLAIN = (bool, int, float, str, type(None))


def batch_of(
    picks: Picks, strategy: Strategy, name: str | None, seed: int, round: int, note: str
) -> pa.Table:
    """Gives one row a pick in the order picked: sample_id, the columns of a batch, strategy, seed
    and round; the metadata says version, strategy, seed and note."""
    num_picks = len(picks.ids)
    columns = {
        "sample_id": pa.array(picks.ids),
        **pick_arrays(picks),
        "strategy": pa.array([name or _named(strategy)] * num_picks, pa.string()),
        "seed": pa.array(np.full(num_picks, seed)),
        "round": pa.array(np.full(num_picks, round)),
    }
    said = {
        "rayal.version": rayal.__version__,
        "rayal.strategy": json.dumps(described(strategy)),
        "rayal.seed": str(seed),
        "rayal.note": note,
    }
    return pa.table(columns).replace_schema_metadata(said)


def described(part: Any) -> Any:
    """Gives a part and all parts in it as the configuration's tree that makes them."""
    if isinstance(part, _PLAIN):
        return part
    if isinstance(part, Mapping):
        return {str(name): described(one) for name, one in part.items()}
    if isinstance(part, list | tuple):
        return [described(one) for one in part]
    if isinstance(part, np.ndarray):
        return f"{part.dtype}{part.shape} {hashlib.sha256(part.tobytes()).hexdigest()}"
    path = f"{type(part).__module__}.{type(part).__qualname__}"
    if is_dataclass(part) and not isinstance(part, type):
        arguments = {one.name: described(getattr(part, one.name)) for one in fields(part)}
        return {"_target_": path, **arguments}
    if hasattr(part, "__dict__") and not isinstance(part, type):  # may hold anything, itself too
        kept = {
            name: one if isinstance(one, _PLAIN) else repr(one) for name, one in vars(part).items()
        }
        return {"_target_": path, **kept}
    return repr(part)


def _named(strategy: Strategy) -> str:
    parts = [part for part in (strategy.scorer, strategy.selector) if part is not None]
    return " + ".join(type(part).__name__ for part in parts)
