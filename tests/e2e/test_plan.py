"""`rayal plan`, and the short form that `rayal run` prints first."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket
from doors import Doors, contents, small

from rayal.cli import plan as door
from rayal.cli.plan import Planning
from rayal.places import Place
from rayal.plan import brief as brief_form
from rayal.plan.laws import Law
from rayal.plan.machine import Machine
from rayal.plan.measured import Measured
from rayal.plan.phases import Plan
from rayal.pool import Pool, ingest

PHASES = ["start", "score", "select", "fetch", "order", "label", "train", "test", "files"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("digits")
    pytest.importorskip("sklearn")
    return ingest("recipe:digits", str(folder / "pool")).path


def test_plan_of_digits(doors: Doors, digits: str) -> None:
    before = contents(Path(digits))
    said = doors("plan", "experiment=digits", f"pool.path={digits}", "strategy=k_center").done()
    lines = said.out.splitlines()
    assert lines[0].startswith("1,")
    assert "; KCenter, all, 20 a round; this process" in lines[0]
    first = [line.split()[0] for line in lines if line]
    assert [word for word in first if word in PHASES] == PHASES
    assert {"sum", "memory", "disk", "labels"} <= set(first)
    assert list(doors.folder.iterdir()) == []  # no run, and no trial's files
    assert contents(Path(digits)) == before


def test_plan_as_json_agrees_with_what_was_asked(doors: Doors, class_pool: Pool) -> None:
    words = small(class_pool, "r", "num_rounds=4", "labeler.price_minor=25")
    found = json.loads(doors("plan", "--json", *words).done().out)
    assert found["num_rounds"] == 4
    assert found["labels"]["number"] == 80
    assert found["labels"]["amount_minor"] == 2_000
    assert {phase["round"] for phase in found["phases"]} == {-1, 0, 1, 2, 3}
    assert [phase["name"] for phase in found["phases"][1:9]] == PHASES[1:]
    assert found["wall_s"] == pytest.approx(sum(phase["wall_s"] for phase in found["phases"]))
    (driver,) = found["processes"]
    assert 2**27 < driver["peak_bytes"] < 2**33
    assert found["disk_bytes"] == pytest.approx(sum(found["disk"].values()))
    assert not (doors.folder / "r").exists()


@pytest.mark.ray
def test_plan_with_ray_workers(doors: Doors, class_pool: Pool) -> None:
    words = small(class_pool, "r", "engine=ray", "engine.num_workers=2")
    found = json.loads(doors("plan", "--json", *words).done().out)
    assert {one["role"]: one["number"] for one in found["processes"]} == {"driver": 1, "scorer": 2}
    assert all(one["peak_bytes"] > 2**26 for one in found["processes"])
    (start, *_) = found["phases"]
    assert start["wall_s"] > 1.0  # Ray's start is in it


def test_a_pool_that_is_not_there_is_to_be_made_first(doors: Doors) -> None:
    (doors.folder / "rows.parquet").touch()
    words = ("pool.path=p", "source=rows.parquet", "pool.label_column=label")
    doors("plan", *words).refused(
        "there is no pool at p yet", "rayal ingest rows.parquet p --label-column label"
    )
    doors("plan", "experiment=digits", "pool.path=p").refused("rayal ingest recipe:digits p")
    assert not (doors.folder / "p").exists()


def test_a_run_that_has_begun_is_planned_from_there(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "plan=off", "num_rounds=1").done()
    before = contents(doors.folder / "r")
    words = small(class_pool, "r", "num_rounds=3", "labeler.price_minor=25")
    found = json.loads(doors("plan", "--json", *words).done().out)
    assert {phase["round"] for phase in found["phases"]} == {-1, 1, 2}
    assert found["labels"]["amount_minor"] == 2 * 20 * 25
    assert found["notes"][-1] == "rounds before round 1 are done, and not in here"
    doors("plan", *words, "num_rounds=1").refused(
        "is left to plan (num_rounds=1, 1 done)", "give a larger num_rounds, or another run_dir"
    )
    assert contents(doors.folder / "r") == before


def test_a_run_that_ended_before_it_had_a_ledger_is_planned(doors: Doors, class_pool: Pool) -> None:
    (doors.folder / "r").mkdir()
    (doors.folder / "r" / "run.json").write_text('{"run_id": "abc"}')
    assert "40 in all" in doors("plan", *small(class_pool, "r")).done().out
    doors.run(class_pool, "r", "plan=off").done()


def test_null_chooses_nothing_as_for_a_run(doors: Doors, class_pool: Pool) -> None:
    words = small(class_pool, "r", "rescoring=bounded", "rescoring=null", "proxy=null")
    assert "rescoring" not in doors("plan", *words).done().out


def test_bad_words_are_refused_as_by_a_run(doors: Doors, class_pool: Pool) -> None:
    words = small(class_pool, "r")
    for wrong in (["budgte=5"], ["strategy=margni"], ["pool.path=gone"], ["strategy=badge,margin"]):
        said = doors("run", *words, *wrong)
        if wrong == ["strategy=badge,margin"]:  # a run can be swept over, a plan cannot
            doors("plan", *words, *wrong).refused("gives several values")
        else:
            assert doors("plan", *words, *wrong).refused() == said.refused()
    doors("plan", *words, "strategy=bald").refused("draws")
    doors("plan", "--jsno").refused("unrecognized arguments: --jsno", code=2)


def test_what_cannot_fit_is_refused_with_what_would(
    doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(2, 10**12, 900_000, "here")
    monkeypatch.setattr(door, "machine_of", lambda folder: machine)
    words = small(class_pool, "r", "model=mlp", "model.module.hidden=[256]", "strategy=k_center")
    line = doors("plan", *words).refused(
        "this run cannot fit: 889 rows x (256 x 4 + 16 bytes) = 925 kB of slices on 1 node with "
        "931.3 GiB memory, and 900 kB are free on the disk of here; ",
        "what fits, by the same arithmetic: '+strategy.scorer={_target_:rayal.scorers.random."
        "Random}' +strategy.num_candidates=",
    )
    offered = line.split("by the same arithmetic: ")[1].split(" (the ")[0]
    doors("plan", *words, *shlex.split(offered)).done()  # what is offered can be copied, and fits


def test_more_workers_for_a_run_that_time_ends(
    doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each scoring pass takes 1,000 s with one worker; three of ten rounds fit into an hour.
    def planned(self: Planning, run: Any, measured: Measured) -> tuple[Any, Plan]:
        slow = Law((1_000.0, 0.0, 0.0), (500.0, 0.0, 0.0))
        return own(self, run, replace(measured, score=slow))

    own = Planning.planned
    monkeypatch.setattr(Planning, "planned", planned)
    monkeypatch.setattr(door, "machine_of", lambda folder: Machine(4, 10**12, 10**12, "here"))
    words = small(class_pool, "r", "num_rounds=10", "stopping=wall_time", "stopping.hours=1")
    lines = doors("plan", *words).done().out.splitlines()
    (note,) = [line for line in lines if "engine=ray engine.num_workers=4 would make it" in line]
    (ends,) = [line for line in lines if line.startswith("ends ")]
    assert "reach the limit of 1" in ends
    assert (
        int(note.split("would make it ")[1].split()[0]) > int(ends.split("after round ")[1][0]) + 1
    )


def test_nothing_fits(doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "machine_of", lambda folder: Machine(2, 10**12, 10, "here"))
    doors("plan", *small(class_pool, "r")).refused("nothing near it fits here")


# --------------------------------------------------------------------------- what a run says first


@pytest.fixture
def all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets small pools be planned, too."""
    monkeypatch.setattr(brief_form, "SMALL_ROWS", 1)


