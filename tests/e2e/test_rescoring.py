"""Rounds that pass by what cannot have risen far enough: the picks are those of full rounds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors
from runs import digest, picked, write_embeddings

from rayal.engine import again, rescoring, survivors
from rayal.engine.again import Recall
from rayal.ledger import Ledger
from rayal.pool import Pool, delete, ingest
from rayal.rundir import RunDir

FEW = ("strategy.num_candidates=60", "num_rounds=5")
HEADS = ("trainer.warm_start=true", "trainer.learning_rate=0.003")
AGAIN = (*FEW, *HEADS, "rescoring=bounded", "rescoring.num_cells=16")
ENGINES = [
    pytest.param(("+engine.reverse=true",), id="reverse"),
    *(
        pytest.param(("engine=ray", "engine.num_cpus=0.25", f"engine.num_workers={number}"),
                     id=f"ray-{number}", marks=pytest.mark.ray)
        for number in (1, 2, 4)
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def wide_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """4,000 rows of 8 features and four classes, in eight shards."""
    folder = tmp_path_factory.mktemp("wide")
    source = write_embeddings(folder / "rows.parquet", 4000, width=8)
    return ingest(str(source), str(folder / "pool"), label_column="label", rows_per_shard=500)


def notes(run_dir: Path) -> list[dict[str, Any]]:
    """Gives what each round's note says of its rescoring, from round 1 on."""
    folder = RunDir(str(run_dir))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        return [event.notes.get("rescoring") for event in ledger.events(step="selected")][1:]


def tallies(run_dir: Path) -> list[dict[str, Any]]:
    folder = RunDir(str(run_dir))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        return [event.notes["tallies"] for event in ledger.events(step="selected")]


def same(doors: Doors, one: str, other: str) -> None:
    """Checks that two runs picked the same, with the same scores and tallies."""
    assert picked(doors.folder / one) == picked(doors.folder / other)
    assert digest(doors.folder / one) == digest(doors.folder / other)
    assert tallies(doors.folder / one) == tallies(doors.folder / other)


@pytest.mark.parametrize(
    "strategy",
    ["margin", "least_confidence", "cluster_margin", "badge"],
)
def test_the_picks_of_a_run_that_scores_all(doors: Doors, wide_pool: Pool, strategy: str) -> None:
    words = [f"strategy={strategy}"]
    if strategy == "badge":  # by itself it scores nothing, and all rows are candidates
        words = ["strategy=margin", "strategy.selector._target_=rayal.selectors.badge.Badge"]
    doors.run(wide_pool, "all", *words, *FEW, *HEADS).done()
    said = doors.run(wide_pool, "again", *words, *AGAIN).done()
    same(doors, "all", "again")
    found = notes(doors.folder / "again")
    assert [one["how"] for one in found] == ["rigorous"] * 4
    assert [one["num_rows"] for one in found] == [wide_pool.num_rows] * 4
    assert found[0]["num_passed"] == 0
    assert max(one["num_passed"] for one in found[1:]) > wide_pool.num_rows // 4
    assert f"of {wide_pool.num_rows:,} rows were scored again" in said.err


