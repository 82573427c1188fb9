"""The tab key: what a shell is answered, asked as bash asks and by bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doors import Doors
from runs import STRATEGIES

ROOT = Path(__file__).resolve().parents[3]
WITH_MA = [f"strategy={name}" for name in STRATEGIES if name.startswith("ma")]
ASKED = [
    (
        "rayal ",
        "ingest pool embed plan run select status orders label labels audit erase vendor export "
        "report",
    ),
    ("rayal st", "status"),
    ("rayal x", ""),
    ("/opt/python3/bin/rayal run experiment=dig", "experiment=digits"),
    ("python rayal/cli/main.py run experiment=dig", "experiment=digits"),
    ("rayal run strategy=ma", " ".join(WITH_MA)),
    ("rayal run -m seed=0,1 strategy=ma", " ".join(WITH_MA)),
    ("rayal run 'x=[a, b]' vocabulary=n", "vocabulary=number"),
    ("rayal run strategy.sel", "strategy.selector."),
    ("rayal run strategy=power_margin strategy.scorer.be", "strategy.scorer.beta="),
    ("rayal run --config-d", "--config-dir"),
    ("rayal run --config-dir ", ""),
    ("rayal plan --j", "--json"),
    ("rayal plan --json strategy=ma", " ".join(WITH_MA)),
    ("rayal plan --config-dir ", ""),
    ("rayal status r", ""),
    ("rayal run --nope strategy=ma", ""),
    ("rayal run budget strategy=ma", ""),
    ("rayal run 'strategy=ma", ""),
]


@pytest.mark.parametrize(("line", "offers"), ASKED, ids=[line for line, _ in ASKED])
def test_a_line_is_completed(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, line: str, offers: str
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    for words in (["-sc", "query=bash"], ["run", "--shell-completion", "query=bash"]):
        monkeypatch.setenv("COMP_LINE", line)
        said = doors(*words).done()
        assert said.out.split() == offers.split()
        assert said.err == ""


def test_only_what_is_before_the_cursor_counts(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", "rayal run strategy=ma budget=3")
    monkeypatch.setenv("COMP_POINT", str(len("rayal run strategy=ma")))
    assert "strategy=margin" in doors("-sc", "query=bash").done().out.split()


def test_files_of_a_folder_of_ones_own_are_offered(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    (doors.folder / "own/strategy").mkdir(parents=True)
    (doors.folder / "own/strategy/flattest.yaml").write_text("_target_: rayal.strategy.Strategy\n")
    monkeypatch.setenv("COMP_LINE", "rayal run --config-dir own strategy=fl")
    assert doors("-sc", "query=bash").done().out.split() == ["strategy=flattest"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_with_the_script_that_is_installed(tmp_path: Path) -> None:
    program = tmp_path / "rayal"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rayal.cli.main "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(rayal run -sc install=bash)"
        complete -p rayal
        COMP_LINE="rayal run strategy=ma" COMP_POINT=21 COMP_CWORD=2
        hydra_bash_completion
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    command, *offers = done.stdout.splitlines()
    assert command.endswith("-F hydra_bash_completion rayal")
    assert offers == WITH_MA
