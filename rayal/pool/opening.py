"""The pool of a run: opened where it lies, or ingested there first."""

from __future__ import annotations

from pathlib import Path

from rayal.pool.ingest import ingest
from rayal.pool.manifest import NAME
from rayal.pool.pool import Pool


def open_pool(
    path: str,
    source: str | None = None,
    recipe: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    test_share: float = 0.1,
) -> Pool:
    """Gives the pool at `path`; where there is none, it is made of the source or the recipe.

    With a recipe, `source` is one's own copy of the recipe's data.

    Raises:
        PoolError: nothing is there and nothing says what to make it of, or it cannot be read.
    """
    place = Path(path.removeprefix("file://")).expanduser()
    origin = source
    if recipe is not None:
        origin = f"recipe:{recipe}" if source is None else f"recipe:{recipe}:{source}"
    if origin is None or (place / NAME).exists():
        return Pool.open(str(place))
    return ingest(
        origin,
        str(place),
        id_column=id_column,
        label_column=label_column,
        test_share=test_share,
    )
