"""Which run is which: one ledger for many folders, boxes anywhere, and what may be taken over."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doors import Doors, small
from runs import write_embeddings
from vendor import Vendor

from rayal.ledger import without_password
from rayal.pool import Pool


def _status(doors: Doors, run_dir: str) -> dict:
    return json.loads(doors("status", run_dir, "--json").done().out)


def test_two_folders_on_one_ledger_are_two_runs_of_one_digest(
    doors: Doors, class_pool: Pool
) -> None:
    shared = f"ledger_url=sqlite:///{doors.folder / 'shared.db'}"
    for run_dir in ("one", "two", "one"):
        doors.run(class_pool, run_dir, shared).done()
    doors.run(class_pool, "other", "seed=1", shared).done()
    doors.run(class_pool, "alone").done()
    assert doors.digest("one") == doors.digest("two") == doors.digest("alone")
    assert doors.digest("one") != doors.digest("other")
    doors("export", "two", "--out", "labels.parquet").done()
    assert pq.read_table(doors.folder / "labels.parquet").num_rows == 40


def test_a_run_does_not_begin_again_beside_a_ledger_elsewhere(
    doors: Doors, class_pool: Pool
) -> None:
    doors.run(class_pool, "r").done()
    before = doors.digest("r")
    new = f"ledger_url=sqlite:///{doors.folder / 'new.db'}"
    doors.run(class_pool, "r", new).refused("new.db knows no run", "check the run_dir")
    assert doors.digest("r") == before
    (doors.folder / "r" / "ledger.db").rename(doors.folder / "new.db")  # it was moved on purpose
    doors.run(class_pool, "r", new, "num_rounds=3").done()
    assert len(_status(doors, "r")["rounds"]) == 3


@pytest.mark.parametrize("url", ["postgresql://me:hush@127.0.0.1:1/none", "me:hush@nowhere"])
def test_a_password_is_written_nowhere(doors: Doors, class_pool: Pool, url: str) -> None:
    said = doors.run(class_pool, "r", f"ledger_url={url}")
    assert said.code == 1
    assert "hush" not in said.out + said.err
    for path in (doors.folder / "r").rglob("*"):
        assert path.is_dir() or b"hush" not in path.read_bytes()


def test_a_source_that_grew_does_not_stop_a_run_that_has_begun(doors: Doors) -> None:
    source = doors.folder / "in"
    source.mkdir()
    write_embeddings(source / "a.parquet", 300)
    words = [f"source={source}", "pool.label_column=label", "labeler.latency_s=600"]
    doors.run("pool", "r", *words).done()
    assert _status(doors, "r")["state"] == "waiting"
    write_embeddings(source / "b.parquet", 100, seed=1)
    changed = f"source={source} has changed since the pool {doors.folder / 'pool'} was made of it"
    doors.run("pool", "r2", *words).refused(changed, "name a new pool.path", "leave source out")
    assert not (doors.folder / "r2").exists()
    said = doors.run("pool", "r", *words).done()
    assert f"note: {changed}; this run goes on" in said.err
    doors.run("pool", "r2", *words[1:]).done()
    doors.run("pool2", "r3", *words).done()


def test_where_the_boxes_lie_is_no_part_of_the_digest(doors: Doors, class_pool: Pool) -> None:
    for name in ("a", "b"):
        boxes = [f"labeler.{box}={doors.folder / f'{name}.{box}'}" for box in ("outbox", "inbox")]
        words = ["labeler=file_drop", "labeler.columns=all", *boxes, "poll_s=0.02"]
        vendor = Vendor(class_pool, doors.folder)
        vendor.outbox, vendor.inbox = (
            doors.folder / f"{name}.{box}" for box in ("outbox", "inbox")
        )
        with vendor.at_work(0.02):
            doors.run(class_pool, name, *words).done()
        assert set(vendor.ordered().values()) == {1}
    assert doors.digest("a") == doors.digest("b")


def test_a_file_that_was_changed_is_not_the_one_that_was_committed(
    doors: Doors, class_pool: Pool
) -> None:
    doors.run(class_pool, "r").done()
    path = doors.folder / "r" / "rounds" / "r0000" / "batch.parquet"
    table = pq.read_table(path)
    other = pa.array(table.column("sample_id").to_numpy() + 1)
    pq.write_table(table.set_column(0, table.schema.field(0), other), path)
    doors.run(class_pool, "r", "num_rounds=3").refused(
        "r0000/batch.parquet (20 rows) is not the file", "restore the run's folder from a copy"
    )


def test_limits_of_several_rules_may_grow_and_not_shrink(doors: Doors, class_pool: Pool) -> None:
    rule = (
        "stopping={{_target_: rayal.stopping.rules.AnyOf, rules: ["
        "{{_target_: rayal.stopping.rules.MaxLabels, num_labels: {limit}}}]}}"
    )
    doors.run(class_pool, "r", rule.format(limit=20), "num_rounds=9").done()
    assert _status(doors, "r")["spend"]["labels"] == 20
    doors.run(class_pool, "r", rule.format(limit=60), "num_rounds=9").done()
    assert _status(doors, "r")["spend"]["labels"] == 60
    doors.run(class_pool, "r", rule.format(limit=50), "num_rounds=9").refused(
        "stopping.rules.0.num_labels: 60 -> 50"
    )


# ------------------------------------------------------------------------------------ begin_from


def test_labels_of_a_run_that_failed_serve_the_mended_one(doors: Doors, class_pool: Pool) -> None:
    doors.module(
        "losses", "def hopeless(logits, targets):\n    return logits[:, 0] * float('nan')\n"
    )
    loss = "trainer.loss={_target_: losses.hopeless, _partial_: true}"
    doors.run(class_pool, "bad", loss).refused("loss")
    assert _status(doors, "bad")["spend"]["labels"] == 20
    doors.run(class_pool, "good", "begin_from=bad", "trainer.epochs=2").done()
    assert _ids(doors, "good") == _ids(doors, "bad")
    stands = _status(doors, "good")
    assert (stands["state"], stands["spend"]["labels"]) == ("done", 40)
    doors.run(class_pool, "other", "begin_from=bad", "seed=5").refused("seed: 0 -> 5")
    doors.run(class_pool, "other", "begin_from=bad", "budget=30").refused("budget: 20 -> 30")


def test_a_strategy_may_begin_from_a_longer_run(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "long", "num_rounds=3").done()
    doors.run(class_pool, "short", "begin_from=long", "strategy=random").done()
    long, short = (_status(doors, name)["rounds"] for name in ("long", "short"))
    assert long[0]["test_metric"] == short[0]["test_metric"]
    assert (len(long), len(short)) == (3, 2)


def _ids(doors: Doors, run_dir: str) -> list[int]:
    path = doors.folder / run_dir / "rounds" / "r0000" / "batch.parquet"
    return pq.read_table(path).column("sample_id").to_pylist()


def test_a_run_begins_from_its_own_twin(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "one").done()
    doors.run(class_pool, "two", "begin_from=one").done()
    assert doors.digest("one") == doors.digest("two")


@pytest.mark.parametrize("name", ["lr=0.1,b", "a b(c)@d#e&f", "über"])
def test_a_folder_of_any_name_can_be_moved_as_a_whole(
    doors: Doors, class_pool: Pool, name: str
) -> None:
    words = small(class_pool, "placeholder", "num_rounds=1")[:-2]
    place = doors.folder / name
    doors("run", *words, "num_rounds=1", f"run_dir='{place}'").done()
    before = doors.digest(place)
    place.rename(doors.folder / "moved")
    doors("run", *words, "num_rounds=1", "run_dir=moved").done()
    assert doors.digest("moved") == before
    assert not place.exists()


def test_a_mistyped_ledger_can_be_put_right(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "ledger_url=sqlite:////proc/none/x.db").refused("/proc/none")
    good = f"ledger_url=sqlite:///{doors.folder / 'good.db'}"
    doors.run(class_pool, "r", good).done()
    (doors.folder / "good.db").rename(doors.folder / "away.db")
    doors.run(class_pool, "r").refused("good.db knows no run")


def test_a_database_takes_its_password_from_the_environment() -> None:
    for url, kept in (
        ("postgresql://me:hush@host/db", "postgresql+psycopg://me@host/db"),
        ("postgresql://me@host/db?password=hush&x=1", "postgresql+psycopg://me@host/db?x=1"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////a b/l=1/ü.db", "sqlite:////a b/l=1/ü.db"),
    ):
        assert without_password(url) == kept


PICKY = """
from dataclasses import dataclass

import torch

from rayal.selectors.top_k import TopK


@dataclass(frozen=True)
class Signed:
    sign: float = 1.0
    needs = ()

    def score(self, outputs, keys):
        return self.sign * torch.cos(outputs.ids.double())


class Broken(TopK):
    def select(self, *args):
        from rayal.errors import ScoringError

        raise ScoringError("not today")
"""


def test_what_was_scored_for_another_configuration_is_not_used(
    doors: Doors, class_pool: Pool
) -> None:
    doors.module("picky", PICKY)
    scorer = ["cold_start.scorer._target_=picky.Signed", "+cold_start.scorer.sign=1"]
    broken = "cold_start.selector._target_=picky.Broken"
    doors.run(class_pool, "r", *scorer, broken).refused("not today")
    scorer[1] = "+cold_start.scorer.sign=-1"
    for run_dir in ("r", "fresh"):
        doors.run(class_pool, run_dir, *scorer).done()
    assert doors.digest("r") == doors.digest("fresh")
