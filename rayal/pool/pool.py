"""A pool that is there: its shards, the rows of an id, and the labels kept for an oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayal.errors import PoolError
from rayal.places import Place
from rayal.pool import manifest as manifests
from rayal.pool import reader
from rayal.pool.features import FeatureSet
from rayal.pool.manifest import Manifest, Shard, Split
from rayal.pool.only import Only
from rayal.types import Ids, Label, Vocabulary

_ROWS_A_LOOK = 65_536  # where columns decide which rows may be used


@dataclass(frozen=True)
class Pool:
    """Shards of unlabeled rows. Small, so that it can be sent to every worker."""

    path: str
    manifest: Manifest
    changed: str = ""  # what was named as its source, where that holds something else by now
    tested: int | None = None  # the version whose test rows count; None: the newest
    features: FeatureSet | None = None  # a column that lies beside the shards
    only: Only | None = None  # the rows that may be used; the others are as if they were not there

    @staticmethod
    def open(path: str) -> Pool:
        """Gives the pool in a folder, or in one of a store. O(shards): names and sizes are listed,
        contents are looked at when they are read.

        Raises:
            PoolError: it is no folder, there is no manifest, or a shard is missing or of another
                size.
            PlaceError: the store cannot be reached, refuses, or has no such bucket.
        """
        place = Place.of(path).absolute
        pool = Pool(str(place), manifests.read(place))
        sizes = reader.sizes_of(place, pool.manifest.shards)
        for shard in pool.manifest.shards:
            reader.check_whole(place, shard, sizes)
        return pool

    @property
    def place(self) -> Place:
        """The folder that it lies in."""
        return Place(self.path)

    def newest(self) -> Pool:
        """Gives the pool as it lies there now, with the same test rows.

        Raises:
            PoolError: as `open`; or it has shards without features, where others have some.
        """
        manifest = Pool.open(self.path).manifest
        if self.features is not None and manifest != self.manifest:
            self.features.check(manifest, self.path)
        renewed = replace(self, manifest=manifest)
        if self.only is None or manifest == self.manifest:
            return renewed
        return renewed.restricted(self.only)

    def restricted(self, only: Only) -> Pool:
        """Gives the pool without the rows that are not let: nobody scores, orders, tests or trains
        on them. O(N): the columns that decide are read once."""
        whole = replace(self, only=None)
        withheld: dict[tuple[int, str], int] = {}
        for split in ("pool", "test"):
            for shard in self.manifest.of(split):
                batches = whole.batches(shard, only.columns, _ROWS_A_LOOK)
                num = sum(int((~only.lets(rows)).sum()) for rows in batches)
                withheld[shard.index, split] = num
        return replace(self, only=replace(only, num_withheld=withheld))

    def _of(self, split: Split) -> tuple[Shard, ...]:
        """Gives the shards of a split, which count rows that are not let as removed."""
        shards = self.manifest.of(split)
        if self.only is None:
            return shards
        withheld = self.only.num_withheld
        return tuple(
            replace(shard, num_removed=shard.num_removed + withheld[shard.index, split])
            for shard in shards
        )

    @property
    def schema(self) -> pa.Schema:
        """sample_id, source_id where the user's id is not int64, the payload columns, and the one
        of the features."""
        schema = self.manifest.schema
        return schema if self.features is None else schema.append(self.features.field)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards to score."""
        return self._of("pool")

    @property
    def test_shards(self) -> tuple[Shard, ...]:
        """The shards of the test split: those of the version `tested`, so that a curve compares
        like with like while the pool grows."""
        shards = self._of("test")
        if self.tested is None:
            return shards
        end_index = self.manifest.versions[self.tested - 1].end_index
        return tuple(shard for shard in shards if shard.index < end_index)

    @property
    def num_rows(self) -> int:
        """Rows to score, without the test rows and those that are removed."""
        return sum(shard.num_live for shard in self.shards)

    @property
    def num_test_rows(self) -> int:
        """Rows of the test split."""
        return sum(shard.num_live for shard in self.test_shards)

    @property
    def named(self) -> dict[str, Any]:
        """What a record says of which pool it is about."""
        return {**self.manifest.named, "num_rows": self.num_rows}

    @property
    def content_hash(self) -> str:
        """A hash of schema, split, labels and every row."""
        return self.manifest.content_hash

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What the kept-apart labels may be, or None where there is no label column."""
        return self.manifest.vocabulary

    def batches(
        self, shard: Shard, columns: Sequence[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Gives a shard's rows cut at multiples of `batch_rows`, columns in the order asked for.

        Raises:
            PoolError: the pool lacks a column, or the file is not what the manifest says.
        """
        names = self._known(columns)
        if shard.num_removed:
            return self._living_batches(shard, names, batch_rows)
        return self._all_batches(shard, names, batch_rows)

    def _living_batches(
        self, shard: Shard, names: list[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        removed = self.removed_in(shard)
        read = list(dict.fromkeys((*names, "sample_id")))
        for rows in self._all_batches(shard, read, batch_rows):
            is_gone = np.isin(rows.column("sample_id").to_numpy(), removed)
            kept = rows.filter(pa.array(~is_gone)) if is_gone.any() else rows
            if kept.num_rows:
                yield kept.select(names)

    def _all_batches(
        self, shard: Shard, names: list[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        if self.features is not None and self.features.column in names:
            return self._with_features(self.features, shard, names, batch_rows)
        verify = not reader.is_verified(self.place, shard, names)
        file = reader.open_shard(self.place, shard, self.manifest.schema, verify)
        return reader.cut_batches(self.place, shard, file, names, batch_rows)

    def _with_features(
        self, features: FeatureSet, shard: Shard, names: list[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        beside = [name for name in names if name != features.column] or ["sample_id"]
        own = self._all_batches(shard, beside, batch_rows)
        schema = pa.schema([self.schema.field(name) for name in names])
        for rows, column in zip(own, features.cut(shard, batch_rows), strict=True):
            columns = dict(zip(beside, rows.columns, strict=True)) | {features.column: column}
            yield pa.RecordBatch.from_arrays([columns[name] for name in names], schema=schema)

    def rows(self, ids: Ids, columns: Sequence[str]) -> pa.Table:
        """Gives the rows of these ids, of pool or test split, in the order of `ids`.

        O(rows of the row groups whose id range holds one of them): few where ids are places in the
        source, all where they are the user's own and in no order.

        Raises:
            PoolError: the pool lacks a column, or an id is not in it.
        """
        names = self._known(columns)
        wanted = np.unique(np.asarray(ids, np.int64))
        read = ["sample_id", *(name for name in names if name != "sample_id")]
        empty = pa.schema([self.schema.field(name) for name in read]).empty_table()
        shards = [*self.shards, *self._of("test")]
        table = pa.concat_tables([empty, *(self._read(shard, wanted, read) for shard in shards)])
        there = table.column("sample_id").to_numpy()
        missing = np.setdiff1d(wanted, there)
        if len(missing):
            raise PoolError(
                f"{len(missing)} of {len(wanted)} sample_ids are not in the pool {self.path} "
                f"(first: {missing[0]}); use ids of this pool"
            )
        order = np.argsort(there, kind="stable")
        places = order[np.searchsorted(there, np.asarray(ids, np.int64), sorter=order)]
        return table.take(pa.array(places)).select(names)

    def read_rows(self, shard: Shard, ids: Ids, columns: Sequence[str]) -> pa.Table:
        """Gives those rows of a shard whose id is among `ids`, in the order of the shard.

        Raises:
            PoolError: the pool lacks a column, or the file is not what the manifest says.
        """
        return self._read(shard, np.unique(np.asarray(ids, np.int64)), self._known(columns))

    def read_places(
        self, shard: Shard, places: npt.NDArray[np.intp], columns: Sequence[str]
    ) -> pa.Table:
        """Gives the rows at these ascending places of a shard's file, none of them removed.

        Raises:
            PoolError: the pool lacks a column, or the file is not what the manifest says.
        """
        names = self._known(columns)
        features = self.features
        own = [name for name in names if features is None or name != features.column]
        verify = not reader.is_verified(self.place, shard, own)
        file = reader.open_shard(self.place, shard, self.manifest.schema, verify)
        table = reader.read_places(self.place, shard, file, places, own or ["sample_id"])
        if features is None or features.column not in names:
            return table
        return table.append_column(features.field, features.take(shard, places)).select(names)

    def ids_at(self, shard: Shard, places: npt.NDArray[np.intp]) -> Ids:
        """Gives the ids of the rows at these ascending places of a shard's file."""
        return self.read_places(shard, places, ["sample_id"]).column(0).to_numpy()

    def places(self, shard: Shard, ids: Ids) -> npt.NDArray[np.intp]:
        """Gives the places in a shard's file of those of the ascending ids that lie in it."""
        within = reader.between(ids, shard.min_id, shard.max_id)
        if not len(within):
            return np.empty(0, np.intp)
        file = reader.open_shard(self.place, shard, self.manifest.schema)
        return reader.places_in(self.place, shard, file, within)

    def living_places(self, shard: Shard) -> npt.NDArray[np.intp]:
        """Gives the places in a shard's file of the rows that are not removed, ascending.

        Raises:
            PoolError: the file is not what the manifest says.
        """
        if not shard.num_removed:
            return np.arange(shard.num_rows)
        file = reader.open_shard(self.place, shard, self.manifest.schema)
        ids = reader.read_column(self.place, shard, file, "sample_id").to_numpy()
        return np.flatnonzero(~np.isin(ids, self.removed_in(shard)))

    def secret_labels(self, ids: Ids) -> list[Label | None]:
        """Gives the kept-apart labels in the order of `ids`, None where none is known.

        Raises:
            PoolError: the pool has no labels, or an id is not in it.
        """
        if self.vocabulary is None:
            raise PoolError(
                f"the pool {self.path} has no kept-apart labels; ingest with --label-column, or "
                "use another labeler than the oracle"
            )
        asked = np.asarray(ids, np.int64)
        wanted = np.unique(asked)
        known: dict[int, Label] = {}
        for shard in self.manifest.of("labels"):
            known.update(self._labels(shard, wanted))
        without = [sample_id for sample_id in wanted.tolist() if sample_id not in known]
        without = np.setdiff1d(without, self.removed_among(wanted)).tolist()
        if without:
            self.rows(np.asarray(without, np.int64), ["sample_id"])  # refuses ids of no row
        return [known.get(sample_id) for sample_id in asked.tolist()]

    def test_labels(self, shard: Shard) -> list[Label | None] | None:
        """Gives the labels of a test shard in row order, None for a row without one.

        Where the pool has no labels at all, gives None.
        """
        if self.vocabulary is None:
            return None
        file = reader.open_shard(self.place, shard, self.manifest.schema)
        ids = reader.read_column(self.place, shard, file, "sample_id").to_numpy()
        if shard.num_removed:
            ids = ids[~np.isin(ids, self.removed_in(shard))]
        known: dict[int, Label] = {}
        for labels in self.manifest.of("labels"):
            if labels.index == shard.index:  # the same range of source rows
                known = self._labels(labels, np.unique(ids))
        return [known.get(sample_id) for sample_id in ids.tolist()]

    def removed_in(self, shard: Shard) -> Ids:
        """Gives the removed ids within a shard's range, and those that are not let, ascending."""
        gone = reader.removed_between(self.place, self.manifest, shard.min_id, shard.max_id)
        if self.only is None or shard.split == "labels":
            return gone
        columns = list(dict.fromkeys(["sample_id", *self.only.columns]))
        parts = [gone]
        for rows in self._all_batches(shard, columns, _ROWS_A_LOOK):
            parts.append(rows.column("sample_id").to_numpy()[~self.only.lets(rows)])
        return np.unique(np.concatenate(parts))

    def removed_among(self, ids: Ids) -> Ids:
        """Gives those of some ids whose rows are removed, ascending."""
        if not self.manifest.removed or not len(ids):
            return np.empty(0, np.int64)
        span = int(ids.min()), int(ids.max())
        return np.intersect1d(ids, reader.removed_between(self.place, self.manifest, *span))

    def living(self, labels: Mapping[int, Label]) -> dict[int, Label]:
        """Gives the labels of those rows that are not removed."""
        gone = set(self.removed_among(np.asarray(list(labels), np.int64)).tolist())
        return {sample_id: label for sample_id, label in labels.items() if sample_id not in gone}

    def _known(self, columns: Sequence[str]) -> list[str]:
        for name in columns:
            if name not in self.schema.names:
                raise PoolError(
                    f"the pool {self.path} has no column '{name}' (it has: "
                    f"{', '.join(self.schema.names)}); name the right one"
                )
        return list(dict.fromkeys(columns))

    def _read(self, shard: Shard, wanted: Ids, names: list[str]) -> pa.Table:
        within = reader.between(wanted, shard.min_id, shard.max_id)
        if shard.num_removed:
            within = np.setdiff1d(within, self.removed_in(shard))
        if not len(within):
            return pa.schema([self.schema.field(name) for name in names]).empty_table()
        file = reader.open_shard(self.place, shard, self.manifest.schema)
        features = self.features
        if features is None or features.column not in names:
            return reader.read_ids(self.place, shard, file, within, names)
        own = [name for name in names if name != features.column]
        table = reader.read_ids(self.place, shard, file, within, own or ["sample_id"])
        places = reader.places_in(self.place, shard, file, within)
        return table.append_column(features.field, features.take(shard, places)).select(names)

    def _labels(self, shard: Shard, wanted: Ids) -> dict[int, Label]:
        within = reader.between(wanted, shard.min_id, shard.max_id)
        if shard.num_removed:
            within = np.setdiff1d(within, self.removed_in(shard))
        if not len(within):
            return {}
        schema = manifests.labels_schema(self.manifest)
        file = reader.open_shard(self.place, shard, schema)
        table = reader.read_ids(self.place, shard, file, within, schema.names)
        ids, labels = (column.to_pylist() for column in table.columns)
        return dict(zip(ids, labels, strict=True))
