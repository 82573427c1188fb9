"""A pass before the pass: which rows of the pool are scored at all, by columns or by a proxy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rayal.engine.scoring import Engine, Pass, Scoring
from rayal.engine.survivors import write_allowed
from rayal.strategy import Proxy
from rayal.types import Checkpoint, Ids, Restriction, Slice


def restricted(
    engine: Engine,
    scoring: Scoring,
    restriction: Restriction | None,
    budget: int,
    prepare: Callable[[Scoring], None] = lambda _: None,
) -> tuple[Scoring, str]:
    """Gives the pass over the rows that a restriction allows, and a note that says which; without
    one the pass as it is.

    The pass before it reads the columns that the restriction needs and keeps all rows, as one of a
    pure diversity method does: no model runs. Its files lie beside those of `scoring`, and so does
    what is allowed. `prepare` is told of that pass before it begins.
    """
    if restriction is None:
        return scoring, ""
    before = replace(
        scoring,
        scorer=None,
        features=tuple(restriction.needs),
        keep=None,
        checkpoint=None,
        checkpoint_path="",
        folder=f"{scoring.folder}-before",
        pass_id=f"{scoring.pass_id}-before",
        decode=False,
    )
    folder = Path(before.folder)
    folder.mkdir(parents=True, exist_ok=True)
    prepare(before)
    done = engine.score(before)
    allowed = restriction.restrict(done.candidates, done.labelled, budget, scoring.keys)
    if allowed.ids is None:
        return scoring, allowed.note
    return _only(scoring, folder, allowed.ids), allowed.note


def proxied(
    engine: Engine,
    scoring: Scoring,
    proxy: Proxy,
    checkpoint: Checkpoint,
    path: str,
    progress: Any = None,
) -> tuple[Scoring, Pass, str]:
    """Gives the pass over the rows that a proxy lets through, the proxy's own pass, which goes over
    all rows, and a note. `path` is the folder of the proxy's checkpoint.

    Raises:
        ConfigError: neither strategy nor proxy has a scorer.
    """
    before = replace(
        scoring,
        scorer=proxy.scorer_for(scoring.scorer),
        features=(),
        keep=max(proxy.num_rows, scoring.keep or 0),  # or a strategy that asks for M gets less
        checkpoint=checkpoint,
        checkpoint_path=path,
        folder=f"{scoring.folder}-proxy",
        pass_id=f"{scoring.pass_id}-proxy",
        by_proxy=True,
    )
    folder = Path(before.folder)
    folder.mkdir(parents=True, exist_ok=True)
    done = engine.score(before, progress)
    ids = np.sort(np.concatenate([np.empty(0, np.int64), *done.candidates.each(ids_of, 0)]))
    note = f"{len(ids)} of {done.tallies.num_rows} rows are scored, the proxy's best"
    return _only(scoring, folder, ids), done, note


def ids_of(part: Slice, step: int) -> Ids:
    """Ask: gives the ids of a slice."""
    return part.ids


def _only(scoring: Scoring, folder: Path, ids: Ids) -> Scoring:
    mark = hashlib.sha256(ids.tobytes()).hexdigest()[:16]
    write_allowed(folder / f"{mark}.arrow", ids)
    only = replace(
        scoring,
        allowed_path=str(folder / f"{mark}.arrow"),
        folder=f"{scoring.folder}-{mark}",
        pass_id=f"{scoring.pass_id}-{mark}",
    )
    Path(only.folder).mkdir(parents=True, exist_ok=True)
    return only
