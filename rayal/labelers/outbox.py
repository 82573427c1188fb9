"""The folder that orders go out by: a folder a chunk, its part first and its manifest last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rayal.errors import LabelError
from rayal.labelers import payload
from rayal.labelers.answers import Asked, source_mark
from rayal.storage import folder_here, here, named, write_bytes, write_text

Manifest = dict[str, Any]


class Outbox:
    """What was placed, by chunk key. A chunk without a manifest was not placed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ids: dict[tuple[str, str], dict[int, str | None]] = {}  # by chunk and part hash

    def find(self, key: str) -> Manifest | None:
        """Gives the manifest of a chunk, or None."""
        path = here(self.folder / key / "manifest.json")
        return json.loads(path.read_text()) if path.exists() else None

    def need(self, key: str) -> Manifest:
        """Gives the manifest of a chunk.

        Raises:
            LabelError: there is none.
        """
        found = self.find(key)
        if found is None:
            raise LabelError(
                f"chunk {key} has no manifest in {named(self.folder)}; restore the outbox: without "
                "it no answer can be told from a mistake"
            )
        return found

    def placed(self) -> list[str]:
        """Gives the keys of all chunks, of whatever order."""
        folder = folder_here(self.folder)
        return sorted(path.parent.name for path in folder.glob("*/manifest.json"))

    def place(self, manifest: Manifest, name: str, content: bytes) -> Manifest:
        """Gives the manifest of a chunk, with its part, once both are written."""
        whole = manifest | {"parts": [_part(name, content, manifest["rows"])]}
        write_bytes(self.folder / manifest["key"] / name, content)
        self._write(whole)
        return whole

    def cancel(self, key: str) -> None:
        """Marks a chunk with a file `cancelled.json`."""
        marker = {"key": key, "cancelled": True}
        write_text(self.folder / key / "cancelled.json", json.dumps(marker) + "\n")

    def erase(self, key: str, ids: Iterable[int]) -> None:
        """Takes rows out of a chunk's part and records that they were there."""
        manifest = self.need(key)
        known = self._known(manifest)
        before = set(manifest.get("erased", ()))
        gone = set(ids) & (known.keys() | before)
        if not gone:
            return
        marks = {source_mark(str(known[one])) for one in gone & known.keys() if known[one]}
        manifest["erased"] = sorted(gone | before)
        manifest["erased_sources"] = sorted(marks | set(manifest.get("erased_sources", ())))
        # Recorded first: after a crash between the two writes the same call finishes the work.
        self._write(manifest)
        name = manifest["parts"][0]["name"]
        path = self.folder / key / name
        content = payload.without(here(path).read_bytes(), name.rpartition(".")[2], gone)
        write_bytes(path, content)
        num_rows = manifest["rows"] - len(manifest["erased"])
        self._write(manifest | {"parts": [_part(name, content, num_rows)]})

    def asked(self, manifests: Sequence[Manifest]) -> Asked:
        """Gives the samples of some chunks."""
        ids: set[int] = set()
        erased: set[int] = set()
        marks: set[str] = set()
        by_source: dict[str, int] = {}
        for manifest in manifests:
            known = self._known(manifest)
            ids |= known.keys()
            erased |= set(manifest.get("erased", ()))
            marks |= set(manifest.get("erased_sources", ()))
            by_source |= {str(name): one for one, name in known.items() if name}
        return Asked(
            frozenset(ids - erased),
            by_source,
            erased=frozenset(erased),
            erased_marks=frozenset(marks),
        )

    def _write(self, manifest: Manifest) -> None:
        text = json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"
        write_text(self.folder / manifest["key"] / "manifest.json", text)

    def _known(self, manifest: Manifest) -> dict[int, str | None]:
        part = manifest["parts"][0]
        place = (manifest["key"], part["sha256"])
        if place not in self._ids:
            path = here(self.folder / manifest["key"] / part["name"])
            if not path.exists():
                raise LabelError(
                    f"{named(path)} is missing, though its manifest is there; restore it: without "
                    "it no answer can be told from a mistake"
                )
            self._ids[place] = payload.ids_of(path.read_bytes(), part["name"].rpartition(".")[2])
        return self._ids[place]


def _part(name: str, content: bytes, num_rows: int) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"name": name, "rows": num_rows, "size_bytes": len(content), "sha256": sha256}
