"""What leaves, byte by byte, and secrets that are nowhere but in the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors, small

from rayal.pool import Pool, ingest
from rayal.vendorkit.server import Desk, served
from rayal.vendorkit.vendor import Vendor

pytest.importorskip("httpx", reason="adapters over HTTP need the extra 'vendors'")

TOKEN, KEY = "tok-4f1c9d2e7b", "key-of-the-pseudonyms-81d3"
PLANTED = {"name": "Anna Planted", "note": "call 0151 23456789", "source": "planted/file.png"}
ENVIRONMENT = {"RAYAL_TEST_TOKEN": TOKEN, "RAYAL_TEST_KEY": KEY}


class Masked:
    """Masks digits."""

    def redact(self, rows: pa.Table) -> pa.Table:
        masked = [
            "".join("*" if c.isdigit() else c for c in one)
            for one in rows.column("note").to_pylist()
        ]
        place = rows.schema.get_field_index("note")
        return rows.set_column(place, "note", pa.array(masked))


@pytest.fixture
def people(tmp_path: Path) -> Pool:
    """200 rows, each with planted words in every column."""
    rng = np.random.default_rng(0)
    place = rng.integers(0, 2, 200)
    rows = (rng.normal(size=(2, 8))[place] * 2 + rng.normal(size=(200, 8))).astype(np.float32)
    table = pa.table(
        {
            "id": [f"{PLANTED['source']}/{i}" for i in range(200)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 8),
            "name": [PLANTED["name"]] * 200,
            "note": [f"{PLANTED['note']}, allowed word" for _ in range(200)],
            "label": [("ant", "bee")[i] for i in place],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    return ingest(
        str(tmp_path / "rows.parquet"), str(tmp_path / "pool"), label_column="label", id_column="id"
    )


def _http(url: str) -> list[str]:
    return [
        "labeler=http", f"labeler.url={url}", "labeler.token_env=RAYAL_TEST_TOKEN",
        "labeler.family=tag", "labeler.in_doubt_s=0", "labeler.rows_per_chunk=7",
    ]  # fmt: skip


def _gate(redacts: bool) -> list[str]:
    words = ["labeler.columns=[note]", "labeler.pseudonyms=RAYAL_TEST_KEY", "num_rounds=2"]
    return [*words, "labeler.redact={_target_: test_privacy.Masked}"] if redacts else words


def _check(heard: bytes, pool: Pool, redacts: bool) -> None:
    assert b"allowed word" in heard
    for word in (PLANTED["name"], PLANTED["source"], "embedding", "margin", "0151 2" * redacts):
        assert not word or word.encode() not in heard, word
    assert (b"0151" in heard) != redacts
    for sample_id in range(pool.num_rows + pool.num_test_rows):
        assert f'"sample_id": {sample_id},'.encode() not in heard
        assert f'"sample_id":{sample_id},'.encode() not in heard
    assert KEY.encode() not in heard


def _prepare(doors: Doors) -> None:
    doors.monkeypatch.syspath_prepend(str(Path(__file__).parent))
    for name, value in ENVIRONMENT.items():
        doors.monkeypatch.setenv(name, value)


@pytest.mark.parametrize("redacts", [False, True])
def test_nothing_leaves_over_http_that_was_not_named(
    doors: Doors, people: Pool, redacts: bool
) -> None:
    _prepare(doors)
    vendor = Vendor("tag", ("ant", "bee"), delay_s=0.0)
    desk = Desk(vendor, token=TOKEN)
    with served(desk) as url:
        doors.run("pool", "r", *_http(url), *_gate(redacts)).done()
    assert json.loads(doors("status", "r", "--json").done().out)["spend"]["labels"] == 40
    _check(b"\n".join(desk.heard), people, redacts)


@pytest.mark.parametrize("redacts", [False, True])
def test_nothing_leaves_in_files_that_was_not_named(
    doors: Doors, people: Pool, redacts: bool
) -> None:
    _prepare(doors)
    doors.run("pool", "r", "labeler=file_drop", *_gate(redacts)).done()
    files = [path for path in Path("r/labeler/outbox").rglob("*") if path.is_file()]
    heard = b"\n".join(path.read_bytes() + path.name.encode() for path in files)
    _check(heard, people, redacts)


def test_secrets_are_nowhere(doors: Doors, people: Pool) -> None:
    """Not in what a run says or keeps, in what it prints of itself, or in its errors."""
    desk = Desk(Vendor("tag", ("ant", "bee"), delay_s=0.0), token=TOKEN)
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": paths}
    said = b""
    with served(desk) as url:
        words = [*small("pool", "r"), *_http(url), *_gate(True)]
        commands = [
            ["run", "--cfg", "job", *words], ["run", *words], ["status", "r", "--json"],
            ["orders", "r"], ["audit", "sent", "r"], ["report", "r"], ["plan", *words],
            ["run", *words, "labeler.url=http://127.0.0.1:9", "run_dir=s"],
        ]  # fmt: skip
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "rayal.cli.main", *command],
                cwd=doors.folder, env=environment, capture_output=True, check=False, timeout=200,
            )  # fmt: skip
            said += done.stdout + done.stderr
        desk.token = "another"
        done = subprocess.run(
            [sys.executable, "-m", "rayal.cli.main", "run", *words, "run_dir=t"],
            cwd=doors.folder, env=environment, capture_output=True, check=False, timeout=200,
        )  # fmt: skip
        assert done.returncode == 1
        assert b"401" in done.stderr
        said += done.stdout + done.stderr
    assert json.loads(doors("status", "r", "--json").done().out)["state"] == "done"
    for secret in (TOKEN.encode(), KEY.encode()):
        assert secret not in said
        for path in doors.folder.rglob("*"):
            if path.is_file():
                assert secret not in path.read_bytes(), path
