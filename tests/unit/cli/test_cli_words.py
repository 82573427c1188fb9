"""Words that a command does not take: one line, and the exit code that argparse has for it."""

from __future__ import annotations

import pytest
from doors import Doors

MISUSED = [
    (["status"], "rayal status: the following arguments are required: run_dir"),
    (["status", "r", "--jsno"], "rayal status: unrecognized arguments: --jsno"),
    (["export", "r"], "rayal export: the following arguments are required: --out"),
    (["report", "r", "--compare"], None),
    (["plan", "--nope"], "rayal plan: unrecognized arguments: --nope"),
    (["report"], "rayal report: the following arguments are required: run_dir"),
    (["run", "--nope"], "rayal run: unrecognized arguments: --nope"),
    (["run", "--cfg", "jop"], "rayal run: argument --cfg/-c: invalid choice: 'jop'"),
    (["run", "--config-dir"], "rayal run: argument --config-dir/-cd: expected one argument"),
    (["run", "-m", "--cfg", "job"], "--multirun and --cfg do not go together"),
    (["run", "--resolve"], "--resolve is for --cfg, give both"),
    (["run", "--experimental-rerun", "x"], "the same command again goes on"),
]


@pytest.mark.parametrize(("words", "part"), MISUSED, ids=[" ".join(one[0]) for one in MISUSED])
def test_a_word_that_is_not_taken(doors: Doors, words: list[str], part: str | None) -> None:
    if part is None:
        doors(*words).refused("is no run")
        return
    line = doors(*words).refused(part, f"`rayal {words[0]} --help`", code=2)
    assert doors(*words).err == f"{line}\n"


@pytest.mark.parametrize(
    "command", ["ingest", "embed", "plan", "select", "status", "export", "report"]
)
def test_help_is_no_error(doors: Doors, command: str) -> None:
    assert f"usage: rayal {command}" in doors(command, "--help").done().out


def test_flags_may_stand_anywhere(doors: Doors) -> None:
    words = ["pool.path=p", "--cfg", "job", "seed=3", "-p", "seed", "budget=7"]
    assert doors("run", *words).done().out == "3\n"
