"""Azure's and Google's stores, by servers that stand in for them: the same pool, run and features.

`make stores-test` installs them. Google's stand-in lets two writers create one object, so that who
keeps whom out is tested with Azure's alone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import forget_copies
from doors import Doors
from runs import write_embeddings

from rayal import copies
from rayal.errors import PoolError
from rayal.places import Place
from rayal.places.claim import Held, claimed
from rayal.places.signs import Sign, is_used
from rayal.pool import Pool, ingest

INSTALLED = os.environ.get("RAYAL_STORES")
pytestmark = pytest.mark.skipif(not INSTALLED, reason="make stores-test installs the servers")
# Of Azurite, the same everywhere, and printed in its manual: no secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
MLP = ("model=mlp", "model.module.hidden=[16]", "num_rounds=2", "budget=20", "trainer.min_steps=20")


@dataclass(frozen=True)
class Store:
    """A server, and a bucket of it."""

    url: str
    environment: dict[str, str] = field(default_factory=dict)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module", params=["azure", "google"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """One of the two, started here and ended by its handle."""
    port, folder = _free_port(), tmp_path_factory.mktemp(request.param)
    here = Path(str(INSTALLED)).absolute()
    if request.param == "azure":
        words = [
            *(here / "node_modules/.bin/azurite-blob", "--blobHost", "127.0.0.1", "--blobPort"),
            *(
                port,
                "--location",
                folder,
                "--silent",
                "--skipApiVersionCheck",
                "--disableTelemetry",
            ),
        ]
        store = Store("abfs://rayal-tests", {"AZURE_STORAGE_CONNECTION_STRING": _azure(port, KEY)})
    else:
        words = [
            *(here / "bin/gcp-storage-emulator", "start", "--host", "127.0.0.1", "--port", port),
            *("--in-memory", "--default-bucket", "rayal-tests"),
        ]
        address = f"http://127.0.0.1:{port}"
        store = Store("gs://rayal-tests", {"STORAGE_EMULATOR_HOST": address})
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(list(map(str, words)), stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(port, running)
        if request.param == "azure":
            from azure.storage.blob import BlobServiceClient

            BlobServiceClient.from_connection_string(_azure(port, KEY)).create_container(
                "rayal-tests"
            )
        yield store
    finally:
        running.kill()  # told to end, it waits for connections that clients keep
        running.wait()


def _azure(port: int, key: str) -> str:
    return (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};"
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    )


def _wait(port: int, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def root(server: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    """An empty folder there, and the environment that leads to it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    forget_copies()
    yield Place.of(server.url) / uuid.uuid4().hex
    copies._let_go()


def test_files_are_what_was_put_there(root: Place, tmp_path: Path) -> None:
    file, content = root / "folder" / "a", b"x" * 1000
    assert not file.exists()
    file.put_bytes(content)
    (root / "folder" / "deeper" / "b").put_bytes(b"")
    assert file.read_bytes() == content
    assert bytes(file.open_ranges().read_at(10, 7)) == content[10:17]
    assert [one.name for one in (root / "folder").list()] == ["a", "deeper/b"]
    assert root.children() == ["folder"]
    assert (root / "folder").children() == ["a", "deeper"]
    assert (root / "folder").is_folder()
    assert not (root / "fold").is_folder()
    found = file.info()
    assert found is not None
    assert found.changed_ns is not None
    assert abs(found.changed_ns / 1e9 - time.time()) < 60
    (tmp_path / "big").write_bytes(np.random.default_rng(0).bytes(3 << 20))
    (root / "big").put_file(tmp_path / "big")
    assert (root / "big").read_bytes() == (tmp_path / "big").read_bytes()
    file.remove()
    file.remove()
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        file.read_bytes()
    root.remove_folder()
    root.remove_folder()
    assert root.list() == []


def test_a_sign_of_life_is_seen(root: Place) -> None:
    sign = Sign(root / "signs", stale_s=60)
    assert is_used(root / "signs")
    sign.end()
    assert not is_used(root / "signs")


