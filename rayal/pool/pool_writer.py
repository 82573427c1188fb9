"""The rows of a source on their way into the files of a pool: ids, split, shards, labels apart."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayal.columns import plain_schema, why_list
from rayal.errors import PoolError
from rayal.keys import salt, uniform
from rayal.pool import reader
from rayal.pool.folder import Bench
from rayal.pool.ids import SeenIds, sample_ids, source_ids
from rayal.pool.manifest import (
    FOLDERS,
    Manifest,
    Shard,
    Split,
    schema_from_text,
    schema_to_text,
)
from rayal.pool.payload import Payload, refuse_reserved
from rayal.pool.secrets import Secrets, noted_of
from rayal.pool.sources import Piece
from rayal.pool.writer import ShardWriter, group_rows
from rayal.types import Ids, Kind

_MIN_SHARD_ROWS, _MAX_SHARD_ROWS = 1 << 16, 1 << 18
_MAX_NAMED = 3
_REMOVED = -(1 << 62)  # stands for the place of a row that is gone
SEEN = ".ids"  # what finds ids that come twice; gone when the ingest ends


@dataclass(frozen=True)
class Plan:
    """The arguments of an ingest that its answer depends on."""

    id_column: str | None
    label_column: str | None
    kind: Kind | None
    test_share: float
    rows_per_shard: int | None
    shard_size_bytes: int
    seed: int
    drop: tuple[str, ...] | None  # None, as pools have it that were made before there was this


class PoolWriter:
    """Takes a source piece by piece; a row group of each split is in memory.

    `base` is the pool that the rows are added to, if there is one. `closed` is told of each shard
    that is whole, with what `go_on` needs to continue after it.
    """

    def __init__(
        self,
        bench: Bench,
        plan: Plan,
        unsettled: Mapping[str, str],
        base: Manifest | None = None,
        closed: Callable[[dict[str, Any]], None] = lambda entry: None,
    ) -> None:
        self._bench, self._plan, self._unsettled = bench, plan, unsettled
        self._base, self._closed = base, closed
        self._test_key = f"{salt('rayal.test', plan.seed):016x}"
        self._seen = SeenIds(bench.folder / SEEN)
        self._secrets = Secrets(plan.label_column, plan.kind) if plan.label_column else None
        self._payload: Payload | None = None
        self._schema: pa.Schema | None = None
        self._starts: list[tuple[int, str]] = []  # source row at which a file starts
        self._num_told = 0  # of these
        self._shards: list[Shard] = []
        self._writers: dict[Split, ShardWriter] = {}
        self._rows_per_shard = self._group = self._index = self._rows_in_shard = 0
        self._first_id = 0
        self.num_rows = 0  # of all versions
        shutil.rmtree(bench.folder / SEEN, ignore_errors=True)
        if base is not None:
            self._schema, self._index, self.num_rows = base.schema, base.end_index, base.end_row
            self._remember(base.shards)
            self._remember_removed(base)
            if self._secrets is not None:
                self._secrets.go_on(noted_of(base))

    def go_on(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Takes over what an earlier attempt told of its closed shards."""
        if not entries:
            return
        shards = [Shard(**shard) for entry in entries for shard in entry["shards"]]
        self._schema = schema_from_text(entries[0]["schema"])
        for entry in entries:
            self._starts += [(row, file) for row, file in entry["starts"]]
            if self._secrets is not None:
                self._secrets.go_on(entry["labels"])
        last = entries[-1]
        self._rows_per_shard, self._group = last["rows_per_shard"], last["group"]
        self._index, self.num_rows = last["end_index"], last["end_row"]
        self._num_told = len(self._starts)
        self._shards = shards
        self._remember(shards)

    def add(self, piece: Piece) -> None:
        """Takes the next rows of the source."""
        if self._payload is None:
            self._payload = self._columns(piece.rows.schema.names)
        num_rows = piece.rows.num_rows
        if not num_rows:
            return
        if not self._rows_per_shard:
            self._settle(piece)
        start = 0
        while start < num_rows:  # cut first: what is noted of a shard is of its own rows
            stop = min(num_rows, start + self._rows_per_shard - self._rows_in_shard)
            rows = piece.rows.slice(start, stop - start)
            self._take(Piece(piece.file, piece.first_row + start, rows))
            start = stop

    def finish(self, source: str) -> Manifest:
        """Gives the manifest of all that was added, and of its base; every file is complete."""
        if self._schema is None:
            raise PoolError(f"{source} holds no rows; a pool needs at least one")
        if self._rows_in_shard:
            self._close_shard()
        self._refuse_duplicates()
        vocabulary = self._secrets.vocabulary() if self._secrets else None
        shutil.rmtree(self._bench.folder / SEEN, ignore_errors=True)
        order = list(FOLDERS)
        shards = [*(self._base.shards if self._base else ()), *self._shards]
        return Manifest(
            removed=self._base.removed if self._base else (),
            schema=self._schema,
            shards=tuple(sorted(shards, key=lambda s: (order.index(s.split), s.index))),
            test_key=self._test_key,
            test_share=self._plan.test_share,
            vocabulary=vocabulary,
            num_null_labels=self._secrets.num_null if self._secrets else 0,
            notes=tuple(dict.fromkeys(self._notes())),
        )

    @property
    def end_index(self) -> int:
        """The index of the shard after the last closed one."""
        return self._index

    def _settle(self, piece: Piece) -> None:
        """Settles, by the first rows, what a shard is; of a new pool, also its columns."""
        assert self._payload is not None
        columns = self._payload.convert(piece, self.num_rows)
        arrays = self._arrays(*self._ids(piece), columns)
        if self._schema is None:
            own = [
                pa.field(name, arrays[name].type, False) for name in arrays if name not in columns
            ]
            fields = [*own, *(self._payload.fields[name] for name in columns)]
            self._schema = plain_schema(pa.schema(fields))
        self._size_shards(sum(array.nbytes for array in arrays.values()) / piece.rows.num_rows)

    def _take(self, piece: Piece) -> None:
        assert self._payload is not None
        if not self._starts or self._starts[-1][1] != piece.file:
            self._starts.append((self.num_rows, piece.file))
        columns = self._payload.convert(piece, self.num_rows)
        labels = self._secrets.convert(piece) if self._secrets else None
        ids, names = self._ids(piece)
        if self._plan.id_column is not None:
            self._seen.add(self.num_rows, ids if names is None else names)
        arrays = self._arrays(ids, names, columns)
        rows = pa.RecordBatch.from_arrays(list(arrays.values()), schema=self._schema)
        self.num_rows += len(ids)
        self._write(ids, rows, labels)

    def _arrays(
        self, ids: Ids, names: pa.Array | None, columns: Mapping[str, pa.Array]
    ) -> dict[str, pa.Array]:
        own = {"sample_id": pa.array(ids)} | ({} if names is None else {"source_id": names})
        return {**own, **columns}

    def _remember(self, shards: Sequence[Shard]) -> None:
        """Takes the ids of shards that are there among those that may not come again."""
        if self._plan.id_column is None:
            return
        assert self._schema is not None
        name = "source_id" if "source_id" in self._schema.names else "sample_id"
        for shard in (shard for shard in shards if shard.split != "labels"):
            for ids in reader.ids_in(self._bench.place, shard, self._schema, name):
                known = ids if name == "source_id" else ids.to_numpy()
                self._seen.add(-1 - shard.index, known, step=0)

    def _remember_removed(self, base: Manifest) -> None:
        """Takes the ids of rows that `compact` took out among those that may not come again. Those
        that lie in a shard still were taken from there."""
        if self._plan.id_column is None:
            return
        column = "mark" if "source_id" in base.schema.names else "sample_id"
        there = reader.still_there(self._bench.place, base)
        for removed in base.removed:
            table = pq.read_table((self._bench.place / removed.path).open_input())
            gone = table.filter(pc.invert(pc.is_in(table.column("sample_id"), there)))
            self._seen.add_marked(_REMOVED, gone.column(column).combine_chunks())

    def _notes(self) -> list[str]:
        assert self._schema is not None
        lists = [(field.name, why_list(field)) for field in self._schema]
        apart = (self._plan.id_column, self._plan.label_column)
        text = [pair for pair in self._unsettled.items() if pair[0] in apart]
        before = self._base.notes if self._base else ()
        return [
            *(note for note in before if not note.startswith("label column")),
            *(
                f"column '{name}' is read as text, not as whole numbers: {why}"
                for name, why in text
            ),
            *(
                f"column '{name}' is stored as lists: {why}; a model that reads vectors leaves "
                "such rows out"
                for name, why in lists
                if why is not None
            ),
            *(self._secrets.notes if self._secrets else ()),
        ]

    def _columns(self, names: list[str]) -> Payload:
        apart = {"id column": self._plan.id_column, "label column": self._plan.label_column}
        for role, name in apart.items():
            if name is not None and name not in names:
                raise PoolError(
                    f"the source has no column '{name}' to be the {role} (it has: "
                    f"{', '.join(names)}); name the right one"
                )
        refuse_reserved(names, list(apart.values()))
        payload = [name for name in names if name not in apart.values()]
        if not payload:
            raise PoolError(
                f"the source has no column beside {', '.join(names) or 'none'}; "
                "a model needs one to read"
            )
        made = Payload(payload, self._unsettled)
        if self._schema is not None:
            if set(payload) != set(self._schema.names) - {"sample_id", "source_id"}:
                raise PoolError(
                    f"the source has the columns {', '.join(payload)}, the pool "
                    f"{', '.join(self._schema.names)}; rows are added with the same columns"
                )
            made.fields.update((name, self._schema.field(name)) for name in payload)
        return made

    def _ids(self, piece: Piece) -> tuple[Ids, pa.Array | None]:
        column = self._plan.id_column
        own = None if column is None else sample_ids(piece, column)
        if own is not None:
            return own, None
        places = np.arange(self.num_rows, self.num_rows + piece.rows.num_rows, dtype=np.int64)
        if column is None:
            return places, None
        return places, source_ids(piece, column)

    def _size_shards(self, row_bytes: float) -> None:
        fitting = int(self._plan.shard_size_bytes / row_bytes)
        self._rows_per_shard = self._plan.rows_per_shard or min(
            max(fitting, _MIN_SHARD_ROWS), _MAX_SHARD_ROWS
        )
        self._group = group_rows(row_bytes)

    def _write(self, ids: Ids, rows: pa.RecordBatch, labels: pa.Array | None) -> None:
        if not self._rows_in_shard:
            self._first_id = int(ids[0])
        is_test_N = uniform(salt("test", self._test_key), ids) < self._plan.test_share
        self._writer("pool", rows.schema).write(rows.filter(pa.array(~is_test_N)))
        self._writer("test", rows.schema).write(rows.filter(pa.array(is_test_N)))
        if labels is not None:
            known = pa.record_batch([pa.array(ids), labels], names=["sample_id", "label"])
            known = known.filter(labels.is_valid())
            self._writer("labels", known.schema).write(known)
        self._rows_in_shard += len(ids)
        if self._rows_in_shard == self._rows_per_shard:
            self._close_shard()

    def _writer(self, split: Split, schema: pa.Schema) -> ShardWriter:
        if split not in self._writers:
            group = group_rows(32.0) if split == "labels" else self._group
            self._writers[split] = ShardWriter(self._bench, split, self._index, schema, group)
        return self._writers[split]

    def _close_shard(self) -> None:
        closed = [writer.close(self._first_id) for writer in self._writers.values()]
        whole = [shard for shard in closed if shard is not None]
        self._shards += whole
        self._writers, self._rows_in_shard = {}, 0
        self._index += 1
        assert self._schema is not None
        self._closed(
            {
                "shards": [asdict(shard) for shard in whole],
                "schema": schema_to_text(self._schema),
                "rows_per_shard": self._rows_per_shard,
                "group": self._group,
                "end_index": self._index,
                "end_row": self.num_rows,
                "starts": self._starts[self._num_told :],
                "labels": self._secrets.noted() if self._secrets else None,
            }
        )
        self._num_told = len(self._starts)

    def _refuse_duplicates(self) -> None:
        count, firsts = self._seen.duplicates(_MAX_NAMED)
        if count:
            some = "; ".join(
                f"{self._name(pair.second_row, pair.bits)} at {self._at(pair.first_row)} and "
                f"{self._at(pair.second_row)}"
                for pair in firsts
            )
            raise PoolError(
                f"id column '{self._plan.id_column}' repeats an id in {count} of {self.num_rows} "
                f"rows (rows counted from 0): {some}; every row needs an id of its own"
            )

    def _at(self, row: int) -> str:
        if row == _REMOVED:
            return "a removed row of the pool"
        if row < 0:
            return f"shard {-1 - row} of the pool"
        start, file = next(pair for pair in reversed(self._starts) if pair[0] <= row)
        return f"{file} row {row - start}"

    def _name(self, row: int, bits: int) -> str:
        assert self._schema is not None
        if "source_id" not in self._schema.names:
            return str(bits)
        for shard in self._shards:
            if shard.split != "labels" and shard.min_id <= row <= shard.max_id:
                found = pq.read_table(
                    (self._bench.place / shard.path).open_input(),
                    columns=["source_id"],
                    filters=[("sample_id", "=", row)],
                )
                if len(found):
                    return repr(found.column(0)[0].as_py())
        raise AssertionError(f"row {row} was written to no shard")
