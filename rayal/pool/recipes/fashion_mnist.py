"""70,000 grey images of 28 x 28 pixels, ten kinds of clothing.

Xiao et al., Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms,
2017, arXiv:1708.07747 (MIT). Its own test set is part of the pool, whose test split is by hash.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from rayal.errors import PoolError
from rayal.pool.recipes.arrays import fixed_list
from rayal.pool.recipes.fetch import cache_folder, run
from rayal.storage import atomic_path
from rayal.types import Kind

LABEL_COLUMN = "label"
KIND: Kind = "class"
ROWS_PER_SHARD: int | None = 8_192
NUM_ROWS: int | None = None  # 70,000 as published; a folder of one's own may hold others

_PACKAGE = "dataset-fashion-mnist"
_INSIDE = "usr/share/datasets/fashion-mnist"
_SHA256 = {  # of the unpacked files
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_BATCH_ROWS = 8_192
_IMAGES, _LABELS = 0x0803, 0x0801  # magic numbers of idx files of bytes in three and one dimensions


def origin(source: str | None) -> str:
    """Gives the checksums of the published files, or of the user's own as they lie there."""
    if source is None:
        return " ".join(_SHA256.values())
    places = [_file(Path(source).expanduser(), name) for name in _SHA256]
    return " ".join(hashlib.sha256(place.read_bytes()).hexdigest() for place in places)


def read(source: str | None) -> Iterator[pa.RecordBatch]:
    """Gives columns `image` (784 uint8) and `label`, training files first.

    `source` is a folder with the four idx files, gzipped or not, of this set or of one in its form.

    Raises:
        PoolError: the files cannot be had, or are not what they should be.
    """
    folder = _fetched() if source is None else Path(source).expanduser()
    for part in ("train", "t10k"):
        images = _idx(folder, f"{part}-images-idx3-ubyte", _IMAGES, source is None)
        labels = _idx(folder, f"{part}-labels-idx1-ubyte", _LABELS, source is None)
        if len(images) != len(labels):
            raise PoolError(
                f"{folder} has {len(images)} {part} images and {len(labels)} labels; "
                "expected as many"
            )
        pixels = images.reshape(len(images), -1)
        for lo in range(0, len(pixels), _BATCH_ROWS):
            some = slice(lo, lo + _BATCH_ROWS)
            yield pa.record_batch(
                [fixed_list(pixels[some]), pa.array(labels[some].astype(np.int64))],
                names=["image", LABEL_COLUMN],
            )


def _fetched() -> Path:
    final = cache_folder() / "fashion-mnist"
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    failure = f"recipe fashion_mnist: apt cannot fetch {_PACKAGE}"
    advice = "give a folder with the four idx files: recipe:fashion_mnist:/path/to/folder"
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=final.parent) as folder:
        run(["apt-get", "download", _PACKAGE], failure, advice, Path(folder))
        packages = sorted(Path(folder).glob("*.deb"))
        if not packages:
            raise PoolError(f"{failure} (it left no file); {advice}")
        run(["dpkg-deb", "-x", str(packages[0]), folder], failure, advice)
        with atomic_path(final) as temporary:
            (Path(folder) / _INSIDE).rename(temporary)
    return final


def _file(folder: Path, name: str) -> Path:
    for place in (folder / name, folder / f"{name}.gz"):
        if place.is_file():
            return place
    raise PoolError(
        f"{folder} has neither {name} nor {name}.gz; expected a folder with the four files "
        f"{', '.join(_SHA256)}"
    )


def _idx(folder: Path, name: str, magic: int, published: bool) -> np.ndarray:
    place = _file(folder, name)
    try:
        content = place.read_bytes()
        content = gzip.decompress(content) if place.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise PoolError(f"{place} cannot be unpacked ({error}); fetch it again") from error
    if published and hashlib.sha256(content).hexdigest() != _SHA256[name]:
        raise PoolError(
            f"recipe fashion_mnist: {place} is not the published file; remove {folder} and fetch "
            "it again"
        )
    num_dims = magic & 0xFF
    header = np.frombuffer(content[: 4 * (1 + num_dims)], ">u4")
    if len(header) != 1 + num_dims or int(header[0]) != magic:
        raise PoolError(f"{place} is no idx file of bytes in {num_dims} dimensions")
    shape = [int(size) for size in header[1:]]
    values = np.frombuffer(content, np.uint8, offset=header.nbytes)
    if len(values) != int(np.prod(shape)):
        raise PoolError(f"{place} has {len(values)} values, expected {shape}; fetch it again")
    return values.reshape(shape)
