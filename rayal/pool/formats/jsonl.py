"""Files of one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.json as pa_json

from rayal.pool.formats.reading import BLOCK_BYTES, Reading


def read(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None, how: Reading
) -> Iterator[pa.RecordBatch]:
    """Gives the rows of one file, a block at a time; types are those of the first block."""
    parse = pa_json.ParseOptions(explicit_schema=schema, newlines_in_values=False)
    read = pa_json.ReadOptions(block_size=BLOCK_BYTES)
    with filesystem.open_input_stream(path) as stream:
        for place, rows in enumerate(pa_json.open_json(stream, read, parse)):
            if schema is None and place == 0:
                how.check(rows.schema.names)
            yield rows.select(how.kept(rows.schema.names))
