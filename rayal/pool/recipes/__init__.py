"""Sources that everybody can have: `recipe:NAME`, or `recipe:NAME:SOURCE` for one's own copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from rayal.errors import PoolError
from rayal.pool.formats import Reading
from rayal.pool.recipes import (
    digits,
    fashion_mnist,
    flights_regression,
    language_id,
    sum_regression,
)
from rayal.pool.sources import Piece
from rayal.types import Kind

PREFIX = "recipe:"


class Recipe(Protocol):
    """What a module of this package offers."""

    @property
    def LABEL_COLUMN(self) -> str: ...
    @property
    def KIND(self) -> Kind: ...
    @property
    def ROWS_PER_SHARD(self) -> int | None: ...
    @property
    def NUM_ROWS(self) -> int | None: ...

    def origin(self, source: str | None) -> str:
        """Gives words that change when the rows may."""
        ...

    def read(self, source: str | None) -> Iterator[pa.RecordBatch]:
        """Gives the rows, fetched into the cache or from a source of the user's own."""
        ...


RECIPES: Mapping[str, Recipe] = {
    "language_id": language_id,
    "fashion_mnist": fashion_mnist,
    "digits": digits,
    "flights_regression": flights_regression,
    "sum_regression": sum_regression,
}


@dataclass(frozen=True)
class RecipeDefaults:
    """What a recipe knows of its own rows."""

    label_column: str
    kind: Kind
    rows_per_shard: int | None


@dataclass(frozen=True)
class RecipeSource:
    """A recipe as a source of a pool."""

    name: str
    source: str | None
    reading: Reading = field(default_factory=Reading)

    @property
    def defaults(self) -> RecipeDefaults:
        """The label column, its kind, and the shard size that suits."""
        return recipe_defaults(self.name)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells this recipe's rows from others."""
        return {"source": PREFIX + self.name, "origin": RECIPES[self.name].origin(self.source)}

    @property
    def sample(self) -> str:
        """What tells contents apart wherever they lie."""
        return RECIPES[self.name].origin(self.source)

    @property
    def num_rows(self) -> int | None:
        """How many rows there are, where it is known before."""
        return RECIPES[self.name].NUM_ROWS

    def pieces(self) -> Iterator[Piece]:
        """Gives the rows in their order."""
        row = 0
        for batch in RECIPES[self.name].read(self.source):
            self.reading.check(batch.schema.names)
            rows = batch.select(self.reading.kept(batch.schema.names))
            yield Piece(PREFIX + self.name, row, rows)
            row += batch.num_rows


def find(source: str) -> RecipeSource:
    """Gives the recipe that `recipe:NAME` or `recipe:NAME:SOURCE` means.

    Raises:
        PoolError: there is no such recipe.
    """
    name, _, own = source.removeprefix(PREFIX).partition(":")
    recipe_defaults(name)
    return RecipeSource(name, own or None)


def recipe_defaults(name: str) -> RecipeDefaults:
    """Gives label column, kind and shard size of a recipe.

    Raises:
        PoolError: there is no such recipe.
    """
    if name not in RECIPES:
        raise PoolError(f"there is no recipe '{name}'; there are: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    return RecipeDefaults(recipe.LABEL_COLUMN, recipe.KIND, recipe.ROWS_PER_SHARD)
