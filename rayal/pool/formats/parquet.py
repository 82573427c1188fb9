"""Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from rayal.pool.formats.reading import Reading, blocks, decoded, plain_type, step_of

_BUFFER_BYTES = 4 << 20  # or a column of a row group is read whole, however large


def read(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None, how: Reading
) -> Iterator[pa.RecordBatch]:
    """Gives the rows of one file, a block at a time; first an empty one, which says the columns."""

    def kept(names: Sequence[str]) -> Sequence[str]:
        if schema is None:
            how.check(names)
        return how.kept(names)

    return columns_of(filesystem, path, kept)


def columns_of(
    filesystem: pa_fs.FileSystem, path: str, choose: Callable[[Sequence[str]], Sequence[str]]
) -> Iterator[pa.RecordBatch]:
    """Gives those columns of one file that are chosen of its names, a block at a time; first an
    empty one."""
    with filesystem.open_input_file(path) as stream:
        file = pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        found = file.schema_arrow
        names = list(choose(found.names))
        plain = pa.schema(
            [found.field(n).with_type(plain_type(found.field(n).type)) for n in names]
        )
        meta = file.metadata
        encoded = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        step = step_of(encoded, meta.num_rows)
        yield pa.RecordBatch.from_pylist([], schema=plain)
        some = None if names == found.names else names
        found_rows = file.iter_batches(batch_size=step, columns=some)
        yield from blocks(decoded(rows, plain) for rows in found_rows)
