"""Images as files, as tars and as Parquet: one pool, one answer; and rows that are no images."""

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "experiment=images", "model.module.in_channels=1", "model.transform.mode=L",
    "model.transform.height=8", "model.transform.width=8", "trainer.epochs=2", "num_rounds=1",
    "budget=10",
)  # fmt: skip


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("images_example", ROOT / "examples/images.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_files_tars_and_parquet_give_the_same_picks(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picks = example.main([str(tmp_path), "--digits", "--epochs", "2"])
    assert "files, tars and Parquet gave the same picks" in capsys.readouterr().out
    assert [len(batch) for batch in picks] == [100, 100, 100]
    assert len({sample_id for batch in picks for sample_id in batch}) == 300


def _image(value: int) -> bytes:
    sink = io.BytesIO()
    noise = np.random.default_rng(value).integers(0, 60, (9, 7))
    PIL.Image.fromarray((noise + 80 * (value % 2)).astype(np.uint8)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 60 images in two classes."""
    for at in range(60):
        place = tmp_path / "in" / ("dark", "light")[at % 2] / f"{at}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(_image(at))
    return tmp_path / "in"


def test_a_row_that_is_no_image_is_rejected_and_the_run_goes_on(folder: Path, doors: Doors) -> None:
    (folder / "dark" / "2.png").write_bytes(b"<html>no image</html>")
    (folder / "light" / "3.png").write_bytes(_image(3)[:60])
    doors("ingest", folder, "pool", "--label-column", "folder", "--test-share", 0).done()
    run = ("run", *SMALL, "pool.path=pool", "run_dir=out", "strategy=margin")
    doors(*run).refused("could not be decoded")
    doors(*run, "max_rejected_share=0.1").done()
    rejected = pq.read_table("out/rejected.parquet").to_pylist()
    assert [one["source_id"] for one in rejected] == ["dark/2.png", "light/3.png"]
    assert "no image" in rejected[0]["reason"]
    assert rejected[0]["reason"] != rejected[1]["reason"]  # one is no image, one is cut short


@pytest.mark.ray
def test_both_engines_pick_the_same_images(folder: Path, doors: Doors, small_ray: object) -> None:
    picks: list[list[int]] = []
    doors("ingest", folder, "pool", "--label-column", "folder", "--test-share", 0.2).done()
    for name, more in (
        ("local", []),
        ("ray", ["engine=ray", "engine.num_workers=2", "engine.num_cpus=0.25"]),
    ):
        doors("run", *SMALL, "pool.path=pool", f"run_dir={name}", "strategy=margin", *more).done()
        picks.append(pq.read_table(f"{name}/rounds/r0000/batch.parquet")["sample_id"].to_pylist())
    assert picks[0] == picks[1]


def test_paths_in_a_pool_are_fetched_by_the_worker(folder: Path, doors: Doors) -> None:
    below = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    labels = [path.split("/")[0] for path in below]
    pq.write_table(pa.table({"uri": below, "label": labels}), "uris.parquet")
    doors("ingest", "uris.parquet", "uris", "--label-column", "label", "--test-share", 0.2).done()
    doors("ingest", folder, "pool", "--label-column", "folder", "--test-share", 0.2).done()
    run = ("run", *SMALL, "strategy=margin")
    doors(*run, "pool.path=pool", "run_dir=files").done()
    grey = [word.replace("model.transform.", "model.transform.transform.") for word in SMALL]
    by_uri = ("run", *grey, "strategy=margin", "model=image_uri_cnn", "pool.path=uris")
    doors(*by_uri, f"model.transform.root={folder}", "run_dir=paths").done()
    files, paths = (
        pq.read_table(f"{name}/rounds/r0000/batch.parquet")["sample_id"].to_pylist()
        for name in ("files", "paths")
    )
    assert files == paths
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    doors(*by_uri, f"model.transform.root={elsewhere}", "run_dir=none").refused(
        "55 of 55 rows could not"
    )
