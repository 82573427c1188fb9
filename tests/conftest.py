"""Small pools that every test may read, and one small Ray a session."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import buckets
import psutil
import pytest
from buckets import Bucket
from commands import left_over
from doors import Doors
from hypothesis import settings
from passes import Stage
from postgres import served
from runs import write_embeddings, write_sums, write_topics

from rayal.engine.launch import prepare_environment
from rayal.pool import Pool, ingest

FAULTS = str(Path(__file__).parent / "faults")
prepare_environment("local")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The same examples every time; a busy machine is no failure.
settings.register_profile("rayal", deadline=None, derandomize=True)
settings.load_profile("rayal")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says what stays in one process of `pytest -n 2 --dist loadgroup`: a file, which shares its
    fixtures, and all that needs Ray, which shares one cluster and two cores."""
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def orphans() -> Iterator[list[psutil.Process]]:
    """Processes whose driver a test kills; none is left when the session ends.

    Two agents of such a Ray try for a minute to report it, so no test waits for them by itself.
    """
    found: list[psutil.Process] = []
    yield found
    assert left_over(found) == []


@pytest.fixture
def doors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Doors:
    """The `rayal` command, in this process and in a folder of its own."""
    return Doors(capsys, monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    isolated = [] if importlib.util.find_spec("hatchling") is None else ["--no-isolation"]
    root = str(Path(__file__).resolve().parents[1])
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", *isolated, "--outdir", str(folder), root],
        check=True,
        capture_output=True,
        timeout=240,
    )
    (found,) = folder.glob("rayal-*.whl")
    return found


@pytest.fixture(scope="session")
def class_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """1,000 rows of 8 features and four classes, in five shards."""
    folder = tmp_path_factory.mktemp("class")
    source = write_embeddings(folder / "rows.parquet", 1000)
    return ingest(str(source), str(folder / "pool"), label_column="label", rows_per_shard=200)


@pytest.fixture(scope="session")
def number_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """800 rows of ten features whose sum is the label, in four shards."""
    folder = tmp_path_factory.mktemp("number")
    source = write_sums(folder / "rows.parquet", 800)
    return ingest(str(source), str(folder / "pool"), label_column="y", rows_per_shard=200)


@pytest.fixture(scope="session")
def multilabel_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """600 rows of 8 features and any of three labels, in four shards."""
    folder = tmp_path_factory.mktemp("multilabel")
    source = write_topics(folder / "rows.parquet", 600)
    return ingest(str(source), str(folder / "pool"), label_column="label", rows_per_shard=150)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL database; without a server the test is skipped."""
    with served() as url:
        yield url


@pytest.fixture(scope="session")
def small_ray():
    """One Ray of six logical CPUs for the session, shut down by its own handle."""
    import ray

    from rayal.engine import launch

    started = launch.start("local", 6, 0, object_store_gib=0.25, py_modules=(FAULTS,))
    yield ray
    launch.stop(started)


@pytest.fixture(scope="session")
def class_stage(class_pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Classes: an ensemble of three, 30 rows taken."""
    return Stage.build(class_pool, tmp_path_factory.mktemp("class-stage"))


@pytest.fixture(scope="session")
def number_stage(number_pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Numbers: an ensemble of three, 30 rows taken."""
    folder = tmp_path_factory.mktemp("number-stage")
    return Stage.build(number_pool, folder, "model.kind=number", "model.transform.column=features")


@pytest.fixture(scope="session")
def _store() -> Iterator[Bucket]:
    with buckets.served() as bucket:
        yield bucket


@pytest.fixture
def bucket(_store: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of a real S3 API on loopback, and the environment that leads there."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in _store.environment.items():
        monkeypatch.setenv(name, value)
    _store.requests.clear()
    yield _store
    _store.fail_no_more()
    _store.delay_s = 0.0
