"""Readers of the formats of a source: batches of rows, whatever a file's own blocks are.

Memory is bounded by what rows take once they are decoded: 150,000 rows of one text of 20 kB are a
small Parquet file and 3 GB of text.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from rayal.pool.formats import arrow, csv_text, images, jsonl, parquet, webdataset
from rayal.pool.formats.reading import Reader, Reading, Unsettled, plain_type

__all__ = [
    "COMPRESSED",
    "FORMATS",
    "ID_COLUMNS",
    "READERS",
    "Reading",
    "Unsettled",
    "format_of",
    "plain_type",
]

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".tar": "webdataset",
    ".tgz": "webdataset",
    **dict.fromkeys(images.ENDINGS, "images"),
}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
ID_COLUMNS = {
    "images": images.ID_COLUMN,
    "webdataset": webdataset.KEY,
}  # of formats whose rows have names of their own
READERS: Mapping[str, Reader] = {  # of files that hold many rows
    "parquet": parquet.read,
    "arrow": arrow.read,
    "csv": csv_text.read,
    "tsv": functools.partial(csv_text.read, delimiter="\t"),
    "jsonl": jsonl.read,
    "webdataset": webdataset.read,
}


def format_of(path: str) -> str | None:
    """Gives the format that a file's name says, None for an unknown one."""
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1].lower() in COMPRESSED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None