def test_pool_features_and_run_are_those_of_a_disk(doors: Doors, root: Place) -> None:
    write_embeddings(doors.folder / "rows.parquet", 3_000)
    where = {"disk": "", "store": f"{root}/"}
    for name, place in where.items():
        ingest("rows.parquet", f"{place}pool", label_column="label", rows_per_shard=500)
        ledger = f"ledger_url=sqlite:///{doors.folder}/{name}"
        base = ["experiment=embeddings", f"pool.path={place}pool", *MLP]
        doors("run", *base, f"run_dir={place}one", f"{ledger}-1.db").done()
        checkpoint = f"checkpoint={place}one/checkpoints/r0001"
        doors("embed", *base, checkpoint, f"features={place}sets").done()
        doors(
            *("run", *base[:2], "model=linear", "model.transform.column=deep", *MLP[2:]),
            *("pool.features_column=deep", f"pool.features={place}sets"),
            *(f"run_dir={place}two", f"{ledger}-2.db"),
        ).done()
    for run in ("one", "two"):
        assert doors.digest(f"{root}/{run}") == doors.digest(run)
    one, two = Pool.open("pool"), Pool.open(f"{root}/pool")
    assert one.content_hash == two.content_hash
    assert len(one.shards) > 2


def test_sources_are_read_and_grow(doors: Doors, root: Place) -> None:
    for number in range(2):
        table = pa.table({"x": np.arange(number * 100, number * 100 + 100)})
        pq.write_table(table, doors.folder / "part.parquet")
        (root / "in" / f"part-{number}.parquet").put_file(doors.folder / "part.parquet")
        said = doors("ingest", f"{root}/in", f"{root}/pool", "--test-share", "0").done()
        assert f"{100 * (number + 1)} rows" in said.out
    again = doors("ingest", f"{root}/in", f"{root}/pool", "--test-share", "0").done()
    assert "200 rows" in again.out
    doors("ingest", f"{root}/none", f"{root}/other").refused(f"{root}/none does not exist")


def test_a_bucket_that_is_not_there(doors: Doors, root: Place, server: Store) -> None:
    other = server.url.replace("rayal-tests", "rayal-none")
    doors("run", "experiment=embeddings", f"pool.path={other}/pool", "run_dir=r").refused(
        "there is no bucket 'rayal-none'"
    )


def test_one_process_at_a_time(doors: Doors, root: Place, server: Store) -> None:
    if server.url.startswith("gs"):
        pytest.skip("Google's stand-in does not keep a second writer from creating an object")
    with claimed(root / ".lock"), pytest.raises(Held, match="process"), claimed(root / ".lock"):
        pass
    with claimed(root / ".lock"):
        pass
    write_embeddings(doors.folder / "rows.parquet", 20_000)
    words = f"'rows.parquet', '{root}/pool', label_column='label', rows_per_shard=100"
    text = f"from rayal.pool import ingest; ingest({words})"
    first = subprocess.Popen([sys.executable, "-c", text], cwd=doors.folder)
    try:
        while len((root / "pool").list()) < 5:
            assert first.poll() is None
            time.sleep(0.01)
        with pytest.raises(PoolError, match=f"{root}/pool is being written by process"):
            ingest("rows.parquet", f"{root}/pool", label_column="label", rows_per_shard=100)
    finally:
        first.kill()
        first.wait()
    made = [
        ingest("rows.parquet", place, label_column="label", rows_per_shard=100)
        for place in (f"{root}/pool", "pool")
    ]
    assert made[0].content_hash == made[1].content_hash


def test_keys_that_are_wrong_or_missing(
    doors: Doors, root: Place, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server.url.startswith("gs"):
        pytest.skip("Google's stand-in asks nobody who they are")
    words = ("run", "experiment=embeddings", f"pool.path={root}/pool", "run_dir=r")
    right = server.environment["AZURE_STORAGE_CONNECTION_STRING"]
    wrong = KEY.replace("Eby8", "Abc1")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", right.replace(KEY, wrong))
    said = doors(*words).refused("the store refuses the credentials", "AZURE_STORAGE_ACCOUNT_KEY")
    assert wrong not in said
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("HOME", str(doors.folder))
    doors(*words).refused("cannot be reached without credentials, and none were found")
