"""Arrow IPC: files and streams, and those of Hugging Face `datasets`, without that package.

Such a file says in its schema what its columns mean: names of classes, images and sounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs

from rayal.errors import PoolError
from rayal.pool.formats.reading import Reading, blocks, decoded, step_of, stored, stored_type

_FILE_MAGIC, _OLD_FEATHER = b"ARROW1", b"FEA1"
_HUGGING_FACE = b"huggingface"  # in the schema's metadata: {"info": {"features": {...}}}
_IN_BYTES = ("Image", "Audio")  # features whose value is struct<bytes, path>
_LISTS = ("Sequence", "List", "LargeList")


def read(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None, how: Reading
) -> Iterator[pa.RecordBatch]:
    """Gives the rows of one file, a block at a time; first an empty one, which says the columns.

    A file of a local disk is mapped: a batch in it may be larger than memory. Every batch is looked
    at before it is used, since offsets that point outside of a buffer would be read.

    Raises:
        PoolError: it is no Arrow file, or an image of a dataset is only a path.
    """
    with _opened(filesystem, path) as stream:
        found, batches = _batches(stream, path)
        if schema is None:
            how.check(found.names)
        names = how.kept(found.names)
        features = _features(found)
        plain = pa.schema([pa.field(n, stored_type(found.field(n).type)) for n in names])
        first = _meant(pa.RecordBatch.from_pylist([], schema=plain), features, how, path, 0)
        yield first
        yield from blocks(
            _meant(decoded(stored(rows, names), plain), features, how, path, row)
            for row, rows in _cut(batches)
        )


def _opened(filesystem: pa_fs.FileSystem, path: str) -> pa.NativeFile:
    if isinstance(filesystem, pa_fs.LocalFileSystem):
        return pa.memory_map(path)
    return filesystem.open_input_file(path)


def _batches(stream: pa.NativeFile, path: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    head = stream.read(6)
    stream.seek(0)
    if head[:4] == _OLD_FEATHER:
        raise PoolError(f"{path} is Feather version 1, expected version 2 or Arrow IPC; write anew")
    if head == _FILE_MAGIC:
        file = pa.ipc.open_file(stream)
        return file.schema, (file.get_batch(at) for at in range(file.num_record_batches))
    reader = pa.ipc.open_stream(stream)
    return reader.schema, _to_the_end(reader, stream, path)


def _to_the_end(
    reader: pa.RecordBatchReader, stream: pa.NativeFile, path: str
) -> Iterator[pa.RecordBatch]:
    """Gives the batches of a stream. One that was cut off between two of them looks whole but for
    the mark that ends it."""
    end = stream.tell()
    for rows in reader:
        yield rows
        end = stream.tell()
    if stream.tell() == end:  # nothing came after the last batch
        raise PoolError(
            f"{path} ends without the mark of its end: it was cut short, or its writer was not "
            "closed; copy or write it again"
        )


def _cut(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Gives pieces of the batches that fit memory once they are decoded, and where they begin."""
    row = 0
    for rows in batches:
        rows.validate(full=True)
        step = step_of(rows.nbytes, rows.num_rows)
        for start in range(0, rows.num_rows, step):
            yield row + start, rows.slice(start, step)
        row += rows.num_rows


# ------------------------------------------------------------------------- what `datasets` says


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    said = (schema.metadata or {}).get(_HUGGING_FACE)
    try:
        features = json.loads(said)["info"]["features"] if said else {}
    except (ValueError, KeyError, TypeError):  # of another writer: columns are what Arrow says
        return {}
    return features if isinstance(features, dict) else {}


def _meant(
    rows: pa.RecordBatch, features: Mapping[str, Any], how: Reading, path: str, first: int
) -> pa.RecordBatch:
    """Gives images as their bytes, and the label as the names of its classes."""
    columns = []
    for field in rows.schema:
        column, feature = rows.column(field.name), features.get(field.name)
        kind = feature.get("_type") if isinstance(feature, dict) else None
        if kind in _IN_BYTES and pa.types.is_struct(field.type):
            column = _bytes(column, field.name, path, first)
        elif field.name == how.label_column and how.kind != "number":
            column = _named(column, feature, path)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _bytes(column: pa.StructArray, name: str, path: str, first: int) -> pa.Array:
    fields = [column.type.field(at).name for at in range(column.type.num_fields)]
    if "bytes" not in fields:
        raise PoolError(
            f"{path}: column '{name}' is {column.type}, expected struct<bytes, path> for an image; "
            "save the dataset again with save_to_disk"
        )
    flat = dict(zip(fields, column.flatten(), strict=True))  # null where the struct is null
    content = flat["bytes"].cast(pa.binary())
    for row, place in enumerate(flat["path"].to_pylist() if "path" in flat else ()):
        if place is not None and not content[row].is_valid:
            raise PoolError(
                f"{path}: column '{name}' has no bytes in row {first + row} (counted from 0), only "
                f"the path {place[:200]!r}; save the dataset again with save_to_disk, which puts "
                "the bytes in"
            )
    return content


def _named(column: pa.Array, feature: Any, path: str) -> pa.Array:
    """Gives the words of a ClassLabel (null for -1), or of a list of them; else what is there."""
    names = _class_names(feature)
    if names is not None and pa.types.is_integer(column.type):
        beyond = pc.or_(pc.less(column, -1), pc.greater_equal(column, len(names)))
        row = pc.index(beyond, True).as_py()
        if row >= 0:
            raise PoolError(
                f"{path} has the class {column[row]} as a label, expected one of its {len(names)} "
                f"classes ({', '.join(names[:5])}{', ...' * (len(names) > 5)}); mend the dataset"
            )
        words = pa.array([*names, None], pa.string())
        return words.take(pc.if_else(pc.equal(column, -1), len(names), column))
    if (
        isinstance(feature, dict)
        and feature.get("_type") in _LISTS
        and pa.types.is_list(column.type)
    ):
        feature = feature.get("feature")
    elif isinstance(feature, list) and len(feature) == 1 and pa.types.is_list(column.type):
        feature = feature[0]
    else:
        return column
    if _class_names(feature) is None:
        return column
    values = _named(column.flatten(), feature, path)
    lengths = pc.list_value_length(column).fill_null(0)
    ends = pc.cumulative_sum(lengths.cast(pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.ListArray.from_arrays(offsets, values, mask=column.is_null())


def _class_names(feature: Any) -> list[str] | None:
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) and names else None
