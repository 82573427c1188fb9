"""A sample is forgotten: no byte of it is left in pool, caches, runs and at the vendor."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors
from runs import picked
from vendor import Vendor

from rayal.pool import Pool, ingest

WORDS = [
    "labeler=file_drop", "labeler.columns=[note]", "num_rounds=3", "vocabulary=class",
    "vocabulary.classes=[ant,bee,cat]",
]  # fmt: skip


@pytest.fixture
def notes(tmp_path: Path) -> Pool:
    """300 rows, each with a text that is nowhere else."""
    rng = np.random.default_rng(0)
    place = rng.integers(0, 3, 300)
    rows = (rng.normal(size=(3, 8))[place] * 2 + rng.normal(size=(300, 8))).astype(np.float32)
    table = pa.table(
        {
            "id": [f"patient-{i:04d}" for i in range(300)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 8),
            "note": [f"the secret of number {i:04d}" for i in range(300)],
            "label": [("ant", "bee", "cat")[i] for i in place],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", compression="none", use_dictionary=False)
    return ingest(
        str(tmp_path / "rows.parquet"), str(tmp_path / "pool"), label_column="label", id_column="id"
    )


def _where(folder: Path, words: list[bytes]) -> list[str]:
    """The files with one of these words, looked at as bytes and, of Parquet, as values."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += str(pq.read_table(path).to_pylist()).encode()
            if path.suffix == ".arrow":
                with contextlib.suppress(pa.ArrowInvalid), pa.memory_map(str(path)) as source:
                    content += str(pa.ipc.open_file(source).read_all().to_pylist()).encode()
            if any(word in content for word in words):
                found.append(path.relative_to(folder).as_posix())
    return found


def _words(pool: Pool, sample_id: int) -> list[bytes]:
    for shard in pool.shards:
        for batch in pool.batches(shard, ("sample_id", "source_id", "note"), 500):
            for row in batch.to_pylist():
                if row["sample_id"] == sample_id:
                    return [row["source_id"].encode(), row["note"].encode()]
    raise AssertionError(f"no sample {sample_id}")


def _run(doors: Doors) -> Any:
    return doors.run("pool", "r", *WORDS)


def test_a_sample_is_forgotten_everywhere(doors: Doors, notes: Pool) -> None:
    Path("rows.parquet").unlink()  # the source is its owner's
    _run(doors).done()
    Vendor(notes, "r").answer()
    _run(doors).done()  # round 0 is trained, round 1 waits
    first, second = picked("r")
    gone = [first[3], second[2]]
    words = [word for one in gone for word in _words(notes, one)]
    assert len(_where(doors.folder, words)) > 4
    files = [path for path in Path("r/labeler/inbox").rglob("*") if path.is_file()]
    proof = json.loads(doors("erase", "r", "--sample-id", *gone).done().out)
    for path in files:  # the inbox is the other side's to clean
        path.unlink()
    left = [one for one in _where(doors.folder, words) if not one.startswith("r/erasures")]
    assert left == []
    assert proof["sample_ids"] == sorted(gone)
    assert proof["num_rows"] == 2
    assert set(proof["vendors"].values()) == {"erased"}
    assert [one.split(" ")[0] for one in proof["trained"]] == ["checkpoints/r0000"]
    assert "rounds/r0000/batch.parquet" in proof["files"]
    doors("audit", "verify", "r", "--head", proof["entry"]).done()
    again = json.loads(doors("erase", "r", "--sample-id", *gone).done().out)
    assert (again["num_rows"], again["files"]) == (0, {})
    assert again["trained"] == proof["trained"]

    vendor = Vendor(Pool.open("pool"), "r")
    (part,) = [
        path
        for path in Path("r/labeler/outbox").rglob("part-*")
        if str(second[0]) in path.read_text()
    ]
    ids = [json.loads(line)["sample_id"] for line in part.read_text().splitlines()]
    assert len(ids) == 19
    vendor.inbox.mkdir(parents=True, exist_ok=True)
    told = [{"sample_id": i, "label": "ant"} for i in [*ids, second[2]]]  # one that knows it still
    (vendor.inbox / "x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in told))
    _run(doors).done()
    stands = json.loads(doors("status", "r", "--json").done().out)
    assert stands["orders"]["num_quarantined"] == 0
    assert stands["rounds"][1]["num_labels"] == 19 + 19
    assert not set(gone) & set(picked("r")[2])
    doors("audit", "verify", "r").done()
    doors("export", "r", "--out", "labels.parquet").done()
    assert not set(gone) & set(pq.read_table("labels.parquet").column("sample_id").to_pylist())


def test_what_cannot_be_erased_is_said(doors: Doors, notes: Pool) -> None:
    _run(doors).done()
    doors("erase", "r", "--sample-id", "x").refused("--sample-id takes whole numbers")
    doors("erase", "r", "--sample-id", "999999").refused("are no sample_id of the pool")
    doors("erase", "r").refused("give --sample-id ID", code=2)
    doors("erase", "nowhere", "--sample-id", "1").refused("is no run")
    Path("ids.txt").write_text("1\n2\n")
    Path("erased").mkdir()
    proof = json.loads(doors("erase", "r", "--ids", "ids.txt").done().out)
    assert proof["num_rows"] == 2


def test_a_batch_that_is_on_its_way_is_not_changed(
    doors: Doors, notes: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rayal.errors import LabelError
    from rayal.labelers.file_drop import FileDrop

    def refuses(self: Any, chunk: Any, rows: Any) -> Any:
        raise LabelError("the vendor says no")

    with monkeypatch.context() as patched:
        patched.setattr(FileDrop, "submit", refuses)
        _run(doors).refused("the vendor says no")
    doors("erase", "r", "--sample-id", picked("r")[0][0]).refused(
        "round 0 has picked one of these samples and its order is not placed yet"
    )
    _run(doors).done()
    doors("erase", "r", "--sample-id", picked("r")[0][0]).done()


def test_an_oracle_forgets_too(doors: Doors, notes: Pool) -> None:
    words = ["num_rounds=2", "labeler=oracle"]
    doors.run("pool", "r", *words).done()
    gone = picked("r")[0][0]
    doors("erase", "r", "--sample-id", gone).done()
    for path in Path("r/labeler").glob("*.json"):
        told = json.loads(path.read_text())
        if gone in told["ids"]:
            assert told["values"][told["ids"].index(gone)] is None
    doors("audit", "verify", "r").done()
