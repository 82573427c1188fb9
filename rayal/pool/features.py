"""A set of features: what a frozen model says of every row of a pool, in files beside the pool, on
a disk or in a store.

    FEATURES/<key>/features.json            what the set is, written before any shard
                   pool-00007-<hash>.arrow  one file a shard of pool or test split
                   .used, .lock             who uses and who writes it, see `feature_users`
A file is named by the content of its shard, so one that was compacted has another, and what a set
holds of shards that are no more is never read.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayal.columns import vector_field
from rayal.errors import PoolError
from rayal.places import Place
from rayal.pool.feature_file import FeatureFile, FeatureForm
from rayal.pool.feature_users import keep_open
from rayal.pool.manifest import Manifest, Shard
from rayal.storage import atomic_path, path_of, write_text

NAME = "features.json"
FORMAT = 1
_AGAIN = "run rayal embed for this pool"


@dataclass(frozen=True)
class FeatureSet:
    """Features of a pool's shards, as `features.json` says. Small, so that it can be sent to every
    worker."""

    path: str  # the set's own folder, or its URL
    key: str
    pool: str  # content hash of the pool's first version
    model_id: str
    dtype: str  # of what is stored: float16 or int8
    width: int
    scale: str = ""  # of int8 codes: (width,) float32, base64
    column: str = "embedding"  # what the pool calls it

    @property
    def form(self) -> FeatureForm:
        """What its files have in common."""
        return FeatureForm(self.key, np.dtype(self.dtype), self.width)

    def with_scales(self, scales_D: npt.NDArray[np.float32]) -> FeatureSet:
        """Gives the set with what a step of its int8 codes is worth in each place."""
        return replace(self, scale=base64.b64encode(scales_D.astype("<f4").tobytes()).decode())

    @cached_property
    def scales(self) -> npt.NDArray[np.float32] | None:
        """The value of one step of each place's int8 code; None: numbers are stored as they are."""
        return np.frombuffer(base64.b64decode(self.scale), "<f4") if self.scale else None

    @cached_property
    def field(self) -> pa.Field:
        """The column as a field of the pool's schema."""
        dtype = np.dtype(self.dtype)
        return vector_field(
            self.column, dtype, self.width, known_finite=True, scale=self.scales, nullable=True
        )

    @property
    def place(self) -> Place:
        """The set's own folder."""
        return Place(self.path)

    @property
    def folder(self) -> Path:
        """The same on this machine: of a set in a store, that of a copy, with nothing in it yet."""
        return path_of(self.path)

    def place_of(self, shard: Shard) -> Place:
        """Gives where the features of a shard lie."""
        return self.place / self._name(shard)

    def sizes(self) -> dict[str, int]:
        """Gives the names of the files that are there, and their bytes. One listing."""
        return {entry.name: entry.size_bytes for entry in self.place.list()}

    def without_file(self, shards: Sequence[Shard]) -> list[Shard]:
        """Gives those of the shards that have no features here."""
        there = self.sizes()
        return [shard for shard in shards if self._name(shard) not in there]

    def size_of(self, shards: Sequence[Shard]) -> int:
        """Gives the bytes of the files of some shards."""
        there = self.sizes()
        return sum(there[self._name(shard)] for shard in shards)

    @contextlib.contextmanager
    def making(self, shard: Shard) -> Iterator[Path]:
        """Gives a path for the file of a shard, which has its name, here or in the store, once the
        block ends without an error."""
        final = self.folder / self._name(shard)
        with atomic_path(final) as temporary:
            yield temporary
        if not self.place.is_local:
            final.unlink()  # it is read from the store

    def _name(self, shard: Shard) -> str:
        return f"{shard.split}-{shard.index:05d}-{shard.content_hash[:16]}.arrow"

    def file(self, shard: Shard) -> FeatureFile:
        """Gives the open file of a shard.

        Raises:
            PoolError: it is missing or damaged.
        """
        return FeatureFile(self.place_of(shard), self.form, shard.content_hash, shard.num_rows)

    def cut(self, shard: Shard, batch_rows: int) -> Iterator[pa.Array]:
        """Gives the column for all rows of a shard, removed ones among them, cut at multiples of
        `batch_rows`.

        Raises:
            PoolError: the file is missing or damaged.
        """
        return self.file(shard).cut(batch_rows)

    def take(self, shard: Shard, places: npt.NDArray[np.intp]) -> pa.Array:
        """Gives the column for the rows at these ascending places of a shard.

        Raises:
            PoolError: the file is missing or damaged.
        """
        return self.file(shard).take(places)

    def check(self, manifest: Manifest, where: str) -> None:
        """Refuses features that are not those of this pool, `where` it lies. O(shards).

        Raises:
            PoolError: they are another pool's, the pool has a column of this name, or it has shards
                that have no features yet.
        """
        if first_version(manifest) != self.pool:
            raise PoolError(
                f"the features {self.path} are of another pool (its content began as "
                f"{self.pool[:12]}, that of {where} as {first_version(manifest)[:12]}); {_AGAIN}, "
                "or leave pool.features out"
            )
        if self.column in manifest.schema.names:
            raise PoolError(
                f"the pool {where} has a column '{self.column}' of its own; give its features "
                "another name: pool.features_column=NAME"
            )
        shards = with_features(manifest)
        without = self.without_file(shards)
        if without:
            rows = sum(shard.num_rows for shard in without)
            raise PoolError(
                f"{len(without)} of {len(shards)} shards of the pool {where} have no features in "
                f"{self.path} ({rows:,} rows; first: {without[0].split} shard {without[0].index}): "
                "the pool has grown or changed since, or the embedding did not come to its end; "
                "run the same rayal embed again, which does what is missing"
            )

    def to_json(self) -> str:
        """Gives the text of `features.json`; the folder and the column's name are not in it."""
        fields = {**asdict(self), "format": FORMAT}
        del fields["path"], fields["column"]
        return json.dumps(fields, indent=1) + "\n"


