"""The same images three times: as files, as WebDataset tars, as Parquet; and the same picks.

    python examples/images.py [FOLDER] [--digits]

Fashion-MNIST where it can be had, else (or with --digits) scikit-learn's digits. Needs the extras
`images` and, for the digits, scikit-learn. About two minutes on one core.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from rayal.cli.main import main as rayal
from rayal.errors import PoolError
from rayal.pool import recipes
from rayal.rundir import RunDir

NUM_ROWS, ROWS_PER_TAR = 10_000, 1_000
ROUNDS, BUDGET = 3, 100


def main(words: list[str] | None = None) -> list[list[int]]:
    """Writes, ingests and runs all three; gives the ids of every round's batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where everything goes; default: a new one")
    parser.add_argument("--digits", action="store_true", help="not Fashion-MNIST")
    parser.add_argument("--epochs", type=int, default=5, help="of each round; default 5")
    given = parser.parse_args(words)
    folder = Path(given.folder or tempfile.mkdtemp(prefix="rayal-images-"))
    images_NHW, labels_N = images_of(digits=given.digits)
    write_files(folder / "files", images_NHW, labels_N)
    write_tars(folder / "tars", images_NHW, labels_N)
    write_parquet(folder / "images.parquet", images_NHW, labels_N)

    size = images_NHW.shape[1]
    encoded = [
        "experiment=images", "model.module.in_channels=1", "model.transform.mode=L",
        f"model.transform.height={size}", f"model.transform.width={size}",
    ]  # fmt: skip
    plain = [
        "experiment=images", "model=small_cnn", "model.transform.column=pixels",
        f"+model.transform.height={size}", f"+model.transform.width={size}",
    ]  # fmt: skip
    picks = {
        name: run(folder, name, source, columns, [*model, f"trainer.epochs={given.epochs}"])
        for name, source, columns, model in (
            ("files", "files", ("number", "folder"), encoded),
            ("tars", "tars", ("id", "cls"), [*encoded, "model.transform.column=png"]),
            ("parquet", "images.parquet", ("id", "label"), plain),
        )
    }
    for at in range(ROUNDS):
        first = ", ".join(map(str, picks["parquet"][at][:5]))
        print(f"round {at}: {len(picks['parquet'][at])} picks, the first of Parquet's: {first}")
    for name, found in picks.items():
        if found != picks["parquet"]:
            raise SystemExit(f"{name} gave other picks than Parquet")
    print("files, tars and Parquet gave the same picks in every round")
    return picks["parquet"]


def images_of(*, digits: bool) -> tuple[np.ndarray, np.ndarray]:
    """Gives (N, H, W) uint8 images and their labels, class by class: the order of the files."""
    name = "digits" if digits else "fashion_mnist"
    try:
        batches = list(recipes.RECIPES[name].read(None))
    except PoolError as error:
        if digits:
            raise
        print(f"{error}; going on with scikit-learn's digits")
        return images_of(digits=True)
    flat_ND = np.concatenate([to_matrix(rows.column("image")) for rows in batches])
    labels_N = np.concatenate([rows.column("label").to_numpy() for rows in batches])
    chosen = np.sort(np.random.default_rng(0).permutation(len(flat_ND))[:NUM_ROWS])
    chosen = chosen[np.argsort(labels_N[chosen], kind="stable")]
    size = int(flat_ND.shape[1] ** 0.5)
    scale = 255 // int(flat_ND.max())  # the digits' pixels are 0 to 16
    return (flat_ND[chosen] * scale).astype(np.uint8).reshape(-1, size, size), labels_N[chosen]


def to_matrix(column: pa.FixedSizeListArray) -> np.ndarray:
    """Gives the (N, D) array of a column of lists of one width."""
    return column.flatten().to_numpy().reshape(len(column), -1)


def png(image_HW: np.ndarray) -> bytes:
    """Gives an image's PNG, which loses nothing."""
    sink = io.BytesIO()
    PIL.Image.fromarray(image_HW).save(sink, "PNG")
    return sink.getvalue()


def write_files(root: Path, images_NHW: np.ndarray, labels_N: np.ndarray) -> None:
    """Writes LABEL/ID.png."""
    for sample_id, (image, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
        place = root / str(label) / f"{sample_id:06d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(image))


def write_tars(root: Path, images_NHW: np.ndarray, labels_N: np.ndarray) -> None:
    """Writes tars of KEY.id, KEY.png and KEY.cls."""
    root.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(images_NHW), ROWS_PER_TAR):
        with tarfile.open(root / f"{start // ROWS_PER_TAR:06d}.tar", "w") as tar:
            for sample_id in range(start, min(start + ROWS_PER_TAR, len(images_NHW))):
                members = {
                    "id": str(sample_id).encode(),
                    "png": png(images_NHW[sample_id]),
                    "cls": str(labels_N[sample_id]).encode(),
                }
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"{sample_id:06d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def write_parquet(path: Path, images_NHW: np.ndarray, labels_N: np.ndarray) -> None:
    """Writes the pixels themselves."""
    flat = pa.array(np.ascontiguousarray(images_NHW).reshape(-1))
    pixels = pa.FixedSizeListArray.from_arrays(flat, images_NHW[0].size)
    ids = pa.array(np.arange(len(images_NHW)))
    pq.write_table(pa.table({"id": ids, "pixels": pixels, "label": labels_N}), path)


def run(
    folder: Path, name: str, source: str, columns: tuple[str, str], model: list[str]
) -> list[list[int]]:
    """Ingests a source and runs over it; gives the ids of every round's batch."""
    pool, run_dir = folder / f"pool-{name}", folder / f"run-{name}"
    id_column, label_column = columns
    _command("ingest", str(folder / source), str(pool), "--id-column", id_column,
             "--label-column", label_column, "--kind", "class")  # fmt: skip
    _command("run", *model, f"pool.path={pool}", f"run_dir={run_dir}", "strategy=margin",
             f"num_rounds={ROUNDS}", f"budget={BUDGET}")  # fmt: skip
    batches = [RunDir(str(run_dir)).round(t) / "batch.parquet" for t in range(ROUNDS)]
    return [pq.read_table(place)["sample_id"].to_pylist() for place in batches]


def _command(*words: str) -> None:
    print("$ rayal", *words, flush=True)
    code = rayal(list(words))
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
