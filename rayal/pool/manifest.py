"""What a pool says of itself: `manifest.json`, written last; a folder without one is no pool.

A pool is a row of versions. What the manifest does not name is not there: a shard file appears
under its own name while it is written, and is part of the pool once the manifest says so.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from rayal.errors import PoolError
from rayal.places import Place
from rayal.types import Vocabulary

NAME = "manifest.json"
REMOVED = "removed"  # the folder of lists of rows to forget
UNDER_WAY = "ingest.jsonl"  # the journal of an ingest that did not end
FORMAT = 2  # of what is written; 1, without versions, is read too
_READ = (1, FORMAT)
CONTENT_HASH = (
    "rayal.content_hash"  # in a shard's footer, so that no other of its size passes for it
)

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
    num_removed: int = 0  # of these rows: nobody reads them, until `compact` takes them out

    @property
    def num_live(self) -> int:
        """Rows that somebody may read."""
        return self.num_rows - self.num_removed


@dataclass(frozen=True)
class Removed:
    """A list of rows to forget: ascending sample_ids."""

    path: str  # relative to the pool
    num_rows: int
    content_hash: str  # of the ids


@dataclass(frozen=True)
class Version:
    """What one ingest, deletion or compaction made of the pool: shards and rows before these ends
    were there."""

    content_hash: str  # of the pool as it was then
    end_index: int  # the next shard's index
    end_row: int  # source rows so far, where ids by place go on
    files: str = ""  # the table of the source files it took, relative to the pool


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
    versions: tuple[Version, ...] = ()
    removed: tuple[Removed, ...] = ()
    source_schema: pa.Schema | None = None  # as readers gave it; None: not noted

    def of(self, split: Split) -> tuple[Shard, ...]:
        """Gives the shards of one split, in order of index."""
        return tuple(shard for shard in self.shards if shard.split == split)

    @property
    def end_index(self) -> int:
        """The index of the next shard."""
        return self.versions[-1].end_index if self.versions else 0

    @property
    def end_row(self) -> int:
        """How many rows of sources were ever taken: ids by place are never given twice."""
        return self.versions[-1].end_row if self.versions else 0

    @property
    def named(self) -> dict[str, Any]:
        """What a record says of which pool it is about."""
        return {
            "version": len(self.versions),
            "content_hash": self.content_hash,
            "num_rows": sum(shard.num_live for shard in self.of("pool")),
        }

    def version_of(self, content_hash: str) -> int | None:
        """Gives the number, from 1 on, of the version with this content; None: there is none."""
        hashes = [version.content_hash for version in self.versions]
        return 1 + hashes.index(content_hash) if content_hash in hashes else None

    def grown(self, end_index: int, end_row: int, files: str) -> Manifest:
        """Gives the manifest with its content as one more version."""
        version = Version(self.content_hash, end_index, end_row, files)
        return replace(self, versions=(*self.versions, version))

    @property
    def content_hash(self) -> str:
        """A hash of schema, labels and every row; the same wherever the pool lies."""
        digest = hashlib.sha256(f"{self.test_key}\x1f{self.test_share!r}\x1e".encode())
        for column in self.schema:
            kept = sorted((column.metadata or {}).items())
            digest.update(f"{column.name}\x1f{column.type}\x1f{kept}\x1e".encode())
        for shard in self.shards:
            digest.update(f"{shard.split}\x1f{shard.index}\x1f{shard.content_hash}\x1e".encode())
        for removed in self.removed:
            digest.update(f"removed\x1f{removed.content_hash}\x1e".encode())
        return digest.hexdigest()

    def to_json(self) -> str:
        """Gives the text that `from_json` reads."""
        words = self.vocabulary
        fields = {
            "format": FORMAT,
            "content_hash": self.content_hash,
            "num_rows": sum(shard.num_live for shard in self.of("pool")),
            "num_test_rows": sum(shard.num_rows for shard in self.of("test")),
            "columns": {column.name: str(column.type) for column in self.schema},
            "test_key": self.test_key,
            "test_share": self.test_share,
            "vocabulary": None if words is None else asdict(words),
            "num_null_labels": self.num_null_labels,
            "source": dict(self.source),
            "asked": dict(self.asked),
            "notes": list(self.notes),
            "versions": [asdict(version) for version in self.versions],
            "removed": [asdict(removed) for removed in self.removed],
            "arrow_schema": schema_to_text(self.schema),
            "source_schema": self.source_schema and schema_to_text(self.source_schema),
            "shards": [asdict(shard) for shard in self.shards],
        }
        return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def schema_to_text(schema: pa.Schema) -> str:
    """Gives the text that `schema_from_text` reads."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_from_text(text: str) -> pa.Schema:
    """Gives the schema that `schema_to_text` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


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
        if fields["format"] not in _READ:
            raise PoolError(
                f"{where} has format {fields['format']!r}, this version of rayal reads "
                f"{' and '.join(map(str, _READ))}; ingest the source again"
            )
        words = fields["vocabulary"]
        manifest = Manifest(
            schema=schema_from_text(fields["arrow_schema"]),
            shards=tuple(Shard(**shard) for shard in fields["shards"]),
            test_key=fields["test_key"],
            test_share=fields["test_share"],
            vocabulary=words and Vocabulary(words["kind"], tuple(words["classes"])),
            num_null_labels=fields["num_null_labels"],
            source=fields["source"],
            asked=fields.get("asked", {}),
            notes=tuple(fields.get("notes", ())),
            versions=tuple(Version(**version) for version in fields.get("versions", ())),
            removed=tuple(Removed(**removed) for removed in fields.get("removed", ())),
            source_schema=_known(fields.get("source_schema")),
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
    return manifest if manifest.versions else _first_version(manifest)


def _known(text: str | None) -> pa.Schema | None:
    return None if text is None else schema_from_text(text)


def _first_version(manifest: Manifest) -> Manifest:
    """Gives a manifest of format 1 as one of a single version, of whose files nothing is known."""
    rows = sum(shard.num_rows for shard in manifest.shards if shard.split != "labels")
    return manifest.grown(1 + max(shard.index for shard in manifest.shards), rows, "")


def read(folder: Place) -> Manifest:
    """Gives the manifest of the pool in this folder.

    Raises:
        PoolError: no folder, no manifest in it, or a bad one.
    """
    place = folder / NAME
    try:
        text = place.read_bytes().decode()
    except FileNotFoundError:
        found = "has no " + NAME if folder.is_folder() else "does not exist"
        if (folder / UNDER_WAY).exists():
            raise PoolError(
                f"{folder} is not a pool yet: its ingest did not come to its end; run the same "
                "ingest again, which goes on where it stood"
            ) from None
        raise PoolError(
            f"{folder} is not a pool: it {found}; make one with: rayal ingest SOURCE {folder}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PoolError(
            f"{place} cannot be read ({error}); a pool is a folder with a {NAME}"
        ) from error
    return from_json(text, str(place))
