"""The files of a run: where they lie, and what a batch and a snapshot look like.

    RUN_DIR/run.json                the run's own id in its ledger, and where that is if not here
            ledger.db               every step, in order
            rounds/r0000/batch.parquet, gold.parquet, snapshot.parquet, taken.arrow
            checkpoints/r0000/      what the trainer left; r0000-proxy/: that of a proxy
            passes/r0000-.../       survivors of a scoring pass, until its batch is recorded
            report.html
Paths in the ledger are relative to the run's folder, so that a run can be moved as a whole. Of a
folder in a store (s3://...) a local copy is worked on, and the ledger lies in a database.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayal import copies, storage
from rayal.columns import content_hash
from rayal.errors import ConfigError, LedgerError
from rayal.storage import atomic_path, write_text
from rayal.types import (
    DETAILS,
    NO_ID,
    PICK_COLUMNS,
    Batch,
    Ids,
    Kind,
    Label,
    Picks,
    Snapshot,
    Vocabulary,
)

_RUN = "run.json"


class RunDir:
    """One run's folder, on a path that the driver and every worker see."""

    def __init__(self, path: str) -> None:
        self.path = storage.path_of(path)
        self._whole: set[Batch | Snapshot] = (
            set()
        )  # records whose files were hashed and found whole

    @property
    def ledger_url(self) -> str:
        """The ledger of this run: the one it was started with, else a file of its own."""
        found = self._read() if self.has_run else {}
        url = str(found.get("ledger_url") or self._own_ledger)
        if not url:
            raise ConfigError(
                f"run_dir is {self}, a store, where no SQLite file can be: set ledger_url to a "
                "PostgreSQL database (postgresql://user@host/database), or to sqlite:////a/path "
                "on a disk of the driver"
            )
        return url

    @property
    def has_run(self) -> bool:
        """Whether a run was started here."""
        return storage.here(self.path / _RUN, again=True).exists()

    def has_begun(self, ledger_url: str) -> bool:
        """Whether a ledger that is not a new one must know this run, seen from where `ledger_url`
        says that it is: one was noted elsewhere, or lies here while another is named."""
        noted = self.has_run and "ledger_url" in self._read()
        return noted or (ledger_url != self._own_ledger and (self.path / "ledger.db").exists())

    def read_id(self) -> str:
        """Gives the id under which the ledger knows this run.

        Raises:
            LedgerError: no run was started here.
        """
        return str(self._read()["run_id"])

    def claim(self) -> str:
        """Gives the id of this folder's run: the one it has, else a new one, of no other folder."""
        if not self.has_run:
            write_text(self.path / _RUN, json.dumps({"run_id": uuid.uuid4().hex}) + "\n")
        return self.read_id()

    def note_ledger(self, ledger_url: str) -> None:
        """Notes where the ledger is if not here; the URL is without a password."""
        run = self._read()
        noted = {"run_id": run["run_id"]}
        if ledger_url != self._own_ledger:
            noted["ledger_url"] = ledger_url
        if noted != run:
            write_text(self.path / _RUN, json.dumps(noted) + "\n")

    @property
    def _own_ledger(self) -> str:
        """The URL of a ledger in this folder; empty where none can be."""
        return "" if self.is_copy else f"sqlite:///{self.path / 'ledger.db'}"

    @property
    def is_copy(self) -> bool:
        """Whether the run lies in a store."""
        return copies.origin(self.path) is not None

    def __str__(self) -> str:
        return storage.named(self.path)

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(
                storage.here(self.path / _RUN, again=True).read_text()
            )
            found["run_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(
                f"{self}/{_RUN} does not name a run ({type(error).__name__}: {error}); "
                "restore it from a copy, or start a new run_dir"
            ) from error
        except (FileNotFoundError, NotADirectoryError):
            raise LedgerError(
                f"{self} is no run: there is no {_RUN} in it; check the path, or start the run "
                f"with rayal run run_dir={self}"
            ) from None
        return found

    def round(self, t: int) -> Path:
        """Gives the folder of a round; below 0 it is the order of the test labels."""
        return self.path / "rounds" / ("test" if t < 0 else f"r{t:04d}")

    def checkpoint(self, t: int, of: str = "") -> Path:
        """Gives the folder of a round's checkpoint, of the run's own model or of another."""
        return self.path / "checkpoints" / (f"r{t:04d}-{of}" if of else f"r{t:04d}")

    def pass_folder(self, t: int, name: str) -> Path:
        """Gives the folder of a scoring pass's survivors."""
        return self.path / "passes" / f"r{t:04d}-{name}"

    def clear_passes(self, t: int | None = None) -> None:
        """Removes the survivors of a round, or of all, and what a kill left unfinished."""
        passes = self.path / "passes"
        for name in storage.names_in(passes):
            if t is None or name.startswith(f"r{t:04d}-"):
                storage.remove_folder(passes / name)

    def inside(self, relative: str) -> Path:
        """Gives a file that the ledger names."""
        return self.path / relative

    def relative(self, path: Path) -> str:
        """Gives a path as the ledger holds it."""
        return str(path.relative_to(self.path))

    # --------------------------------------------------------------------------------- batches

    def write_batch(
        self, t: int, picks: Picks, rows: pa.Table, file: str = "batch.parquet"
    ) -> Batch:
        """Writes picks and their payload, in the order picked, and gives the record."""
        table = rows
        for name, column in pick_arrays(picks).items():
            if name in table.schema.names:
                raise ConfigError(
                    f"the pool has a column '{name}', a name that batches use; rename it at ingest"
                )
            table = table.append_column(name, column)
        path = self.round(t) / file
        return Batch(self.relative(path), _write(path, table), table.num_rows)

    def read(self, record: Batch | Snapshot, columns: Sequence[str] | None = None) -> pa.Table:
        """Gives the table of a batch or a snapshot; the first time it is read, its hash is checked.

        Raises:
            LedgerError: the file is gone or is not the one that the ledger committed.
        """
        path = storage.here(self.inside(record.path))
        is_whole = record in self._whole
        wanted = None if columns is None or not is_whole else list(columns)
        try:
            table = pq.read_table(path, columns=wanted)
        except (OSError, pa.ArrowInvalid) as error:
            raise LedgerError(
                f"{storage.named(path)} cannot be read ({error}), but the ledger has committed "
                "it; restore the run's folder from a copy, or start a new run"
            ) from error
        if not is_whole and content_hash(table) not in (record.content_hash, *_noted(path)):
            raise LedgerError(
                f"{storage.named(path)} ({table.num_rows} rows) is not the file of "
                f"{record.num_rows} rows that the ledger committed; restore the run's folder from "
                "a copy, or start a new run"
            )
        self._whole.add(record)
        return table if columns is None else table.select(list(columns))

    def without(self, record: Batch | Snapshot, ids: Ids) -> tuple[str, str] | None:
        """Takes samples out of a committed file, and notes its new hash beside it; gives both
        hashes, or None where none of them is in it. Of a batch their rows stay, empty."""
        table = self.read(record)
        is_gone = np.isin(sample_ids(table), ids)
        if not is_gone.any():
            return None
        if isinstance(record, Snapshot):
            table = table.filter(pa.array(~is_gone))
        else:
            places = np.where(is_gone, table.num_rows, np.arange(table.num_rows))
            for number, field in enumerate(table.schema):
                if field.name not in ("sample_id", *PICK_COLUMNS):
                    column = _emptied(table.column(number), field, places)
                    table = table.set_column(number, field, column)
        path = self.inside(record.path)
        before, temporary = content_hash(self.read(record)), path.with_suffix(".new")
        after = _write(temporary, table)
        if after == before:  # a command that died had come this far
            storage.remove_file(temporary)
            return None
        # Noted first: whoever dies in between finds the file that the note speaks of, or the old.
        write_text(_note(path), json.dumps({"content_hashes": [*_noted(path), after]}) + "\n")
        storage.commit_file(temporary, path)
        self._whole.discard(record)
        return before, after

    # ------------------------------------------------------------------------------- snapshots

    def write_labels(self, t: int, table: pa.Table) -> Snapshot:
        """Writes (sample_id, label) as they are and gives the record."""
        path = self.round(t) / "snapshot.parquet"
        return Snapshot(self.relative(path), _write(path, table), table.num_rows)

    def write_snapshot(
        self,
        t: int,
        labels: Mapping[int, Label],
        weights: Mapping[int, float],
        batches: Sequence[Batch],
        columns: Sequence[str],
        vocabulary: Vocabulary,
    ) -> Snapshot:
        """Writes every labelled row with its payload, in order of sample_id; gives the record."""
        parts = []
        for round_of, batch in enumerate(batches):
            rows = self.read(batch, list(dict.fromkeys(("sample_id", *columns))))
            ids = rows.column("sample_id").to_numpy()
            known = np.asarray([int(sample_id) in labels for sample_id in ids], bool)
            rows = rows.filter(pa.array(known))
            values = [labels[int(sample_id)] for sample_id in ids[known]]
            rows = rows.append_column("label", label_array(values, vocabulary))
            rows = rows.append_column("round", pa.array(np.full(len(values), round_of)))
            counts = [weights[int(sample_id)] for sample_id in ids[known]]
            parts.append(rows.append_column("weight", pa.array(counts, pa.float64())))
        table = pa.concat_tables(parts).sort_by("sample_id")
        path = self.round(t) / "snapshot.parquet"
        return Snapshot(self.relative(path), _write(path, table), table.num_rows)


