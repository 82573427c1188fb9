"""One more version of a pool, on its way: from the files that are new to the manifest that names
its shards. What a journal tells of an attempt that was killed is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.fs as pa_fs

from rayal.columns import why_list
from rayal.errors import PlaceError, PoolError
from rayal.places import Place
from rayal.pool import files as file_tables
from rayal.pool import manifest as manifests
from rayal.pool import reader, recipes, sources
from rayal.pool.files import TakenFile
from rayal.pool.folder import Bench
from rayal.pool.formats import Reading, Unsettled
from rayal.pool.leftovers import remove_unnamed, sync_folders
from rayal.pool.manifest import Manifest, Shard, schema_from_text, schema_to_text
from rayal.pool.pool_writer import Plan, PoolWriter
from rayal.pool.sources import Piece
from rayal.pool.under_way import UnderWay

Found: TypeAlias = sources.Files | recipes.RecipeSource
Progress: TypeAlias = Callable[[int, int | None], None] | None


@dataclass
class Making:
    """The version after `base`, or the first one; the folder is locked by whoever makes it."""

    bench: Bench
    source: str
    found: Found
    plan: Plan
    base: Manifest | None
    asked: Mapping[str, Any]
    # Where the pass stands: the lot of files, the row at which it begins, and what was learned.
    lot: int = 0
    lot_start: int = 0
    known: tuple[pa.Schema, str] | None = None  # the source's columns, and a file that has them
    files: list[TakenFile] = field(default_factory=list)
    num_noted: int = 0  # of these, in the journal

    @property
    def place(self) -> Place:
        """The folder of the pool."""
        return self.bench.place

    def run(self, progress: Progress) -> bool:
        """Gives whether there is a new version; what failed leaves the pool as it was.

        Closed shards are kept for the next attempt where a disk or a store failed, and removed
        where the input was refused.
        """
        self.journal = UnderWay(self.place)
        self.has_closed = False
        try:
            if self._make(progress):
                return True
            self._give_up()
            return False
        except Exception as error:
            if not (self.has_closed and _is_of_storage(error)):
                self._give_up()
            raise

    def _make(self, progress: Progress) -> bool:
        infos = self._new_files()
        if self.base is not None and not infos:
            return False
        header, entries = self._earlier(infos)
        if header is None:
            header, entries = self._header(infos), []
            self._begin(header)
        elif infos is not None:
            named = {info.path: info for info in infos}
            infos = [named[path] for path, *_ in header["files"]]
        self.has_closed = bool(entries)
        while True:
            try:
                return self._pass(infos, header["unsettled"], entries, progress)
            except Unsettled as late:
                if self.base is not None:
                    raise PoolError(
                        f"column '{late.column}' cannot be added to that of the pool: {late.why}; "
                        "mend the new files, or ingest all of the source into another folder"
                    ) from late
                if late.column in header["unsettled"]:  # it would never end
                    raise
                header["unsettled"][late.column] = late.why
            entries = []
            self._begin(header)

    def _pass(
        self,
        infos: Sequence[pa_fs.FileInfo] | None,
        unsettled: Mapping[str, str],
        entries: Sequence[Mapping[str, Any]],
        progress: Progress,
    ) -> bool:
        writer = PoolWriter(self.bench, self.plan, unsettled, self.base, self._note)
        self.known, self.files = self._columns_of_base(), []
        writer.go_on(entries)
        skipped_lots = rows_of_lot = 0
        if entries:
            last = entries[-1]
            skipped_lots, rows_of_lot = last["lot"], last["lot_row"]
            self.known = schema_from_text(last["source_schema"]), last["first_file"]
            self.files = [TakenFile(**one) for entry in entries for one in entry["files"]]
        self.num_noted = len(self.files)
        first_row = 0 if self.base is None else self.base.end_row
        total = None if progress is None else self._reads(infos, unsettled).num_rows
        whole = [None] if infos is None else list(file_tables.lots(infos))
        for number, lot in enumerate(whole):
            if number < skipped_lots:
                continue
            to_skip = rows_of_lot if number == skipped_lots else 0
            self.lot, self.lot_start = number, writer.num_rows - to_skip
            for piece in self._pieces(lot, unsettled):
                rest = _without(piece, to_skip)
                to_skip -= piece.rows.num_rows - rest.rows.num_rows
                writer.add(rest)
                if progress is not None:
                    progress(writer.num_rows - first_row, total)
            if to_skip:
                raise PoolError(
                    f"{self.source} gives fewer rows than when its ingest began; remove "
                    f"{self.place / manifests.UNDER_WAY} and ingest it again"
                )
            self.lot, self.lot_start = number + 1, writer.num_rows
        manifest = writer.finish(self.source)
        if writer.num_rows == first_row:
            return False
        self._commit(manifest, writer.end_index, writer.num_rows)
        return True

    def _pieces(
        self, lot: Sequence[pa_fs.FileInfo] | None, unsettled: Mapping[str, str]
    ) -> Iterator[Piece]:
        """Gives the rows of a lot; files whose content an earlier version took are passed by."""
        new = lot
        if lot is not None:
            assert isinstance(self.found, sources.Files)
            hashed = [file_tables.hashed(self.found, info) for info in lot]
            new = [
                info
                for info, file in zip(lot, hashed, strict=True)
                if file.content_hash not in self.taken_hashes
            ]
        rows: dict[str, int] = {}
        if new is None or new:
            for piece in self._reads(new, unsettled).pieces():
                rows[piece.file] = rows.get(piece.file, 0) + piece.rows.num_rows
                self.known = self.known or (piece.rows.schema, piece.file)
                yield piece
        if new is not None and lot is not None:
            assert isinstance(self.found, sources.Files)
            file_tables.refuse_changed(self.found, new)
            self.files += [file_tables.counted(file, rows) for file in hashed]

    def _reads(self, infos: Sequence[pa_fs.FileInfo] | None, unsettled: Mapping[str, str]) -> Found:
        plan = self.plan
        how = Reading(
            plan.drop or (), tuple(unsettled), plan.id_column, plan.label_column, plan.kind
        )
        if infos is None or not isinstance(self.found, sources.Files):
            return replace(self.found, reading=how)
        return replace(self.found, reading=how, infos=tuple(infos), known=self.known)

    def _new_files(self) -> list[pa_fs.FileInfo] | None:
        """Gives the files to take, None for a recipe, which is taken as a whole."""
        taken = [] if self.base is None else file_tables.read(self.place, self.base)
        known = taken
        if isinstance(self.found, sources.Files) and self.found.table is not None:
            known = file_tables.gone(self.found, taken)  # a table says itself what is new
        self.taken_hashes = {file.content_hash for file in known}
        if isinstance(self.found, sources.Files):
            return file_tables.untaken(self.found, taken)
        return None

    def _columns_of_base(self) -> tuple[pa.Schema, str] | None:
        if self.base is None or self.base.source_schema is None:
            return None
        return self.base.source_schema, f"the pool {self.place}"

    # -------------------------------------------------------------------------- the journal

    def _header(self, infos: Sequence[pa_fs.FileInfo] | None) -> dict[str, Any]:
        header = {
            "version": 1 + (0 if self.base is None else len(self.base.versions)),
            "plan": asdict(self.plan),
            "files": [_key(info) for info in infos] if infos is not None else None,
            "recipe": None if infos is not None else self.found.fingerprint,
            "unsettled": {
                column.name: why
                for column in (() if self.base is None else self.base.schema)
                if (why := why_list(column)) is not None
            },
        }
        plain: dict[str, Any] = json.loads(json.dumps(header))
        return plain

    def _earlier(
        self, infos: Sequence[pa_fs.FileInfo] | None
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Gives what an attempt at this very version left, up to its last whole shard; None where
        there was none, or what it read has changed."""
        lines = self.journal.read()
        if not lines:
            return None, []
        header, entries = lines[0], lines[1:]
        now = self._header(infos)
        same = all(header[key] == now[key] for key in ("version", "plan", "recipe"))
        there = now["files"]
        if not same or (there is None) != (header["files"] is None):
            return None, []
        if there is not None and not {*map(tuple, header["files"])} <= {*map(tuple, there)}:
            return None, []
        whole = list(self._whole(entries))
        if len(whole) < len(entries):
            self.journal.begin(header)
            for entry in whole:
                self.journal.add(entry)
        return header, whole

    def _whole(self, entries: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Gives the entries up to the first whose files are not there as they were closed."""
        closed = [[Shard(**shard) for shard in entry["shards"]] for entry in entries]
        sizes = reader.sizes_of(self.place, [shard for shards in closed for shard in shards])
        for entry, shards in zip(entries, closed, strict=True):
            try:
                for shard in shards:
                    reader.check_whole(self.place, shard, sizes, to_its_end=True)
            except PoolError:
                return
            yield entry

    def _begin(self, header: Mapping[str, Any]) -> None:
        self.has_closed = False
        self.journal.begin(header)
        remove_unnamed(self.bench, self.base)

    def _note(self, entry: dict[str, Any]) -> None:
        assert self.known is not None
        schema, first = self.known
        new, self.num_noted = self.files[self.num_noted :], len(self.files)
        self.journal.add(
            {
                **entry,
                "lot": self.lot,
                "lot_row": entry["end_row"] - self.lot_start,
                "files": [asdict(file) for file in new],
                "source_schema": schema_to_text(schema),
                "first_file": first,
            }
        )
        self.has_closed = True

    def _give_up(self) -> None:
        if self.journal.is_there:
            remove_unnamed(self.bench, self.base)
            self.journal.end()

    # ---------------------------------------------------------------------------- the end

    def _commit(self, manifest: Manifest, end_index: int, end_row: int) -> None:
        """Puts the manifest in place, once every file that it names can be read."""
        base = self.base
        versions = () if base is None else base.versions
        files = ""
        if isinstance(self.found, sources.Files):
            files = file_tables.write(self.place, len(versions) + 1, self.files)
        origin = json.loads(json.dumps({**self.found.fingerprint, **vars(self.plan)}))
        manifest = replace(
            manifest,
            source=origin,
            asked=self.asked,
            versions=versions,
            source_schema=None if self.known is None else self.known[0],
        ).grown(end_index, end_row, files)
        text = manifest.to_json()
        self._check_readable(manifests.from_json(text, str(self.place / manifests.NAME)))
        sync_folders(self.place)
        self.bench.commit(manifest, base)
        self.journal.end()

    def _check_readable(self, manifest: Manifest) -> None:
        """Reads what was just written, before anybody takes it for a pool: footers, not rows."""
        before = set() if self.base is None else {shard.path for shard in self.base.shards}
        for shard in manifest.shards:
            if shard.path not in before:
                is_label = shard.split == "labels"
                schema = manifests.labels_schema(manifest) if is_label else manifest.schema
                reader.open_shard(self.place, shard, schema)


def _key(info: pa_fs.FileInfo) -> tuple[str, int, int | None]:
    return info.path, info.size, info.mtime_ns


def _without(piece: Piece, num_rows: int) -> Piece:
    """Gives a piece without its first rows."""
    if not num_rows:
        return piece
    start = min(num_rows, piece.rows.num_rows)
    return Piece(piece.file, piece.first_row + start, piece.rows.slice(start))


def _is_of_storage(error: BaseException | None) -> bool:
    """Whether an error is, or came of, a disk or a store that failed: what may be well later."""
    while error is not None:
        if isinstance(error, OSError | PlaceError):
            return True
        error = error.__cause__ or error.__context__
    return False
