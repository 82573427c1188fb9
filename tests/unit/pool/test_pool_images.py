"""Image folders as a source: one row a file, and nothing from outside of the folder."""

import os
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rayal.errors import PoolError
from rayal.pool import Pool, ingest
from rayal.pool.formats import images
from rayal.pool.sources import find


def _folder(root: Path, num_rows: int = 20) -> Path:
    for at in range(num_rows):
        place = root / "train" / ("cat", "dog")[at % 2] / f"{at:05d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(f"image {at}".encode())
    return root


def _rows(pool: Pool, columns: list[str]) -> dict[str, list[Any]]:
    shards = [*pool.shards, *pool.test_shards]
    found = [rows for shard in shards for rows in pool.batches(shard, columns, 64)]
    return pa.Table.from_batches(found).sort_by("sample_id").to_pydict()


def _refused(source: Path | str, tmp_path: Path, message: str, **options: Any) -> None:
    with pytest.raises(PoolError, match=message) as caught:
        ingest(str(source), str(tmp_path / "refused"), **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused" / "manifest.json").exists()


def test_a_row_a_file_with_its_path_as_id_and_its_folder_as_label(tmp_path: Path) -> None:
    root = _folder(tmp_path / "in")
    (root / "README.txt").write_text("not an image")
    (root / "_hidden.png").write_bytes(b"passed by")
    pool = ingest(str(root), str(tmp_path / "pool"), label_column="folder")
    rows = _rows(pool, ["sample_id", "source_id", "image"])
    below = sorted(f"train/{('cat', 'dog')[at % 2]}/{at:05d}.png" for at in range(20))
    assert rows["source_id"] == below
    assert rows["sample_id"] == list(range(20))
    assert rows["image"] == [f"image {int(path[-9:-4])}".encode() for path in below]
    assert pool.vocabulary is not None
    assert pool.vocabulary.classes == ("cat", "dog")
    assert pool.manifest.schema.names == ["sample_id", "source_id", "image"]


def test_a_pool_of_images_is_the_same_from_anywhere(tmp_path: Path) -> None:
    one = ingest(str(_folder(tmp_path / "one")), str(tmp_path / "a"))
    two = ingest(str(_folder(tmp_path / "two")), str(tmp_path / "b"))
    assert one.content_hash == two.content_hash
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "one"), "/images_of_a_test", recursive=True)
    try:
        far = ingest("memory://images_of_a_test", str(tmp_path / "c"))
    finally:
        memory.rm("/images_of_a_test", recursive=True)
    assert far.content_hash == one.content_hash


def test_numbers_in_names_are_ids_where_they_are_asked_for(tmp_path: Path) -> None:
    root = _folder(tmp_path / "in")
    pool = ingest(str(root), str(tmp_path / "pool"), id_column="number", label_column="folder")
    rows = _rows(pool, ["sample_id", "image", "path"])
    assert rows["sample_id"] == list(range(20))
    assert rows["image"] == [f"image {at}".encode() for at in range(20)]
    (root / "train" / "cat" / "3.png").write_bytes(b"again")
    _refused(root, tmp_path, "repeats an id in 1 of 21 rows", id_column="number")
    (root / "train" / "cat" / "x3.png").write_bytes(b"no number")
    _refused(root, tmp_path, "x3.png has a name that is no whole number", id_column="number")


def test_ids_are_places_where_paths_are_left_out(tmp_path: Path) -> None:
    root = _folder(tmp_path / "in")
    pool = ingest(str(root), str(tmp_path / "pool"), drop=["path", "folder"])
    assert pool.schema.names == ["sample_id", "image"]
    _refused(root, tmp_path, "no column 'nix' to drop .it has: image, path, folder", drop=["nix"])


def test_a_glob_and_a_single_file(tmp_path: Path) -> None:
    root = _folder(tmp_path / "in")
    pool = ingest(f"{root}/train/*/*.png", str(tmp_path / "pool"), test_share=0)
    assert pool.num_rows == 20
    assert _rows(pool, ["sample_id", "source_id"])["source_id"][0] == "cat/00000.png"
    pool = ingest(f"{root}/train/cat/00000.png", str(tmp_path / "one"), test_share=0)
    assert _rows(pool, ["sample_id", "source_id", "folder"])["source_id"] == ["00000.png"]


def test_blocks_are_small_and_come_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _folder(tmp_path / "in", 50)
    monkeypatch.setattr(images, "BLOCK_BYTES", 40)
    pieces = list(find(str(root)).pieces())
    assert len(pieces) == 10
    assert [piece.first_row for piece in pieces] == [
        sum(piece.rows.num_rows for piece in pieces[:at]) for at in range(len(pieces))
    ]
    assert pieces[-1].at(pieces[-1].rows.num_rows - 1) == f"{root}/train/dog/00049.png"
    assert max(piece.rows.nbytes for piece in pieces) < 1000
    paths = pa.concat_arrays([piece.rows.column("path") for piece in pieces])
    assert pc.sort_indices(paths).to_pylist() == list(range(50))


def test_images_beside_other_rows_are_not_guessed_at(tmp_path: Path) -> None:
    root = _folder(tmp_path / "in")
    (root / "labels.csv").write_text("path,label\na,b\n")
    _refused(root, tmp_path, r"files of several formats \(csv, images\); give a glob")


def test_links_that_leave_the_root_are_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path / "in")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.png").write_bytes(b"secret")
    os.symlink(root / "train" / "cat" / "00000.png", root / "again.png")
    assert ingest(str(root), str(tmp_path / "inside"), test_share=0).num_rows == 21
    link = root / "train" / "link.png"
    link.symlink_to(tmp_path / "secret" / "key.png")
    _refused(root, tmp_path, r"link.png is a link to .*secret/key.png, outside of its root .*in;")
    link.unlink()
    (root / "more").symlink_to(tmp_path / "secret", target_is_directory=True)
    _refused(root, tmp_path, r"more/key.png is a link to .*secret/key.png, outside of its root")
    (root / "more").unlink()
    (root / "train" / "back").symlink_to(root, target_is_directory=True)
    _refused(root, tmp_path, r"train/back is a link to a folder that it lies in")


def test_paths_that_climb_are_refused() -> None:
    filesystem = fsspec.filesystem("memory")
    with pytest.raises(PoolError, match=r"/b/in/../x.png leaves its root /b/in by '..'; mend"):
        images.refuse_escapes(filesystem, ["/b/in/a.png", "/b/in/../x.png"], "/b/in")


def test_files_that_cannot_be_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _folder(tmp_path / "in")
    found = find(str(root))
    (root / "train" / "cat" / "00004.png").unlink()
    with pytest.raises(PoolError, match=r"00004.png cannot be read: .*; mend or remove it"):
        list(found.pieces())
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 5)
    _refused(root, tmp_path, r"00000.png has 0 MiB, expected an image of at most 0 MiB; remove it")