def _plan_lines(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("plan:")]


def test_a_run_says_it_first(doors: Doors, class_pool: Pool, all_sizes: None) -> None:
    said = doors.run(class_pool, "r").done()
    lines = _plan_lines(said.err)
    assert 2 <= len(lines) <= 4
    assert lines[0].startswith("plan: 2 rounds in about ")
    assert lines[1].startswith("plan: memory driver ")
    assert said.err.splitlines()[0] == lines[0]
    assert sorted(path.name for path in doors.folder.iterdir()) == ["r"]


def test_it_changes_no_pick_and_no_digest(doors: Doors, class_pool: Pool, all_sizes: None) -> None:
    assert _plan_lines(doors.run(class_pool, "with").done().err)
    assert not _plan_lines(doors.run(class_pool, "without", "plan=off").done().err)
    assert doors.digest("with") == doors.digest("without")


def test_a_run_that_goes_on_is_planned_for_what_is_left(
    doors: Doors, class_pool: Pool, all_sizes: None
) -> None:
    doors.run(class_pool, "r").done()
    assert _plan_lines(doors.run(class_pool, "r").done().err) == []  # no round is left
    longer = _plan_lines(doors.run(class_pool, "r", "num_rounds=3").done().err)
    assert longer[0].startswith("plan: 1 round in about ")
    assert _plan_lines(doors.run(class_pool, "r", "num_rounds=4", "plan=off").done().err) == []


def test_a_small_pool_is_said_nothing_of_but_its_spend(doors: Doors, class_pool: Pool) -> None:
    assert _plan_lines(doors.run(class_pool, "r").done().err) == []
    said = doors.run(class_pool, "paid", "labeler.price_minor=25").done()
    assert _plan_lines(said.err) == ["plan: at most 40 labels, 10.00 USD"]


def test_a_run_that_will_not_fit_is_warned_and_goes_on(
    doors: Doors, class_pool: Pool, all_sizes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(2, 10**12, 10, "here")
    monkeypatch.setattr(brief_form, "machine_of", lambda folder: machine)
    said = doors.run(class_pool, "r").done()
    assert "plan: this will not fit: " in _plan_lines(said.err)[-1]
    assert "rayal plan, with the same words, says what would" in _plan_lines(said.err)[-1]


def test_a_plan_that_fails_does_not_stop_a_run(
    doors: Doors, class_pool: Pool, all_sizes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("no shards per second")

    monkeypatch.setattr(brief_form, "measure", fail)
    (line,) = _plan_lines(doors.run(class_pool, "r").done().err)
    assert line == (
        "plan: none could be made (ZeroDivisionError: no shards per second); plan=off leaves it out"
    )


def test_plan_is_short_or_off(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "plan=long").refused("plan is long, expected short or off")
    assert not (doors.folder / "r").exists()


# ----------------------------------------------------------------------------- a run in a store


def test_a_trial_leaves_nothing_in_a_store(
    doors: Doors, class_pool: Pool, bucket: Bucket, all_sizes: None, tmp_path: Path
) -> None:
    run_dir = f"{bucket.url}/planned/r"  # other tests of this worker left theirs in the bucket
    words = small(class_pool, run_dir, f"ledger_url=sqlite:///{tmp_path}/ledger.db")
    before = list(Place.of(bucket.url).list())
    lines = doors("plan", *words).done().out.splitlines()
    assert any(line.startswith("sum") for line in lines)
    assert list(Place.of(bucket.url).list()) == before
    assert len(_plan_lines(doors("run", *words).done().err)) >= 2
    after = [one.name for one in Place.of(run_dir).list()]
    assert "run.json" in after
    assert not [name for name in after if "plan" in name]
