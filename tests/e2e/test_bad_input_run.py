"""A run's folder that is not what it should be, and answers that cannot be taken."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from commands import Command
from doors import Doors, contents, small
from vendor import Vendor

from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.rundir import RunDir


def test_a_folder_that_is_no_run(doors: Doors) -> None:
    (doors.folder / "empty").mkdir()
    (doors.folder / "file").write_text("")
    for place in ("empty", "file", "gone"):
        for words in (
            ["status", place],
            ["status", place, "--json", "--digest"],
            ["export", place, "--out", "labels.parquet"],
            ["report", place],
            ["report", "empty", "--compare", f"other={place}"],
        ):
            doors(*words).refused("is no run: there is no run.json in it", "check the path")
    assert sorted(path.name for path in doors.folder.iterdir()) == ["empty", "file"]
    assert list((doors.folder / "empty").iterdir()) == []


def test_a_run_whose_files_are_gone_or_damaged(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r").done()
    run = doors.folder / "r"
    name, ledger = (run / "run.json").read_bytes(), (run / "ledger.db").read_bytes()
    (run / "run.json").write_text("{")
    doors("status", "r").refused("run.json does not name a run", "restore it from a copy")
    doors.run(class_pool, "r").refused("run.json does not name a run")
    (run / "run.json").write_bytes(name)
    (run / "ledger.db").unlink()
    doors("status", "r").refused("there is no ledger at", "check the run_dir")
    (run / "ledger.db").write_bytes(b"x" * 5000)
    doors("status", "r").refused("ledger.db cannot be read", "file is not a database")
    (run / "ledger.db").write_bytes(ledger)
    batch = run / "rounds" / "r0001" / "batch.parquet"
    batch.rename(run / "elsewhere")
    doors.run(class_pool, "r", "num_rounds=3").refused(
        "r0001/batch.parquet cannot be read", "the ledger has committed it", "restore the run's"
    )
    (run / "elsewhere").rename(batch)
    doors.run(class_pool, "r", "num_rounds=3").done()


def test_a_run_dir_that_is_a_file(doors: Doors, class_pool: Pool) -> None:
    (doors.folder / "notes.txt").write_text("keep me")
    doors.run(class_pool, "notes.txt").refused("notes.txt", "exists", "check the path")
    doors.run(class_pool, "notes.txt/run").refused("notes.txt", "Not a directory", "check the path")
    assert (doors.folder / "notes.txt").read_text() == "keep me"


def test_a_run_that_another_live_process_holds(
    doors: Doors, class_pool: Pool, tmp_path: Path
) -> None:
    words = small(class_pool, "r", "labeler=file_drop", "labeler.columns=all", "poll_s=0.05")
    first = Command(words, tmp_path / "first.log")
    try:
        assert first.until(lambda: "waiting" in _state(tmp_path / "r")), first.text()
        before = contents(tmp_path / "r" / "labeler")
        doors("run", *words).refused(
            f"is held by process {first.process.pid}", "wait for it or end it"
        )
        assert _state(tmp_path / "r") == "waiting"
        assert contents(tmp_path / "r" / "labeler") == before
    finally:
        first.kill()
    with Vendor(class_pool, tmp_path / "r").at_work(0.02):
        doors("run", *words).done()
    assert set(Vendor(class_pool, tmp_path / "r").ordered().values()) == {1}


def _state(run_dir: Path) -> str:
    if not (run_dir / "ledger.db").exists():
        return ""
    folder = RunDir(str(run_dir))
    try:
        with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
            return ledger.run().state
    except Exception:  # it is being made at this moment
        return ""


def test_a_changed_configuration(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "plain").done()
    doors.run(class_pool, "r", "num_rounds=1").done()
    before = contents(doors.folder / "r")
    line = doors.run(class_pool, "r", "budget=30", "seed=7", "strategy=entropy").refused(
        "has another configuration by now", "budget: 20 -> 30", "seed: 0 -> 7",
        'strategy.scorer._target_: "rayal.scorers.margin.Margin" -> "rayal.scorers.entropy.En',
        "give these keys as it has them, or start a new run_dir",
    )  # fmt: skip
    assert "num_rounds" not in line  # it may grow
    doors.run(class_pool, "r", "num_rounds=0").refused("num_rounds=0")
    files = contents(doors.folder / "r")
    assert {**files, "ledger.db": ""} == {**before, "ledger.db": ""}
    doors.run(class_pool, "r", "engine.reverse=true", "poll_s=2").refused("no key 'engine.reverse'")
    doors.run(class_pool, "r", "+engine.reverse=true", "poll_s=2", "num_rounds=2").done()
    assert doors.digest("r") == doors.digest("plain")
    doors.run(class_pool, "r", "num_rounds=1").refused("num_rounds: 2 -> 1")


def test_a_pool_with_another_content(doors: Doors, class_pool: Pool, number_pool: Pool) -> None:
    doors.run(class_pool, "r", "num_rounds=1").done()
    words = ["model.kind=number", "model.transform.column=features", "strategy=igs"]
    doors.run(number_pool, "r", *words).refused(
        "another configuration", "pool_content: ", "pool_rows: ", "model.kind: "
    )
    moved = shutil.copytree(class_pool.path, doors.folder / "moved")
    doors.run(moved, "r").done()


def test_a_checkpoint_of_another_architecture(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "plain").done()
    doors.run(class_pool, "r", "num_rounds=1").done()
    place, kept = doors.folder / "r" / "checkpoints" / "r0000", doors.folder / "kept"
    shutil.copytree(place, kept)

    def swap(other: Path) -> None:
        shutil.rmtree(place)
        shutil.copytree(other, place)

    doors.run(class_pool, "mlp", "num_rounds=1", "model=mlp").done()
    swap(doors.folder / "mlp" / "checkpoints" / "r0000")
    doors.run(class_pool, "r").refused(
        "r0000/member-0.pt is of another architecture", "in the configured Linear", "configure the"
    )
    doors.run(class_pool, "twin", "num_rounds=1", "seed=8").done()
    swap(doors.folder / "twin" / "checkpoints" / "r0000")
    doors.run(class_pool, "r").refused("r0000 is model ", "the ledger committed", "restore that")
    shutil.rmtree(place)
    doors.run(class_pool, "r").refused("there is no checkpoint in", "r0000")
    shutil.copytree(kept, place)
    (place / "member-0.pt").write_bytes(b"PK")
    doors.run(class_pool, "r").refused("member-0.pt is damaged", "train it again")
    assert not list(doors.folder.glob("r/rounds/r0001/batch.parquet"))
    swap(kept)
    doors.run(class_pool, "r").done()
    assert doors.digest("r") == doors.digest("plain")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_label_outside_the_vocabulary(doors: Doors, class_pool: Pool, suffix: str) -> None:
    drop = ["labeler=file_drop", "labeler.columns=all", "num_rounds=1"]
    assert "waiting for 20 of 20 labels" in doors.run(class_pool, "r", *drop).done().err
    run = doors.folder / "r"
    vendor = Vendor(class_pool, run)
    ids = sorted(vendor.ordered())
    answers = run / "labeler" / "inbox" / f"answers.{suffix}"
    answers.parent.mkdir(parents=True, exist_ok=True)
    truth = [str(label) for label in class_pool.secret_labels(ids)]
    _write(answers, ids[:10], [*truth[:9], "zebra"])
    where = f"answers.{suffix}:{10 if suffix == 'jsonl' else 11}"
    doors.run(class_pool, "r", *drop).refused(
        f"{where}: label 'zebra' is outside the vocabulary ('ant', 'bee', 'cat', 'dog')",
        "correct these lines and run the same command again, nothing is lost",
    )
    status = json.loads(doors("status", "r", "--json").done().out)
    assert (status["state"], status["spend"]["labels"]) == ("failed", 0)
    _write(answers, ids[:10], truth[:10])
    assert "waiting for 10 of 20 labels" in doors.run(class_pool, "r", *drop).done().err
    assert json.loads(doors("status", "r", "--json").done().out)["spend"]["labels"] == 10
    _write(answers.with_name(f"more.{suffix}"), ids[10:], truth[10:])
    doors.run(class_pool, "r", *drop).done()
    assert json.loads(doors("status", "r", "--json").done().out)["state"] == "done"
    assert set(vendor.ordered().values()) == {1}


def _write(path: Path, ids: list[int], labels: list[str]) -> None:
    pairs = list(zip(ids, labels, strict=True))
    if path.suffix == ".csv":
        path.write_text("sample_id,label\n" + "".join(f"{i},{label}\n" for i, label in pairs))
    else:
        lines = (json.dumps({"sample_id": int(i), "label": label}) for i, label in pairs)
        path.write_text("".join(f"{line}\n" for line in lines))


def test_an_interrupt_is_one_line(
    doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors.run(class_pool, "plain").done()

    def press(*_: object, **__: object) -> None:
        # A shell that starts the tests in the background makes them deaf to it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("rayal.loop.Loop.test", press)
        said = doors.run(class_pool, "r")
    assert said.code == 130
    assert said.err.splitlines()[-1] == "interrupted; the same command again goes on where it stood"
    assert "Traceback" not in said.err
    doors.run(class_pool, "r").done()
    assert doors.digest("r") == doors.digest("plain")


def test_the_keys_of_a_chosen_group_are_offered(doors: Doors, class_pool: Pool) -> None:
    line = doors.run(class_pool, "r", "engine=ray", "engine.num_worker=2").refused(
        "no key 'engine.num_worker'"
    )
    assert "did you mean engine.num_workers" in line


def test_an_export_into_a_folder(doors: Doors, class_pool: Pool) -> None:
    doors.run(class_pool, "r", "num_rounds=1").done()
    (doors.folder / "out").mkdir()
    doors("export", "r", "--out", "out").refused("--out is out, a folder", "name a Parquet file")
    assert list((doors.folder / "out").iterdir()) == []
