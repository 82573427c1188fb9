"""How a batch becomes chunks: deterministic keys that every vendor takes, and fingerprints.

A key is lower case letters, digits and "-", at most 63 characters, and begins and ends with a
letter or digit: what is left of the rules of several labelling vendors, some of which fold case.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

import pyarrow as pa

from rayal.errors import ConfigError, LabelError
from rayal.types import Chunk

_KEY = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_JOB = 56  # leaves room for "-" and the number of the chunk


def chunk_key(job_id: str, place: int) -> str:
    """Gives the key of a job's chunk: the job's name, or a hash of it where that is no key."""
    return f"{job_key(job_id)}-{place:04d}"


def job_key(job_id: str) -> str:
    """Gives the part of a job's chunk keys before the number."""
    if _KEY.fullmatch(job_id) and len(job_id) <= _LONGEST_JOB:
        return job_id
    name = base64.b32encode(hashlib.sha256(job_id.encode()).digest()).decode().lower()
    return f"b{name[:26]}"


def cut(
    job_id: str,
    rows: pa.Table,
    rows_per_chunk: int,
    price_minor: int,
    payload_sha256: Callable[[pa.Table], str],
    overlap: int = 1,
) -> tuple[Chunk, ...]:
    """Gives the chunks of a batch in row order, the last one short: the same for the same rows.

    Raises:
        LabelError: the batch has no column sample_id.
    """
    if "sample_id" not in rows.schema.names:
        raise LabelError(
            f"the batch of job {job_id} has no column sample_id (it has: "
            f"{', '.join(rows.schema.names)}); hand over the committed batch"
        )
    chunks = []
    for place, start in enumerate(range(0, rows.num_rows, rows_per_chunk)):
        part = rows.slice(start, rows_per_chunk)
        chunks.append(
            Chunk(
                key=chunk_key(job_id, place),
                start=start,
                stop=start + part.num_rows,
                payload_sha256=payload_sha256(part),
                cost_minor=price_minor * part.num_rows * overlap,
                overlap=overlap,
            )
        )
    return tuple(chunks)


def check_rows(chunk: Chunk, rows: pa.Table, payload_sha256: str) -> None:
    """Refuses rows that are not those of the chunk.

    Raises:
        LabelError: their number or their content is another.
    """
    if rows.num_rows != chunk.stop - chunk.start or payload_sha256 != chunk.payload_sha256:
        raise LabelError(
            f"chunk {chunk.key} was planned as rows {chunk.start} to {chunk.stop} with payload "
            f"{chunk.payload_sha256[:12]}, but {rows.num_rows} rows with payload "
            f"{payload_sha256[:12]} are to be placed; hand over those rows of its batch, and keep "
            "the labeler's columns and format as they were"
        )


def check_other_payload(key: str, found: str, new: str, where: str) -> None:
    """Refuses to place a key again with another payload.

    Raises:
        LabelError: the payloads differ.
    """
    if found != new:
        raise LabelError(
            f"chunk {key} was placed before with payload {found[:12]}, now it is {new[:12]} "
            f"({where}); another run uses the same folder: give each run its own"
        )


def check_prices(rows_per_chunk: int, price_minor: int) -> None:
    """Refuses settings that cannot be meant.

    Raises:
        ConfigError: a chunk without rows, or a negative price.
    """
    if rows_per_chunk < 1 or price_minor < 0:
        raise ConfigError(
            f"a labeler has rows_per_chunk={rows_per_chunk} and price_minor={price_minor}; give at "
            "least 1 and 0"
        )