@pytest.mark.parametrize("engine", ENGINES)
def test_workers_and_their_order_change_nothing(
    doors: Doors, wide_pool: Pool, engine: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    if "engine=ray" in engine:
        request.getfixturevalue("small_ray")
        engine = (*engine, "engine.address=auto")
    doors.run(wide_pool, "all", "strategy=margin", *FEW, *HEADS).done()
    doors.run(wide_pool, "again", "strategy=margin", *AGAIN, *engine).done()
    same(doors, "all", "again")
    doors.run(wide_pool, "local", "strategy=margin", *AGAIN).done()
    assert notes(doors.folder / "again") == notes(doors.folder / "local")


def test_it_may_be_switched_on_and_off(doors: Doors, wide_pool: Pool) -> None:
    words = ("strategy=margin", *HEADS, "strategy.num_candidates=60")
    doors.run(wide_pool, "all", *words, "num_rounds=5").done()
    doors.run(wide_pool, "some", *words, "num_rounds=2", "rescoring=bounded").done()
    doors.run(wide_pool, "some", *words, "num_rounds=3").done()
    doors.run(wide_pool, "some", *words, "num_rounds=5", "rescoring=bounded").done()
    same(doors, "all", "some")
    how = [one and one["num_passed"] for one in notes(doors.folder / "some")]
    assert how[1] is None
    assert how[0] == 0
    assert how[3] > 0


def test_rows_that_come_and_go(doors: Doors) -> None:
    """Appended shards are scored, forgotten rows are not, and count nowhere."""
    (doors.folder / "in").mkdir()
    picks = []
    for run_dir, extra in (("all", HEADS), ("again", (*HEADS, "rescoring=bounded"))):
        shutil.rmtree(doors.folder / "in")
        shutil.rmtree(doors.folder / "pool", ignore_errors=True)
        (doors.folder / "in").mkdir()
        words = ("strategy=margin", "strategy.num_candidates=60", *extra)
        keys: dict[str, Any] = {"label_column": "label", "rows_per_shard": 250}
        write_embeddings(doors.folder / "in" / "0.parquet", 1000, width=8)
        pool = ingest(str(doors.folder / "in"), str(doors.folder / "pool"), **keys)
        doors.run(pool, run_dir, *words, "num_rounds=3").done()
        write_embeddings(doors.folder / "in" / "1.parquet", 700, width=8, seed=1)
        pool = ingest(str(doors.folder / "in"), str(doors.folder / "pool"), **keys)
        doors.run(pool, run_dir, *words, "num_rounds=4").done()
        spent = {one for ids in picked(run_dir) for one in ids}
        likely = [one for one in range(0, 1700, 7) if one not in spent]
        ids = {one for shard in pool.shards for rows in pool.batches(shard, ["sample_id"], 999)
               for one in rows.column(0).to_pylist()}  # fmt: skip
        delete(pool.path, [str(one) for one in likely if one in ids])
        doors.run(pool, run_dir, *words, "num_rounds=6").done()
        picks.append(picked(run_dir))
    assert picks[0] == picks[1]
    assert tallies(doors.folder / "all") == tallies(doors.folder / "again")
    found = notes(doors.folder / "again")
    assert found[-1]["num_passed"] > 0
    assert found[2]["num_rows"] > found[1]["num_rows"]
    assert found[3]["num_rows"] < found[2]["num_rows"]


@pytest.mark.parametrize("moment", ["survivors", "remembered", "probe", "last", "head"])
def test_killed_at_any_moment(
    doors: Doors, wide_pool: Pool, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    words = ("strategy=margin", *AGAIN)
    doors.run(wide_pool, "whole", *words).done()

    class Killed(BaseException):
        pass

    places: dict[str, tuple[Any, str]] = {
        "survivors": (survivors, "write"),
        "remembered": (rescoring_worker(), "write"),
        "probe": (Recall, "probe"),
        "last": (rescoring, "write_text"),
        "head": (rescoring.LinearHead, "write"),
    }
    where, name = places[moment]
    plain, calls = getattr(where, name), []

    def killing(*args: Any, **more: Any) -> Any:
        calls.append(1)
        after = len(calls) in (3, 12)  # in a round of many, before what it does and after
        found = None if len(calls) == 3 else plain(*args, **more)
        if after:
            raise Killed
        return found

    for _ in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, killing)
            try:
                doors.run(wide_pool, "r", *words).done()
                break
            except Killed:
                continue
    assert len(calls) > 3
    doors.run(wide_pool, "r", *words).done()
    same(doors, "whole", "r")


def rescoring_worker() -> Any:
    from rayal.engine import remembered

    return remembered


def test_what_was_remembered_and_is_gone_or_damaged_is_scored(
    doors: Doors, wide_pool: Pool
) -> None:
    words = ("strategy=margin", *AGAIN)
    doors.run(wide_pool, "whole", *words).done()
    doors.run(wide_pool, "r", *words[:-1], "num_rounds=3").done()
    kept = doors.folder / "r" / "rescoring"
    files = sorted(kept.rglob("shard-*.arrow"))
    assert len(files) == 8
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-30])
    sorted(kept.rglob("heads/*.npz"))[0].unlink()
    doors.run(wide_pool, "r", *words[:-1]).done()
    same(doors, "whole", "r")