def with_features(manifest: Manifest) -> tuple[Shard, ...]:
    """Gives the shards that have features: of pool and test split."""
    return (*manifest.of("pool"), *manifest.of("test"))


def first_version(manifest: Manifest) -> str:
    """Gives what a pool is known by, however it grows: the content hash of its first version."""
    return manifest.versions[0].content_hash


def write_set(features: FeatureSet) -> None:
    """Writes what a set is, before its files."""
    write_text(features.folder / NAME, features.to_json())


def read_set(folder: Place, column: str = "embedding") -> FeatureSet | None:
    """Gives the set in a folder, or None where there is none.

    Raises:
        PoolError: what lies there does not describe a set.
        PlaceError: the store does not answer.
    """
    place = folder / NAME
    try:
        fields = json.loads(place.read_bytes().decode())
        found = fields.pop("format")
        if found != FORMAT:
            raise PoolError(f"{place} has format {found!r}, this rayal reads {FORMAT}; {_AGAIN}")
        return FeatureSet(path=folder.url, column=column, **fields)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PoolError(
            f"{place} does not describe a set of features ({type(error).__name__}: {error}); "
            f"remove that folder, and {_AGAIN} again"
        ) from error


def open_set(path: str, column: str, manifest: Manifest, where: str) -> FeatureSet:
    """Gives the set in a folder, or the only one of this pool in a folder of sets, and keeps it
    from being removed while this process lives.

    Raises:
        PoolError: there is none, or more than one; or it does not fit the pool, see `check`.
    """
    folder = Place.of(path).absolute
    found = read_set(folder, column) or _only(folder, column, manifest)
    keep_open(found.place)
    if not (found.place / NAME).exists():
        raise PoolError(f"the features {found.path} were removed just now; {_AGAIN} again")
    found.check(manifest, where)
    return found


def _only(folder: Place, column: str, manifest: Manifest) -> FeatureSet:
    sets = sets_in(folder, column)
    fitting = [one for one in sets if one.pool == first_version(manifest)]
    if len(fitting) == 1:
        return fitting[0]
    if not sets:
        raise PoolError(
            f"there are no features in {folder}, expected a folder that rayal embed made; {_AGAIN}"
        )
    if not fitting:
        raise PoolError(
            f"{folder} has {len(sets)} sets of features, all of other pools; {_AGAIN}, or name "
            "another folder in pool.features"
        )
    names = ", ".join(one.place.name for one in fitting)
    raise PoolError(
        f"{folder} has {len(fitting)} sets of features of this pool ({names}); name one of these "
        "folders in pool.features"
    )


def sets_in(folder: Place, column: str = "embedding") -> Sequence[FeatureSet]:
    """Gives the sets in a folder, in the order of their names."""
    found = (read_set(folder / name, column) for name in folder.children())
    return [one for one in found if one is not None]
