"""Words on the command line that do run: sweeps, folders of one's own, kinds of labels, reports."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from doors import Doors, small
from runs import write_embeddings

from rayal.pool import Pool, ingest

MINE = """
class Flattest:
    needs = ("probs",)

    def score(self, outputs, keys):
        return 1.0 - outputs.probs.amax(1).double()
"""
MY_STRATEGY = """
_target_: rayal.strategy.Strategy
scorer: {_target_: my_flat_scorers.Flattest}
selector: {_target_: rayal.selectors.top_k.TopK}
"""


def _without_run_dir(pool: Pool) -> list[str]:
    return [word for word in small(pool, "") if not word.startswith(("run_dir=", "budget="))]


def _labels(doors: Doors, run_dir: str) -> list[int]:
    stands = json.loads(doors("status", run_dir, "--json").done().out)
    assert stands["state"] == "done"
    return [one["num_labels"] for one in stands["rounds"]]


# -------------------------------------------------------------------------------------- sweeps


def test_each_run_of_a_sweep_has_a_folder_of_its_own(doors: Doors, class_pool: Pool) -> None:
    words = ["run", "-m", "budget=10,15", *_without_run_dir(class_pool), "num_rounds=1"]
    said = doors(*words).done()
    for budget in (10, 15):
        folder = f"runs/embeddings_margin_s0_budget-{budget}"
        assert f"{folder}: done; report: {folder}/report.html" in said.out
        assert _labels(doors, folder) == [budget]
    doors(*words).done()  # the same folders again
    assert len([path for path in Path("runs").iterdir() if path.is_dir()]) == 2


def test_what_is_in_the_name_already_is_not_said_twice(doors: Doors, class_pool: Pool) -> None:
    words = [*_without_run_dir(class_pool), "num_rounds=1", "budget=5"]
    doors("run", *words, "-m", "seed=0,1", "strategy=random,margin").done()
    assert {path.name for path in Path("runs").iterdir() if path.is_dir()} == {
        f"embeddings_{strategy}_s{seed}" for strategy in ("random", "margin") for seed in (0, 1)
    }


def test_a_run_dir_that_differs_may_be_given(doors: Doors, class_pool: Pool) -> None:
    words = [*_without_run_dir(class_pool), "num_rounds=1", "-m", "budget=10,15"]
    doors("run", *words, "run_dir=mine/b${budget}").done()
    assert [_labels(doors, f"mine/b{budget}") for budget in (10, 15)] == [[10], [15]]
    doors("run", *words, "run_dir=mine/job${hydra:job.num}").done()
    assert [_labels(doors, f"mine/job{job}") for job in (0, 1)] == [[10], [15]]
    doors("run", *words[:-1], "budget=5", "run_dir=one").done()
    assert _labels(doors, "one") == [5]


# ---------------------------------------------------------------------------- folders of one's own


def test_a_strategy_in_a_folder_of_ones_own(doors: Doors, class_pool: Pool) -> None:
    doors.module("my_flat_scorers", MINE)
    (doors.folder / "my_conf/strategy").mkdir(parents=True)
    (doors.folder / "my_conf/strategy/flattest.yaml").write_text(MY_STRATEGY)
    doors.run(class_pool, "r", "strategy=flattest").refused("there is no strategy 'flattest'")
    for flag in ("--config-dir", "-cd"):
        doors.run(class_pool, "r", flag, "my_conf", "strategy=flattest").done()
    doors.run(class_pool, "r", "--config-dir=my_conf", "strategy=flattes").refused(
        "no strategy 'flattes'; did you mean flattest?"
    )
    said = doors.run(class_pool, "r", "-cd", "my_conf", "strategy=flattest", "--cfg", "job").done()
    assert "my_flat_scorers.Flattest" in said.out
    doors.run(class_pool, "plain", "strategy=least_confidence").done()
    assert _picks(doors, "r") == _picks(doors, "plain")  # the same score by another name


def _picks(doors: Doors, run_dir: str) -> list[int]:
    doors("export", run_dir, "--out", "labels.parquet").done()
    return pq.read_table("labels.parquet")["sample_id"].to_pylist()


def test_a_configuration_of_ones_own(doors: Doors, class_pool: Pool) -> None:
    (doors.folder / "conf").mkdir()
    (doors.folder / "conf/mine.yaml").write_text("defaults: [config, _self_]\nbudget: 7\n")
    words = [word for word in small(class_pool, "r", "num_rounds=1") if "budget" not in word]
    doors("run", *words, "-cd", "conf", "--config-name", "mine").done()
    assert _labels(doors, "r") == [7]


# -------------------------------------------------------------------------------- kinds of labels


@pytest.mark.parametrize(
    "words",
    [
        ["vocabulary=class", "vocabulary.classes=[ant,bee]"],
        ["vocabulary={_target_: rayal.types.Vocabulary, kind: class, classes: [ant, bee]}"],
    ],
)
def test_a_pool_without_labels_waits_for_them_and_has_no_report_yet(
    doors: Doors, words: list[str]
) -> None:
    source = write_embeddings(doors.folder / "rows.parquet", 60)
    pq.write_table(pq.read_table(source).drop_columns(["label"]), source)
    ingest(str(source), str(doors.folder / "bare"), test_share=0.0)
    said = doors.run("bare", "r", *words, "labeler=file_drop", "labeler.columns=all").done()
    assert said.out.splitlines()[-1] == "r: waiting"
    assert not Path("r/report.html").exists()


def test_the_pools_own_vocabulary_by_its_word(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "num_rounds=1", "vocabulary=null").done()
    doors.run(class_pool, "r", "num_rounds=1").done()
    doors("run", *small(class_pool, "r"), "vocabulary=number", "--cfg", "job").done()


# ---------------------------------------------------------------------------------------- reports


def test_only_runs_of_one_metric_are_compared(doors: Doors, class_pool: Pool) -> None:
    for run_dir, words in (("a", []), ("b", ["seed=1"]), ("c", ["metric=macro_f1"])):
        doors.run(class_pool, run_dir, "num_rounds=1", *words).done()
    doors("report", "a", "--compare", "other=b", "b").done()
    page = Path("a/report.html").read_text()
    assert "other" in page
    doors("report", "a", "--compare", "other=b", "f=c").refused(
        "--compare f=c: c measures macro_f1 and a accuracy, which cannot be compared"
    )
    doors("report", "a", "--compare", "x=b", "x=b").refused("two runs of the name 'x'")
    assert Path("a/report.html").read_text() == page


def test_a_ledger_elsewhere_is_found_by_what_the_run_noted(
    doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{doors.folder}/elsewhere.db"
    doors.run(class_pool, "a", "num_rounds=1").done()
    doors.run(class_pool, "b", "num_rounds=1", "seed=1", f"ledger_url={url}").done()
    assert not Path("b/ledger.db").exists()
    doors("report", "a", "--compare", "elsewhere=b").done()
    assert "elsewhere" in Path("a/report.html").read_text()
    # The variable is for ledgers that are not in the run's folder: a's own is read all the same.
    monkeypatch.setenv("RAYAL_LEDGER_URL", url)
    doors("report", "b", "--compare", "here=a").done()
    os.rename("elsewhere.db", "moved.db")
    doors("status", "b").refused("elsewhere.db")
    monkeypatch.setenv("RAYAL_LEDGER_URL", f"sqlite:///{doors.folder}/moved.db")
    doors("status", "b").done()
