"""Words on the command line that cannot be run: one line each, before a label is bought."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from doors import Doors, small
from runs import write_embeddings

from rayal.cli.binding import check_tree
from rayal.errors import ConfigError
from rayal.pool import Pool, ingest

MODEL = "model.transform"
REFUSED = [
    (["budgt=3"], ["there is no key 'budgt'", "did you mean budget or", "--cfg job"]),
    (["trainer.epoch=3"], ["there is no key 'trainer.epoch'", "did you mean trainer.epochs"]),
    (["stratgy=margin"], ["there is no key 'stratgy'", "did you mean strategy"]),
    (["strategy=margn"], ["no strategy 'margn'", "did you mean margin?", "there are: badge, "]),
    (["experiment=embedings"], ["no experiment 'embedings'", "did you mean embeddings?"]),
    (["engine=rey"], ["no engine 'rey'", "did you mean ray?", "there are: local, ray"]),
    (["budget"], ["'budget' cannot be read", "missing EQUAL", "write key=value"]),
    (["=3"], ["'=3' has no key before its '='"]),
    (["trainer=[1]"], ["'trainer=[1]' gives no name, expected one of: supervised; or single key"]),
    (["strategy=1"], ["'strategy=1' gives no name, expected one of: badge, "]),
    (["engine=null"], ["'engine=null' gives no name, expected one of: local, ray"]),
    (["strategy@cold_start=[1]"], ["'strategy@cold_start=[1]' gives no name, expected one of: "]),
    (["~strategy"], ["strategy has no value, and rayal.loop.Loop needs one"]),
    (["~_target_"], ["the configuration has no _target_, expected rayal.loop.Loop"]),
    (["--config-dir", "nowhere"], ["--config-dir is /", "/nowhere, and there is no such folder"]),
    (["--config-path", "nowhere"], ["--config-path is /", "/nowhere, and there is no such folder"]),
    (["--config-name", "mine"], ["there is no configuration 'mine'; check --config-name"]),
    (["budget=[1"], ["'budget=[1' cannot be read", "quote a value"]),
    (["strategy=margin,random"], ["'strategy=margin,random' gives several values", "add -m"]),
    (["budget=abc"], ["budget is 'abc', expected a whole number; correct budget="]),
    (["budget=0"], ["budget=0 and num_rounds=2 must both be 1 or more"]),
    (["budget=null"], ["budget is null, expected a whole number"]),
    (["num_rounds=1.5"], ["num_rounds is 1.5, expected a whole number"]),
    (["seed=x"], ["seed is 'x', expected a whole number"]),
    (["run_dir=5"], ["run_dir is 5, expected text"]),
    (["run_dir="], ["run_dir is empty, expected a folder; give run_dir=DIR, or leave it out"]),
    (["max_rejected_share=nan"], ["max_rejected_share is nan, expected a finite number; correct"]),
    (["poll_s=inf"], ["poll_s is inf, expected a finite number; correct poll_s=..."]),
    (["trainer.learning_rate=nan"], ["trainer.learning_rate is nan, expected a finite number"]),
    (
        ["stopping=target_metric", "stopping.value=nan"],
        ["stopping.value is nan, expected a finite number"],
    ),
    (["model=mlp", "model.module.dropout=nan"], ["model.module.dropout is nan, expected a finite"]),
    (["trainer.class_weights=[1,nan]"], ["trainer.class_weights.1 is nan, expected a finite numb"]),
    (["poll_s=soon"], ["poll_s is 'soon', expected a number or null"]),
    (["max_rejected_share=a"], ["max_rejected_share is 'a', expected a number"]),
    (["trainer.learning_rate=fast"], ["trainer.learning_rate is 'fast', expected a number"]),
    (["trainer.warm_start=perhaps"], ["trainer.warm_start is 'perhaps', expected true or false"]),
    (
        ["trainer.class_weights=equal"],
        ["trainer.class_weights is 'equal', expected one of balanced or a list of a number or "],
    ),
    (["model.kind=clas"], ["model.kind is 'clas', expected one of class, multilabel, number"]),
    (["strategy.scorer=margin"], ["strategy.scorer is 'margin', expected a node with a _target_"]),
    (["vocabulary.kind=number"], ["no key 'vocabulary.kind' while vocabulary is null; choose one"]),
    (["vocabulary=clas"], ["no vocabulary 'clas'; did you mean class? (there are: class, multila"]),
    (["vocabulary=class"], ["vocabulary.classes has no value", "give it on the command line"]),
    (
        ["vocabulary=class", "vocabulary.classes=[a,a]"],
        ["vocabulary.classes has 'a' twice, expected each class once"],
    ),
    (
        ["vocabulary=multilabel", "vocabulary.classes=[a,1]"],
        ["vocabulary.classes mixes text and whole numbers ('a', 1)"],
    ),
    (["vocabulary={kind: class}"], ["vocabulary is {'kind': 'class'}, expected a node with a _t"]),
    (["+foo=3"], ["there is no key 'foo': rayal.loop.Loop takes no 'foo'", "remove it"]),
    (["+trainer.epoch=3"], ["no key 'trainer.epoch'", "did you mean epochs?", "remove it"]),
    (["+strategy.scorer.alpha=3"], ["no key 'strategy.scorer.alpha'", "margin.Margin takes no"]),
    ([f"{MODEL}._target_=nowhere.Thing"], [f"{MODEL}._target_ is nowhere.Thing", "no module 'no"]),
    (
        ["strategy.scorer._target_=rayal.scorers.margin.Margn"],
        ["rayal.scorers.margin has no 'Margn'; did you mean Margin?; correct the name"],
    ),
    (["strategy.scorer._target_=Margin"], ["is 'Margin', expected a dotted path such as package."]),
    (["strategy=predictive_variance", "metric=acuracy"], ["have no metric 'acuracy'", "accuracy"]),
    (["model.transform.column=embeding"], ["reads column 'embeding'", "it has: sample_id, embed"]),
    (["model.kind=number"], ["model.kind is 'number', but the labels are of kind 'class'"]),
    (["strategy@cold_start=margin"], ["cold_start needs probs, but round 0 has no model"]),
    (["cold_start=margin"], ["cold_start is 'margin', expected a node with a _target_"]),
    (["trainer.epochs=0"], ["trainer.epochs is 0, expected 1 or more"]),
    (["stopping=max_labels", "stopping.num_labels=0"], ["num_labels=0; give a number above 0"]),
    (["ledger_url=mysql://h/d"], ["a ledger cannot lie in 'mysql'", "postgresql:// URL"]),
    (
        [
            "model.transform._target_=rayal.models.transforms.Ngrams",
            "+model.transform.num_buckets=7",
        ],
        ["Ngrams got num_buckets=7, expected a power of two", "try 4"],
    ),
]


@pytest.mark.parametrize(("words", "parts"), REFUSED, ids=[" ".join(one[0]) for one in REFUSED])
def test_a_wrong_word_is_refused_in_one_line(
    doors: Doors, class_pool: Pool, words: list[str], parts: list[str]
) -> None:
    doors.run(class_pool, "r", *words).refused(*parts)
    assert not (doors.folder / "r" / "rounds").exists()
    assert not any(path.name in ("runs", "outputs", "multirun") for path in doors.folder.iterdir())


def test_a_corrected_command_works_after_each_refusal(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "plain").done()
    for words in (["metric=acuracy"], ["model.transform.column=x"], ["budget=5000"], ["budgt=1"]):
        doors.run(class_pool, "r", *words).refused()
    doors.run(class_pool, "r").done()
    assert doors.digest("r") == doors.digest("plain")


def test_a_run_dir_that_two_runs_of_a_sweep_would_share(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "-m", "budget=10,20").refused(
        "run_dir=r would hold two runs of this sweep (budget=10 and budget=20); leave run_dir out",
        "'run_dir=runs/budget-${budget}'",
    )
    doors.run(class_pool, "r/../r", "-m", "strategy=margin,random", "seed=0").refused(
        "(strategy=margin and strategy=random)",
        "'run_dir=runs/strategy-${hydra:runtime.choices.strategy}'",
    )
    doors.run(class_pool, "r", "-m", "run_dir=a,b", "seed=0,1").refused("(seed=0 and seed=1)")
    doors.run(class_pool, "r", "-m", "budget=interval(1,2)").refused("write key=a,b,c or key=ran")
    assert list(doors.folder.iterdir()) == []


def test_a_missing_key_is_named(doors: Doors) -> None:
    said = doors("run", "experiment=embeddings", "run_dir=r")
    said.refused("pool.path has no value", "give it on the command line", "pool.path=...")


def test_sweeps_and_printing_check_every_word(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "-m", "strategy=random,margn").refused("no strategy 'margn'")
    doors.run(class_pool, "r", "-m", "budgt=1,2").refused("no key 'budgt'")
    doors.run(class_pool, "r", "strategy=margn", "--cfg", "job").refused("no strategy 'margn'")
    said = doors.run(class_pool, "r", "--cfg", "job").done()
    assert "_target_: rayal.loop.Loop" in said.out
    assert not (doors.folder / "r").exists()


def test_a_budget_larger_than_the_pool(doors: Doors, class_pool: Pool) -> None:
    num = class_pool.num_rows
    doors.run(class_pool, "r", f"budget={num + 1}").refused(
        f"budget={num + 1} is more than the pool's {num} rows; lower it"
    )
    assert not (doors.folder / "r").exists()
    doors.run(class_pool, "r", f"budget={num}", "num_rounds=1").done()


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("s3://bucket/run", "the store at http://127.0.0.1:9 cannot be reached"),
        ("hdfs://host/run", "hdfs://host cannot be opened"),
        ("nosuch://host/run", "nosuch://host: neither pyarrow nor fsspec can open it"),
    ],
)
def test_a_run_dir_in_a_store_that_is_not_there(
    doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch, place: str, why: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    said = doors.run(class_pool, place).refused(why)
    assert len(said) < 600
    for command in (["status", place], ["report", place], ["export", place, "--out", "o.parquet"]):
        doors(*command).refused(why)
    assert list(doors.folder.iterdir()) == []


def test_a_target_metric_without_test_labels(doors: Doors) -> None:
    source = write_embeddings(doors.folder / "rows.parquet", 100)
    whole = ingest(str(source), str(doors.folder / "whole"), label_column="label", test_share=0.0)
    doors.run(whole, "r", "stopping=target_metric").refused(
        "stopping rule TargetMetric", "no test row has a label", "--label-column"
    )
    bare = doors.folder / "bare.parquet"
    pq.write_table(pq.read_table(source).drop_columns(["label"]), bare)
    ingest(str(bare), str(doors.folder / "bare"))
    words = "vocabulary={_target_: rayal.types.Vocabulary, kind: class, classes: [ant, bee]}"
    doors.run(
        "bare", "r", words, "labeler=file_drop", "labeler.columns=all", "stopping=target_metric"
    ).refused("stopping rule TargetMetric", "no test row has a label")
    assert not (doors.folder / "r").exists()
    said = doors.run("bare", "r", words, "labeler=file_drop", "labeler.columns=all").done()
    assert "waiting for 20 of 20 labels of round 0" in said.err


def test_a_pool_without_labels_says_what_to_give(doors: Doors) -> None:
    source = doors.folder / "rows.parquet"
    write_embeddings(source, 100)
    pq.write_table(pq.read_table(source).drop_columns(["label"]), source)
    ingest(str(source), str(doors.folder / "bare"))
    line = doors.run("bare", "r").refused("no label column", "vocabulary=class")
    words = ["vocabulary=class", line.split("'")[-2]]  # the example, taken at its word
    doors.run("bare", "r", *words).refused(
        "no kept-apart labels", "another labeler than the oracle"
    )
    doors.run("bare", "r", *words, "labeler=file_drop", "labeler.columns=all").done()


@pytest.mark.parametrize(
    "word", ["poll_s=-1", "poll_for_s=-1", "test_budget=-1", "max_rejected_share=2"]
)
def test_a_number_out_of_its_range(doors: Doors, class_pool: Pool, word: str) -> None:
    doors.run(class_pool, "r", word).refused(f"{word.split('=')[0]} is {word.split('=')[1]}")
    assert not (doors.folder / "r").exists()


def test_an_unknown_command(doors: Doors) -> None:
    said = "no command 'runn'", "did you mean run?", "ingest, pool, embed, plan, run, select, st"
    doors("runn").refused(*said, code=2)


# ------------------------------------------------------------------- classes of the user's own

MINE = """
from rayal.scorers.margin import Margin

