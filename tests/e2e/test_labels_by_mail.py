"""Answers that came in a file by hand: into the ledger, once, and the run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors
from runs import picked

from rayal.pool import Pool

DROP = ["labeler=file_drop", "labeler.columns=[embedding]", "num_rounds=1"]


def _status(doors: Doors) -> dict[str, Any]:
    return json.loads(doors("status", "r", "--json").done().out)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_spreadsheet_that_came_by_mail(doors: Doors, class_pool: Pool, form: str) -> None:
    doors.run(class_pool, "r", *DROP, "labeler.price_minor=3").done()
    ids = picked("r")[0]
    labels = [str(one) for one in class_pool.secret_labels(ids)]
    name = f"back.{form}"
    if form == "csv":
        lines = [f"{i},{x}" for i, x in zip(ids, labels, strict=True)]
        Path(name).write_text("\n".join(["sample_id,label", *lines]))
    elif form == "jsonl":
        pairs = zip(ids, labels, strict=True)
        Path(name).write_text(
            "".join(json.dumps({"sample_id": i, "label": x}) + "\n" for i, x in pairs)
        )
    else:
        pq.write_table(pa.table({"sample_id": ids, "label": labels}), name)
    said = doors("labels", "ingest", "r", name).done().out
    assert "20 answers, 20 of them new" in said
    assert "20 answers, 0 of them new" in doors("labels", "ingest", "r", name).done().out
    doors.run(class_pool, "r", *DROP, "labeler.price_minor=3").done()
    assert _status(doors)["state"] == "done"
    assert _status(doors)["spend"]["amount_minor"] == 60
    doors("audit", "verify", "r").done()
    said = doors("labels", "ingest", "r", name, "--annotator", "anna").done().out
    assert "20 answers, 20 of them new" in said


def test_files_that_cannot_be_taken(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", *DROP).done()
    ids = picked("r")[0]
    Path("bad.csv").write_text(f"sample_id,label\n{ids[0]},ant\n{ids[1]},mouse\n999999,ant\n")
    doors("labels", "ingest", "r", "bad.csv").refused(
        "bad.csv:3: label 'mouse' is outside the vocabulary",
        "bad.csv:4: sample_id 999999 was never ordered",
        "nothing was taken",
    )
    assert _status(doors)["spend"]["labels"] == 0
    doors("labels", "ingest", "r", "none.csv").refused("none.csv is not there")
    Path("x.xlsx").write_text("")
    doors("labels", "ingest", "r", "x.xlsx").refused("save a spreadsheet as CSV")
    Path("x.parquet").write_text("no")
    doors("labels", "ingest", "r", "x.parquet").refused("is no Parquet file")
