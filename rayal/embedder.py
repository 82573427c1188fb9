"""What a frozen model says of every row of a pool, computed once: the features of later rounds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from rayal import preflight
from rayal.engine.embedding import Embedded, Embedding, sampled, scales_of
from rayal.engine.scoring import Engine
from rayal.errors import ConfigError, PoolError
from rayal.keys import Keys
from rayal.models import Model
from rayal.models.checkpoint import Description, describe, load, model_id, save
from rayal.models.model import split_outputs
from rayal.models.transform import as_arguments, num_inputs
from rayal.places import Place
from rayal.pool import Pool, Shard
from rayal.pool.feature_room import (
    clear_leftovers,
    make_room,
    remove_superseded,
    remove_unfinished,
)
from rayal.pool.feature_users import alone_in_set, keep_open, let_go
from rayal.pool.features import (
    NAME,
    FeatureSet,
    first_version,
    read_set,
    with_features,
    write_set,
)
from rayal.progress import Reporter, format_count
from rayal.storage import atomic_path, path_of
from rayal.types import Checkpoint, Predictor, Vocabulary

_FORMAT = 1  # of what a key says
_LOOKED_AT = 64  # rows, to see whether embeds are drawn


@dataclass(frozen=True)
class Frozen:
    """A model that does not learn any more."""

    description: Description
    members: Sequence[torch.nn.Module]
    model_id: str
    path: str | None  # of its checkpoint; None: it has none yet


class Embedder:
    """Writes the features of a pool's shards, those that are not there. Parts come built."""

    def __init__(
        self,
        pool: Pool,
        engine: Engine,
        predictor: Predictor,
        features: str,
        checkpoint: str | None = None,
        dtype: Literal["float16", "int8", "float32"] = "float16",
        features_gib: float | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        if dtype not in ("float16", "int8", "float32"):
            raise ConfigError(f"dtype is '{dtype}', expected one of float16, int8, float32")
        if features_gib is not None and not features_gib > 0:
            raise ConfigError(f"features_gib is {features_gib:g}, expected more than 0, or null")
        if not features.strip():
            raise ConfigError(
                f"features is '{features}', expected a folder that the driver and every worker "
                "see, or the URL of one in a store"
            )
        if pool.features is not None:
            raise ConfigError(
                f"pool.features is {pool.features.path}, expected none: features are computed of "
                "the pool's own columns; leave pool.features out"
            )
        self.pool, self.engine, self.predictor, self.dtype = pool, engine, predictor, dtype
        self.folder = Place.of(features).absolute
        self.checkpoint, self.limit_gib, self.vocabulary = checkpoint, features_gib, vocabulary
        self.progress = Reporter()
        preflight.check_columns(pool, predictor)

    def run(self, config: Mapping[str, Any]) -> str:
        """Gives a line about what is there in the end. Killed at any moment, the same call goes on;
        shards that are done are checked and not done again. `config` is resolved: what it says of
        the predictor is part of the set's key.

        Raises:
            ConfigError: the model gives no embeds or does not fit its checkpoint, or there is no
                room.
            PoolError: another process writes this set.
            RayalError: the checkpoint cannot be read, or a shard cannot be embedded.
        """
        frozen = self._frozen()
        features = self._asked(frozen, config)
        shards = with_features(self.pool.manifest)
        clear_leftovers(self.folder)
        removed = make_room(self.folder, features, shards, self.limit_gib)
        for name in removed:
            self.progress.say(f"the set {name}, least recently used, was removed for room")
        with alone_in_set(features.place):
            keep_open(features.place)  # so that nobody removes it for room
            remove_unfinished(features)
            try:
                self.engine.open(self.pool, self.predictor, None)
                embedding = self._embedding(features, frozen)
                with self.progress.phase("embed", sum(s.num_live for s in shards)) as bar:
                    done = self.engine.map(shards, "embed", embedding, bar)
                remove_superseded(embedding.features, self.pool.manifest)
            finally:
                self.engine.close()
                let_go(features.place)
        return line_of(embedding.features, shards, done)

    # ------------------------------------------------------------------------------ the model

    def _frozen(self) -> Frozen:
        model = getattr(self.predictor, "model", None)
        if not isinstance(model, Model):
            raise ConfigError(
                f"{type(self.predictor).__name__} has no model, expected one such as "
                "rayal.predictors.TorchPredictor has; embed with that"
            )
        if self.checkpoint is None:
            return self._with_own_weights(model)
        folder = str(path_of(self.checkpoint))
        description, members = load(model, folder)
        _check_embeds(description, f"the model of checkpoint {self.checkpoint}")
        return Frozen(description, members, model_id(description, members), folder)

    def _with_own_weights(self, model: Model) -> Frozen:
        """Gives the model as its module brings it; weights that are drawn would be no features."""
        vocabulary = preflight.vocabulary_of(self.pool, self.vocabulary)
        model.check(vocabulary)
        columns = tuple(dict.fromkeys(("sample_id", *model.transform.columns)))
        shard = next(iter(self.pool.shards), None)
        rows = None if shard is None else next(self.pool.batches(shard, columns, _LOOKED_AT), None)
        encoded = None if rows is None else self.predictor.encode(rows).arguments
        if rows is None or encoded is None:
            raise PoolError(
                f"the pool {self.pool.path} has no row among its first {_LOOKED_AT} that the model "
                "can read, expected one to build it by; give checkpoint=DIR, or mend the pool"
            )
        arguments = as_arguments(encoded)
        first, second = (
            model.build(vocabulary.num_outputs, num_inputs(arguments), seed).eval()
            for seed in (0, 1)
        )
        description = describe([first], arguments, rows.num_rows, vocabulary)
        _check_embeds(description, "the model")
        shape = rows.num_rows, description.num_outputs, description.classes
        with torch.inference_mode():
            one, other = (
                split_outputs(module(*arguments), *shape)[1] for module in (first, second)
            )
        if one is None or other is None or not torch.equal(one, other):
            raise ConfigError(
                "checkpoint is null, and the module's embeds change with the seed that it is built "
                "with: it brings no weights of its own; give checkpoint=RUN_DIR/checkpoints/r0000"
            )
        return Frozen(description, [first], model_id(description, [first]), None)

    # -------------------------------------------------------------------------------- the set

    def _asked(self, frozen: Frozen, config: Mapping[str, Any]) -> FeatureSet:
        said = [_FORMAT, first_version(self.pool.manifest), frozen.model_id, self.dtype]
        text = json.dumps([*said, config.get("predictor")], sort_keys=True, default=repr)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return FeatureSet(
            (self.folder / key).url,
            key,
            first_version(self.pool.manifest),
            frozen.model_id,
            self.dtype,
            frozen.description.num_features,
        )

    def _embedding(self, features: FeatureSet, frozen: Frozen) -> Embedding:
        """Gives what workers are told; settles what int8 codes mean where nothing does yet."""
        path, place = frozen.path, features.place
        if path is None:
            path = str(features.folder / "model")
            if not (place / "model").is_folder():
                with atomic_path(features.folder / "model") as temporary:
                    save(temporary, frozen.description, frozen.members)
        checkpoint = Checkpoint(path, frozen.model_id, len(frozen.members))
        embedding = Embedding(features, checkpoint, path, Keys(0, 0))
        found = read_set(place)
        if found is None:
            if self.dtype == "int8":
                shards = sampled(self.pool.shards, features.pool)
                reaches = self.engine.map(shards, "measure", embedding)
                features = features.with_scales(scales_of(reaches))
            write_set(features)
            found = features
        elif replace(found, scale="") != features:
            raise PoolError(
                f"{place / NAME} does not describe the features that its folder is named for; "
                "remove that folder and run rayal embed again"
            )
        return replace(embedding, features=found)


def line_of(features: FeatureSet, shards: Sequence[Shard], done: Sequence[Embedded]) -> str:
    """Gives the line about a set that is whole."""
    rows, null, cut_off = (
        sum(column) for column in zip(*(one.counts for one in done), strict=True)
    )
    new = sum(one.is_new for one in done)
    removed = sum(shard.num_removed for shard in shards)
    size = features.size_of(shards)
    line = (
        f"{features.path}: {rows:,} rows x {features.width:,} {features.dtype}, "
        f"{size / 2**20:,.1f} MiB; {new} of {len(shards)} shards were embedded now"
    )
    if null > removed:
        line += f"; {null - removed:,} rows could not be decoded and have none"
    if cut_off:
        numbers = rows * features.width
        line += (
            f"; {format_count(cut_off)} of {format_count(numbers)} numbers "
            f"({cut_off / numbers:.2g}) were too large for {features.dtype} and are cut off"
        )
    return line


def _check_embeds(description: Description, what: str) -> None:
    if not description.num_features:
        raise ConfigError(
            f"{what} gives no embeds, expected a module whose forward gives (logits, embeds); "
            "configure one that does"
        )
