"""Each labeler that can be chosen, and Ray: what leaves, and that no secret is left behind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors
from label_studio_fake import LEGACY, FakeLabelStudio
from label_studio_fake import served as studio_served
from scale_fake import KEY, FakeScale
from scale_fake import served as scale_served

from rayal.pool import Pool, ingest
from rayal.vendorkit.server import Desk
from rayal.vendorkit.server import served as vendor_served
from rayal.vendorkit.vendor import Vendor

pytest.importorskip("httpx", reason="adapters over HTTP need the extra 'vendors'")

CONF = Path(__file__).resolve().parents[2] / "conf" / "labeler"
ALLOWED = "a word that may leave"
PLANTED = ["Anna Planted", "planted/file", "31.4159265"]
TOKEN = "tok-5a1be77c02"


@pytest.fixture
def people(tmp_path: Path) -> Pool:
    """100 rows with planted words in each column that may not leave."""
    rng = np.random.default_rng(0)
    place = rng.integers(0, 2, 100)
    rows = (rng.normal(size=(100, 4)) + 2 * place[:, None]).astype(np.float32)
    table = pa.table(
        {
            "id": [f"{PLANTED[1]}-{i}" for i in range(100)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 4),
            "name": [PLANTED[0]] * 100,
            "salary": [float(PLANTED[2])] * 100,
            "note": [f"{ALLOWED} {i}" for i in range(100)],
            "label": [("ant", "bee")[i] for i in place],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    place_of_pool = str(tmp_path / "pool")
    return ingest(
        str(tmp_path / "rows.parquet"), place_of_pool, label_column="label", id_column="id"
    )


@contextlib.contextmanager
def _vendor(name: str) -> Iterator[tuple[list[str], Any]]:
    """Gives the words of a run with this labeler, and what gives the bytes that left."""

    def files() -> bytes:
        places = [path for path in Path("r/labeler/outbox").rglob("*") if path.is_file()]
        return b"\n".join(path.read_bytes() + path.name.encode() for path in places)

    match name:
        case "file_drop" | "terminal":
            yield [], files
        case "manifest":
            yield ["labeler=file_drop", "labeler.format=manifest", "labeler.source=note"], files
        case "http":
            desk = Desk(Vendor("key", ("ant", "bee"), delay_s=60.0), token=TOKEN)
            with vendor_served(desk) as url:
                about = [f"labeler.url={url}", "labeler.token_env=RAYAL_TEST_TOKEN"]
                yield [*about, "labeler.family=key"], lambda: b"\n".join(desk.heard)
        case "label_studio":
            studio = FakeLabelStudio()
            with studio_served(studio) as url:
                about = [f"labeler.url={url}", "labeler.token_env=RAYAL_TEST_STUDIO"]
                about += ["labeler.kind=text", "labeler.show=note"]
                yield about, lambda: b"\n".join(studio.heard)
        case "scale":
            scale = FakeScale()
            with scale_served(scale) as url:
                about = [f"labeler.url={url}", "labeler.key_env=RAYAL_TEST_SCALE"]
                yield [*about, "labeler.project=p"], lambda: b"\n".join(scale.heard)
        case _:
            raise AssertionError(f"labeler={name} has no test of the bytes that leave: write one")


def _labelers() -> list[str]:
    # The oracle asks nobody: its answers are the pool's own.
    return [*sorted({path.stem for path in CONF.glob("*.yaml")} - {"oracle"}), "manifest"]


@pytest.mark.parametrize("name", _labelers())
def test_no_byte_leaves_that_was_not_named(doors: Doors, people: Pool, name: str) -> None:
    doors.monkeypatch.setenv("RAYAL_TEST_TOKEN", TOKEN)
    doors.monkeypatch.setenv("RAYAL_TEST_STUDIO", LEGACY)
    doors.monkeypatch.setenv("RAYAL_TEST_SCALE", KEY)
    with _vendor(name) as (about, left):
        words = [] if name == "manifest" else [f"labeler={name}"]
        doors.run("pool", "r", *words, *about, "labeler.columns=[note]", "num_rounds=1").done()
        heard = left()
    assert heard.count(ALLOWED.encode()) >= 20
    for word in [*PLANTED, "embedding", "margin", "salary"]:
        assert word.encode() not in heard, word
    for path in Path("r").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert all(one.encode() not in content for one in (TOKEN, LEGACY, KEY)), path


def test_rays_jobs_know_no_secret(doors: Doors, people: Pool) -> None:
    """Not in the metadata of the job, nor in any file of Ray's session."""
    ray = pytest.importorskip("ray")
    from rayal.engine import launch

    doors.monkeypatch.setenv("RAYAL_TEST_TOKEN", TOKEN)
    told: list[str] = []
    sessions: list[Path] = []
    whole = launch.stop

    def stop(started: bool) -> None:
        from ray._private.state import state

        told.append(json.dumps(state.job_table(), default=str))
        told.append(str(ray.get_runtime_context().runtime_env))
        sessions.append(Path(ray._private.worker._global_node.get_session_dir_path()))
        whole(started)

    doors.monkeypatch.setattr(launch, "stop", stop)
    desk = Desk(Vendor("key", ("ant", "bee"), delay_s=0.0), token=TOKEN)
    with vendor_served(desk) as url:
        about = ["labeler=http", f"labeler.url={url}", "labeler.token_env=RAYAL_TEST_TOKEN"]
        about += ["labeler.family=key", "labeler.columns=[note]", "num_rounds=1"]
        doors.run("pool", "r", *about, "engine=ray", "engine.num_workers=1").done()
    assert told, "no Ray was started"
    assert all(TOKEN not in one for one in told)
    files = [path for folder in sessions for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        with contextlib.suppress(OSError):
            assert TOKEN.encode() not in path.read_bytes(), path
