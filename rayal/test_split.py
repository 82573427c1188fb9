"""Labels of the test split that the pool does not hold: from a file, or ordered before round 0.

The split itself is made at ingest, by a keyed hash of the id. Its labels come from the pool's label
column where there is one; this page is for pools without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayal.errors import ConfigError, LabelError
from rayal.keys import Keys
from rayal.labelers.answers import AnswerReader, lines_of, named
from rayal.pool import Pool
from rayal.rundir import label_array
from rayal.types import Label, Picks, Vocabulary

TEST = -1  # the round under which the ledger holds the order of the test labels

_SUFFIXES = (".parquet", ".csv", ".jsonl")
_NAMES = ("sample_id", "source_id", "label")
_SCANNED_ROWS = 1 << 18  # read at once: with source_ids of 50 bytes some 15 MB


def choose(pool: Pool, num_rows: int, keys: Keys) -> Picks:
    """Gives a keyed uniform sample of the test rows. O(test rows) time, O(num_rows) memory.

    Raises:
        ConfigError: the test split has fewer rows.
    """
    if num_rows > pool.num_test_rows:
        raise ConfigError(
            f"test_budget={num_rows} is more than the {pool.num_test_rows} rows of the test split; "
            "lower it, or ingest with a larger --test-share"
        )
    stream = keys.stream("test order")
    ids, keys_N = np.empty(0, np.int64), np.empty(0)
    for shard in pool.test_shards:
        for rows in pool.batches(shard, ("sample_id",), 1 << 20):
            more = rows.column("sample_id").to_numpy()
            ids = np.concatenate([ids, more])
            keys_N = np.concatenate([keys_N, stream.uniform(more)])
            best = np.lexsort((ids, -keys_N))[:num_rows]
            ids, keys_N = ids[best], keys_N[best]
    chance = np.full(num_rows, num_rows / max(pool.num_test_rows, 1))
    return Picks(ids, keys_N, keys_N, chance, ("drawn from the test split",) * num_rows)


@dataclass(frozen=True)
class _Line:
    where: str
    sample_id: int | None
    source_id: str | None
    label: Label | None


def read_file(path: str, pool: Pool, vocabulary: Vocabulary) -> pa.Table:
    """Gives (sample_id, label), in order of sample_id, of a Parquet, CSV or JSONL file.

    A row is named by `sample_id` or, in a pool that has it, by `source_id`. Labels are read as the
    answers of `file_drop` are; an empty one means that none is known. O(test rows) time, O(rows of
    the file) memory.

    Raises:
        LabelError: there is no such file, it cannot be read, a row is not in the test split or is
            given twice, a label is outside the vocabulary, or there is no label at all.
    """
    place = Path(path).expanduser()
    if place.suffix not in _SUFFIXES or not place.is_file():
        raise LabelError(
            f"test_labels={path} is not there, or is none of {', '.join(_SUFFIXES)}; give such a "
            "file with the columns sample_id and label"
        )
    lines = _lines(place, vocabulary)
    first: dict[int, _Line] = {}
    for sample_id, line in zip(_sample_ids(lines, pool), lines, strict=True):
        before = first.setdefault(sample_id, line)
        if before is not line:
            raise LabelError(
                f"{line.where} gives sample_id {sample_id} twice (before: {before.where}); keep "
                "one label of it"
            )
    labels = {i: line.label for i, line in sorted(first.items()) if line.label is not None}
    if not labels:
        raise LabelError(
            f"{place} has no label in any of its {len(lines)} rows; give the columns sample_id and "
            "label, a line a test row"
        )
    ids = pa.array(list(labels), pa.int64())
    return pa.table({"sample_id": ids, "label": label_array(list(labels.values()), vocabulary)})


def _lines(place: Path, vocabulary: Vocabulary) -> list[_Line]:
    reader = AnswerReader(vocabulary, price_minor=0, currency="")
    lines: list[_Line] = []
    problems: list[str] = []
    for where, fields in _read_parquet(place) if place.suffix == ".parquet" else _read_text(place):
        try:
            if isinstance(fields, str):
                raise LabelError(fields)
            label = reader.label_of(fields, from_text=place.suffix == ".csv")
            lines.append(_Line(where, *named(fields), label))
        except LabelError as error:
            problems.append(f"{where}: {error}")
    if problems:
        more = f", and {len(problems) - 1} more such rows" if len(problems) > 1 else ""
        raise LabelError(
            f"{problems[0]}{more}; correct the test labels and run the same command again"
        )
    return lines


def _read_text(place: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    try:
        numbered = lines_of(place.read_bytes(), place.name)
    except LabelError as error:
        raise LabelError(f"{place}: {error}; save it as UTF-8") from error
    names_known = place.suffix != ".csv"  # the lines of JSONL each have names of their own
    for number, fields in numbered:
        if not names_known and not isinstance(fields, str):
            _check_names(place, list(fields))
            names_known = True
        yield f"{place}:{number}", fields


def _read_parquet(place: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        file = pq.ParquetFile(place)
        _check_names(place, file.schema_arrow.names)
        names = [name for name in _NAMES if name in file.schema_arrow.names]
        for rows in file.iter_batches(columns=names, use_threads=False):
            for fields in rows.to_pylist():
                yield f"{place} row {number} (counted from 0)", fields
                number += 1
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())[:200]
        raise LabelError(
            f"{place} is not a Parquet file, or is damaged ({text}); write it again"
        ) from error


def _check_names(place: Path, names: Sequence[str]) -> None:
    wanted = "sample_id" if "source_id" not in names else "source_id"
    for name in (wanted, "label"):
        if name not in names:
            raise LabelError(
                f"{place} has no column '{name}' (it has: {', '.join(map(str, names))}); name its "
                "columns sample_id (or source_id) and label"
            )


def _sample_ids(lines: Sequence[_Line], pool: Pool) -> list[int]:
    """Gives the sample_id of each line, looked up among the test rows alone.

    Raises:
        LabelError: a line is of no test row, or names two of them.
    """
    has_sources = "source_id" in pool.schema.names
    nameless = next((line for line in lines if line.sample_id is None), None)
    if nameless is not None and not has_sources:
        raise LabelError(
            f"{nameless.where}: source_id '{nameless.source_id}', but the pool has no source_id; "
            "name its rows by sample_id"
        )
    source_of = _test_rows(lines, pool, has_sources)
    by_source = {name: i for i, name in source_of.items() if name is not None}
    found: list[int] = []
    strangers: list[_Line] = []
    for line in lines:
        sample_id = by_source.get(str(line.source_id)) if line.sample_id is None else line.sample_id
        if sample_id is None or sample_id not in source_of:
            strangers.append(line)
            continue
        if has_sources and line.source_id not in (None, source_of[sample_id]):
            raise LabelError(
                f"{line.where}: sample_id {sample_id} and source_id '{line.source_id}' are two "
                f"rows (its source_id is '{source_of[sample_id]}'); correct one, or leave one out"
            )
        found.append(sample_id)
    if strangers:
        one = strangers[0]
        by_id = one.sample_id is not None
        name = f"sample_id {one.sample_id}" if by_id else f"source_id '{one.source_id}'"
        raise LabelError(
            f"{one.where}: {name} is not in the test split ({len(strangers)} of {len(lines)} rows "
            f"are not); give labels of test rows only, those of {pool.path}/test"
        )
    return found


def _test_rows(lines: Sequence[_Line], pool: Pool, has_sources: bool) -> dict[int, str | None]:
    """Gives {sample_id: source_id} of the test rows that a line is of; source_id None where the
    pool has none. Holds no other row of the pool but those of one batch."""
    span = np.iinfo(np.int64)
    known = {line.sample_id for line in lines if line.sample_id is not None}
    ids = np.asarray([i for i in known if span.min <= i <= span.max], np.int64)
    names = sorted({line.source_id for line in lines if line.source_id is not None})
    columns = ("sample_id", "source_id") if has_sources else ("sample_id",)
    found: dict[int, str | None] = {}
    for shard in pool.test_shards:
        for rows in pool.batches(shard, columns, _SCANNED_ROWS):
            hits = np.isin(rows.column("sample_id").to_numpy(), ids)
            if has_sources:
                sources = rows.column("source_id")
                among = pc.is_in(sources, value_set=pa.array(names, sources.type))
                hits |= among.to_numpy(zero_copy_only=False)
            some = rows.filter(pa.array(hits)).to_pydict()
            found |= zip(some["sample_id"], some.get("source_id", [None] * hits.sum()), strict=True)
    return found
