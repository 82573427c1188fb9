"""What a pool says of itself: `manifest.json`, written last; a folder without one is no pool."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from rayal.errors import PoolError
from rayal.types import Vocabulary

NAME = "manifest.json"
FORMAT = 1

Split: TypeAlias = Literal["pool", "test", "labels"]
FOLDERS: Mapping[Split, str] = {"pool": "shards", "test": "test", "labels": "labels"}


@dataclass(frozen=True)
class Shard:
    """One file of a pool. Files of the same index come from the same range of source rows."""

    split: Split
    index: int
    path: str  # relative to the pool
    num_rows: int
    size_bytes: int
    content_hash: str  # of names, types and values, not of the file
    first_id: int  # sample_id of the range's first source row, before the test rows are taken out
    min_id: int
    max_id: int


@dataclass(frozen=True)
class Manifest:
    """The whole of a pool but its rows. Small enough to travel to every worker."""

    schema: pa.Schema  # payload columns, sample_id, and source_id where the user's id is not int64
    shards: tuple[Shard, ...]  # of every split
    test_key: str
    test_share: float
    vocabulary: Vocabulary | None
    num_null_labels: int  # source rows whose label is not known
    source: Mapping[str, Any] = field(default_factory=dict)  # where it comes from, and how
    asked: Mapping[str, Any] = field(default_factory=dict)  # for what; empty before there was this
    notes: tuple[str, ...] = ()  # what a person should know of how the source was read

    def of(self, split: Split) -> tuple[Shard, ...]:
        """Gives the shards of one split, in order of index."""
        return tuple(shard for shard in self.shards if shard.split == split)

    @property
    def content_hash(self) -> str:
        """A hash of schema, labels and every row; the same wherever the pool lies."""
        digest = hashlib.sha256(f"{self.test_key}\x1f{self.test_share!r}\x1e".encode())
        for column in self.schema:
            kept = sorted((column.metadata or {}).items())
            digest.update(f"{column.name}\x1f{column.type}\x1f{kept}\x1e".encode())
        for shard in self.shards:
            digest.update(f"{shard.split}\x1f{shard.index}\x1f{shard.content_hash}\x1e".encode())
        return digest.hexdigest()

    def to_json(self) -> str:
        """Gives the text that `from_json` reads."""
        words = self.vocabulary
        fields = {
            "format": FORMAT,
            "content_hash": self.content_hash,
            "num_rows": sum(shard.num_rows for shard in self.of("pool")),
            "num_test_rows": sum(shard.num_rows for shard in self.of("test")),
            "columns": {column.name: str(column.type) for column in self.schema},
            "test_key": self.test_key,
            "test_share": self.test_share,
            "vocabulary": None if words is None else asdict(words),
            "num_null_labels": self.num_null_labels,
            "source": dict(self.source),
            "asked": dict(self.asked),
            "notes": list(self.notes),
            "arrow_schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "shards": [asdict(shard) for shard in self.shards],
        }
        return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def labels_schema(manifest: Manifest) -> pa.Schema:
    """Gives the schema of the kept-apart labels; a pool without a vocabulary has none."""
    words = manifest.vocabulary
    assert words is not None, "a pool without labels has no label shards"
    name = pa.string() if words.classes and isinstance(words.classes[0], str) else pa.int64()
    kinds = {"number": pa.float64(), "class": name, "multilabel": pa.list_(name)}
    return pa.schema({"sample_id": pa.int64(), "label": kinds[words.kind]})


def from_json(text: str, where: str) -> Manifest:
    """Gives the manifest that `to_json` wrote.

    Raises:
        PoolError: the text is no manifest, of another format, or was changed by hand.
    """
    try:
        fields = json.loads(text)
        if fields["format"] != FORMAT:
            raise PoolError(
                f"{where} has format {fields['format']!r}, this version of rayal reads {FORMAT}; "
                "ingest the source again"
            )
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(fields["arrow_schema"])))
        words = fields["vocabulary"]
        manifest = Manifest(
            schema=schema,
            shards=tuple(Shard(**shard) for shard in fields["shards"]),
            test_key=fields["test_key"],
            test_share=fields["test_share"],
            vocabulary=words and Vocabulary(words["kind"], tuple(words["classes"])),
            num_null_labels=fields["num_null_labels"],
            source=fields["source"],
            asked=fields.get("asked", {}),
            notes=tuple(fields.get("notes", ())),
        )
        expected = fields["content_hash"]
    except (ValueError, KeyError, TypeError, pa.ArrowInvalid, OSError) as error:
        raise PoolError(
            f"{where} is not a manifest of a pool ({type(error).__name__}: {error}); "
            "ingest the source again"
        ) from error
    if manifest.content_hash != expected:
        raise PoolError(
            f"{where} says content_hash {expected[:12]}, but its shards give "
            f"{manifest.content_hash[:12]}: it was changed by hand; ingest the source again"
        )
    return manifest


def read(path: Path) -> Manifest:
    """Gives the manifest of the pool in this folder.

    Raises:
        PoolError: no folder, no manifest in it, or a bad one.
    """
    place = path / NAME
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        found = "has no " + NAME if path.is_dir() else "does not exist"
        raise PoolError(
            f"{path} is not a pool: it {found}; make one with: rayal ingest SOURCE {path}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PoolError(
            f"{place} cannot be read ({error}); a pool is a folder with a {NAME}"
        ) from error
    return from_json(text, str(place))
