"""The label column of a source, kept apart from what a model may see, and its vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayal.errors import PoolError
from rayal.pool.manifest import Manifest, labels_schema
from rayal.pool.sources import Piece
from rayal.types import Kind, Vocabulary

MAX_CLASSES = 100_000


class Secrets:
    """The converter of one source's label column.

    Text, integers and booleans (as 0 and 1) are classes, floats are numbers, and lists of text or
    integers are multi-label, unless `kind` says otherwise. Null and "" mean: no label is known.
    """

    def __init__(self, column: str, kind: Kind | None) -> None:
        self.column = column
        self.kind = kind
        self.type: pa.DataType | None = None  # of the stored labels
        self.num_null = 0
        self._classes: set[str | int] = set()
        self._new_classes: list[str | int] = []  # since the state was noted
        self._may_be_names = kind is None  # floats that are all whole, as pandas writes 0 and null

    def convert(self, piece: Piece) -> pa.Array:
        """Gives the labels in the stored type, null where none is known. O(N).

        Raises:
            PoolError: the labels are of a type that the kind does not allow, are not finite, or
                have more than MAX_CLASSES distinct values.
        """
        column = piece.rows.column(self.column)
        if self.kind is None:
            self.kind = self._guess(column.type)
        if pa.types.is_string(column.type):
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        if self.type is None:
            self.type = self._stored_type(column.type)
        try:
            labels = column.cast(self.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise PoolError(
                f"label column '{self.column}' cannot be read as {self.type} in the "
                f"{len(column)} rows from {piece.at(0)} on ({error}); correct it, or choose "
                "another kind"
            ) from error
        self.num_null += labels.null_count
        if self.kind == "number":
            self._refuse_non_finite(piece, labels)
            self._may_be_names = self._may_be_names and _are_whole(labels)
        else:
            self._learn(piece, labels)
        return labels

    def vocabulary(self) -> Vocabulary:
        """Gives the sorted distinct classes of all labels seen, or that they are numbers.

        Raises:
            PoolError: no row had a label.
        """
        if self.kind == "number":
            return Vocabulary("number")
        if not self._classes or self.kind is None:
            raise PoolError(
                f"label column '{self.column}' has no label in any row; name the right column, or "
                "ingest without one"
            )
        ordered: list[Any] = list(self._classes)  # all text or all integers, so they can be sorted
        return Vocabulary(self.kind, tuple(sorted(ordered)))

    def noted(self) -> dict[str, Any]:
        """Gives what `go_on` needs, of classes those that came since this was asked before."""
        new, self._new_classes = self._new_classes, []
        return {
            "kind": self.kind,
            "type": str(self.type),
            "num_null": self.num_null,
            "may_be_names": self._may_be_names,
            "classes": new,
        }

    def go_on(self, noted: Mapping[str, Any]) -> None:
        """Takes over what an earlier converter of the same labels noted."""
        name = pa.string() if "string" in noted["type"] else pa.int64()
        types = {"number": pa.float64(), "class": name, "multilabel": pa.list_(name)}
        self.kind = noted["kind"]
        self.type = types[noted["kind"]]
        self.num_null, self._may_be_names = noted["num_null"], noted["may_be_names"]
        self._classes.update(noted["classes"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the labels were read."""
        if self.kind != "number" or not self._may_be_names:
            return ()
        return (
            f"label column '{self.column}' is taken for numbers, though all of them are whole; "
            "if they name classes, ingest with --kind class",
        )

    def _guess(self, kind: pa.DataType) -> Kind:
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return "number"
        return "multilabel" if _is_list(kind) else "class"

    def _stored_type(self, found: pa.DataType) -> pa.DataType:
        value = found.value_type if _is_list(found) else found
        discrete = pa.types.is_integer(value) or pa.types.is_boolean(value)
        if self.kind == "number":
            if discrete or pa.types.is_floating(found) or pa.types.is_decimal(found):
                return pa.float64()
        elif _is_list(found) == (self.kind == "multilabel"):
            name: pa.DataType | None = None
            if pa.types.is_string(value):
                name = pa.string()
            elif discrete or pa.types.is_floating(found):
                name = pa.int64()  # the cast refuses a float that is no whole number
            elif pa.types.is_null(value):
                raise PoolError(
                    f"label column '{self.column}' has no label in its first rows, so its type is "
                    "not known; give it a type, name the right column, or ingest without one"
                )
            if name is not None:
                return pa.list_(name) if self.kind == "multilabel" else name
        wanted = {
            "class": "text, integers or booleans",
            "multilabel": "lists of text or of integers",
            "number": "numbers",
        }
        raise PoolError(
            f"label column '{self.column}' is {found}, expected {wanted[self.kind or 'class']} for "
            f"kind '{self.kind}'; name the right column or another kind"
        )

    def _learn(self, piece: Piece, labels: pa.Array) -> None:
        names = labels.flatten() if self.kind == "multilabel" else labels
        if self.kind == "multilabel" and names.null_count:
            raise PoolError(
                f"label column '{self.column}' has a null inside a list in the {len(labels)} rows "
                f"from {piece.at(0)} on; remove it from the list"
            )
        new = [x for x in names.unique().drop_null().to_pylist() if x not in self._classes]
        self._classes.update(new)
        self._new_classes += new
        if len(self._classes) > MAX_CLASSES:
            raise PoolError(
                f"label column '{self.column}' has more than {MAX_CLASSES:,} distinct labels by "
                f"{piece.at(len(labels) - 1)}; if it holds numbers, pass kind 'number', else name "
                "the right column"
            )

    def _refuse_non_finite(self, piece: Piece, labels: pa.Array) -> None:
        finite = np.isfinite(labels.fill_null(0).to_numpy(zero_copy_only=False))
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise PoolError(
                f"label column '{self.column}' holds {labels[row].as_py()} at {piece.at(row)}; "
                "write null where no label is known"
            )


def noted_of(pool: Manifest) -> dict[str, Any]:
    """Gives what `Secrets.go_on` needs to add labels to those of a pool."""
    words = pool.vocabulary
    assert words is not None, "a pool that was made with a label column has a vocabulary"
    return {
        "kind": words.kind,
        "type": str(labels_schema(pool).field("label").type),
        "num_null": pool.num_null_labels,
        "may_be_names": any(note.startswith("label column") for note in pool.notes),
        "classes": words.classes,
    }


def _are_whole(labels: pa.Array) -> bool:
    values = labels.drop_null().to_numpy(zero_copy_only=False)
    return bool((values == np.floor(values)).all())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))
