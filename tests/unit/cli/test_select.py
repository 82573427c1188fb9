"""`rayal select` as a user gives it: words, files, what is written and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors
from given import only, outputs_of, rows_of, write_files

import rayal
from rayal.selection.work import alone_in

ARRAYS = outputs_of(300, seed=4)
IDS = ARRAYS["sample_id"]


@pytest.fixture
def files(doors: Doors) -> str:
    """Outputs below the current folder, and labelled ids beside them."""
    write_files(doors.folder / "dir", only(ARRAYS, "embedding", "probs"), num_files=2, seed=1)
    labelled = pa.table({"sample_id": IDS[:20], "label": ARRAYS["group"][:20]})
    pq.write_table(labelled, doors.folder / "ids.parquet")
    return "dir/*.parquet"


def _words(files: str, *more: object) -> list[object]:
    return ["select", "--outputs", files, "--out", "batch.parquet", "budget=15", *more]


def test_a_command_writes_what_a_call_gives(doors: Doors, files: str) -> None:
    said = doors(
        "select", "strategy=k_center", "--outputs", files, "budget=60", "--labelled",
        "ids.parquet", "seed=3", "--out", "batch.parquet", "round=2",
    ).done()  # fmt: skip
    found = pq.read_table(doors.folder / "batch.parquet")
    expected = rayal.select(
        only(ARRAYS, "embedding"), budget=60, seed=3, round=2, labelled=IDS[:20]
    )
    assert found.equals(expected)
    assert found.schema.metadata[b"rayal.version"] == rayal.__version__.encode()
    note = found.schema.metadata[b"rayal.note"].decode()
    assert "mode" in note
    (line,) = said.out.splitlines()
    assert line.startswith("batch.parquet: 60 picks in ")
    assert line.endswith(f"({note})")
    assert sorted(path.name for path in doors.folder.iterdir()) == [
        "batch.parquet", "dir", "ids.parquet",
    ]  # fmt: skip


def test_overrides_reach_the_parts(doors: Doors, files: str) -> None:
    doors(*_words(files, "strategy=cluster_margin", "strategy.selector.num_clusters=2")).done()
    few = pq.read_table(doors.folder / "batch.parquet")
    expected = rayal.select(
        only(ARRAYS, "embedding", "probs"), strategy="cluster_margin", budget=15, num_clusters=2
    )
    assert few.equals(expected)
    doors(*_words(files, "strategy=margin", "name=mine", "engine.reverse=true")).refused(
        "there is no key 'engine.reverse'", "`rayal select --cfg job` prints all keys"
    )
    doors(*_words(files, "strategy=margin", "name=mine")).done()
    assert set(pq.read_table(doors.folder / "batch.parquet")["strategy"].to_pylist()) == {"mine"}


def test_keys_go_by_their_last_name(doors: Doors, files: str) -> None:
    doors(*_words(files, "precision=float", "selector.outliers=0.1")).done()
    expected = rayal.select(
        only(ARRAYS, "embedding"), budget=15, **{"selector.precision": "float", "outliers": 0.1}
    )
    found = pq.read_table(doors.folder / "batch.parquet")
    assert found.equals(expected)
    said = json.loads(found.schema.metadata[b"rayal.strategy"])["selector"]
    assert (said["precision"], said["outliers"]) == ("float", 0.1)
    words = ["strategy=cluster_margin", "num_clusters=2", "engine=ray", "num_workers=3"]
    printed = doors("select", "--cfg", "job", "budget=3", *words).done().out
    assert "num_clusters: 2" in printed
    assert "num_workers: 3" in printed


def test_a_last_name_of_several_keys_is_refused(doors: Doors, files: str) -> None:
    (doors.folder / "own/strategy").mkdir(parents=True)
    (doors.folder / "own/strategy/two.yaml").write_text(
        "_target_: rayal.strategy.Strategy\nselector:\n"
        "  _target_: rayal.selectors.k_center.KCenter\n  feature: embeds\n"
        "  limits: {_target_: rayal.selectors.limits.Limits, near: 0.9, feature: embeds}\n"
    )
    words = _words(files, "--config-dir", "own", "strategy=two")
    doors(*words, "feature=probs").refused(
        "several keys are called 'feature' (strategy.selector.feature, "
        "strategy.selector.limits.feature); write one of them out"
    )
    doors(*words, "limits.feature=embeds", "near=0.95").done()


def test_a_second_run_says_that_one_runs(doors: Doors, files: str) -> None:
    doors(*_words(files, "--work", "w")).done()
    (place,) = (doors.folder / "w").iterdir()
    with alone_in(place):
        doors(*_words(files, "--work", "w")).refused("this selection is already running in")
    doors(*_words(files, "--work", "w")).done()


def test_a_strategy_of_ones_own(doors: Doors, files: str) -> None:
    doors.module(
        "my_scorers",
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Flattest:\n"
        "    needs = ('probs',)\n\n    def score(self, outputs, keys):\n"
        "        return 1.0 - outputs.probs.amax(1).double()\n",
    )
    (doors.folder / "own/strategy").mkdir(parents=True)
    (doors.folder / "own/strategy/flattest.yaml").write_text(
        "_target_: rayal.strategy.Strategy\nscorer: {_target_: my_scorers.Flattest}\n"
        "selector: {_target_: rayal.selectors.top_k.TopK}\n"
    )
    doors(*_words(files, "--config-dir", "own", "strategy=flattest")).done()
    mine = pq.read_table(doors.folder / "batch.parquet")
    expected = rayal.select(only(ARRAYS, "probs"), strategy="least_confidence", budget=15)
    assert mine["sample_id"].equals(expected["sample_id"])
    assert set(mine["strategy"].to_pylist()) == {"flattest"}


def test_the_configuration_is_printed(doors: Doors) -> None:
    said = doors("select", "--cfg", "job", "strategy=badge", "budget=3", "engine=ray").done().out
    for part in ("budget: 3", "rayal.selectors.badge.Badge", "num_workers: 2", "embedding:"):
        assert part in said
    assert "hydra" not in said
    assert not list(doors.folder.iterdir())


def test_work_is_kept_and_taken_up(doors: Doors, files: str) -> None:
    doors(*_words(files, "--work", "w")).done()
    first = pq.read_table(doors.folder / "batch.parquet")
    assert [path.name for path in (doors.folder / "w").glob("*/shard-*.arrow")]
    os.remove(doors.folder / "batch.parquet")
    doors(*_words(files, "--work", "w")).done()
    assert pq.read_table(doors.folder / "batch.parquet").equals(first)


@pytest.mark.parametrize("outputs", ["dir", "dir/*.parquet", "link", "link/*.parquet"])
@pytest.mark.parametrize("out", ["dir/batch.parquet", "link/batch.parquet"])
def test_a_link_hides_no_batch_among_the_outputs(
    doors: Doors, files: str, outputs: str, out: str
) -> None:
    (doors.folder / "link").symlink_to(doors.folder / "dir")
    said = doors("select", "--outputs", outputs, "--out", out, "budget=3")
    said.refused(f"--out is {out}, which --outputs {outputs} takes in as well")
    assert not (doors.folder / "dir/batch.parquet").exists()


REFUSED = [
    (["budget=400"], ["budget is 400, more than the 300 candidates (300 rows, 0 of"]),
    (["budget=281", "--labelled", "ids.parquet"], ["more than the 280 candidates", "20 of them"]),
    (["budget=0"], ["budget is 0, expected at least 1"]),
    (["~budget"], ["budget has no value, and rayal.selection.Selection needs one"]),
    (["~strategy"], ["strategy has no value, and rayal.selection.Selection needs one"]),
    (["bugdet=3"], ["no key 'bugdet'", "did you mean budget?", "`rayal select --cfg job`"]),
    (["columns.embeding=x"], ["no key 'columns.embeding'", "did you mean columns.embedding"]),
    (["columns.embedding=vec"], ["no column 'vec'", "they have: sample_id, embedding, probs"]),
    (["columns.sample_id=id"], ["the outputs have no column 'id'", "columns.sample_id=NAME"]),
    (["strategy=kcenter"], ["there is no strategy 'kcenter'; did you mean k_center"]),
    (["strategy=bald"], ["needs draws", "no column 'draws'"]),
    (["strategy=gsy"], ["GSy is for labels of kind number"]),
    (["kind=number", "strategy=gsy"], ["needs preds", "no column 'preds'"]),
    (["strategy=margin,random"], ["gives several values; write [a,b] for a list"]),
    (["experiment=digits"], ["there is no key 'experiment' in the configuration"]),
    (["seed=x"], ["seed is 'x', expected a whole number"]),
    (["engine=rey"], ["there is no engine 'rey'; did you mean ray?"]),
    (["--outputs", "none/*.parquet"], ["none/*.parquet holds no file that ends in .parquet"]),
    (["--outputs", "none"], ["none does not exist; give a file, a folder, a glob or a URI"]),
    (["--labelled", "none.parquet"], ["none.parquet does not exist"]),
    (["--out", "dir"], ["--out is dir, a folder that is there"]),
    (["--out", "gone/batch.parquet"], ["--out is gone/batch.parquet, in a folder that does not"]),
    (["--out", "dir/batch.parquet"], ["which --outputs dir/*.parquet takes in as well"]),
    (["--out", "ids.parquet", "--labelled", "ids.parquet"], ["which --labelled ids.parquet takes"]),
    (["--config-dir", "gone"], ["--config-dir is /", "no such folder"]),
    (["--work", "ids.parquet"], ["work is ids.parquet, where no folder", "File exists"]),
    (["precison=float"], ["there is no key 'precison' in the configuration"]),
    (["precision=flot"], ["strategy.selector.precision is 'flot', expected one of integer, float"]),
    (["seed=99999999999999999999"], ["seed is 99999999999999999999, expected a whole number"]),
]  # fmt: skip


@pytest.mark.parametrize(("more", "parts"), REFUSED, ids=[" ".join(one[0]) for one in REFUSED])
def test_a_wrong_word_is_refused_in_one_line_and_leaves_nothing(
    doors: Doors, files: str, more: list[str], parts: list[str]
) -> None:
    before = sorted(path.name for path in doors.folder.rglob("*"))
    doors(*_words(files, *more)).refused(*parts)
    assert sorted(path.name for path in doors.folder.rglob("*")) == before


MISUSED = [
    (["select"], "rayal select: the following arguments are required: --outputs, --out"),
    (["select", "--outputs", "x"], "the following arguments are required: --out"),
    *(
        (["select", "--outputs", "x", "--out", "y", flag, ""], f"argument {flag}: expected a path")
        for flag in ("--outputs", "--out", "--labelled", "--work", "--config-dir")
    ),
    (["select", "--outptus", "x"], "rayal select: unrecognized arguments: --outptus"),
]


@pytest.mark.parametrize(("words", "part"), MISUSED)
def test_a_flag_that_is_missing(doors: Doors, words: list[str], part: str) -> None:
    doors(*words).refused(part, "`rayal select --help`", code=2)


def test_help_names_the_columns(doors: Doors) -> None:
    said = doors("select", "--help").done().out
    for part in ("usage: rayal select", "--labelled", "embedding", "logits", "rayal.select("):
        assert part in said


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("rayal sel", "select"),
        ("rayal select strategy=ma", None),
        ("rayal select --outputs x.parquet strategy=power_m", "strategy=power_margin"),
        ("rayal select strategy=cluster_margin strategy.selector.num_c", None),
        ("rayal select columns.em", "columns.embedding="),
        ("rayal select --ou", "--outputs --out"),
        ("rayal select --outputs ", ""),
        ("rayal select budget=3 --out ", ""),
    ],
)
def test_words_are_completed(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, line: str, offers: str | None
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    said = doors("-sc", "query=bash").done()
    assert said.err == ""
    if offers is None:
        last = line.split()[-1]
        assert said.out.split()
        assert all(one.startswith(last) for one in said.out.split())
    else:
        assert said.out.split() == offers.split()


def test_a_folder_of_ones_own_is_completed(doors: Doors, monkeypatch) -> None:
    (doors.folder / "own/strategy").mkdir(parents=True)
    (doors.folder / "own/strategy/flattest.yaml").write_text("_target_: rayal.strategy.Strategy\n")
    monkeypatch.setenv("COMP_LINE", "rayal select --out b.parquet --config-dir own strategy=fl")
    assert doors("-sc", "query=bash").done().out.split() == ["strategy=flattest"]


def test_a_batch_of_before_stays_until_the_new_one_is_whole(doors: Doors, files: str) -> None:
    doors(*_words(files)).done()
    before = (doors.folder / "batch.parquet").read_bytes()
    broken = rows_of(only(ARRAYS, "embedding", "probs"), np.arange(50))
    broken["embedding"] = broken["embedding"].copy()
    broken["embedding"][7, 2] = np.nan
    broken["sample_id"] = broken["sample_id"] + 1  # no id of the other files
    write_files(doors.folder / "more", broken, num_files=1)
    (doors.folder / "more/part-0.parquet").rename(doors.folder / "dir/z.parquet")
    doors(*_words(files)).refused(
        "column 'embedding' holds NaN", "z.parquet", f"first sample_id {broken['sample_id'][7]}"
    )
    assert (doors.folder / "batch.parquet").read_bytes() == before
    assert not [path for path in doors.folder.iterdir() if path.name.startswith(".")]


def test_a_folder_that_cannot_be_written_to(doors: Doors, files: str, monkeypatch) -> None:
    closed = doors.folder / "closed"
    closed.mkdir()
    real = os.access  # root may write everywhere, so the answer is made up

    def access(path: str | Path, mode: int) -> bool:
        return Path(path) != closed and real(path, mode)

    monkeypatch.setattr(os, "access", access)
    doors(*_words(files, "--out", "closed/batch.parquet")).refused("cannot be written to")
