"""The console script of a built wheel, in an environment of its own, outside the repo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment that holds the wheel, and sees what it depends on."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*install, "--no-index", "--quiet", str(wheel)], check=True, timeout=120)
    (site,) = (place / "lib").glob("python*/site-packages")
    # The path alone: the .pth file by which the checkout itself is installed is not read from it.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin"


def _run(command: list[str], folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path) -> None:
    said = _run([str(installed / "python"), "-c", "import rayal; print(rayal.__file__)"], tmp_path)
    assert Path(said.strip()).is_relative_to(installed.parent)


def test_a_recipe_runs_to_its_report(installed: Path, tmp_path: Path) -> None:
    rayal = str(installed / "rayal")
    keys = ["experiment=digits", "pool.path=pool", "run_dir=run", "num_rounds=2", "budget=20"]
    _run([rayal, "run", *keys, "engine=local", "trainer.epochs=2"], tmp_path)
    status = json.loads(_run([rayal, "status", "run", "--json"], tmp_path))
    assert (status["state"], len(status["rounds"])) == ("done", 2)
    assert "</html>" in (tmp_path / "run" / "report.html").read_text()


def test_its_configuration_is_the_one_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    command = ["run", "experiment=digits", "strategy=badge", "--cfg", "job"]
    here = [sys.executable, "-m", "rayal.cli.main", *command]
    assert _run([str(installed / "rayal"), *command], tmp_path) == _run(here, tmp_path)
