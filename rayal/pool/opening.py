"""The pool of a run: opened where it lies, or ingested there first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rayal.errors import ConfigError, PoolError
from rayal.places import Place
from rayal.pool import recipes
from rayal.pool.features import open_set
from rayal.pool.ingest import absolute, find, ingest, sample_of
from rayal.pool.manifest import NAME, Manifest
from rayal.pool.only import Only
from rayal.pool.pool import Pool


def open_pool(
    path: str,
    source: str | None = None,
    recipe: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    test_share: float | None = None,
    drop: Sequence[str] | None = None,
    features: str | None = None,
    features_column: str = "embedding",
    only: Mapping[str, Any] | None = None,
) -> Pool:
    """Gives the pool at `path`; where there is none, it is made of the source or the recipe.

    With a recipe, `source` is one's own copy of the recipe's data. What is None is not asked for:
    a pool that is there is taken as it was made, one that is made has a `test_share` of 0.1. Where
    the source holds something else since the pool was made of it, `Pool.changed` names it.
    `features` is the folder of a set that `rayal embed` made of this pool, or of sets of which one
    is of this pool: they are a column of it, called `features_column`. `only` gives, by column, the
    values that a row must have to be used at all.

    Raises:
        PoolError: nothing is there and nothing says what to make it of, or it cannot be read; or
            the features are not those of the pool.
        ConfigError: a pool is there and was not made as is asked.
    """
    pool = _open_pool(path, source, recipe, label_column, id_column, test_share, drop)
    if features is not None:
        found = open_set(features, features_column, pool.manifest, pool.path)
        pool = replace(pool, features=found)
    return pool if not only else pool.restricted(Only.of(only, pool.manifest.schema))


def _open_pool(
    path: str,
    source: str | None,
    recipe: str | None,
    label_column: str | None,
    id_column: str | None,
    test_share: float | None,
    drop: Sequence[str] | None,
) -> Pool:
    place = Place.of(path)
    origin = source
    if recipe is not None:
        recipes.recipe_defaults(recipe)
        origin = recipes.PREFIX + recipe + ("" if source is None else f":{source}")
    if origin is None or (place / NAME).exists():
        pool = Pool.open(path)
        made = pool.manifest.source
        asked = {
            "label_column": label_column,
            "id_column": id_column,
            "test_share": test_share,
            "drop": sorted(drop) if drop else None,
        }
        differ = [
            f"pool.{key}={_word(value)} is asked for, it has {_word(made[key])}"
            for key, value in asked.items()
            if value is not None and value != made.get(key, value)
        ]
        other, is_changed = _other_source(pool.manifest, source, recipe)
        differ += other
        if differ:
            raise ConfigError(
                f"the pool {pool.path} was made otherwise: {', '.join(differ)}; leave that out "
                "(null) to take the pool as it is, or choose another pool.path"
            )
        return replace(pool, changed=str(source)) if is_changed else pool
    return ingest(
        origin,
        path,
        id_column=id_column,
        label_column=label_column,
        test_share=0.1 if test_share is None else test_share,
        drop=drop or (),
    )


def _other_source(
    manifest: Manifest, source: str | None, recipe: str | None
) -> tuple[list[str], bool]:
    """Gives in which words a pool was made of something else than is asked for, if it was; and
    whether it was made of just this, which holds something else by now."""
    made, asked = manifest.source, manifest.asked
    name = str(made.get("source", "")).removeprefix(recipes.PREFIX) or None
    if recipe is not None and made and recipe != name:
        what = f"pool.recipe={recipe} is asked for, it is of {name or 'no recipe but files'}"
        return [what], False
    if source is None or not asked:  # a pool from before this was noted says too little
        return [], False
    wanted = source if recipe is None else f"{recipes.PREFIX}{recipe}:{source}"
    is_named = wanted == asked["source"] or absolute(wanted) == asked["place"]
    there, known = _sample(wanted), asked["sample"]
    # What lies elsewhere now may be the same; what is gone can only be known by its name.
    if is_named if None in (there, known) else there == known:
        return [], False
    if is_named:
        return [], True
    missing = " (which cannot be read)" if there is None else ""
    was = str(asked["source"]).removeprefix(f"{recipes.PREFIX}{recipe}:")
    return [f"source={source}{missing} is asked for, it is of {was}"], False


def _word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "none" if value is None else str(value)


def _sample(source: str) -> str | None:
    try:
        return sample_of(find(source))
    except PoolError:  # there is no such thing
        return None
