"""Writes a source of any size: 64 int8 features and a text key a row, block by block.

    python benchmarks/make_pool.py FOLDER --rows 100_000_000

A row is a function of its number alone: the first rows of a source of 1e8 are the source of 1e6.
Files of 2^24 rows, 1.3 GB each; one block of 65,536 rows is in memory. Features are uniform, so
nothing compresses them; keys are a bijection of the row's number, so each is unlike any other and
neighbours have nothing in common. Features are lists of int8, dictionary-encoded as most writers
have them: Parquet has no int8 of its own, and would store plain ones in four bytes each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WIDTH = 64
BLOCK_ROWS, FILE_ROWS = 1 << 16, 1 << 24
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field(
            "embedding",
            pa.list_(pa.field("element", pa.int8(), nullable=False), WIDTH),
            nullable=False,
        ),
    ]
)
_WORDS = WIDTH // 8  # of 64 bits, eight features each
_WORDS_A_STEP = 4  # that one step of Philox gives
_MULTIPLIER, _MASK = np.uint64(0x5DEECE66D), np.uint64((1 << 48) - 1)  # odd: a bijection of 48 bits
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_KEY_BYTES = 14


def features(first: int, num_rows: int) -> np.ndarray:
    """Gives (n, 64) int8, uniform, of the rows from `first` on."""
    # Philox is a counter: it starts anywhere in no time.
    philox = np.random.Philox(key=4).advance(first * _WORDS // _WORDS_A_STEP)
    return philox.random_raw(num_rows * _WORDS).view(np.int8).reshape(-1, WIDTH)


def keys(first: int, num_rows: int) -> pa.Array:
    """Gives (n,) texts such as k-5deece66d00f, of the rows from `first` on, no two alike."""
    numbers = np.arange(first + 1, first + num_rows + 1, dtype=np.uint64)
    mixed = (numbers * _MULTIPLIER) & _MASK
    mixed = ((mixed ^ (mixed >> np.uint64(23))) * _MULTIPLIER) & _MASK
    text = np.empty((num_rows, _KEY_BYTES), np.uint8)
    text[:, :2] = np.frombuffer(b"k-", np.uint8)
    for digit in range(12):
        nibble = (mixed >> np.uint64(44 - 4 * digit)) & np.uint64(15)
        text[:, 2 + digit] = _DIGITS[nibble]
    ends = np.arange(num_rows + 1, dtype=np.int32) * _KEY_BYTES
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), num_rows, buffers)


def block(first: int, num_rows: int) -> pa.RecordBatch:
    """Gives some rows of the source."""
    flat = pa.array(features(first, num_rows).reshape(-1))
    embedding = pa.FixedSizeListArray.from_arrays(flat, type=SCHEMA.field("embedding").type)
    return pa.RecordBatch.from_arrays([keys(first, num_rows), embedding], schema=SCHEMA)


def files(folder: Path, num_rows: int) -> Iterator[Path]:
    """Writes the files of a source, and gives each when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, num_rows, FILE_ROWS)):
        path = folder / f"rows-{number:04d}.parquet"
        with pq.ParquetWriter(
            path,
            SCHEMA,
            compression={"key": "zstd", "embedding.list.element": "none"},
            use_dictionary=["embedding.list.element"],
            write_statistics=False,
        ) as writer:
            for first in range(start, min(start + FILE_ROWS, num_rows), BLOCK_ROWS):
                writer.write_batch(block(first, min(BLOCK_ROWS, num_rows - first)))
        yield path


def make(folder: Path, num_rows: int) -> int:
    """Gives the bytes of the source in a folder, made there unless it is there whole."""
    done = folder / f"_made-{num_rows}"  # a name that `rayal ingest` passes by
    if not done.exists():
        for _ in files(folder, num_rows):
            pass
        done.touch()
    return sum(path.stat().st_size for path in folder.glob("*.parquet"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where; none: only measure")
    parser.add_argument("--rows", type=int, help="default 100,000,000")
    parser.add_argument("--quick", action="store_true", help="1,000,000 rows")
    args = parser.parse_args()
    num_rows = args.rows or (1_000_000 if args.quick else 100_000_000)
    with tempfile.TemporaryDirectory(prefix="rayal-source-") as name:
        folder = args.folder or Path(name)
        start_s = time.monotonic()
        size_bytes = make(folder, num_rows)
        took_s = time.monotonic() - start_s
    print(f"{num_rows:,} rows, {size_bytes / 1e9:.2f} GB, {took_s:.1f} s")


if __name__ == "__main__":
    main()
