"""The pool: a source becomes shards of rows with an id for life, and shards become batches."""

from rayal.pool.ingest import ingest
from rayal.pool.manifest import Manifest, Shard
from rayal.pool.opening import open_pool
from rayal.pool.pool import Pool
from rayal.pool.recipes import RecipeDefaults, recipe_defaults
from rayal.pool.removed import compact, delete

__all__ = [
    "Manifest",
    "Pool",
    "RecipeDefaults",
    "Shard",
    "compact",
    "delete",
    "ingest",
    "open_pool",
    "recipe_defaults",
]
