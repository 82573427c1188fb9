"""Rows that are labelled or ordered: their ids, labels where they are known, and features."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.columns import content_hash
from rayal.errors import ConfigError, LabelError, NeedsError
from rayal.selection.columns import Columns, ids_in
from rayal.selection.given import Stream, open_given
from rayal.types import Ids, Kind, Label, Vocabulary

WHAT = "the labelled rows"
_EXPECTED = {
    "class": "a class a row",
    "multilabel": "a list of classes a row",
    "number": "a number a row",
}


@dataclass(frozen=True)
class Labelled:
    """Labelled and pending rows, ids ascending."""

    ids: Ids  # (L,)
    labels: np.ndarray  # (L,) or (L, C) float64, NaN while pending, and for words of no known place
    pending: np.ndarray  # (L,) bool
    rows: pa.Table  # the user's columns

    def take(self, mask: np.ndarray) -> Labelled:
        """Gives the rows where a mask is true."""
        rows = self.rows.filter(pa.array(mask))
        return Labelled(self.ids[mask], self.labels[mask], self.pending[mask], rows)

    def check_columns(self, sources: Sequence[str]) -> None:
        """Refuses rows that are not among the outputs and lack a column.

        Raises:
            NeedsError: they do.
        """
        missing = [source for source in sources if source not in self.rows.schema.names]
        if missing:
            raise NeedsError(
                f"{len(self.ids)} of {WHAT} are not among the outputs (first sample_id "
                f"{self.ids[0]}) and bring no '{missing[0]}' of their own (they have: "
                f"{', '.join(self.rows.schema.names)}); add the column to them, or these rows to "
                "the outputs"
            )

    @property
    def fingerprint(self) -> str:
        """A hash of ids, labels and all columns."""
        return content_hash(self.rows)


def none_labelled() -> Labelled:
    """Gives no labelled rows."""
    table = pa.table({"sample_id": pa.array([], pa.int64())})
    return Labelled(np.empty(0, np.int64), np.empty(0), np.empty(0, bool), table)


def read_labelled(
    labelled: Any,
    columns: Columns,
    sources: Sequence[str],
    kind: Kind,
    classes: Sequence[str | int] | None,
    num_classes: int | None,
) -> Labelled:
    """Gives labelled rows with those of the columns `sources` that they have.

    `labelled` is what outputs may be, or ids: anything of one dimension. Without a label column,
    and where it is null, rows are pending: ordered, and not to be picked again. `num_classes`: the
    width of probabilities, where it is known. Words without `classes` have no number: a selector
    that looks at labels refuses them, and others do without.

    Raises:
        ConfigError: ids are missing or no whole numbers.
        LabelError: an id comes twice, or a label is nothing of this kind.
    """
    if labelled is None:
        return none_labelled()
    ids_alone = _ids_alone(labelled)
    if ids_alone is not None:
        labelled = {columns.sample_id: ids_alone}
    given = open_given(labelled, WHAT)
    if columns.sample_id not in given.names:
        raise ConfigError(
            f"{WHAT} have no column '{columns.sample_id}' (they have: {', '.join(given.names)}); "
            "name the one with the ids, as in the outputs: columns.sample_id=NAME"
        )
    names = [columns.sample_id, *sources, columns.label]
    names = [name for name in dict.fromkeys(names) if name in given.names]
    if isinstance(given, Stream):
        batches = list(given.read(names))
    else:
        batches = [
            batch
            for group in given.groups
            for batch in given.rows(group, names, 65_536, 0, group.num_rows)
        ]
    if not any(batch.num_rows for batch in batches):
        return none_labelled()
    table = _joined(batches)
    ids = np.concatenate([ids_in(one, columns.sample_id, WHAT) for one in table.to_batches()])
    order = np.argsort(ids, kind="stable")
    ids, table = ids[order], table.take(pa.array(order)).combine_chunks()
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        raise LabelError(
            f"sample_id {ids[twice[0]]} comes twice among {WHAT} ({len(twice)} ids repeat "
            "another); leave one row of each, with the label that counts"
        )
    given_labels: list[Label | None] = [None] * len(ids)
    if columns.label in table.schema.names:
        given_labels = [_label(one) for one in table.column(columns.label).to_pylist()]
    encoded, pending = _encoded(ids, given_labels, kind, classes, num_classes)
    return Labelled(ids, encoded, pending, table)


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """Gives the rows of several files in one table, of a type that holds what each of them has.

    Raises:
        LabelError: there is no such type.
    """
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    try:
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        raise LabelError(
            f"{WHAT} hold a column of several types ({str(error).splitlines()[0]}); write one type"
        ) from error


def _ids_alone(labelled: Any) -> Any:
    """Gives the ids where there is nothing else; None: there are columns, or files of them."""
    if isinstance(labelled, pa.Array | pa.ChunkedArray):
        return labelled
    shape = getattr(labelled, "shape", None)
    if isinstance(shape, tuple):  # arrays, tensors, series; data frames and tables have two
        return labelled if len(shape) == 1 else None
    is_rows = isinstance(labelled, str | Path | Mapping) or hasattr(labelled, "__arrow_c_stream__")
    if is_rows or not isinstance(labelled, Collection | Iterator):
        return None
    return list(labelled)


def _label(value: Any) -> Label | None:
    return None if isinstance(value, float) and math.isnan(value) else value


def _encoded(
    ids: Ids,
    labels: Sequence[Label | None],
    kind: Kind,
    classes: Sequence[str | int] | None,
    num_classes: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Gives labels as numbers, NaN where there is none, and which are pending."""
    pending = np.asarray([label is None for label in labels], bool)
    known = [label for label in labels if label is not None]
    if kind != "number" and classes is None:
        if any(isinstance(one, str) for label in known for one in _each(label)):
            return np.full(len(labels), np.nan), pending
        classes = range(_num_classes(known, num_classes))  # labels are places among them
        known = [_places(label) for label in known]
    words = () if classes is None or kind == "number" else tuple(classes)
    wide = (len(words),) if kind == "multilabel" else ()
    encoded = np.full((len(labels), *wide), np.nan)
    try:
        if known:
            encoded[~pending] = Vocabulary(kind, words).encode(known)
    except LabelError as error:
        raise LabelError(
            f"{WHAT}: {error}; classes=[...] names the classes, in the order of the probabilities"
        ) from None
    except TypeError as error:
        raise LabelError(
            f"{WHAT}: column of labels holds what is no label of kind {kind} ({error}), such as "
            f"{known[0]!r}; give {_EXPECTED[kind]}, or say what they are with kind=..."
        ) from error
    return encoded, pending


def _places(label: Any) -> Any:
    """Gives whole numbers as such: a column with gaps holds floats."""
    if isinstance(label, list):
        return [_places(one) for one in label]
    if isinstance(label, bool):
        return int(label)
    return int(label) if isinstance(label, float) and label.is_integer() else label


def _each(label: Any) -> list[Any]:
    return label if isinstance(label, list) else [label]


def _num_classes(labels: Sequence[Any], num_classes: int | None) -> int:
    if num_classes is not None:
        return num_classes
    flat = [one for label in labels for one in _each(label)]
    return 1 + max((int(one) for one in map(_places, flat) if isinstance(one, int)), default=0)