def test_where_bits_depend_on_a_rows_place_all_is_scored(
    doors: Doors, wide_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recall, "_alike", lambda *_: False)
    said = doors.run(wide_pool, "again", "strategy=margin", *AGAIN).done()
    assert (
        "a row's last bits depend on its place in a batch, so that none was passed by" in said.err
    )
    monkeypatch.undo()
    monkeypatch.chdir(doors.folder)
    doors.run(wide_pool, "all", "strategy=margin", *FEW, *HEADS).done()
    same(doors, "all", "again")
    assert [one["num_passed"] for one in notes(doors.folder / "again")] == [0] * 4


def test_where_bits_depend_on_a_rows_place_a_probe_cuts_nothing_off(
    doors: Doors, wide_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were probed at other places may seem a bit better there than in the pass."""
    probe = Recall.probe

    def a_bit_better(self: Recall, *asked: Any) -> Any:
        found = probe(self, *asked)
        keys = found.sketch.keys + np.uint64(1)  # the next larger score
        return found._replace(sketch=replace(found.sketch, keys=keys))

    monkeypatch.setattr(Recall, "_alike", lambda *_: False)
    monkeypatch.setattr(Recall, "probe", a_bit_better)
    # A selector whose picks depend on the last of the best M, too.
    words = ("strategy=margin", "strategy.selector._target_=rayal.selectors.badge.Badge")
    still = "trainer.learning_rate=1e-6"  # so that the best of the last round are probed, all
    doors.run(wide_pool, "again", *words, *AGAIN, still).done()
    doors.run(wide_pool, "all", *words, *FEW, *HEADS, still).done()
    same(doors, "all", "again")


def test_a_row_that_cannot_be_decoded_does_not_look_like_bits_of_a_place(doors: Doors) -> None:
    """Another row stands in for it: the first of its batch that can be, which is another one where
    the batch is shuffled."""
    source = write_embeddings(doors.folder / "rows.parquet", 2000, width=7)
    heights = np.where(np.arange(2000) % 400 == 3, np.nan, 1.0)
    table = pq.read_table(source).append_column("height", pa.array(heights, from_pandas=True))
    pq.write_table(table, source)
    pool = ingest(str(source), "pool", label_column="label", rows_per_shard=500)
    words = ("strategy=margin", "model.transform.column=[embedding,height]", *FEW, *HEADS)
    doors.run(pool, "all", *words).done()
    said = doors.run(pool, "again", *words, "rescoring=bounded", "rescoring.num_cells=16").done()
    same(doors, "all", "again")
    assert "depend on its place" not in said.err
    assert max(one["num_passed"] for one in notes(doors.folder / "again")) > 0


def test_the_shuffled_batch_tells() -> None:
    """A product whose bits depend on the place is found out."""
    import torch

    from rayal.types import Outputs

    class Placed:
        batch_rows = 8

        def __init__(self, by_place: bool) -> None:
            self.by_place = by_place

        def encode(self, rows: pa.RecordBatch) -> torch.Tensor:
            return torch.from_numpy(rows.column("x").to_numpy().copy())

        def predict(self, ids: torch.Tensor, encoded: torch.Tensor, needs: Any) -> Outputs:
            more = torch.arange(len(ids)) * 1e-6 if self.by_place else 0.0
            return Outputs(ids, {"probs": (encoded + more)[:, None]})

    rows = pa.record_batch({"sample_id": np.arange(8), "x": np.linspace(0.1, 0.9, 8)})
    for by_place in (False, True):
        recall = Recall.__new__(Recall)
        recall.predictor = Placed(by_place)  # type: ignore[assignment]
        assert recall._alike(rows) is not by_place


WHY = [
    (["strategy=entropy"], "Entropy states no bound of a score"),
    (["strategy=k_center"], "no scorer states no bound of a score"),
    (["strategy=margin_balanced"], "the selector wants all rows, of any score"),
    (["strategy=seals"], "a restriction or a proxy chooses the rows"),
    (["strategy=margin", "model=mlp", "model.module.hidden=[4]"], "the model is no linear head"),
    (["strategy=margin", "predictor.dtype=bfloat16"], "the model is no linear head"),
    (["strategy=margin", "trainer.num_members=2"], "the model is no linear head"),
    (["strategy=margin", "rescoring.max_gib=1e-6"], "what is kept of 889 rows takes 1.16e-05 GiB"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "why"), WHY, ids=[why for _, why in WHY])
def test_what_has_no_bound_is_scored_whole_and_says_so(
    doors: Doors, class_pool: Pool, words: list[str], why: str
) -> None:
    said = doors.run(class_pool, "r", *words, "rescoring=bounded").done()
    assert f"round 1: all rows were scored: {why}" in said.err
    assert [one["num_passed"] for one in notes(doors.folder / "r")] == [0]
    assert not (doors.folder / "r" / "rescoring").exists()


def test_more_classes_than_a_bound_has_pairs_for(
    doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 classes would take 15 GiB where a full pass takes next to nothing."""
    monkeypatch.setattr(rescoring, "_MOST_PAIRED", 2)
    said = doors.run(class_pool, "r", "strategy=margin", "rescoring=bounded").done()
    assert "round 1: all rows were scored: 4 classes are more than the 2 that are" in said.err


NAMED_LINEAR = """
from torch import nn


class Scaled(nn.Module):
    def __init__(self, num_outputs, num_inputs):
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_outputs)

    def forward(self, inputs):
        return self.linear(inputs * 40.0)


class Deep(nn.Module):
    def __init__(self, num_outputs, num_inputs):
        super().__init__()
        self.first, self.linear = nn.Linear(num_inputs, 24), nn.Linear(24, num_outputs)

    def forward(self, inputs):
        return self.linear(self.first(inputs).relu())
"""


@pytest.mark.parametrize("name", ["Scaled", "Deep"])
def test_a_layer_named_linear_that_is_not_all_of_a_module(
    doors: Doors, wide_pool: Pool, name: str
) -> None:
    doors.module("named_linear", NAMED_LINEAR)
    words = (f"model.module._target_=named_linear.{name}", "strategy=margin", *FEW, *HEADS)
    doors.run(wide_pool, "all", *words).done()
    said = doors.run(wide_pool, "again", *words, "rescoring=bounded").done()
    same(doors, "all", "again")
    assert "round 1: all rows were scored: the model is no linear head" in said.err


DIVERGED = """
import torch
from torch import nn


class Diverged(nn.Module):
    def __init__(self, num_outputs, num_inputs):
        super().__init__()
        self.output = nn.Linear(num_inputs, num_outputs)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, inputs):
        if self.training:
            self.steps += 1
        is_broken = not self.training and self.steps > 15
        return self.output(inputs) * (float("nan") if is_broken else 1.0)
"""


@pytest.mark.parametrize("more", [(), ("rescoring=bounded", "rescoring.max_missed_share=0.2")])
def test_a_model_that_diverged_is_one_line_also_of_a_probe(
    doors: Doors, more: tuple[str, ...]
) -> None:
    source = write_embeddings(doors.folder / "rows.parquet", 2000)
    keys: dict[str, Any] = {"label_column": "label", "rows_per_shard": 500, "test_share": 0.0}
    pool = ingest(str(source), "pool", **keys)
    doors.module("diverged", DIVERGED)
    words = ("model.module._target_=diverged.Diverged", "strategy=margin", *FEW, *HEADS, *more)
    doors.run(pool, "r", *words).refused("shard 0: Margin gave", "non-finite scores of")


MLP = ("model=mlp", "model.module.hidden=[8]", "strategy=margin", *AGAIN)


def test_other_models_are_served_by_what_is_seen_and_audited(doors: Doors, wide_pool: Pool) -> None:
    words = (*MLP, "rescoring.max_missed_share=0.2", "rescoring.audit_share=0.3")
    doors.run(wide_pool, "again", *words).done()
    found = notes(doors.folder / "again")
    assert [one["how"] for one in found] == ["observed"] * 4
    assert found[0]["missed_share"] is None
    assert max(one["num_passed"] for one in found[1:]) > 0
    assert all(one["missed_share"] <= 0.2 or one["fell_back"] for one in found[1:])
    # It may pick other rows, so it is a run of its own.
    plain = [word for word in MLP if not word.startswith("rescoring")]
    doors.run(wide_pool, "again", *plain).refused("rescoring_may_miss")


def test_an_audit_that_finds_too_many_missed_scores_all(
    doors: Doors, wide_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound that forgets how far gaps shrank, as one that is wrong would be."""
    words = (*MLP, "trainer.learning_rate=0.02", "rescoring.audit_share=0.3")
    monkeypatch.setattr(rescoring, "_most", lambda _: -2.0)
    said = doors.run(wide_pool, "again", *words, "rescoring.max_missed_share=0.01").done()
    found = notes(doors.folder / "again")
    assert any(one["fell_back"] and one["missed_share"] > 0.01 for one in found)
    assert "of the best were missed, so all rows were scored" in said.err
    monkeypatch.undo()
    monkeypatch.chdir(doors.folder)
    if all(one["fell_back"] for one in found[1:]):
        doors.run(wide_pool, "all", *MLP[:3], *FEW, *HEADS, "trainer.learning_rate=0.02").done()
        assert picked(doors.folder / "again") == picked(doors.folder / "all")


BAD = [
    ("rescoring.num_cells=0", "rescoring.num_cells is 0, expected 1 to 255"),
    ("rescoring.num_cells=300", "rescoring.num_cells is 300, expected 1 to 255"),
    ("rescoring.max_missed_share=1.5", "rescoring.max_missed_share is 1.5, expected 0"),
    ("rescoring.audit_share=0", "rescoring.audit_share is 0, expected more than 0, to 0.5"),
    ("rescoring.max_gib=0", "rescoring.max_gib is 0, expected more than 0"),
]


@pytest.mark.parametrize(("word", "line"), BAD)
def test_numbers_that_cannot_be(doors: Doors, class_pool: Pool, word: str, line: str) -> None:
    doors.run(class_pool, "r", "rescoring=bounded", word).refused(line)


def test_a_pass_that_is_done_again_is_judged_as_before(doors: Doors, wide_pool: Pool) -> None:
    """What workers were told lies with the pass, so that shards done before a kill and after it
    are judged by the same floor."""
    seen: list[dict[str, Any]] = []
    plain = rescoring._Driver._settled

    def settled(self: Any) -> Any:
        found = plain(self)
        seen.append(json.loads((Path(self.scoring.folder) / "again.json").read_text()))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rescoring._Driver, "_settled", settled)
        doors.run(wide_pool, "r", "strategy=margin", *AGAIN).done()
    assert seen[0] == {}
    assert [set(one) for one in seen[1:]] == [{"floor"}] * 3
    assert all(0.0 < one["floor"] < 1.0 for one in seen[1:])
    assert again.CELLS