class Mine:
    needs = ("probs",)

    def __init__(self, sharpness: float, flip: bool = False) -> None:
        if sharpness < 0:
            raise ValueError("sharpness is below 0")

    def score(self, outputs, keys):
        return Margin().score(outputs, keys)
"""


def test_a_class_in_the_current_folder(doors: Doors, class_pool: Pool) -> None:
    sys.path[:] = [path for path in sys.path if path not in ("", str(doors.folder))]
    doors.module("scorer_of_mine", MINE)
    mine = "strategy.scorer._target_=scorer_of_mine.Mine"
    doors.run(class_pool, "r", mine).refused("strategy.scorer.sharpness has no value", "add +strat")
    doors.run(class_pool, "r", mine, "+strategy.scorer.sharpness=x").refused(
        "strategy.scorer.sharpness is 'x', expected a number"
    )
    doors.run(class_pool, "r", mine, "+strategy.scorer.sharpness=-1").refused(
        "strategy.scorer could not be built (ValueError: sharpness is below 0)"
    )
    doors.run(class_pool, "r", mine, "+strategy.scorer.sharpness=1").done()


def test_a_module_that_cannot_be_imported_says_why(doors: Doors, class_pool: Pool) -> None:
    doors.module("scorer_with_a_slip", "import nothing_of_this_name\n")
    doors.run(class_pool, "r", "strategy.scorer._target_=scorer_with_a_slip.Mine").refused(
        "importing scorer_with_a_slip failed", "No module named 'nothing_of_this_name'"
    )
    doors.module("scorer_with_a_bug", "class Mine(\n")
    doors.run(class_pool, "r", "strategy.scorer._target_=scorer_with_a_bug.Mine").refused(
        "importing scorer_with_a_bug failed", "SyntaxError"
    )


def test_nodes_in_lists_are_checked(tmp_path: Path) -> None:
    rule = {"_target_": "rayal.stopping.rules.MaxLabels", "num_labels": "many"}
    stopping = {"_target_": "rayal.stopping.rules.AnyOf", "rules": [rule]}
    with pytest.raises(ConfigError, match=r"stopping.rules.0.num_labels is 'many', expected a wh"):
        check_tree(stopping, "stopping")


def test_numbers_in_lists_must_be_finite() -> None:
    with pytest.raises(ConfigError, match=r"model.scales.1 is -inf, expected a finite number"):
        check_tree({"scales": [1.0, float("-inf")]}, "model")


def test_the_words_of_the_tests_themselves_fit(doors: Doors, class_pool: Pool) -> None:
    assert doors("run", *small(class_pool, "r"), "--cfg", "job").done().out.count("budget: 20") == 1