def export_table(
    run_dir: RunDir, batches: Mapping[int, Batch], labels: Sequence[Any], kind: Kind
) -> pa.Table:
    """Gives one row an answer: sample_id, source_id, label, round, annotator, cost, score, reason.

    `labels` are the ledger's stored labels; cost is in minor units of the run's currency.
    """
    picked: dict[int, tuple[Any, ...]] = {}
    for batch in batches.values():
        rows = run_dir.read(batch)
        ids = rows.column("sample_id").to_pylist()
        source_ids = (
            rows.column("source_id").to_pylist() if "source_id" in rows.schema.names else ids
        )
        scores, reasons = (rows.column(name).to_pylist() for name in ("score", "reason"))
        picked |= {i: rest for i, *rest in zip(ids, source_ids, scores, reasons, strict=True)}
    events = [one.event for one in labels]
    values = [event.value for event in events]
    return pa.table(
        {
            "sample_id": pa.array([event.sample_id for event in events], pa.int64()),
            "source_id": pa.array([str(picked[e.sample_id][0]) for e in events], pa.string()),
            "label": pa.array([float(v) for v in values] if kind == "number" else values),
            "round": pa.array([one.round for one in labels], pa.int64()),
            "annotator": pa.array([event.annotator for event in events], pa.string()),
            "cost": pa.array([event.cost_minor for event in events], pa.int64()),
            "score": pa.array([picked[e.sample_id][1] for e in events], pa.float64()),
            "reason": pa.array([picked[e.sample_id][2] for e in events], pa.string()),
        }
    )


