"""A pass before the pass: which rows of the pool are scored at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rayal.engine.scoring import Engine, Scoring
from rayal.engine.survivors import write_allowed
from rayal.types import Restriction


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
    mark = hashlib.sha256(allowed.ids.tobytes()).hexdigest()[:16]
    write_allowed(folder / f"{mark}.arrow", allowed.ids)
    only = replace(
        scoring,
        allowed_path=str(folder / f"{mark}.arrow"),
        folder=f"{scoring.folder}-{mark}",
        pass_id=f"{scoring.pass_id}-{mark}",
    )
    Path(only.folder).mkdir(parents=True, exist_ok=True)
    return only, allowed.note
