"""`rayal label`: a person at the desk, and a run that waits or polls on the other side."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import WAIT_S, Command
from desks import say
from doors import Doors, small
from runs import picked

from rayal.desk.desk import Desk
from rayal.ledger import Ledger
from rayal.pool import Pool
from rayal.rundir import RunDir

TERMINAL = ["labeler=terminal", "num_rounds=2"]


def _labels(run_dir: str | Path) -> dict[int, object]:
    folder = RunDir(str(run_dir))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        return {one.event.sample_id: one.event.value for one in ledger.labels()}


def test_a_run_goes_on_with_what_was_typed(
    doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    typed = 0
    for turn in range(2):
        said = doors.run(class_pool, "r", *TERMINAL).done()
        assert "waiting for 20 of 20 labels" in said.err
        monkeypatch.setattr(sys, "stdin", io.StringIO("1\n2\n3\n4\n" * 4 + "u\n1\n"))
        said = doors("label", "r", "--terminal", "--annotator", "Ann B.").done()
        assert "4 rows are open; `rayal run` again takes what is labelled" in said.out
        assert "embedding: [" in said.out
        monkeypatch.setattr(sys, "stdin", io.StringIO("ant\nbee\ncat\ndog\n\n"))
        said = doors("label", "r", "--terminal", "--annotator", "Ann B.").done()
        assert "0 rows are open" in said.out
        typed += 20
        assert len(list(Path("r/labeler/inbox").glob("*/Ann-B.jsonl"))) == turn + 1
    doors.run(class_pool, "r", *TERMINAL).done()
    doors("audit", "verify", "r").done()
    assert json.loads(doors("status", "r", "--json").done().out)["state"] == "done"
    ids, labels = picked("r"), _labels("r")
    assert len(labels) == typed
    wanted = ["ant", "bee", "cat", "dog"] * 3 + ["ant", "bee", "cat", "ant"]
    for batch in ids:
        assert [labels[one] for one in batch] == [*wanted, "ant", "bee", "cat", "dog"]


def test_a_run_that_polls_takes_labels_while_the_desk_is_open(class_pool: Pool, tmp_path: Path):
    """A whole run of three rounds beside one desk: no lock in the way, each new batch is seen."""
    folder = tmp_path / "r"
    more = ["labeler=terminal", "poll_s=0.1", "num_rounds=3", "budget=8"]
    run = Command(small(class_pool, folder, *more), tmp_path / "log")
    outbox = folder / "labeler" / "outbox"
    assert run.until(lambda: any(outbox.glob("*/manifest.json"))), run.text()
    desk = Desk(outbox, folder / "labeler" / "inbox", "ann", refresh_s=0.0, hold_s=0.05)
    mine: dict[int, str] = {}
    deadline = time.monotonic() + WAIT_S
    while run.process.poll() is None:
        assert time.monotonic() < deadline, run.text()
        desk.refresh()
        desk.settle()
        if (where := desk.next_row()) is not None:
            if len(mine) % 5 == 4 and desk.last() is not None:  # someone who changes their mind
                last = desk.last()
                before = mine.pop(last[1])
                desk.undo(last, desk.version(last))
                say(desk, "bee" if before == "ant" else "ant")
                mine[last[1]] = "bee" if before == "ant" else "ant"
                where = desk.next_row()
            if where is not None:
                mine[where[1]] = str(class_pool.secret_labels([where[1]])[0])
                say(desk, mine[where[1]])
        time.sleep(0.02)
    desk.close()
    assert run.wait() == 0, run.text()
    assert ": done" in run.text()
    assert _labels(folder) == mine
    assert len(mine) == 24


def test_the_page_is_opened_by_an_address_and_ends_with_a_signal(
    doors: Doors, class_pool: Pool, tmp_path: Path
):
    doors.run(class_pool, "r", *TERMINAL).done()
    program = (
        "import atexit, sys; from rayal.cli.main import main\n"
        "heavy = {'ray', 'torch', 'faiss'}\n"
        "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
        "sys.exit(main(['label', 'r', '--annotator', 'ann']))"
    )
    page = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=doors.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    first = page.stdout.readline()
    assert re.fullmatch(r"ann labels at http://127\.0\.0\.1:\d+/\?token=[\w-]{43}\n", first), first
    doors("label", "r", "--annotator", "ann").refused("'ann' labels here already (process")
    page.terminate()
    rest, _ = page.communicate(timeout=60)
    assert page.returncode == 143
    assert "20 rows are open" in rest
    assert "heavy: []" in rest
    assert "Traceback" not in rest


def test_what_cannot_be_labelled_here_is_said(doors: Doors, class_pool: Pool):
    doors("label", "r").refused("r is no run")
    doors.run(class_pool, "o", "num_rounds=1").done()
    doors("label", "o").refused(
        "the labeler of this run is rayal.labelers.oracle.Oracle", "labeler=terminal"
    )
    doors.run(class_pool, "r", *TERMINAL).done()
    for text in ("embedding", "embedding=28", "embedding=2,0", "=2,2", "e=2,2,4", "e=a,b"):
        doors("label", "r", "--pixels", text).refused(f"--pixels {text} is no shape")
    doors("label", "r", "--port", "99999").refused("port 99999 of 127.0.0.1 cannot be had")
    doors.run(class_pool, "p", *TERMINAL, "labeler.outbox=out", "labeler.inbox=in").done()
    doors.monkeypatch.chdir("r")
    doors("label", "../p").refused("there is no outbox at ", "where the run was started")