def pick_arrays(picks: Picks) -> dict[str, pa.Array]:
    """Gives `PICK_COLUMNS`, each (B,) in the order picked; null where a method says nothing."""
    num_picks = len(picks.ids)
    arrays = {
        "rank": pa.array(np.arange(num_picks)),
        "score": pa.array(picks.scores),
        "key": pa.array(picks.keys),
        "probability": pa.array(picks.probabilities, from_pandas=True),
        "reason": pa.array(picks.reasons, pa.string()),
    }
    for name in DETAILS:
        kind = pa.float64() if name.endswith("distance") else pa.int64()
        if name not in picks.details:
            arrays[name] = pa.nulls(num_picks, kind)
            continue
        values = picks.details[name]
        is_none = np.isnan(values) if pa.types.is_floating(kind) else values == NO_ID
        arrays[name] = pa.array(values, kind, mask=is_none)
    return arrays


def label_array(values: Sequence[Label], vocabulary: Vocabulary) -> pa.Array:
    """Gives labels as an Arrow array of the vocabulary's type."""
    if vocabulary.kind == "number":
        return pa.array([float(value) for value in values], pa.float64())  # type: ignore[arg-type]
    word = pa.int64() if all(isinstance(c, int) for c in vocabulary.classes) else pa.string()
    return pa.array(list(values), pa.list_(word) if vocabulary.kind == "multilabel" else word)


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file under its final name, whole."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _note(path: Path) -> Path:
    """Where the hash of a file is noted from which samples were erased."""
    return path.with_name(f"{path.name}.erased.json")


def _noted(path: Path) -> list[str]:
    note = storage.here(_note(path), again=True)
    return list(json.loads(note.read_text())["content_hashes"]) if note.exists() else []


def _emptied(column: pa.ChunkedArray, field: pa.Field, places: np.ndarray) -> pa.Array:
    """Gives the values at these places; the place behind the last is an empty value."""
    kind, nothing = field.type, None
    if not field.nullable:
        if pa.types.is_fixed_size_binary(kind):
            nothing = b"\0" * kind.byte_width
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            nothing = ""
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            nothing = b""
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            nothing = []
        else:
            nothing = pa.scalar(0).cast(kind).as_py()
    whole = pa.concat_arrays([*column.chunks, pa.array([nothing], kind)])
    return whole.take(pa.array(places))


def _write(path: Path, table: pa.Table) -> str:
    """Writes a table and gives the hash of what a reader finds: Parquet may change a type."""
    write_table(path, table)
    return content_hash(pq.read_table(path))


def sample_ids(table: pa.Table) -> Ids:
    """Gives the (n,) ids of a table."""
    return table.column("sample_id").to_numpy()
